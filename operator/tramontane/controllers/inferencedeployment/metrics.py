"""Export how each deployment is served: a collector over the last statuses that were written.

The series of a deployment are made when somebody asks, and go with the deployment. What its engines
say is shown while it is at most a minute old.

Restarts and rollbacks are counted when a status tells of them for the first time: an operator that
takes over counts from there, as every counter does whose process is another.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.inferencestatus import InferenceDeploymentStatus, RevisionVerdict
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.replicas import State

# A deployment is looked at every 30 s at the latest, and its engines are read every 5 s.
FRESH_S = 60.0


@dataclass(frozen=True, slots=True)
class _Shown:
    """Hold what is shown of one deployment, and the status that it was read from."""

    status: InferenceDeploymentStatus
    loads: tuple[Load, ...]
    restarts: Counter[str]
    rollbacks: int = 0


class DeploymentMetrics(Collector):
    """Show the deployments that were observed; `now` tells the time of a scrape (Unix s)."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._shown: dict[str, _Shown] = {}

    def observe(
        self,
        deployment: InferenceDeployment,
        status: InferenceDeploymentStatus,
        loads: Mapping[str, Load],
    ) -> None:
        """Take a status after it was written, or as it is; taking it again changes nothing.

        `deployment` has the status before, `loads` are by replica. O(replicas).
        """
        before = self._shown.get(deployment.key)
        told = before.status if before else deployment.status
        restarts = before.restarts if before else Counter[str]()
        rollbacks = before.rollbacks if before else 0
        self._shown[deployment.key] = _Shown(
            status,
            tuple(loads.values()),
            restarts + _restarted(told, status),
            rollbacks + len(_rejected(status) - _rejected(told)),
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
        yield from _of_engines(shown, self._now())


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


#: What the process exports; the controller feeds it.
SERVED = DeploymentMetrics()
REGISTRY.register(SERVED)
