"""`tramontane pool` and `tramontane breaker`."""

import json

import pytest

from tramontane.api.clock import parse
from unit.cli.desk import POOLS, Desk

CLOSED_AT = "tramontane.dev/breaker-closed"
OPEN = {"state": "Open", "since": "2026-11-24T15:02:07Z", "reason": "40 of 128 blades within 5m"}


def test_list_shows_one_line_per_pool(desk: Desk) -> None:
    desk.pool()
    desk.pool("berlin", breaker={"state": "Closed"})
    head, *found = desk.says("pool", "list").splitlines()
    assert head.split("  ")[0] == "NAME"
    assert [row.split() for row in found] == [
        ["berlin", "128", "120", "112", "2", "5", "4/4", "Closed", "True"],
        ["paris-a", "128", "120", "112", "2", "5", "4/4", "Open", "True"],
    ]
    wide = desk.says("pool", "list", "-o", "wide")
    assert "896/960" in wide
    assert "120 of 128 blades are healthy" in wide
    assert len(json.loads(desk.says("pool", "list", "-o", "json"))["items"]) == 2


def test_a_pool_that_nobody_has_looked_at_yet(desk: Desk) -> None:
    spec = {"nodeSelector": {"matchLabels": {"gpu": "h200"}}, "gpu": {"count": 8}}
    desk.server.put(POOLS, "new", spec=spec)
    assert desk.says("pool", "list").splitlines()[1].split() == ["new", *"00000", "Closed"]
    assert "not measured yet" in desk.says("pool", "show", "new")


def test_show_tells_everything(desk: Desk) -> None:
    desk.pool()
    said = desk.says("pool", "show", "paris-a")
    for part in (
        "128, healthy 120, in use 112, spare 4, qualifying 2, suspect 1, quarantined 2",
        "1024, allocatable 960, in use 896",
        "4 ready of 4",
        "3.1 per 1,000 blade-days",
        "Auto, at most 10% out",
        "Open for",
        "40 of 128 blades within 5m",
        "30% of the pool within 5m",
        "PASSED AT ONCE",
        "120 of 128 blades are healthy",
    ):
        assert part in said
    tranche = next(line for line in said.splitlines() if line.startswith("t2"))
    assert tranche.split() == ["t2", "64", "2", "58", "3", "1", "0.94"]
    assert json.loads(desk.says("pool", "show", "paris-a", "-o", "json"))["kind"] == "NodePool"


def test_a_pool_that_asks_for_no_spares_lacks_none(desk: Desk) -> None:
    desk.pool(spares={"target": 0, "ready": 4})
    said = desk.says("pool", "show", "paris-a")
    assert "none asked for, 4 free" in said
    assert "4 ready of 0" not in said


def test_an_open_breaker_is_shown_with_what_waits_behind_it(desk: Desk) -> None:
    desk.pool()
    desk.blade("gpu-0001")
    desk.blade("gpu-0002", "Quarantined", reason="HardwareFault")
    desk.blade("gpu-0003", "Healthy", reason="BreakerOpen")
    desk.blade("gpu-0004", "Quarantined", reason="HeldByPerson")
    said = desk.says("breaker", "show", "paris-a")
    assert "40 of 128 blades within 5m" in said
    assert "When the cause is found: tramontane breaker close paris-a" in said
    listed = {line.split()[0] for line in said.splitlines() if line.startswith("gpu-")}
    assert listed == {"gpu-0002", "gpu-0003"}


def test_a_closed_breaker_is_shown_as_such(desk: Desk) -> None:
    desk.pool(breaker={"state": "Closed"})
    said = desk.says("breaker", "show", "paris-a")
    assert said.splitlines() == [
        "Pool:     paris-a",
        "Breaker:  Closed",
        "Opens at: 30% of the pool within 5m",
    ]


def test_close_writes_when_who_and_why(desk: Desk) -> None:
    desk.pool()
    said = desk.says(
        "breaker", "close", "paris-a", "--by", "anna", "--reason", "driver 580.95", "--yes"
    )
    annotations = desk.get(POOLS, "paris-a")["metadata"]["annotations"]
    assert parse(annotations[CLOSED_AT]) > parse(OPEN["since"])
    assert annotations["tramontane.dev/breaker-closed-by"] == "anna: driver 580.95"
    assert "NodePool paris-a: breaker closed by anna (40 of 128 blades within 5m)" in said
    assert "30% within 5m open it again" in said
    assert '"mode":"DryRun"' in said
    assert "by anna: driver 580.95" in desk.says("breaker", "show", "paris-a")


def test_close_touches_nothing_else(desk: Desk) -> None:
    before = desk.pool()
    desk.says("breaker", "close", "paris-a", "--yes")
    after = desk.get(POOLS, "paris-a")
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])
    assert set(desk.server.bodies[-1]) == {"metadata"}


@pytest.mark.parametrize("breaker", [{"state": "Closed"}, None], ids=["closed", "never opened"])
def test_closing_what_is_closed_is_no_error(desk: Desk, breaker: dict[str, str] | None) -> None:
    desk.pool(breaker=breaker)
    said = desk.says("breaker", "close", "paris-a")
    assert said == "NodePool paris-a: the breaker is closed; left as it is\n"
    assert not desk.writes()
