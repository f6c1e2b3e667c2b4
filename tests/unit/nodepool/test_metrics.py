"""The series of pools and blades: what they add up to, who shows them, and when they go."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric

from tramontane.api.blade import Blade, BladeState, BladeStatus
from tramontane.api.clock import utc
from tramontane.api.gang import Gang
from tramontane.api.nodepool import NodePoolStatus
from tramontane.api.reasons import BladeReason
from tramontane.controllers.metrics import TRANSITIONS
from tramontane.controllers.nodepool.history import left_at
from tramontane.controllers.nodepool.metrics import (
    BLADES,
    POOLS,
    PoolMetrics,
    PoolShown,
    of_blades,
    of_gangs,
)
from unit.nodepool.hall import NOW, Hall
from unit.nodepool.steps import BLADE, CLEAR_AFTER_S, clean, healthy, sick, wait

COUNTS = {"total": 20, "healthy": 12, "inUse": 9, "spare": 2, "suspect": 1, "quarantined": 3,
          "repairing": 1, "qualifying": 2, "rma": 1}  # fmt: skip
TRANCHE = {"name": "t2", "delivered": 9, "qualifying": 3, "healthy": 4, "faulty": 1, "rma": 1}


def shown(metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the samples by their names, without the prefix, and label values but the pool."""
    return {
        sample.name.removeprefix("tramontane_")
        + "".join(f"/{value}" for key, value in sample.labels.items() if key != "pool"): (
            sample.value
        )
        for family in metrics
        for sample in family.samples
    }


def pool(busy_gpus: int = 70, **status: Any) -> dict[str, float]:
    metrics = PoolMetrics()
    read = NodePoolStatus.model_validate({"blades": COUNTS, **status})
    metrics.observe("paris", PoolShown(read, 5, 6, 2, 8, busy_gpus))
    return shown(metrics.collect())


def test_the_gpus_of_a_pool_are_counted_once_each() -> None:
    series = pool()
    gpus = {key.removeprefix("gpus/"): value for key, value in series.items() if "gpus/" in key}
    assert gpus == {
        "allocated": 70,
        "free": 12 * 8 - 70,
        "suspect": 8,
        "quarantined": 24,
        "repairing": 8,
        "rma": 8,
        "unknown": 0,
        "lost": 0,
        "qualifying": 16,
    }
    assert sum(gpus.values()) == 20 * 8


def test_no_more_gpus_are_in_use_than_there_are() -> None:
    series = pool(busy_gpus=200)
    assert (series["gpus/allocated"], series["gpus/free"]) == (96, 0)


def test_what_a_pool_says_of_itself() -> None:
    series = pool(
        spares={"target": 4, "ready": 3},
        breaker={"state": "Open"},
        failureRate="3.1",
        tranches=[TRANCHE],
    )
    assert series["blades/in_use"] == 9
    assert "blades/total" not in series
    assert (series["blades_out"], series["blades_budget"], series["quarantines_refused"]) == (
        *(5, 6, 2),
    )
    assert (series["spares_target"], series["spares_ready"]) == (4, 3)
    assert (series["breaker_open"], series["failure_rate"]) == (1, 3.1)
    tranche = {key: value for key, value in series.items() if key.startswith("tranche_blades")}
    assert tranche == {
        "tranche_blades/t2/qualifying": 3,
        "tranche_blades/t2/healthy": 4,
        "tranche_blades/t2/faulty": 1,
        "tranche_blades/t2/rma": 1,
    }


def test_what_is_not_known_of_a_pool_has_no_series() -> None:
    assert not {"failure_rate", "spares_target", "breaker_open"} & pool().keys()


def a_blade(name: str, **status: Any) -> Blade:
    raw = {"metadata": {"name": name}, "spec": {"pool": "paris"}, "status": status}
    return Blade.model_validate(raw)


def test_a_blade_has_the_state_that_it_is_in_and_no_other() -> None:
    blades = [
        a_blade("a", state="Healthy", stateSince=utc(NOW), history={"lemonScore": "0.00"}),
        a_blade("b", state="Quarantined", reason="HardwareFault", history={"lemonScore": "0.31"}),
        a_blade("new"),
    ]
    assert shown(of_blades(blades)) == {
        "blade_state/a/Healthy/": 1,
        "blade_state/b/Quarantined/HardwareFault": 1,
        "blade_state_since_timestamp_seconds/a": NOW,
        "blade_lemon_score_ratio/b": 0.31,
    }


def a_gang(name: str, *seats: str, owner: Mapping[str, str] | None = None, **placed: Any) -> Gang:
    owners = [{"apiVersion": "x/v1", "uid": "u", **owner}] if owner is not None else []
    slot = {"name": "worker", "count": len(seats), "requests": {"nvidia.com/gpu": "8"}}
    placement = {"seats": list(seats), "size": len(seats), **placed}
    return Gang.model_validate(
        {
            "metadata": {"name": name, "namespace": "ml", "ownerReferences": owners},
            "spec": {"pool": "paris", "slots": [slot]},
            "status": {"placement": placement},
        }
    )


def test_who_has_a_blade() -> None:
    serving = {"kind": "InferenceDeployment", "name": "claims"}
    gangs = [
        a_gang("llama", "a", "b", owner={"kind": "TrainingJob", "name": "llama"}, spares=["c"]),
        a_gang("claims-0", "d", owner=serving),
        a_gang("claims-1", "d", owner=serving),
        a_gang("foreign", "e", owner={"kind": "Job", "name": "other"}),
    ]
    assert set(shown([of_gangs(gangs)])) == {
        "allocation_info/a/ml/TrainingJob/llama",
        "allocation_info/b/ml/TrainingJob/llama",
        "allocation_info/c/ml/TrainingJob/llama",
        "allocation_info/d/ml/InferenceDeployment/claims",
        "allocation_info/e/ml/Gang/foreign",
    }


WORKED = {"at": utc(NOW - 600), "code": "xid-95", "from": "Healthy", "to": "Quarantined"}
AGAIN = {"at": utc(NOW - 300), "code": "xid-95", "from": "Requalifying", "to": "Quarantined"}
OLD = {**WORKED, "at": utc(NOW - 90_000), "outcome": "reset, back in 10m"}


@pytest.mark.parametrize(
    ("status", "ago"),
    [
        pytest.param({"state": "Quarantined", "incidents": [OLD, WORKED]}, 600, id="quarantined"),
        pytest.param({"state": "Requalifying", "incidents": [WORKED]}, 600, id="repaired"),
        pytest.param({"state": "Quarantined", "incidents": [AGAIN]}, None, id="never-worked"),
        pytest.param({"state": "Quarantined"}, None, id="nobody-knows-why"),
        pytest.param({"state": "Unknown", "incidents": [OLD]}, None, id="silent"),
        pytest.param({"state": "Healthy", "incidents": [WORKED]}, None, id="works"),
        pytest.param({"state": "Qualifying"}, None, id="new"),
    ],
)
def test_since_when_a_blade_is_out(status: dict[str, Any], ago: float | None) -> None:
    since = left_at(BladeStatus.model_validate(status))
    assert since == (None if ago is None else NOW - ago)


def out(name: str) -> float:
    return REGISTRY.get_sample_value(f"tramontane_blade_out_seconds_{name}", {"pool": "paris"}) or 0


async def test_the_way_back_is_timed() -> None:
    count, total = out("count"), out("sum")
    async with Hall() as hall:
        await healthy(hall, remediation={"maxUnavailable": 2, "mode": "Auto"})
        await sick(hall, action="Drain")
        assert hall.state(BLADE) == "Quarantined"
        await wait(hall, 120)
        await clean(hall)
        await wait(hall, CLEAR_AFTER_S)
        assert hall.state(BLADE) == "Healthy"
    assert out("count") - count == 1
    assert CLEAR_AFTER_S + 120 <= out("sum") - total < CLEAR_AFTER_S + 200


async def test_a_silence_is_timed_from_its_beginning() -> None:
    count, total = out("count"), out("sum")
    async with Hall() as hall:
        await healthy(hall)  # Unknown before its first report: it had not left
        assert out("count") == count
        await hall.advance(200)
        assert hall.state(BLADE) in {"Unknown", "Lost"}
        await hall.advance(100)
        hall.beat(BLADE)
        await clean(hall)
        assert hall.state(BLADE) == "Healthy"
    assert out("count") - count == 1
    assert 100 <= out("sum") - total <= 300


async def test_blades_are_shown_by_who_leads_and_by_no_standby() -> None:
    hall = Hall()
    async with hall:
        await healthy(hall)
        assert f"blade_state/{BLADE}/Healthy/" in shown(BLADES.collect())
    assert hall.informers.blades.cache
    assert shown(BLADES.collect()) == {}


async def test_the_series_of_a_pool_go_with_it() -> None:
    registry = CollectorRegistry()
    registry.register(BLADES)
    hall = Hall()
    async with hall:
        await healthy(hall)
        labels = {"pool": "paris", "blade": BLADE, "state": BladeState.HEALTHY.value, "reason": ""}
        assert registry.get_sample_value("tramontane_blade_state", labels) == 1
        await hall.advance(1.0)
        assert shown(POOLS.collect())["blades/healthy"] == 1
        assert transitions() >= {("Quarantined", reason) for reason in BladeReason}
        hall.api.drop(*_pool(hall))
        await hall.advance(1.0)
        assert transitions() == set()
        # What other pools of this process left is not this one's.
        assert "paris" not in {
            sample.labels["pool"] for family in POOLS.collect() for sample in family.samples
        }


def transitions() -> set[tuple[str, str]]:
    return {
        (sample.labels["state"], sample.labels["reason"])
        for family in TRANSITIONS.collect()
        for sample in family.samples
        if sample.labels["pool"] == "paris"
    }


def _pool(hall: Hall) -> tuple[Any, str]:
    (resource,) = [one for one in hall.api.objects if one.kind == "NodePool"]
    return resource, "paris"
