"""Blades, Nodes and NodePools become rows that are sorted along the topology."""

from dataclasses import replace

import numpy as np
import pytest

from tramontane.scheduler.fleet import Fleet, build_fleet, out_of_service, refresh, tolerates
from tramontane.scheduler.gangs import Toleration
from tramontane.scheduler.records import NodeRecord, PoolRecord, Taint
from tramontane.scheduler.topology import build_topology, natural
from unit.scheduler.builders import LEVELS, Hall, node


def test_names_sort_as_people_count() -> None:
    assert sorted(["gpu-10", "gpu-9", "gpu-09a", "a"], key=natural) == [
        "a",
        "gpu-9",
        "gpu-09a",
        "gpu-10",
    ]


def test_domains_are_runs_of_rows() -> None:
    topology = build_topology(
        ["block", "rack"], [("b0", "r0"), ("b0", "r0"), ("b0", "r1"), ("b1", "r0")]
    )
    assert topology.names == ("pool", "block", "rack", "blade")
    assert [ids.tolist() for ids in topology.ids] == [
        [0, 0, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 1, 2],
        [0, 1, 2, 3],
    ]
    assert topology.bounds[2].tolist() == [0, 2, 3, 4]
    assert topology.children[1].tolist() == [0, 2, 3]
    assert topology.domain_name(2, 2) == "b1/r0"
    assert topology.roll_up(1, np.array([5, 6, 7])).tolist() == [11, 7]
    assert topology.nearness(0).tolist() == [3, 2, 1, 0]


def test_an_empty_pool_has_no_domains() -> None:
    topology = build_topology(["rack"], [])
    assert topology.rows == 0
    assert topology.count(1, np.zeros(0, dtype=np.bool_)).tolist() == []


def test_a_level_of_the_pool_may_be_called_blade() -> None:
    topology = build_topology(["blade"], [("x",), ("x",)])
    assert topology.level("blade") == 1
    assert topology.blade_level == 2


def test_a_blade_without_a_label_shares_the_level_with_nobody() -> None:
    hall = Hall([2])
    for name in ("lone-1", "lone-2"):
        hall.add(0, name=name)
        labels = {"topology/block": "b0"}
        hall.nodes[name] = node(name, labels)
    topology = hall.fleet.pools["p"].topology
    assert len(set(topology.ids[2].tolist())) == 3
    assert len(set(topology.ids[1].tolist())) == 1


@pytest.mark.parametrize(
    ("blade_change", "node_change", "word"),
    [
        pytest.param({}, {}, "", id="in-service"),
        pytest.param({"severity": "Info"}, {}, "", id="info"),
        pytest.param({"severity": "Degraded"}, {}, "faulty", id="degraded"),
        pytest.param({"severity": "Unknown"}, {}, "faulty", id="nobody-knows"),
        pytest.param({"state": "Quarantined"}, {}, "quarantined", id="quarantined"),
        pytest.param({"state": "RMA"}, {}, "in RMA", id="rma"),
        pytest.param({"deleting": True}, {}, "being removed", id="blade-deleted"),
        pytest.param({}, {"deleting": True}, "being removed", id="node-deleted"),
        pytest.param({}, {"ready": False}, "not ready", id="not-ready"),
        pytest.param({}, {"cordoned": True}, "cordoned", id="cordoned"),
        pytest.param({}, None, "without a node", id="no-node"),
    ],
)
def test_why_a_blade_takes_nothing(
    blade_change: dict[str, object], node_change: dict[str, object] | None, word: str
) -> None:
    hall = Hall([1])
    blade = replace(hall.blades["r0-0"], **blade_change)  # type: ignore[arg-type]
    host: NodeRecord | None = None
    if node_change is not None:
        host = replace(hall.nodes["r0-0"], **node_change)  # type: ignore[arg-type]
    assert out_of_service(blade, host) == word


@pytest.mark.parametrize(
    ("toleration", "matches"),
    [
        pytest.param(Toleration("k", "Equal", "v", "NoSchedule"), True, id="exactly"),
        pytest.param(Toleration("k", "Equal", "v", ""), True, id="any-effect"),
        pytest.param(Toleration("k", "Exists", "", ""), True, id="any-value"),
        pytest.param(Toleration("", "Exists", "", ""), True, id="anything"),
        pytest.param(Toleration("k", "Equal", "w", ""), False, id="other-value"),
        pytest.param(Toleration("j", "Exists", "", ""), False, id="other-key"),
        pytest.param(Toleration("k", "Exists", "", "NoExecute"), False, id="other-effect"),
        pytest.param(Toleration("", "Equal", "v", ""), False, id="no-key-needs-exists"),
    ],
)
def test_tolerations_match_as_in_kubernetes(toleration: Toleration, matches: bool) -> None:
    assert tolerates(toleration, Taint("k", "v", "NoSchedule")) is matches


def same(a: Fleet, b: Fleet) -> bool:
    return (
        a.names == b.names
        and a.out == b.out
        and a.labels == b.labels
        and a.taints == b.taints
        and a.lemon.tolist() == b.lemon.tolist()
        and {k: v.tolist() for k, v in a.capacity.items()}
        == {k: v.tolist() for k, v in b.capacity.items()}
        and {k: (v.first, v.end) for k, v in a.pools.items()}
        == {k: (v.first, v.end) for k, v in b.pools.items()}
    )


@pytest.mark.parametrize(
    ("change", "rebuilt"),
    [
        pytest.param(lambda hall: hall.break_("r1-0"), False, id="health"),
        pytest.param(lambda hall: hall.blades.pop("r1-0"), True, id="blade-gone"),
        pytest.param(lambda hall: hall.nodes.pop("r1-0"), True, id="node-gone-with-its-labels"),
        pytest.param(
            lambda hall: hall.nodes.update(
                {"r1-0": replace(hall.nodes["r1-0"], cordoned=True, capacity=(("cpu", 5),))}
            ),
            False,
            id="capacity",
        ),
        pytest.param(
            lambda hall: hall.nodes.update(
                {"r1-0": replace(hall.nodes["r1-0"], capacity=(("new", 5),))}
            ),
            True,
            id="a-resource-nobody-had",
        ),
        pytest.param(
            lambda hall: hall.nodes.update({"r1-0": node("r1-0", {"topology/block": "z"})}),
            True,
            id="moved",
        ),
        pytest.param(
            lambda hall: hall.blades.update({"r1-0": replace(hall.blades["r1-0"], pool="other")}),
            True,
            id="left-the-pool",
        ),
    ],
)
def test_a_refreshed_fleet_is_the_one_built_anew(change: object, rebuilt: bool) -> None:
    hall = Hall([2, 2])
    pools = {"p": PoolRecord("p", LEVELS)}
    before = hall.fleet
    change(hall)  # type: ignore[operator]
    fresh = refresh(before, ["r1-0", "not-a-blade"], hall.blades, hall.nodes, pools)
    assert same(fresh, build_fleet(hall.blades, hall.nodes, pools))
    assert (fresh.pools is not before.pools) is rebuilt


def test_a_blade_of_an_unknown_pool_has_no_row() -> None:
    hall = Hall([1])
    hall.add(0, name="stray", pool="elsewhere")
    assert hall.fleet.names == ("r0-0",)
    assert refresh(hall.fleet, ["stray"], hall.blades, hall.nodes, {}).names == ("r0-0",)


def test_labels_that_are_missing_or_contradict_are_said_and_nothing_is_lost() -> None:
    hall = Hall([2, 2, 1])
    hall.nodes["r0-1"] = node("r0-1", {"topology/block": "b0"})
    hall.nodes["r2-0"] = node("r2-0", {"topology/block": "b1", "topology/rack": "r0"})
    pool = hall.fleet.pools["p"]
    assert len(hall.fleet.names) == 5
    alone, torn = pool.oddities
    assert "1 blades must have a label for level rack (got none: r0-1)" in alone
    assert "each rack must lie in one block (several have 1: r0)" in torn
    rack = pool.topology.ids[2]
    at = [rack[hall.fleet.row_of[name]] for name in ("r0-0", "r0-1", "r2-0")]
    assert len(set(at)) == 3
    assert Hall([2, 2]).fleet.pools["p"].oddities == ()
