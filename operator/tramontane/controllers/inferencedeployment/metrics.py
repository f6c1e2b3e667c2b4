"""Export how each deployment is served: a collector over the last statuses that were written.

The series of a deployment are made when somebody asks, and go with the deployment. What its engines
say is shown while it is at most a minute old.

Restarts, rollbacks and starts are counted when a status tells of them for the first time: an
operator that takes over counts from there, as every counter does whose process is another. So are
the requests and their latencies, which the engines count (totals.py).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tramontane.api import clock
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.inferencestatus import InferenceDeploymentStatus, RevisionVerdict
from tramontane.api.quantity import parse_duration
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.engines.metricnames import METRICS, MetricNames
from tramontane.controllers.inferencedeployment.load import Histogram, Load, empty
from tramontane.controllers.inferencedeployment.replicas import State
from tramontane.controllers.inferencedeployment.totals import Totals

# A deployment is looked at every 30 s at the latest, and its engines are read every 5 s.
FRESH_S = 60.0
# From a small model whose weights are on the blade to the largest from a slow store.
_STARTS: Final = empty(10, 30, 60, 120, 300, 600, 1200, 3600)
_BEFORE_SERVING: Final = frozenset({State.WAITING, State.STARTING, State.LOADING})


@dataclass(frozen=True, slots=True)
class _Shown:
    """Hold what is shown of one deployment, and the status that it was read from."""

    names: MetricNames
    status: InferenceDeploymentStatus
    loads: tuple[Load, ...]
    restarts: Counter[str]
    rollbacks: int = 0
    slo_ttft_s: float | None = None
    starts: Histogram = _STARTS


class DeploymentMetrics(Collector):
    """Show the deployments that were observed; `now` tells the time of a scrape (Unix s)."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._shown: dict[str, _Shown] = {}
        self._totals: Callable[[str], Totals | None] = lambda _: None

    def count_by(self, totals: Callable[[str], Totals | None]) -> None:
        """Ask there what the engines of a deployment have counted."""
        self._totals = totals

    def observe(
        self,
        deployment: InferenceDeployment,
        status: InferenceDeploymentStatus,
        loads: Mapping[str, Load],
        made: Mapping[str, float] | None = None,
    ) -> None:
        """Take a status after it was written, or as it is; taking it again changes nothing.

        `deployment` has the status before, `loads` are by replica, `made` is when their Gangs were
        made (Unix s). O(replicas).
        """
        before = self._shown.get(deployment.key)
        told = before.status if before else deployment.status
        restarts = before.restarts if before else Counter[str]()
        rollbacks = before.rollbacks if before else 0
        starts = before.starts if before else _STARTS
        for seconds in _started(told, status, made or {}):
            starts = starts.with_one(seconds)
        spec = deployment.spec
        slo = spec.slo.ttft_p95 if spec.slo is not None else None
        self._shown[deployment.key] = _Shown(
            METRICS[spec.engine.name],
            status,
            tuple(loads.values()),
            restarts + _restarted(told, status),
            rollbacks + len(_rejected(status) - _rejected(told)),
            parse_duration(slo) if slo else None,
            starts,
        )

    def forget(self, key: str) -> None:
        """Drop the series of the deployment "namespace/name"."""
        self._shown.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        """Return the families. O(deployments); called from the thread that answers the scrape."""
        phase = _gauge("phase", "1 for the phase that the deployment is in", "phase")
        wanted = _gauge("replicas_wanted", "Replicas that the load calls for")
        ready = _gauge("replicas_ready", "Replicas that serve")
        restarts = _counter("restarts", "Restarts of replicas, since this process leads", "reason")
        rollbacks = _counter("rollbacks", "Revisions rejected, since this process leads")
        shown = list(self._shown.items())
        for key, one in shown:
            labels, status = key.split("/", 1), one.status
            if status.phase is not None:
                phase.add_metric((*labels, status.phase), 1)
            wanted.add_metric(labels, status.replicas_wanted or 0)
            ready.add_metric(labels, float((status.ready or "0").partition("/")[0]))
            for reason in InferenceReason:
                restarts.add_metric((*labels, reason), one.restarts[reason])
            rollbacks.add_metric(labels, one.rollbacks)
        yield from (phase, wanted, ready, restarts, rollbacks)
        yield from _of_plans(shown)
        yield from _of_engines(shown, self._now())
        counted = ((key, one.names, self._totals(key)) for key, one in shown)
        yield from _of_totals((key, names, all_) for key, names, all_ in counted if all_)


def _of_plans(shown: list[tuple[str, _Shown]]) -> Iterator[Metric]:
    """Return the families of what is asked for, what it takes, and how long that takes."""
    gpus = _gauge("gpus", "GPUs of the replicas that have a place")
    slo = _gauge("slo_ttft_seconds", "The time to the first token that 95 of 100 must not exceed")
    starts = _histogram("start_seconds", "From when a replica was made until it served")
    for key, one in shown:
        labels = key.split("/", 1)
        each = (one.status.plan and one.status.plan.gpus_per_replica) or 0
        gpus.add_metric(labels, each * sum(bool(two.blades) for two in one.status.replicas))
        if one.slo_ttft_s is not None:
            slo.add_metric(labels, one.slo_ttft_s)
        _add(starts, labels, one.starts)
    yield from (gpus, slo, starts)


def _of_totals(counted: Iterable[tuple[str, MetricNames, Totals]]) -> Iterator[Metric]:
    """Return the families of what the engines count; of a latency, once one was measured."""
    ttft = _histogram("ttft_seconds", "Time to the first token, as the engines measure it")
    itl = _histogram("itl_seconds", "Time between tokens, as the engines measure it")
    requests = _counter("requests", "Requests answered, by outcome: ok, error", "outcome")
    tokens = _counter("generated_tokens", "Tokens generated")
    for key, names, totals in counted:
        labels = key.split("/", 1)
        _add(ttft, labels, totals.ttft)
        _add(itl, labels, totals.itl)
        if names.requests is not None:
            requests.add_metric((*labels, "ok"), totals.requests - totals.errors)
            requests.add_metric((*labels, "error"), totals.errors)
        if names.tokens:
            tokens.add_metric(labels, totals.tokens)
    yield from (ttft, itl, requests, tokens)


def _of_engines(shown: list[tuple[str, _Shown]], now: float) -> Iterator[Metric]:
    """Return the families of what the engines say, without those that say nothing."""
    running = _gauge("requests_running", "Requests that the engines work on")
    waiting = _gauge("requests_waiting", "Requests that wait in the engines")
    kv_use = _gauge("kv_use", "Part of the KV cache in use, of the replica that uses most")
    for key, one in shown:
        labels = key.split("/", 1)
        fresh = [load for load in one.loads if now - load.at <= FRESH_S]
        if fresh:
            running.add_metric(labels, sum(load.running for load in fresh))
            waiting.add_metric(labels, sum(load.waiting for load in fresh))
        if uses := [load.kv_use for load in fresh if load.kv_use is not None]:
            kv_use.add_metric(labels, max(uses))
    yield from (running, waiting, kv_use)


def _restarted(told: InferenceDeploymentStatus, now: InferenceDeploymentStatus) -> Counter[str]:
    """Return the restarts that are new, by reason; who is given up is not restarted."""
    before = {one.name: one.failed_at for one in told.replicas}
    return Counter(
        str(one.reason)
        for one in now.replicas
        if one.failed_at is not None
        and one.failed_at != before.get(one.name)
        and one.state != State.FAILED
    )


def _started(
    told: InferenceDeploymentStatus, now: InferenceDeploymentStatus, made: Mapping[str, float]
) -> Iterator[float]:
    """Yield how long replicas took (s) that serve for the first time; those that failed do not."""
    before = {one.name: one.state for one in told.replicas}
    for one in now.replicas:
        was = before.get(one.name, State.WAITING)
        first = one.failed_at is None and one.since is not None and one.name in made
        if first and one.state == State.SERVING and was in _BEFORE_SERVING:
            yield max(0.0, clock.parse(one.since or "") - made[one.name])


def _rejected(status: InferenceDeploymentStatus) -> set[str]:
    return {one.hash for one in status.revisions if one.verdict is RevisionVerdict.REJECTED}


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"tramontane_inference_{name}", text, labels=("namespace", "deployment", *labels)
    )


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(
        f"tramontane_inference_{name}", text, labels=("namespace", "deployment", *labels)
    )


def _histogram(name: str, text: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(
        f"tramontane_inference_{name}", text, labels=("namespace", "deployment")
    )


def _add(family: HistogramMetricFamily, labels: list[str], seen: Histogram) -> None:
    if seen.counts:
        bounds = map(floatToGoString, seen.bounds_s)
        family.add_metric(labels, list(zip(bounds, seen.counts, strict=True)), seen.sum_s)


#: What the process exports; the controller feeds it.
SERVED = DeploymentMetrics()
REGISTRY.register(SERVED)
