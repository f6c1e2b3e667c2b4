"""Raw API objects become slim records, and equal records mean that nothing of interest changed."""

from typing import Any

import pytest

from tramontane.scheduler.gangs import Placement, decode_gang
from tramontane.scheduler.records import (
    NO_POD,
    amounts,
    decode_blade,
    decode_node,
    decode_pod,
    decode_pool,
    pod_requests,
)

GPU = "nvidia.com/gpu"


def container(restart: str | None = None, **requests: str) -> dict[str, Any]:
    made: dict[str, Any] = {"resources": {"requests": requests}}
    return made | ({"restartPolicy": restart} if restart else {})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [container(cpu="1"), container(cpu="500m")]}, 1500, id="sum"),
        pytest.param(
            {"containers": [container(cpu="1")], "initContainers": [container(cpu="3")]},
            3000,
            id="init-is-more",
        ),
        pytest.param(
            {"containers": [container(cpu="1")], "initContainers": [container("Always", cpu="2")]},
            3000,
            id="sidecar-runs-along",
        ),
        pytest.param(
            {
                "containers": [container(cpu="1")],
                "initContainers": [container("Always", cpu="2"), container(cpu="4")],
            },
            6000,
            id="init-beside-a-sidecar",
        ),
        pytest.param(
            {"containers": [container(cpu="1")], "resources": {"requests": {"cpu": "5"}}},
            5000,
            id="pod-level",
        ),
        pytest.param(
            {"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}}, 1250, id="overhead"
        ),
    ],
)
def test_a_pod_asks_for_what_kubernetes_counts(spec: dict[str, Any], expected: int) -> None:
    assert dict(pod_requests(spec)) == {"cpu": expected}


def test_amounts_are_whole_and_rounded_up() -> None:
    assert amounts({GPU: 8, "cpu": "0.0001", "memory": "1Ki", "none": "0"}) == (
        ("cpu", 1),
        ("memory", 1024),
        (GPU, 8),
    )


def pod(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ns",
            "name": "job-3",
            "labels": {"tramontane.dev/gang": "job", "tramontane.dev/seat": "3"},
            **changes.get("metadata", {}),
        },
        "spec": {
            "nodeName": "n",
            "containers": [container(**{GPU: "8"})],
            **changes.get("spec", {}),
        },
        "status": {"phase": changes.get("phase", "Running")},
    }


def test_a_pod_of_a_gang_names_its_seat() -> None:
    record = decode_pod(pod())
    assert (record.node, record.gang, record.seat, record.requests) == (
        "n",
        "ns/job",
        3,
        ((GPU, 8),),
    )
    assert not record.deleting


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pod(phase="Succeeded"), id="succeeded"),
        pytest.param(pod(phase="Failed"), id="failed"),
        pytest.param(pod(spec={"nodeName": ""}), id="not-bound"),
        pytest.param(
            pod(metadata={"labels": {}}, spec={"containers": [{}]}), id="asks-for-nothing"
        ),
    ],
)
def test_a_pod_that_takes_nothing_is_no_pod(raw: dict[str, Any]) -> None:
    assert decode_pod(raw) is NO_POD


def test_a_terminating_pod_still_counts() -> None:
    gone = decode_pod(pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))
    assert gone.deleting
    assert gone.requests


def test_a_node_keeps_hard_taints_and_its_capacity() -> None:
    record = decode_node(
        {
            "metadata": {"name": "n", "labels": {"rack": "r1"}},
            "spec": {
                "unschedulable": True,
                "taints": [
                    {"key": "a", "effect": "NoSchedule"},
                    {"key": "b", "effect": "PreferNoSchedule"},
                ],
            },
            "status": {
                "allocatable": {GPU: "8", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    assert [taint.key for taint in record.taints] == ["a"]
    assert record.capacity == ((GPU, 8),)
    assert (record.ready, record.cordoned) == (True, True)


def test_a_bare_node_and_blade_are_not_fit_for_work() -> None:
    assert not decode_node({"metadata": {"name": "n"}}).ready
    assert decode_blade({"metadata": {"name": "n"}}).state == "Unknown"


def test_a_blade_and_a_pool() -> None:
    record = decode_blade(
        {
            "metadata": {"name": "n"},
            "spec": {"pool": "p"},
            "status": {
                "state": "Healthy",
                "verdict": {"severity": "Info"},
                "history": {"lemonScore": "0.25"},
            },
        }
    )
    assert (record.pool, record.state, record.severity, record.lemon) == (
        "p",
        "Healthy",
        "Info",
        0.25,
    )
    levels = [{"name": "rack", "label": "topology/rack"}]
    pool = decode_pool({"metadata": {"name": "p"}, "spec": {"topology": {"levels": levels}}})
    assert pool.levels == (("rack", "topology/rack"),)


def raw_gang(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ml",
            "name": "llama",
            "uid": "u",
            "resourceVersion": "42",
            "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "pool": "p",
            "slots": [{"name": "worker", "count": 4, "requests": {GPU: "8"}}],
            **spec,
        },
    }


def test_a_gang_with_everything() -> None:
    raw = raw_gang(
        sizes=[4, 2],
        spares=1,
        topology={
            "pack": "rack",
            "mode": "Required",
            "relaxAfter": "10m",
            "slice": {"size": 2, "level": "rack"},
        },
        priority=7,
        lost=[{"seat": 1, "blade": "b"}, {"seat": 0, "blade": "elsewhere"}],
        avoid=["x"],
        active=False,
    )
    raw["status"] = {
        "phase": "Placed",
        "epoch": 5,
        "observedGeneration": 2,
        "placement": {"size": 4, "seats": ["a", "b", "c", "d"], "spares": ["e"]},
        "conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:10Z"}
        ],
    }
    record = decode_gang(raw)
    assert record.key == "ml/llama"
    assert record.version == 42
    assert (record.sizes, record.spares, record.priority, record.active) == ((4, 2), 1, 7, False)
    assert (record.required, record.relax_after_s, record.slice_size) == (True, 600.0, 2)
    assert record.placement == Placement(("a", "b", "c", "d"), ("e",))
    assert record.lost_seats() == (1,)
    assert (record.told.epoch, record.told.ready, record.told.observed) == (5, False, 2)
    assert record.told.ready_since_s == pytest.approx(record.created_s + 10)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(raw_gang(slots=[]), "at least one slot", id="no-slot"),
        pytest.param(
            raw_gang(slots=[{"count": 1, "requests": {GPU: "many"}}]), "quantity", id="quantity"
        ),
        pytest.param(raw_gang(topology={"relaxAfter": "soon"}), "duration", id="duration"),
        pytest.param({**raw_gang(), "spec": None}, "at least one slot", id="no-spec"),
    ],
)
def test_what_cannot_be_read_is_a_flaw_not_a_crash(raw: dict[str, Any], words: str) -> None:
    assert words in decode_gang(raw).flaw


def test_seats_are_numbered_across_slots() -> None:
    slots = [{"name": "a", "count": 2}, {"name": "b", "count": 3}]
    record = decode_gang(raw_gang(slots=slots))
    assert record.slot_of_seats(5) == (0, 0, 1, 1, 1)
    assert record.slot_of_seats(4) == (0, 1, 1, 1)
