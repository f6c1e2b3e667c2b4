"""A Gang that was edited by hand is put right or explained: nothing lost, nothing crashes."""

from dataclasses import replace

import pytest

from tramontane.scheduler.gangs import GangRecord, Placement, Slot, Told
from tramontane.scheduler.integrity import Remembered, put_back
from unit.scheduler.builders import Hall, gang, placed

SEATS = ("r0-0", "r0-1")


def running(hall: Hall, name: str, seats: tuple[str, ...]) -> None:
    for seat, blade in enumerate(seats):
        hall.occupy(blade, gang=f"ns/{name}", seat=seat)


@pytest.mark.parametrize(
    ("placement", "epoch"),
    [
        pytest.param(Placement(("r0-0", "r0-0")), 3, id="seat-twice"),
        pytest.param(Placement(("r0-0", "r9-9")), 3, id="unknown-blade"),
        pytest.param(Placement(("r0-0", "r0-2")), 3, id="another-blade"),
        pytest.param(Placement(("r0-0",)), 3, id="a-seat-removed"),
        pytest.param(Placement(SEATS, ("r0-3",)), 3, id="a-spare-added"),
        pytest.param(None, 0, id="all-removed"),
        pytest.param(Placement(SEATS), 1, id="the-epoch-set-back"),
    ],
)
def test_an_edit_is_put_back_as_it_was(placement: Placement | None, epoch: int) -> None:
    known = Remembered("uid-g", 3, Placement(SEATS))
    edited = gang("g", 2, placement=placement, told=Told("Placed", epoch, ready=True))
    fixed, finding = put_back(edited, known)
    assert fixed.placement == Placement(SEATS)
    assert fixed.told.epoch == (3 if placement == Placement(SEATS) else 4)
    assert (finding is None) is (placement == Placement(SEATS))
    found = {fixed.key: finding} if finding else {}
    outcome = Hall([4]).decide(fixed, found=found).outcomes["ns/g"]
    assert outcome.ready
    assert outcome.placement == Placement(SEATS)
    if finding:
        assert outcome.message == (
            "Gang ns/g: status.placement was edited, and is put back as it was"
        )


def test_a_gang_that_was_made_anew_is_not_the_old_one() -> None:
    known = Remembered("another-uid", 3, Placement(SEATS))
    fresh = gang("g", 2)
    assert put_back(fresh, known) == (fresh, None)
    assert put_back(fresh, None) == (fresh, None)


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        pytest.param(
            Placement(("r0-0", "r0-0")),
            "each seat must have a blade of its own (got r0-0 for seats 0 and 1)",
            id="seat-twice",
        ),
        pytest.param(
            Placement(("r0-0", "r9-9")),
            "seat 1 must be on a blade of a pool (got r9-9, which is none)",
            id="unknown-blade",
        ),
        pytest.param(
            Placement(("r0-0", "r1-0")),
            "seat 1 must be on a blade with room for it (got r1-0, where Gang ns/other sits)",
            id="blade-of-another-gang",
        ),
        pytest.param(
            Placement(("r0-0",)),
            "the placement must have 2 seats as the spec asks (got 1)",
            id="too-few-seats",
        ),
    ],
)
@pytest.mark.parametrize("pods", [True, False], ids=["pods-know", "nobody-knows"])
def test_after_a_restart_the_pods_know_better(placement: Placement, words: str, pods: bool) -> None:
    hall = Hall([3, 3])
    other = placed("other", ["r1-0"], created_s=1.0)
    edited = gang("g", 2, placement=placement, told=Told("Placed", 3, ready=True))
    if pods:
        running(hall, "g", SEATS)
        running(hall, "other", ("r1-0",))
    done = hall.decide(edited, other)
    outcome = done.outcomes["ns/g"]
    if pods:
        assert outcome.placement == Placement(SEATS)
        assert (outcome.ready, outcome.reason, outcome.epoch) == (True, "", 4)
        assert outcome.message == f"Gang ns/g: {words}; put back as its pods are"
    else:
        assert outcome.placement == placement
        assert (outcome.ready, outcome.reason, outcome.epoch) == (False, "Misconfigured", 3)
        assert outcome.message == (
            f"Gang ns/g: {words}; nothing is moved: correct the placement, "
            "or set spec.active to false and true again to have the gang placed anew"
        )
    assert done.outcomes["ns/other"].placement == other.placement
    assert done.outcomes["ns/other"].ready


def test_a_placement_that_was_removed_is_found_in_the_pods() -> None:
    hall = Hall([4])
    running(hall, "g", SEATS)
    outcome = hall.decide(gang("g", 2)).outcomes["ns/g"]
    assert outcome.placement == Placement(SEATS)
    assert outcome.epoch == 1


def test_pods_that_are_being_deleted_settle_nothing() -> None:
    hall = Hall([4])
    running(hall, "g", SEATS)
    for key, pod in list(hall.pods.of_gang["ns/g"].items()):
        hall.pods.change(key, pod, replace(pod, deleting=True))
    outcome = hall.decide(gang("g", 2)).outcomes["ns/g"]
    assert outcome.placement == Placement(("r0-2", "r0-3"))


def test_pods_of_some_seats_do_not_make_a_placement() -> None:
    hall = Hall([4])
    hall.occupy("r0-0", gang="ns/g", seat=0)
    assert hall.decide(gang("g", 2)).outcomes["ns/g"].placement == Placement(("r0-1", "r0-2"))


def test_a_moved_seat_whose_old_pod_still_lives_is_no_edit() -> None:
    hall = Hall([4])
    running(hall, "g", ("r0-0", "r0-1"))
    moved = placed("g", ("r0-0", "r0-2"), lost=((1, "r0-1"),))
    outcome = hall.decide(moved).outcomes["ns/g"]
    assert outcome.placement == moved.placement
    assert outcome.message == ""


def test_two_gangs_on_one_blade_and_no_pods_the_older_one_stays() -> None:
    older = placed("older", ["r0-0"], created_s=1.0)
    younger = placed("younger", ["r0-0"], created_s=2.0)
    outcomes = Hall([2]).decide(younger, older).outcomes
    assert outcomes["ns/older"].ready
    assert outcomes["ns/younger"].reason == "Misconfigured"
    assert "where Gang ns/older sits" in outcomes["ns/younger"].message


def test_lost_seats_of_a_broken_placement_do_not_move() -> None:
    record = placed("g", ["r0-0", "r0-0"], lost=((0, "r0-0"),))
    outcome = Hall([4]).decide(record).outcomes["ns/g"]
    assert outcome.placement == record.placement


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(placed("g", SEATS, slots=()), id="no-slots"),
        pytest.param(placed("g", SEATS, flaw="broken", slots=()), id="unreadable-spec"),
        pytest.param(placed("g", SEATS, pool="q"), id="no-such-pool"),
        pytest.param(placed("g", SEATS, lost=((7, "r0-0"), (-1, "r0-1"))), id="no-such-seat"),
        pytest.param(placed("g", SEATS, ["r0-0"]), id="a-seat-as-its-own-spare"),
        pytest.param(placed("g", SEATS, ["r0-2", "r0-2"]), id="a-spare-twice"),
        pytest.param(placed("g", SEATS, ["nowhere"]), id="a-spare-nowhere"),
        pytest.param(
            placed(
                "g",
                ["r0-0", "r0-1", "r0-2", "r0-3"],
                slots=(
                    Slot("a", 1, placed("g", SEATS).slots[0].ask),
                    Slot("b", 9, placed("g", SEATS).slots[0].ask),
                ),
            ),
            id="more-slots-than-seats",
        ),
    ],
)
def test_no_edit_crashes_and_no_seat_is_given_away(record: GangRecord) -> None:
    if not record.slots:
        record = replace(record, flaw=record.flaw or "spec.slots must name one (got none)")
    hall = Hall([4])
    done = hall.decide(record, gang("next", 4))
    assert record.placement is not None
    outcome = done.outcomes["ns/g"]
    assert outcome.placement is not None
    assert outcome.placement.seats == record.placement.seats
    assert done.outcomes["ns/next"].placement is None


def test_a_lost_seat_may_be_on_a_blade_that_is_gone() -> None:
    hall = Hall([4])
    seats = Placement(("r0-0", "r9-9"))
    lost = gang("g", 2, placement=seats, told=Told("Placed", 3, ready=True), lost=((1, "r9-9"),))
    outcome = hall.decide(lost).outcomes["ns/g"]
    assert outcome.ready
    assert outcome.placement == Placement(("r0-0", "r0-1"))
