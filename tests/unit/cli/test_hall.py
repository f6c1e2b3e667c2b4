"""`tramontane fleet`: signs, bars, maps, what is wrong first."""

import json
from typing import Any

import click
import pytest

from tramontane.api.blade import Blade
from tramontane.api.nodepool import BladeCounts, NodePool
from tramontane.cli import hallview, looks
from tramontane.cli.hallview import Cell, Hall
from tramontane.cli.looks import Look
from unit.cli.desk import Desk

NOW = 1_764_000_000.0
NO_COUNTS: dict[Look, int] = {}


def pool(name: str = "paris", **status: Any) -> NodePool:
    levels = [{"name": "block", "label": "x/block"}, {"name": "rack", "label": "x/rack"}]
    spec = {
        "nodeSelector": {"matchLabels": {"a": "b"}},
        "gpu": {"count": 8},
        "topology": {"levels": levels},
    }
    return NodePool.model_validate({"metadata": {"name": name}, "spec": spec, "status": status})


def cells(count: int, racks: int = 2, **looks_of: Look) -> list[Cell]:
    return [
        Cell(
            f"gpu-{i}",
            "paris",
            "Healthy",
            looks_of.get(f"gpu_{i}", Look.FREE),
            (f"b{i * racks // count // 2}", f"r{i * racks // count}"),
        )
        for i in range(count)
    ]


def shown(hall: Hall, by: str = "pool") -> list[str]:
    lines, tables = hallview.story(hall, by, NOW)
    assert not tables
    return [click.unstyle(line).rstrip() for line in lines[:-2]]


@pytest.mark.parametrize(
    ("counts", "width", "expected"),
    [
        pytest.param({Look.FREE: 3, Look.IN_USE: 2}, 10, "■■□□□", id="one sign per blade"),
        pytest.param(NO_COUNTS, 10, "", id="no blades"),
        pytest.param({Look.IN_USE: 50, Look.FREE: 50}, 10, "■■■■■□□□□□", id="shares"),
        pytest.param({Look.IN_USE: 9999, Look.LOST: 1}, 10, "■■■■■■■■■L", id="one in 10,000"),
        pytest.param(
            {one: 12_490 if one is Look.IN_USE else 1 for one in Look},
            64,
            "■" * 55 + "+□qsQRX?L",
            id="one of each",
        ),
    ],
)
def test_a_bar(counts: dict[Look, int], width: int, expected: str) -> None:
    assert click.unstyle(looks.bar(counts, width)) == expected


@pytest.mark.parametrize(
    ("state", "seat", "spare", "expected"),
    [
        ("Healthy", True, False, Look.IN_USE),
        ("Healthy", False, True, Look.SPARE),
        ("Healthy", False, False, Look.FREE),
        ("Draining", True, False, Look.QUARANTINED),
        ("Requalifying", False, False, Look.REPAIRING),
        ("Delivered", False, False, Look.QUALIFYING),
        ("", False, False, Look.UNKNOWN),
        ("SomethingNew", False, False, Look.UNKNOWN),
    ],
)
def test_how_a_blade_looks(state: str, seat: bool, spare: bool, expected: Look) -> None:
    assert looks.look(state, has_seat=seat, is_spare=spare) is expected


def test_signs_differ_without_colours() -> None:
    signs = [click.unstyle(one.sign) for one in Look]
    assert len(set(signs)) == len(signs)
    assert all(click.unstyle(one.sign) in looks.legend() for one in Look)


def test_a_pool_s_counts_are_split_once() -> None:
    counts = looks.of_counts(BladeCounts(total=20, healthy=16, in_use=10, spare=4, rma=4))
    assert sum(counts.values()) == 20
    assert looks.words(counts) == "10 in use, 4 spare, 2 free, 4 RMA"


def test_pools_are_bars_with_their_numbers() -> None:
    one = pool(
        blades={"total": 4, "healthy": 3, "inUse": 2, "quarantined": 1},
        gpus={"total": 32, "allocatable": 24, "allocated": 16},
        spares={"ready": 1, "target": 2},
    )
    assert shown(Hall([one])) == [
        "Nothing is wrong.",
        "",
        "paris  4 blades, 16 of 24 GPUs in use",
        "  ■■□Q",
        "  2 in use, 1 free, 1 quarantined",
        "  spares 1 of 2 · out 1, the budget is 1 (10%) · breaker Closed",
    ]


@pytest.mark.parametrize(
    ("mode", "told", "says"),
    [
        ("Auto", None, ""),
        ("Auto", "False", ""),
        ("Auto", "True", " · remediation DryRun"),
        ("DryRun", None, " · remediation DryRun"),
        ("Off", None, " · remediation Off"),
    ],
)
def test_a_pool_where_nothing_is_done_about_faults_says_so(
    mode: str, told: str | None, says: str
) -> None:
    conditions = [{"type": "DryRun", "status": told, "reason": "AskedByOperator"}] if told else []
    one = pool(conditions=conditions).to_dict()
    one["spec"]["remediation"] = {"mode": mode}
    lines = shown(Hall([NodePool.model_validate(one)]))
    assert lines[-1] == f"  out 0, the budget is 0 (10%) · breaker Closed{says}"


def test_racks_are_bars_and_blades_a_map() -> None:
    hall = Hall([pool()], cells=cells(8, 4, gpu_0=Look.IN_USE, gpu_5=Look.LOST))
    assert shown(hall, "rack")[2:] == [
        "paris",
        "  b0/r0  ■□" + " " * 62 + "  1 in use, 1 free",
        "  b0/r1  □□" + " " * 62 + "  2 free",
        "  b1/r2  □L" + " " * 62 + "  1 free, 1 lost",
        "  b1/r3  □□" + " " * 62 + "  2 free",
    ]
    assert [line.split()[0] for line in shown(hall, "block")[3:]] == ["b0", "b1"]
    assert shown(hall, "blade")[2:] == [
        "paris",
        "  b0/r0  ■□  gpu-0 … gpu-1",
        "  b0/r1  □□  gpu-2 … gpu-3",
        "  b1/r2  □L  gpu-4 … gpu-5",
        "  b1/r3  □□  gpu-6 … gpu-7",
    ]


def test_what_is_wrong_comes_first_and_the_rest_is_counted() -> None:
    broken = pool(
        breaker={"state": "Open", "since": "2025-11-24T15:59:00Z", "reason": "40 of 128 within 5m"},
        conditions=[
            {"type": "TooFewSpares", "status": "True", "reason": "WaitingForSpare", "message": "m"},
            {"type": "Stalled", "status": "False", "reason": "Ready", "message": ""},
        ],
    )
    lost = Blade.model_validate({
        "metadata": {"name": "gpu-7"},
        "spec": {"pool": "paris"},
        "status": {"state": "Lost", "stateSince": "2025-11-24T15:00:00Z", "reason": "NodeNotReady"},
    })  # fmt: skip
    count = {("paris", "Lost"): 3, ("paris", "RMA"): 1}
    assert shown(Hall([broken], [lost], count))[:6] == [
        "What is wrong",
        "  paris  60s  breaker open: 40 of 128 within 5m; see `tramontane breaker show paris`",
        "  paris       TooFewSpares: m",
        "  paris  60m  gpu-7 Lost, NodeNotReady",
        "  paris       2 more Lost: tramontane blade list --pool paris --state Lost",
        "  paris       1 more RMA: tramontane blade list --pool paris --state RMA",
    ]
    lines, _ = hallview.story(Hall([broken], [lost], count), "pool", NOW, width=30)
    assert all(len(line) <= 30 for line in map(click.unstyle, lines[:6]))


def test_a_hall_of_12_500_blades_is_a_screen() -> None:
    counts = {"total": 12_500, "healthy": 12_400, "inUse": 12_000, "quarantined": 100}
    assert len(shown(Hall([pool(blades=counts)]))) < 10
    assert len(shown(Hall([pool()], cells=cells(12_500, 50)), "block")) < 30


# From the command line to the requests


@pytest.fixture
def hall(desk: Desk) -> Desk:
    desk.pool(breaker={"state": "Closed"}, conditions=[])
    rack = "topology.tramontane.dev/rack"
    block = "topology.tramontane.dev/block"
    for i in range(6):
        state = {4: "Quarantined", 5: "Delivered"}.get(i, "Healthy")
        name = f"gpu-{i}"
        desk.blade(name, state, reason="HardwareFault" if i == 4 else None, message="xid-79")
        desk.node(name, state, **{rack: f"r{i // 2}", block: "b0"})
    desk.node("stranger", "Lost", pool="gone")
    placement = {"seats": ["gpu-0", "gpu-1"], "spares": ["gpu-2"]}
    desk.put("gangs", "llama", status={"placement": placement})
    return desk


def test_by_default_only_what_is_not_at_work_is_read(hall: Desk) -> None:
    said = hall.says("fleet")
    assert "gpu-4 Quarantined, HardwareFault: xid-79" in said
    assert "gpu-5" not in said
    assert "stranger" not in said
    assert hall.server.seen("GET", "blades/") == 1
    assert not hall.server.seen("GET", "/blades?")
    accepts = [one["Accept"] for one in hall.server.headers]
    assert sum("PartialObjectMetadataList" in one for one in accepts) == 1


def test_by_rack_seats_and_spares_are_told_apart(hall: Desk) -> None:
    lines = hall.says("fleet", "--by", "rack").splitlines()
    rows = dict(line.split()[:2] for line in lines if line.startswith("  b0/"))
    assert rows == {"b0/r0": "■■", "b0/r1": "+□", "b0/r2": "qQ"}
    assert "  b0/r1  +□  gpu-2 … gpu-3" in hall.says("fleet", "--by", "blade")


def test_for_programs_it_is_all_there(hall: Desk) -> None:
    whole = json.loads(hall.says("fleet", "--by", "rack", "-o", "json"))
    assert [one["domain"] for one in whole["domains"]] == [["b0", f"r{i}"] for i in range(3)]
    assert whole["domains"][0]["counts"] == {"in use": 2}
    assert whole["wrong"][0]["pool"] == "paris-a"
    blades = json.loads(hall.says("fleet", "--by", "blade", "-o", "json"))["blades"]
    assert [one["look"] for one in blades] == [
        "in use", "in use", "spare", "free", "quarantined", "qualifying",
    ]  # fmt: skip
    assert json.loads(hall.says("fleet", "-o", "json"))["pools"][0]["name"] == "paris-a"


def test_a_level_that_no_pool_has(hall: Desk) -> None:
    done = hall.run("fleet", "--by", "row")
    assert done.exit_code == 2
    assert 'must be one of pool, block, rack, blade (got "row")' in done.output


def test_a_pool_that_is_not_there(hall: Desk) -> None:
    assert 'did you mean "paris-a"?' in hall.refuses("fleet", "--pool", "paris")


def test_an_empty_cluster(desk: Desk) -> None:
    done = desk.run("fleet")
    assert (done.exit_code, done.stderr) == (0, "no pools found\n")
