"""A gang has all of its seats or a reason with numbers."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.gangs import Ask, GangRecord, Slot, Told, Toleration
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.records import GPU, amounts
from tramontane.scheduler.snapshot import Snapshot
from unit.scheduler.builders import CAPACITY, NOW, Hall, gang, placed, racks_of

HALF = Ask(amounts({GPU: "4"}))
ROUTER = Ask(amounts({"cpu": "4"}))


def seats(snapshot: Snapshot, wanted: GangRecord, now: float = 0.0) -> tuple[str, ...]:
    answer = place(snapshot, wanted, now)
    assert isinstance(answer, Plan), answer
    return answer.placement.seats


def refusal(snapshot: Snapshot, wanted: GangRecord, now: float = 0.0) -> Refusal:
    answer = place(snapshot, wanted, now)
    assert isinstance(answer, Refusal), answer
    return answer


def broken_hall() -> Hall:
    """16 blades: 10 in use, 2 quarantined, 1 cordoned, 1 spare of another gang, 2 free."""
    hall = Hall([4, 4, 4, 4])
    hall.occupy(*(f"r{rack}-{i}" for rack in (0, 1) for i in range(4)), "r2-0", "r2-1")
    hall.break_("r2-2", "r2-3")
    hall.add(3, name="r3-3", cordoned=True)
    return hall


OTHER = placed("other", ["r0-0"], ["r3-0"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param(
            gang(seats=3),
            "WaitingForCapacity: Gang ns/g: needs 3 free blades of 8 GPUs (got 2 of 16 in pool p: "
            "10 in use, 2 quarantined, 1 cordoned, 1 held as spares); it starts when 1 more is "
            "free, or make the gang smaller",
            id="in-use",
        ),
        pytest.param(
            gang(seats=14),
            "HealthHold: Gang ns/g: needs 14 free blades of 8 GPUs (got 2 of 16 in pool p: "
            "10 in use, 2 quarantined, 1 cordoned, 1 held as spares); it cannot start before 1 "
            "more is back in service, or make the gang smaller",
            id="not-enough-healthy-ones",
        ),
        pytest.param(
            gang(seats=17),
            "ExceedsPool: Gang ns/g: needs 17 blades of 8 GPUs (got 16 in pool p); "
            "make the gang smaller, or add blades to the pool",
            id="never",
        ),
        pytest.param(
            gang(seats=16, avoid=frozenset({"r0-0", "r0-1"})),
            "ExceedsPool: Gang ns/g: needs 16 blades of 8 GPUs (got 14 in pool p: 2 avoided); "
            "make the gang smaller, or add blades to the pool",
            id="avoided",
        ),
        pytest.param(
            gang(seats=1, ask=Ask(amounts({GPU: "16"}))),
            "ExceedsPool: Gang ns/g: needs 1 blades of 16 GPUs (got 0 in pool p); "
            "make the gang smaller, or add blades to the pool",
            id="no-blade-is-that-big",
        ),
        pytest.param(
            gang(seats=4, sizes=(4, 3)),
            "WaitingForCapacity: Gang ns/g: needs 3 free blades of 8 GPUs at the smallest of sizes "
            "4, 3 (got 2 of 16 in pool p: 10 in use, 2 quarantined, 1 cordoned, 1 held as spares);"
            " it starts when 1 more is free, or make the gang smaller",
            id="sizes",
        ),
        pytest.param(
            gang(pool="q"),
            'NoMatchingPool: Gang ns/g: spec.pool must be a NodePool (got "q"; there are: p); '
            "create the pool or name another one",
            id="no-pool",
        ),
        pytest.param(
            gang(pack="row", required=True),
            "Misconfigured: Gang ns/g: topology.pack must be a level of pool p: block, rack, blade "
            '(got "row"); name one of these, or add the level to the pool',
            id="no-such-level",
        ),
        pytest.param(
            gang(slice_size=2),
            "Misconfigured: Gang ns/g: topology.slice.level must be a level of pool p: block, "
            'rack, blade (got ""); name one of these, or add the level to the pool',
            id="slice-without-level",
        ),
        pytest.param(
            gang(seats=4, slice_size=2, slice_level="blade"),
            "Misconfigured: Gang ns/g: topology.slice.size must be 1 at level blade (got 2): each "
            "seat has a blade of its own; name a wider level",
            id="slice-of-blades",
        ),
        pytest.param(
            gang(slots=(Slot("worker", 0, HALF),)),
            "Misconfigured: Gang ns/g: spec.slots must ask for at least one seat (got 0)",
            id="nothing-asked",
        ),
        pytest.param(
            gang(flaw="spec.x must be y (got z)"),
            "Misconfigured: Gang ns/g: spec.x must be y (got z)",
            id="unreadable",
        ),
    ],
)
def test_a_refusal_has_a_reason_numbers_and_a_way_out(wanted: GangRecord, message: str) -> None:
    answer = refusal(broken_hall().snapshot(OTHER), wanted)
    assert f"{answer.reason}: {answer.message}" == message


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        pytest.param(
            gang(seats=4, pack="rack", required=True),
            "needs 4 free blades in one rack (got 3 of 4 in the best, b0/r0; the largest has 4); "
            "wait, pack at a wider level, or use mode Preferred",
            id="some-day",
        ),
        pytest.param(
            gang(seats=6, slice_size=3, slice_level="rack", pack="block", required=True),
            "needs 2 slices of 3 blades, each in one rack and all in one block (got room for 1 "
            "whole ones in block b0, 2 at most were all blades free); wait, make the slices "
            "smaller, or name a wider slice level",
            id="slices-in-a-block",
        ),
        pytest.param(
            gang(seats=8, slice_size=4, slice_level="rack"),
            "needs 2 slices of 4 blades, each in one rack (got room for 0 whole ones in the pool, "
            "4 at most were all blades free); wait, make the slices smaller, or name a wider "
            "slice level",
            id="slices-anywhere",
        ),
    ],
)
def test_enough_blades_but_not_together(wanted: GangRecord, message: str) -> None:
    hall = Hall([4, 4, 4, 4])
    hall.occupy("r0-0", "r1-0", "r1-1", "r2-0", "r3-0", "r3-1")
    answer = refusal(hall.snapshot(), wanted)
    assert f"{answer.reason}: {answer.message}" == f"TopologyPlacementFailed: Gang ns/g: {message}"


def test_required_stays_in_one_domain_and_spares_come_along() -> None:
    hall = Hall([4, 6, 5, 4])
    wanted = gang(seats=4, spares=1, pack="rack", required=True)
    answer = place(hall.snapshot(), wanted, 0.0)
    assert isinstance(answer, Plan)
    # r0 and r3 would fit without any left over, but have no room for the spare.
    assert racks_of(answer.placement.seats) == ["r2"]
    assert answer.placement.spares == ("r2-4",)
    assert answer.note == ""


def test_fewer_spares_than_asked_for_are_said() -> None:
    answer = place(Hall([3, 3]).snapshot(), gang(seats=3, spares=2, pack="rack", required=True), 0)
    assert isinstance(answer, Plan)
    assert answer.placement.spares == ()
    assert answer.note == (
        "Gang ns/g: holds 0 of 2 spares; more are taken as soon as blades of its rack are free"
    )


def test_preferred_spares_come_from_the_nearest_domain() -> None:
    hall = Hall([2, 2, 4, 4])
    answer = place(hall.snapshot(), gang(seats=4, spares=3, avoid=frozenset({"r2-3"})), 0.0)
    assert isinstance(answer, Plan)
    assert racks_of(answer.placement.seats) == ["r3"]
    assert answer.placement.spares == ("r2-0", "r2-1", "r2-2")


def test_a_spare_is_wholly_free() -> None:
    hall = Hall([3])
    hall.occupy("r0-1", gpus=1)
    answer = place(hall.snapshot(), gang(ask=HALF, spares=2), 0.0)
    assert isinstance(answer, Plan)
    assert answer.placement.seats == ("r0-1",)
    assert answer.placement.spares == ("r0-0", "r0-2")


@pytest.mark.parametrize(
    ("told", "now", "relaxed"),
    [
        pytest.param(Told(), 1059.0, False, id="not-yet"),
        pytest.param(Told(), 1060.0, True, id="since-creation"),
        pytest.param(Told(ready=False, ready_since_s=1030.0), 1060.0, False, id="waits-later"),
        pytest.param(Told(ready=False, ready_since_s=1030.0), 1090.0, True, id="since-not-ready"),
        pytest.param(Told(ready=True, ready_since_s=1000.0), 2000.0, False, id="does-not-wait"),
        pytest.param(
            Told("Inactive", ready=False, ready_since_s=1000.0), 2000.0, False, id="was-not-active"
        ),
    ],
)
def test_required_becomes_preferred_after_a_while(told: Told, now: float, relaxed: bool) -> None:
    wanted = gang(
        seats=4, pack="rack", required=True, relax_after_s=60.0, created_s=1000.0, told=told
    )
    assert isinstance(place(Hall([3, 3]).snapshot(), wanted, now), Plan) is relaxed


def test_the_first_size_that_fits_is_taken() -> None:
    assert len(seats(Hall([3, 2]).snapshot(), gang(seats=8, sizes=(8, 6, 4, 2)))) == 4


def test_a_gang_has_a_blade_per_seat_even_where_two_would_fit() -> None:
    hall = Hall([2])
    assert seats(hall.snapshot(), gang(seats=2, ask=HALF)) == ("r0-0", "r0-1")
    assert refusal(hall.snapshot(), gang(seats=3, ask=HALF)).reason == "ExceedsPool"


def test_two_gangs_share_a_blade_that_has_room_for_both() -> None:
    hall = Hall([1])
    first = placed("first", ["r0-0"], ask=HALF)
    assert seats(hall.snapshot(first), gang("second", ask=HALF)) == ("r0-0",)
    third = placed("second", ["r0-0"], ask=HALF)
    assert refusal(hall.snapshot(first, third), gang("third", ask=HALF)).reason == (
        "WaitingForCapacity"
    )


def test_a_search_that_is_cut_short_says_how_far_from_the_best_it_may_be() -> None:
    hall = Hall([2, 2, 2, 2, 2, 2, 4, 1, 1], racks_per_block=3)
    quick = place(hall.snapshot(), gang(seats=10), 0, budget=0)
    best = place(hall.snapshot(), gang(seats=10), 0)
    assert isinstance(quick, Plan)
    assert isinstance(best, Plan)
    assert quick.note == (
        "Gang ns/g: the search for the fewest domains was cut short: "
        "it uses 5 of level rack (4 at least)"
    )
    assert best.note == ""


def shared(seats: int, gpus: int, **more: Any) -> GangRecord:
    ask = Ask(amounts({GPU: str(gpus), "cpu": "4"}))
    return gang(seats=seats, ask=ask, shares_blades=True, **more)


def test_seats_that_share_blades_fill_the_fewest() -> None:
    hall = Hall([2, 2])
    hall.occupy("r0-0", gpus=5)
    hall.occupy("r1-0", gpus=6)
    assert seats(hall.snapshot(), shared(1, 2)) == ("r1-0",)
    assert seats(hall.snapshot(), shared(3, 2)) == ("r0-1",) * 3
    assert seats(hall.snapshot(), shared(5, 2)) == ("r1-0",) + ("r1-1",) * 4
    assert seats(hall.snapshot(), shared(6, 2)) == ("r0-1",) * 4 + ("r1-1",) * 2
    assert isinstance(place(hall.snapshot(), shared(11, 2), 0), Refusal)


def test_what_shares_a_blade_is_all_counted_on_it() -> None:
    hall = Hall([1])
    snapshot = hall.snapshot()
    rows = [snapshot.fleet.row_of[name] for name in seats(snapshot, shared(3, 2))]
    snapshot.take(rows, amounts({GPU: "2", "cpu": "4"}))
    assert snapshot.free[GPU].tolist() == [2]
    assert seats(snapshot, shared(1, 2)) == ("r0-0",)
    assert isinstance(place(snapshot, shared(2, 2), 0), Refusal)


def test_the_scarcest_resource_says_how_many_share_a_blade() -> None:
    hall = Hall([2])
    hungry = Ask(amounts({GPU: "1", "cpu": "50"}))
    wanted = gang(seats=4, ask=hungry, shares_blades=True)
    assert seats(hall.snapshot(), wanted) == ("r0-0", "r0-0", "r0-1", "r0-1")
    assert isinstance(place(hall.snapshot(), replace_seats(wanted, 5), 0), Refusal)


def test_different_asks_share_blades_as_if_each_were_the_largest() -> None:
    slots = (Slot("a", 2, Ask(amounts({GPU: "4"}))), Slot("b", 2, Ask(amounts({GPU: "1"}))))
    wanted = gang(slots=slots, shares_blades=True)
    assert seats(Hall([2]).snapshot(), wanted) == ("r0-0", "r0-0", "r0-1", "r0-1")
    # Too little for four of the largest, but not for each on a blade of its own.
    hall = Hall([4])
    hall.occupy("r0-0", "r0-1", gpus=7)
    hall.occupy("r0-2", "r0-3", gpus=4)
    assert seats(hall.snapshot(), wanted) == ("r0-2", "r0-3", "r0-0", "r0-1")


def replace_seats(record: GangRecord, seats: int) -> GangRecord:
    return replace(record, slots=(replace(record.slots[0], count=seats),))


def test_cpu_and_memory_count_too() -> None:
    hall = Hall([1])
    first = placed("first", ["r0-0"], ask=Ask(amounts({"cpu": "100"})))
    assert refusal(hall.snapshot(first), gang(ask=Ask(amounts({"cpu": "29"})))).message.startswith(
        "Gang ns/g: needs 1 free blades of 29 CPU (got 0 of 1 in pool p: 1 in use)"
    )


def test_selectors_and_tolerations_choose_blades() -> None:
    hall = Hall([])
    hall.add(0, labels={"disk": "nvme"}, taints=("dedicated",))
    hall.add(0, labels={"disk": "nvme"})
    hall.add(0)
    nvme = (("disk", "nvme"),)
    whole = amounts({GPU: "8"})
    assert seats(hall.snapshot(), gang(ask=Ask(whole, nvme))) == ("r0-1",)
    tolerant = Ask(whole, nvme, (Toleration("dedicated", "Exists", "", ""),))
    assert seats(hall.snapshot(), gang(seats=2, ask=tolerant)) == ("r0-0", "r0-1")
    held = refusal(hall.snapshot(), gang(seats=2, ask=Ask(whole, nvme)))
    assert held.reason == "HealthHold"
    assert "got 1 of 2 in pool p: 1 tainted" in held.message


def test_slots_that_ask_alike_are_numbered_one_after_the_other() -> None:
    slots = (Slot("leader", 1, Ask(amounts({GPU: "8"}))), Slot("worker", 2, HALF))
    assert seats(Hall([3]).snapshot(), gang(slots=slots)) == ("r0-0", "r0-1", "r0-2")


def test_slots_that_ask_for_different_blades() -> None:
    hall = Hall([2, 2])
    hall.add(0, capacity=amounts({"cpu": "8"}))
    slots = (Slot("worker", 2, Ask(amounts({GPU: "8"}))), Slot("router", 1, ROUTER))
    assert seats(hall.snapshot(), gang(slots=slots)) == ("r0-0", "r0-1", "r0-2")
    many = (Slot("worker", 4, Ask(amounts({GPU: "8"}))), Slot("router", 2, ROUTER))
    answer = refusal(hall.snapshot(), gang(slots=many))
    assert answer.reason == "ExceedsPool"
    assert "needs 6 blades of 8 GPUs (got 5 in pool p)" in answer.message


def test_slots_with_slices_use_blades_that_serve_each() -> None:
    hall = Hall([2, 3])
    hall.add(0, capacity=amounts({"cpu": "8"}))
    slots = (Slot("worker", 2, Ask(amounts({GPU: "8"}))), Slot("router", 1, ROUTER))
    wanted = gang(slots=slots, slice_size=3, slice_level="rack")
    assert racks_of(seats(hall.snapshot(), wanted)) == ["r1"]


def test_different_slots_in_no_one_rack() -> None:
    hall = Hall([3])
    hall.add(1, capacity=amounts({"cpu": "8"}))
    hall.add(1)
    slots = (Slot("worker", 3, Ask(amounts({GPU: "8"}))), Slot("router", 1, ROUTER))
    answer = refusal(hall.snapshot(), gang(slots=slots, pack="rack", required=True))
    assert answer.message == (
        "Gang ns/g: needs 4 blades of 8 GPUs in one rack (the largest, b0/r0, has 3); waiting does "
        "not help: use mode Preferred, pack at level block, or make the gang smaller"
    )


@pytest.mark.parametrize("count", [1, 2])
def test_pack_at_the_blade_itself(count: int) -> None:
    wanted = gang(seats=count, pack="blade", required=True)
    assert isinstance(place(Hall([2]).snapshot(), wanted, 0), Plan) is (count == 1)


def test_an_empty_pool_says_so() -> None:
    assert (
        "needs 1 blades of 8 GPUs (got 0 in pool p)" in refusal(Hall([]).snapshot(), gang()).message
    )


def test_a_terminating_pod_keeps_its_blade() -> None:
    hall = Hall([1])
    hall.occupy("r0-0", gang="ns/gone", seat=0)
    assert refusal(hall.snapshot(), gang()).reason == "WaitingForCapacity"


def test_the_pod_of_a_seat_is_not_counted_twice() -> None:
    hall = Hall([1])
    seated = placed("g", ["r0-0"], ask=HALF)
    hall.occupy("r0-0", gpus=4, gang="ns/g", seat=0)
    assert hall.snapshot(seated).free[GPU].tolist() == [4]
    hall.occupy("r0-0", gpus=2, gang="ns/g", seat=1)  # of a seat that is elsewhere
    assert hall.snapshot(seated).free[GPU].tolist() == [2]
    assert dict(CAPACITY)[GPU] == 8


def test_a_launcher_shares_a_blade_with_a_worker() -> None:
    launcher = Slot("launcher", 1, Ask(amounts({"cpu": "1"})))
    workers = Slot("worker", 2, Ask(amounts({GPU: "8", "cpu": "8"})))
    mpi = gang("mpi", slots=(launcher, workers), shares_blades=True)
    plan = place(Hall([2]).snapshot(), mpi, NOW)
    assert isinstance(plan, Plan)
    assert sorted(plan.placement.seats[1:]) == ["r0-0", "r0-1"]
    assert plan.placement.seats[0] in {"r0-0", "r0-1"}


def test_different_seats_that_share_blades_wait_for_room_and_say_so() -> None:
    slots = (
        Slot("a", 2, Ask(amounts({GPU: "6"}))),
        Slot("b", 4, Ask(amounts({GPU: "1"}))),
    )
    both = gang("both", slots=slots, shares_blades=True, pack="rack", required=True)
    hall = Hall([1, 2])
    plan = place(hall.snapshot(), both, NOW)
    assert isinstance(plan, Plan)
    assert set(plan.placement.seats) == {"r1-0", "r1-1"}
    hall.occupy("r1-0")
    refusal = place(hall.snapshot(), both, NOW)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "WaitingForCapacity"
    assert not hall.snapshot().busy[[0, 2]].any()
    refusal = place(Hall([1, 1]).snapshot(), both, NOW)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "ExceedsPool"
