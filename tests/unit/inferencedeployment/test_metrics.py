"""The series of a deployment: from its status and its engines, and gone with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tramontane.api import clock
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.metrics import FRESH_S, SERVED, DeploymentMetrics
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
    assert {key: value for key, value in series.items() if "restarts" not in key} == {
        "phase/RollingOut": 1,
        "replicas_wanted": 3,
        "replicas_ready": 2,
        "requests_running": 5,
        "requests_waiting": 2,
        "kv_use": 0.5,
        "rollbacks_total": 0,
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
