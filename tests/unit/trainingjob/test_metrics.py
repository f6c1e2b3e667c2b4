"""The series of a job: from its status, and gone with it."""

from collections.abc import Iterable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tramontane.api import clock
from tramontane.api.trainingjob import IncidentCause, JobIncident, TrainingJob
from tramontane.controllers.metrics import RECOVERY_SECONDS
from tramontane.controllers.trainingjob.metrics import KEPT_AFTER_END_S, JobMetrics
from unit.trainingjob.builders import NOW, a_job, running

LABELS = {"namespace": "ml", "job": "llama"}
FAULT = {"at": clock.micro(NOW - 40), "cause": "BladeFault", "code": "xid-79", "blade": "b2"}


def shown(metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the samples by what PromQL would call them, without namespace and job."""
    return {
        sample.name.removeprefix("tramontane_trainingjob_")
        + "".join(f"/{value}" for key, value in sample.labels.items() if key not in LABELS): (
            sample.value
        )
        for family in metrics
        for sample in family.samples
    }


def with_status(job: TrainingJob, **more: object) -> TrainingJob:
    status = type(job.status).model_validate({**job.status.to_dict(), **more})
    return job.model_copy(update={"status": status})


def test_the_series_are_the_status() -> None:
    now, metrics = NOW + 10, JobMetrics(lambda: NOW + 10)
    job = a_job(
        running(
            step=120,
            stepTime="410ms",
            stepTimeP99="1.2s",
            loss="1.8031",
            ready="3/4",
            gpus=32,
            checkpointAdvice="22m",
            lastCheckpoint={"step": 100, "at": clock.utc(now - 90)},
            restarts={"user": 1, "infra": 4, "preempted": 0},
        )
    )

    metrics.observe(job, job.status)
    series = shown(metrics.collect())

    samples = [sample for family in metrics.collect() for sample in family.samples]
    assert all(sample.labels.items() >= LABELS.items() for sample in samples)
    assert {key: value for key, value in series.items() if "/" not in key} == {
        "goodput_ratio": pytest.approx(60 / 110),
        "ready": 3,
        "size": 4,
        "gpus": 32,
        "step": 120,
        "loss": 1.8031,
        "step_time_seconds": pytest.approx(0.41),
        "step_time_p99_seconds": 1.2,
        "checkpoint_advice_seconds": 1320,
        "checkpoint_age_seconds": 90,
    }
    assert series["phase/Running"] == 1
    assert series["restarts_total/infra"] == 4


@pytest.mark.parametrize(
    ("status", "pattern", "age"),
    [
        pytest.param({"lastCheckpoint": {"at": clock.utc(NOW - 5)}}, "", 5, id="saved"),
        pytest.param({}, r"saved (?P<step>\d+)", 50, id="never saved"),
        pytest.param({"phase": "Recovering"}, r"saved (?P<step>\d+)", None, id="does not train"),
        pytest.param({}, "", None, id="says nothing of saving"),
    ],
)
def test_work_is_at_stake_since_the_last_checkpoint_or_the_first_start(
    status: dict[str, Any], pattern: str, age: float | None
) -> None:
    metrics = JobMetrics(lambda: NOW)
    job = a_job(running(**status), checkpoint={"savedPattern": pattern})

    metrics.observe(job, job.status)

    assert shown(metrics.collect()).get("checkpoint_age_seconds") == age


def test_the_ledger_goes_on_until_the_scrape() -> None:
    metrics = JobMetrics(lambda: NOW + 10)
    ledger = {"productive": "90s", "lost": {"restart": "10s"}, "restart": {"detect": "10s"}}
    job = a_job(running(2, phase="Recovering", goodput=ledger, incidents=[FAULT]))

    metrics.observe(job, job.status)
    series = shown(metrics.collect())

    assert series["ledger_seconds/productive"] == 90
    assert series["ledger_seconds/restart"] == 20
    assert series["restart_seconds/replace"] == 10
    causes = [value for key, value in series.items() if key.startswith("ledger_seconds/")]
    assert sum(causes) == 110


def test_a_job_s_series_go_with_it_or_ten_minutes_after_its_end() -> None:
    now = [NOW]
    metrics = JobMetrics(lambda: now[0])
    job = a_job(running(phase="Succeeded", finishedAt=clock.utc(NOW)))
    metrics.observe(job, job.status)

    now[0] += KEPT_AFTER_END_S - 1
    assert shown(metrics.collect())["ledger_seconds/queue"] == 10
    now[0] += 2
    assert shown(metrics.collect()) == {}

    other = a_job(running())
    metrics.observe(other, other.status)
    assert shown(metrics.collect())
    metrics.forget(other.key)
    assert shown(metrics.collect()) == {}


def recovered_in(stage: str) -> tuple[float, float]:
    """Return how many recoveries were timed at this stage, and their seconds."""
    labels = {"stage": stage, "cause": "BladeFault"}
    values = {
        sample.name.rpartition("_")[2]: sample.value
        for sample in next(iter(RECOVERY_SECONDS.collect())).samples
        if sample.labels == labels
    }
    return values.get("count", 0), values.get("sum", 0)


def test_an_incident_is_counted_once_and_each_stage_timed_once() -> None:
    metrics, before = JobMetrics(lambda: NOW), a_job(running())
    stages = ("detected", "replaced", "running")
    at_first = [recovered_in(stage) for stage in stages]
    found = with_status(before, incidents=[{**FAULT, "detectedAfter": "800ms"}])
    replaced = {**FAULT, "detectedAfter": "800ms", "replacedAfter": "2s"}
    runs = with_status(before, incidents=[{**replaced, "runningAfter": "41s"}])

    for old, new in ((before, found), (found, found), (found, runs), (runs, runs)):
        metrics.observe(old, new.status)

    series = shown(metrics.collect())
    counts = [series[f"incidents_total/{cause}"] for cause in IncidentCause]
    assert (series["incidents_total/BladeFault"], sum(counts)) == (1, 1)
    timed = [recovered_in(stage) for stage in stages]
    more = [(n - m, round(s - t, 3)) for (n, s), (m, t) in zip(timed, at_first, strict=True)]
    assert more == [(1, 0.8), (1, 2), (1, 41)]


def test_an_operator_that_takes_over_counts_on_from_what_is_listed() -> None:
    metrics, job = JobMetrics(lambda: NOW), a_job(running(incidents=[FAULT]))

    metrics.observe(job, job.status)

    assert isinstance(job.status.incidents[0], JobIncident)
    assert shown(metrics.collect())["incidents_total/BladeFault"] == 1


def test_the_exposition_can_be_read_back() -> None:
    metrics, registry = JobMetrics(lambda: NOW), CollectorRegistry()
    registry.register(metrics)
    job = a_job(running())
    metrics.observe(job, job.status)

    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    assert {family.name for family in families} >= {
        "tramontane_trainingjob_goodput_ratio",
        "tramontane_trainingjob_ledger_seconds",
    }
    assert all(family.documentation for family in families)
