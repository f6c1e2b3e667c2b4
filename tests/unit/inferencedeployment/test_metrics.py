"""The series of a deployment: from its status and its engines, and gone with it."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tramontane.api import clock
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.controllers.inferencedeployment.load import Load, empty
from tramontane.controllers.inferencedeployment.metrics import FRESH_S, SERVED, DeploymentMetrics
from tramontane.controllers.inferencedeployment.totals import Totals
from unit.inferencedeployment.builders import NOW, a_deployment, a_status, an_entry
from unit.inferencedeployment.serving_hall import KEY, OURS, a_hall

LABELS = {"namespace": "ml", "deployment": "claims"}
FAILED = {
    "state": "Stopping",
    "restarts": 1,
    "reason": "RankDead",
    "failedAt": clock.micro(NOW - 40),
}


def shown(metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the samples by what PromQL would call them, without namespace and deployment."""
    return {
        sample.name.removeprefix("tramontane_inference_")
        + "".join(f"/{value}" for key, value in sample.labels.items() if key not in LABELS): (
            sample.value
        )
        for family in metrics
        for sample in family.samples
    }


def observed(
    *statuses: dict[str, Any], loads: dict[str, Load] | None = None, now: float = NOW
) -> DeploymentMetrics:
    """Return metrics that saw a deployment come from the first of the statuses to the last."""
    metrics = DeploymentMetrics(lambda: now)
    deployments = [a_deployment(status) for status in statuses]
    for before, after in zip(deployments, deployments[1:] or deployments, strict=False):
        metrics.observe(before, after.status, loads or {})
    return metrics


def test_the_series_are_the_status_and_what_the_engines_say() -> None:
    status = a_status(an_entry(), phase="RollingOut", ready="2/3", replicasWanted=3)
    loads = {
        "claims-0": Load(NOW - 5, running=4, waiting=2, kv_use=0.25),
        "claims-1": Load(NOW - 5, running=1, kv_use=0.5),
    }
    metrics = observed(status, loads=loads)

    series = shown(metrics.collect())

    samples = [sample for family in metrics.collect() for sample in family.samples]
    assert all(sample.labels.items() >= LABELS.items() for sample in samples)
    told = {key: value for key, value in series.items() if "restarts" not in key}
    assert {key: value for key, value in told.items() if not key.startswith("start_")} == {
        "phase/RollingOut": 1,
        "replicas_wanted": 3,
        "replicas_ready": 2,
        "requests_running": 5,
        "requests_waiting": 2,
        "kv_use": 0.5,
        "rollbacks_total": 0,
        "gpus": 0,
    }
    assert series["restarts_total/RankDead"] == 0


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        pytest.param(Load(NOW - FRESH_S, running=1, kv_use=0.5), {"running", "kv"}, id="fresh"),
        pytest.param(Load(NOW - FRESH_S - 1, running=1, kv_use=0.5), set(), id="old"),
        pytest.param(Load(NOW, running=1), {"running"}, id="of an engine that counts no cache"),
    ],
)
def test_what_the_engines_said_is_shown_while_it_is_fresh(load: Load, expected: set[str]) -> None:
    series = shown(observed(a_status(), loads={"claims-0": load}).collect())

    names = {"requests_running": "running", "kv_use": "kv"}
    assert {names[key] for key in series if key in names} == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([an_entry(), an_entry(**FAILED)], 1, id="a restart"),
        pytest.param([an_entry(**FAILED)] * 2, 0, id="one of before this process"),
        pytest.param([an_entry(), an_entry(**FAILED), an_entry(**FAILED)], 1, id="seen twice"),
        pytest.param(
            [
                an_entry(**FAILED),
                an_entry(**{**FAILED, "failedAt": clock.micro(NOW)}),
            ],
            1,
            id="the first again, after it had served for long",
        ),
        pytest.param([an_entry(), an_entry(**{**FAILED, "state": "Failed"})], 0, id="given up"),
    ],
)
def test_a_restart_is_counted_once(entries: list[dict[str, Any]], expected: int) -> None:
    series = shown(observed(*(a_status(entry) for entry in entries)).collect())

    counts = {key: value for key, value in series.items() if key.startswith("restarts_total/")}
    assert counts["restarts_total/RankDead"] == expected
    assert sum(counts.values()) == expected


def test_a_rollback_is_counted_once() -> None:
    statuses = [a_status(verdict=verdict) for verdict in ("Observing", "Rejected", "Rejected")]

    assert shown(observed(*statuses).collect())["rollbacks_total"] == 1
    assert shown(observed(*statuses[1:]).collect())["rollbacks_total"] == 0


def with_engine(name: str, **spec: Any) -> InferenceDeployment:
    raw = a_deployment(a_status(an_entry())).to_dict()
    raw["spec"]["engine"] = {**raw["spec"]["engine"], "name": name}
    return InferenceDeployment.model_validate({**raw, "spec": {**raw["spec"], **spec}})


def test_what_is_asked_for_and_what_it_takes() -> None:
    entries = [an_entry(blades=["gpu-1", "gpu-2"]), an_entry(name="claims-1", state="Waiting")]
    status = a_status(*entries, plan={"gpusPerReplica": 16})
    metrics = DeploymentMetrics(lambda: NOW)
    deployment = a_deployment(status)
    metrics.observe(deployment, deployment.status, {})
    assert shown(metrics.collect())["gpus"] == 16
    assert "slo_ttft_seconds" not in shown(metrics.collect())
    asked = with_engine("vllm", slo={"ttftP95": "750ms"})
    metrics.observe(asked, asked.status, {})
    assert shown(metrics.collect())["slo_ttft_seconds"] == 0.75


STARTED = clock.utc(NOW - 10)
NEW = {"state": "Loading", "since": clock.utc(NOW - 50)}


@pytest.mark.parametrize(
    ("entries", "took"),
    [
        pytest.param([an_entry(**NEW), an_entry(since=STARTED)], 90, id="made, then it serves"),
        pytest.param([an_entry(**NEW), *[an_entry(since=STARTED)] * 2], 90, id="seen twice"),
        pytest.param([an_entry(since=STARTED)] * 2, None, id="one of before this process"),
        pytest.param(
            [
                an_entry(**NEW, failedAt=clock.utc(NOW - 70)),
                an_entry(since=STARTED, failedAt=clock.utc(NOW - 70)),
            ],
            None,
            id="one that failed before",
        ),
        pytest.param([an_entry(**NEW)] * 2, None, id="still loading"),
    ],
)
def test_a_start_is_timed_once(entries: list[dict[str, Any]], took: float | None) -> None:
    metrics = DeploymentMetrics(lambda: NOW)
    deployments = [a_deployment(a_status(entry)) for entry in entries]
    for before, after in pairwise(deployments):
        metrics.observe(before, after.status, {}, {"claims-0": NOW - 100})
    series = shown(metrics.collect())
    assert series["start_seconds_count"] == (took is not None)
    assert series["start_seconds_sum"] == (took or 0)
    assert series["start_seconds_bucket/60.0"] == 0
    assert series["start_seconds_bucket/120.0"] == series["start_seconds_count"]


TOTALS = Totals(45.0, 5.0, 900.0, empty(0.1, 1.0).with_one(0.5), empty(0.02).with_one(0.01))
COUNTED = {
    "requests_total/ok": 40,
    "requests_total/error": 5,
    "generated_tokens_total": 900,
    "ttft_seconds_bucket/0.1": 0,
    "ttft_seconds_bucket/1.0": 1,
    "ttft_seconds_bucket/+Inf": 1,
    "ttft_seconds_count": 1,
    "ttft_seconds_sum": 0.5,
    "itl_seconds_bucket/0.02": 1,
    "itl_seconds_bucket/+Inf": 1,
    "itl_seconds_count": 1,
    "itl_seconds_sum": 0.01,
}


@pytest.mark.parametrize(
    ("engine", "totals", "expected"),
    [
        pytest.param("vllm", TOTALS, COUNTED, id="all"),
        pytest.param("vllm", None, {}, id="nobody asks it"),
        pytest.param("llamacpp", Totals(tokens=7.0), {"generated_tokens_total": 7}, id="tokens"),
        pytest.param(
            "vllm",
            Totals(),
            {"requests_total/ok": 0, "requests_total/error": 0, "generated_tokens_total": 0},
            id="nothing yet",
        ),
    ],
)
def test_what_the_engines_count(
    engine: str, totals: Totals | None, expected: dict[str, float]
) -> None:
    metrics = DeploymentMetrics(lambda: NOW)
    deployment = with_engine(engine)
    metrics.observe(deployment, deployment.status, {})
    metrics.count_by({"ml/claims": totals}.get)
    series = shown(metrics.collect())
    names = ("requests_total", "generated", "ttft_", "itl_")
    assert {key: value for key, value in series.items() if key.startswith(names)} == expected


def test_the_series_of_a_deployment_go_with_it() -> None:
    metrics = observed(a_status())
    other = InferenceDeployment.model_validate(
        {**a_deployment().to_dict(), "metadata": {"name": "other", "namespace": "ml"}}
    )
    metrics.observe(other, other.status, {})

    metrics.forget("ml/claims")

    samples = [sample for family in metrics.collect() for sample in family.samples]
    assert {sample.labels["deployment"] for sample in samples} == {"other"}


def test_the_exposition_can_be_read_back() -> None:
    registry = CollectorRegistry()
    registry.register(observed(a_status(), loads={"claims-0": Load(NOW, kv_use=0.1)}))

    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    assert {family.name for family in families} >= {
        "tramontane_inference_replicas_ready",
        "tramontane_inference_restarts",
        "tramontane_inference_kv_use",
    }
    assert all(family.documentation for family in families)


async def test_the_controller_feeds_them(tmp_path: Path) -> None:
    async with a_hall(tmp_path) as hall:
        await hall.settle()
        assert shown(SERVED.collect())["replicas_ready"] == 1

        del hall.server.objects[f"{OURS}/inferencedeployments/claims"]
        await hall.controller.reconcile(KEY)

        assert not shown(SERVED.collect())
