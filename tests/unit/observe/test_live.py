"""What the live hall's Prometheus is told, and what counts as an answer."""

from pathlib import Path
from typing import Any

import pytest

from tramontane.lab.description import Description
from tramontane.lab.observe import livescenes
from tramontane.lab.observe.liveprometheus import config, has_data

DESCRIPTION = Description(
    livescenes.LAYOUT,
    real_agents=("gpu-0001",),
    metrics_ports={"operator": 1001, "scheduler": 1002, "agent-gpu-0001": 1003},
)


def test_targets_have_the_labels_that_the_charts_monitor_gives() -> None:
    found = config(DESCRIPTION, 1.5, Path("/rules.json"))
    [scrape] = found["scrape_configs"]
    assert scrape["honor_labels"], "a job's series has a namespace and a job of its own"
    targets = {one["targets"][0]: one["labels"] for one in scrape["static_configs"]}
    common = {"cluster": "paris", "namespace": "tramontane-system"}
    assert targets == {
        "127.0.0.1:1001": common | {"component": "operator", "pod": "operator"},
        "127.0.0.1:1002": common | {"component": "scheduler", "pod": "scheduler"},
        "127.0.0.1:1003": common
        | {"component": "agent", "pod": "agent-gpu-0001", "blade": "gpu-0001"},
    }
    assert found["global"]["scrape_interval"] == "1500ms"


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param([], False, id="nothing"),
        pytest.param([{"values": [[1, "NaN"], [2, "NaN"]]}], False, id="not a number"),
        pytest.param([{"values": [[1, "NaN"], [2, "0"]]}], True, id="nought is one"),
        pytest.param([{"values": [[1, "NaN"]]}, {"values": [[1, "3"]]}], True, id="one of two"),
    ],
)
def test_what_counts_as_data(series: list[dict[str, Any]], expected: bool) -> None:
    assert has_data(series) is expected


def test_pools_share_no_rack_and_leave_none() -> None:
    racks = [
        value
        for pool in livescenes.pools()
        for value in pool["spec"]["nodeSelector"]["matchExpressions"][0]["values"]
    ]
    assert sorted(racks) == [f"rack-{number}" for number in range(1, livescenes.RACKS + 1)]


def test_the_kernel_of_the_blades_tells_of_ports(tmp_path: Path) -> None:
    from tramontane.health.host import read  # noqa: PLC0415 - the agent's own reading of it

    ports = read(livescenes.machine(tmp_path), tmp_path).ports
    assert isinstance(ports, tuple)
    assert [port.active for port in ports] == [True, True]
    assert [dict(port.counters)["link_downed"] for port in ports] == [0, 3]
