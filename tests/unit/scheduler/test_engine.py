"""One pass decides about every gang, in order, and says when to look again."""

from dataclasses import replace

import pytest

from tramontane.scheduler.gangs import Placement, Told
from unit.scheduler.builders import NOW, Hall, after, gang, placed


def test_priority_then_age_then_name() -> None:
    done = Hall([1]).decide(
        gang("old", created_s=1.0),
        gang("b", priority=5, created_s=3.0),
        gang("a", priority=5, created_s=3.0),
    )
    assert {key: outcome.phase for key, outcome in done.outcomes.items()} == {
        "ns/a": "Placed",
        "ns/b": "Pending",
        "ns/old": "Pending",
    }
    assert [done.outcomes[f"ns/{name}"].position for name in ("a", "b", "old")] == [0, 1, 2]
    assert done.hungry


def test_what_is_given_is_gone_for_the_next_gang() -> None:
    outcomes = Hall([3]).decide(gang("a", 2), gang("b", 2, created_s=NOW)).outcomes
    assert outcomes["ns/a"].placement == Placement(("r0-0", "r0-1"))
    assert outcomes["ns/b"].reason == "WaitingForCapacity"
    assert "got 1 of 3" in outcomes["ns/b"].message


def test_a_smaller_gang_goes_ahead_of_a_big_one_that_waits() -> None:
    outcomes = Hall([2]).decide(gang("big", 3, priority=9), gang("small", 2)).outcomes
    assert outcomes["ns/big"].phase == "Pending"
    assert outcomes["ns/small"].phase == "Placed"


def test_a_gang_that_ran_gets_the_last_blade_before_a_more_important_new_one() -> None:
    broken = placed("ran", ["r0-0"], lost=((0, "r0-0"),))
    done = Hall([2]).decide(gang("new", priority=9), broken)
    assert done.outcomes["ns/ran"].placement == Placement(("r0-1",))
    assert done.outcomes["ns/ran"].epoch == 2
    assert [(m.seat, m.old, m.new) for m in done.outcomes["ns/ran"].moves] == [(0, "r0-0", "r0-1")]
    assert done.outcomes["ns/new"].phase == "Pending"


def test_a_lost_seat_without_a_blade_waits_in_place() -> None:
    record = placed("g", ["r0-0", "r0-1"], lost=((1, "r0-1"),))
    done = Hall([2]).decide(record)
    outcome = done.outcomes["ns/g"]
    assert (outcome.phase, outcome.ready, outcome.reason) == ("Placed", False, "WaitingForSpare")
    assert outcome.placement == record.placement
    assert outcome.epoch == 1
    assert outcome.message == (
        "Gang ns/g: lost seat 1 (on r0-1) must move to another blade (got 0 for 1: no blade of 8 "
        "GPUs is free); it moves as soon as one is free; the other seats stay as they are"
    )
    assert done.hungry


def test_many_waiting_seats_are_counted_not_listed() -> None:
    seats = [f"r0-{i}" for i in range(6)]
    record = placed("g", seats, lost=tuple(enumerate(seats)))
    message = Hall([6]).decide(record).outcomes["ns/g"].message
    assert "lost seats 0 (on r0-0), 1 (on r0-1), 2 (on r0-2), 3 (on r0-3) and 2 more" in message


def test_an_inactive_gang_gives_up_its_seats_but_not_before_its_pods_are_gone() -> None:
    hall = Hall([1])
    stopped = placed("stopped", ["r0-0"], active=False)
    done = hall.decide(stopped, gang("next"))
    outcome = done.outcomes["ns/stopped"]
    assert (outcome.phase, outcome.placement, outcome.reason, outcome.epoch) == (
        "Inactive",
        None,
        "Suspended",
        2,
    )
    assert done.outcomes["ns/next"].phase == "Placed"
    hall.occupy("r0-0", gang="ns/stopped", seat=0)
    assert hall.decide(stopped, gang("next")).outcomes["ns/next"].phase == "Pending"


def test_a_gang_that_is_being_deleted_keeps_its_seats_and_is_left_alone() -> None:
    done = Hall([1]).decide(placed("gone", ["r0-0"], deleting=True), gang("next"))
    assert list(done.outcomes) == ["ns/next"]
    assert done.outcomes["ns/next"].phase == "Pending"


def test_a_consumed_spare_is_refilled() -> None:
    record = placed("g", ["r0-0"], ["r0-1"], lost=((0, "r0-0"),))
    outcome = Hall([3]).decide(record).outcomes["ns/g"]
    assert outcome.placement == Placement(("r0-1",), ("r0-2",))
    assert (outcome.ready, outcome.message) == (True, "")


def test_spares_stand_back_while_a_more_important_gang_waits() -> None:
    told = Told("Placed", 1)
    short = gang("short", spares=1, placement=Placement(("r0-0",)), told=told, preemptible=False)
    big = gang("big", 3, priority=9)
    done = Hall([3]).decide(short, big)
    assert done.outcomes["ns/short"].placement == Placement(("r0-0",))
    assert done.outcomes["ns/short"].message.startswith("Gang ns/short: holds 0 of 1 spares")
    less = replace(big, priority=-1)
    assert Hall([3]).decide(short, less).outcomes["ns/short"].placement == Placement(
        ("r0-0",), ("r0-1",)
    )


def test_a_gang_that_never_fits_keeps_nobody_waiting() -> None:
    short = gang("short", spares=1, placement=Placement(("r0-0",)), told=Told("Placed", 1))
    done = Hall([3]).decide(short, gang("huge", 30, priority=9))
    assert done.outcomes["ns/short"].placement == Placement(("r0-0",), ("r0-1",))


@pytest.mark.parametrize(
    ("told", "at"),
    [
        pytest.param(Told(), NOW + 40, id="since-creation"),
        pytest.param(Told(ready=False, ready_since_s=NOW - 10), NOW + 90, id="since-not-ready"),
        pytest.param(Told("Inactive", ready=False, ready_since_s=1.0), NOW + 100, id="begins-now"),
    ],
)
def test_when_the_clock_alone_may_change_the_answer(told: Told, at: float) -> None:
    wanted = gang(
        seats=3, pack="rack", required=True, relax_after_s=100.0, created_s=NOW - 60, told=told
    )
    assert Hall([2, 2]).decide(wanted).look_again_s == at
    assert Hall([3, 2]).decide(wanted).look_again_s is None


def test_a_second_pass_changes_nothing() -> None:
    hall = Hall([3, 3])
    gangs = [gang("a", 2, spares=1), gang("b", 2), gang("c", 5)]
    first = hall.decide(*gangs)
    written = [after(record, first.outcomes[record.key]) for record in gangs]
    second = hall.decide(*written)
    for record in written:
        outcome = second.outcomes[record.key]
        assert (outcome.placement, outcome.epoch, outcome.phase) == (
            record.placement,
            record.told.epoch,
            record.told.phase,
        )


def test_a_placed_gang_whose_spec_became_unreadable_keeps_its_place() -> None:
    record = placed("g", ["r0-0"], flaw="spec.x must be y (got z)")
    outcome = Hall([1]).decide(record).outcomes["ns/g"]
    assert outcome.placement == record.placement
    assert outcome.message == "Gang ns/g: spec.x must be y (got z); its placement is kept"
