"""Export how each training job stands: a collector over the last statuses that were written.

The series of a job are made when somebody asks, and go with the job, or ten minutes after its end.
The status is at most 30 s old; the ledger is carried on to the moment of the scrape, by what the
status says that time goes into.

What happened, incidents and how long each stage of a recovery took, is counted when a status tells
of it for the first time: an operator that takes over counts from there.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tramontane.api import clock
from tramontane.api.trainingjob import (
    GoodputLost,
    IncidentCause,
    JobIncident,
    JobPhase,
    RestartCounts,
    RestartStages,
    TrainingJob,
    TrainingJobStatus,
)
from tramontane.controllers.metrics import RECOVERY_SECONDS
from tramontane.controllers.trainingjob.account import cause_now
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.evidence import key_of
from tramontane.controllers.trainingjob.goodput import Cause, Ledger, is_closed

KEPT_AFTER_END_S = 600.0
_STEPS = frozenset({JobPhase.RUNNING, JobPhase.CHECKPOINTING})
_STAGES = {
    "detected": "detected_after",
    "replaced": "replaced_after",
    "running": "running_after",
}
_LEDGER = ("productive", *GoodputLost.model_fields)
# One number of the status each: name, help, how to read it.
_NUMBERS: tuple[tuple[str, str, Callable[[TrainingJobStatus], float | None]], ...] = (
    ("ready", "Pods that are ready", lambda s: float((s.ready or "0").partition("/")[0])),
    ("size", "Pods of this attempt", lambda s: s.size),
    ("gpus", "GPUs that the job holds", lambda s: s.gpus),
    ("step", "Last step seen", lambda s: s.step),
    ("loss", "Last loss seen", lambda s: None if s.loss is None else float(s.loss)),
    ("step_time_seconds", "Median time of a step", lambda s: _seconds(s.step_time)),
    ("step_time_p99_seconds", "99th percentile of it", lambda s: _seconds(s.step_time_p99)),
    (
        "checkpoint_advice_seconds",
        "Interval between checkpoints that loses the least time",
        lambda s: _seconds(s.checkpoint_advice),
    ),
)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Hold what is shown of one job, read from its status once."""

    labels: tuple[str, str]
    phase: JobPhase | None
    created_s: float
    ended_s: float | None
    at_stake_s: float | None
    ledger: Ledger
    cause: Cause
    numbers: tuple[float | None, ...]
    restarts: RestartCounts
    incidents: tuple[JobIncident, ...]
    counts: Counter[str]


class JobMetrics(Collector):
    """Show the jobs that were observed; `now` tells the time of a scrape (Unix s)."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._shown: dict[str, _Shown] = {}

    def observe(self, job: TrainingJob, status: TrainingJobStatus) -> None:
        """Take a job's status after it was written, or as it is; taking it again changes nothing.

        `job` has the status before. O(incidents).
        """
        before = self._shown.get(job.key)
        told = before.incidents if before else job.status.incidents
        counts = before.counts if before else Counter[str](one.cause for one in told)
        if status.incidents != told:
            counts = counts + _count(told, status.incidents)
        self._shown[job.key] = _shown(job, status, counts)

    def forget(self, key: str) -> None:
        """Drop the series of the job "namespace/name"."""
        self._shown.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        """Return the families. O(jobs); called from the thread that answers the scrape."""
        now = self._now()
        shown = [
            one
            for one in list(self._shown.values())
            if one.ended_s is None or now - one.ended_s < KEPT_AFTER_END_S
        ]
        yield from _of_ledgers(shown, now)
        for index, (name, text, _) in enumerate(_NUMBERS):
            family = _gauge(name, text)
            for one in shown:
                if (value := one.numbers[index]) is not None:
                    family.add_metric(one.labels, value)
            yield family
        age = _gauge(
            "checkpoint_age_seconds",
            "Since the last checkpoint, or the first start if none was seen yet, while it trains",
        )
        phase = _gauge("phase", "1 for the phase that the job is in", "phase")
        restarts = _counter("restarts", "Restarts by who caused them: user, infra, preempted")
        incidents = _counter("incidents", "Interruptions by cause, since this process leads")
        for one in shown:
            if one.at_stake_s is not None and one.phase in _STEPS:
                age.add_metric(one.labels, max(0.0, now - one.at_stake_s))
            if one.phase is not None:
                phase.add_metric((*one.labels, one.phase), 1)
            for who in RestartCounts.model_fields:
                restarts.add_metric((*one.labels, who), getattr(one.restarts, who))
            for cause in IncidentCause:
                incidents.add_metric((*one.labels, cause), one.counts[cause])
        yield from (age, phase, restarts, incidents)


def _of_ledgers(shown: list[_Shown], now: float) -> Iterator[Metric]:
    """Return the families about where the time went, up to now."""
    ratio = _gauge("goodput_ratio", "Productive part of the time since creation")
    ledger = _gauge("ledger_seconds", "Time since creation by what it went into", "cause")
    stages = _gauge("restart_seconds", "Parts of the cause restart", "stage")
    for one in shown:
        until = one.ledger
        if not is_closed(one.phase):
            until = until.advance(one.created_s, now, one.cause)
        if until.total_ms:
            ratio.add_metric(one.labels, until.productive / until.total_ms)
        for cause in _LEDGER:
            ledger.add_metric((*one.labels, cause), getattr(until, cause) / 1000)
        for stage in RestartStages.model_fields:
            stages.add_metric((*one.labels, stage), getattr(until, stage) / 1000)
    yield from (ratio, ledger, stages)


def _shown(job: TrainingJob, status: TrainingJobStatus, counts: Counter[str]) -> _Shown:
    created, at_stake = job.metadata.creation_timestamp, _at_stake_since(job, status)
    return _Shown(
        labels=(job.metadata.namespace or "", job.metadata.name),
        phase=status.phase,
        created_s=clock.parse(created) if created else 0.0,
        ended_s=clock.parse(status.finished_at) if status.finished_at else None,
        at_stake_s=clock.parse(at_stake) if at_stake else None,
        ledger=Ledger.of(status.goodput),
        cause=cause_now(status),
        numbers=tuple(read(status) for _, _, read in _NUMBERS),
        restarts=status.restarts or RestartCounts(),
        incidents=status.incidents,
        counts=counts,
    )


def _at_stake_since(job: TrainingJob, status: TrainingJobStatus) -> str | None:
    """Return since when a fault costs all work; None where nothing tells of checkpoints."""
    if status.last_checkpoint is not None:
        return status.last_checkpoint.at
    return status.started_at if job.spec.checkpoint.saved_pattern else None


def _count(told: tuple[JobIncident, ...], now: tuple[JobIncident, ...]) -> Counter[str]:
    """Return the incidents that are new, by cause; time the stages that are over now."""
    before = {key_of(one): one for one in told}
    fresh: Counter[str] = Counter()
    for one in now:
        known = before.get(key_of(one))
        fresh[one.cause] += known is None
        for stage, field in _STAGES.items():
            took = getattr(one, field)
            if took is not None and (known is None or getattr(known, field) is None):
                RECOVERY_SECONDS.labels(stage, one.cause).observe(seconds(took))
    return fresh


def _seconds(text: str | None) -> float | None:
    return None if text is None else seconds(text)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"tramontane_trainingjob_{name}", text, labels=("namespace", "job", *labels)
    )


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(
        f"tramontane_trainingjob_{name}", text, labels=("namespace", "job", "cause")
    )


#: What the process exports; the controller feeds it.
JOBS = JobMetrics()
REGISTRY.register(JOBS)
