"""The hall's layout becomes Nodes with the labels that pools and packing go by."""

from typing import Any

import pytest

from tramontane.lab.controlplane import NodeTiming, free_ports
from tramontane.lab.fleet import Layout, blade_name, is_ready


def labels(layout: Layout) -> list[dict[str, str]]:
    return [
        layout.node(name, index)["metadata"]["labels"] for index, name in enumerate(layout.names())
    ]


def test_blades_stand_in_racks_and_blocks() -> None:
    found = labels(Layout(blades=40, rack=8, racks_per_block=2, tranche=20))
    place = [
        (
            one["topology.tramontane.dev/block"],
            one["topology.tramontane.dev/rack"],
            one["tramontane.dev/tranche"],
        )
        for one in found
    ]
    assert place[0] == ("block-1", "rack-1", "t1")
    assert place[7] == ("block-1", "rack-1", "t1")
    assert place[8] == ("block-1", "rack-2", "t1")
    assert place[16] == ("block-2", "rack-3", "t1")
    assert place[39] == ("block-3", "rack-5", "t2")


def test_a_node_is_one_that_kwok_plays_and_has_what_a_blade_has() -> None:
    node = Layout(blades=1).node("gpu-0001", 0)
    assert node["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "gpu-0001"
    assert node["metadata"]["labels"]["node-role/gpu"] == "h200"
    assert node["status"]["capacity"] == {
        "cpu": "192",
        "memory": "2Ti",
        "pods": "110",
        "nvidia.com/gpu": "8",
    }
    assert node["status"]["allocatable"] == node["status"]["capacity"]


def test_names_count_from_one() -> None:
    assert list(Layout(blades=2).names()) == ["gpu-0001", "gpu-0002"]
    assert blade_name(12_345) == "gpu-12345"


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        pytest.param([], False, id="none-yet"),
        pytest.param([{"type": "Ready", "status": "True"}], True, id="ready"),
        pytest.param([{"type": "Ready", "status": "Unknown"}], False, id="unknown"),
        pytest.param([{"type": "DiskPressure", "status": "True"}], False, id="other"),
    ],
)
def test_readiness_is_one_condition(conditions: list[dict[str, Any]], *, ready: bool) -> None:
    assert is_ready({"status": {"conditions": conditions}}) is ready


@pytest.mark.parametrize("blades", [1, 136, 512, 2_560, 12_500])
def test_heartbeats_stay_cheap_and_healthy_nodes_do_not_flap(blades: int) -> None:
    timing = NodeTiming.for_blades(blades)
    renewals_per_s = blades / (timing.lease_s / 4)
    assert renewals_per_s <= 35
    assert timing.grace_s >= timing.lease_s / 4 + timing.monitor_s + 5


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20
