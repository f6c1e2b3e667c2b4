"""A gang that no state of its pool could hold is told so, and never that blades have to be free."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.scheduler.engine import Outcome, decide
from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.fleet import build_fleet
from tramontane.scheduler.gangs import Ask, GangRecord, Slot
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.records import GPU, DeliveryRecord, PoolRecord, amounts
from unit.scheduler.builders import LEVELS, NOW, WHOLE, Hall, gang
from unit.scheduler.test_properties import gangs, halls, thorough
from unit.scheduler.test_waiting import runs

# What a message says only where waiting, freeing or mending blades can let the gang start.
PROMISES = re.compile(r"starts when|\bfree\b|back in service|\bwait\b|estimate")
RACK: dict[str, Any] = {"pack": "rack", "required": True}
QUARTER = Ask(amounts({GPU: "2"}))
NVME = Ask(amounts({GPU: "8"}), (("disk", "nvme"),))


def full(*racks: int) -> Hall:
    """Return a hall whose racks are in use but for two blades each."""
    hall = Hall(racks)
    for rack, count in enumerate(racks):
        hall.occupy(*(f"r{rack}-{i}" for i in range(count - 2)))
    return hall


def told(hall: Hall, wanted: GangRecord) -> Refusal:
    answer = place(hall.snapshot(), wanted, NOW)
    assert isinstance(answer, Refusal), answer
    return replace(answer, message=answer.message.removeprefix("Gang ns/g: "))


@pytest.mark.parametrize(
    ("racks", "wanted", "message"),
    [
        pytest.param(
            (16, 16),
            gang(seats=20, **RACK),
            "needs 20 blades of 8 GPUs in one rack (the largest, b0/r0, has 16); waiting does not "
            "help: use mode Preferred, pack at level block, or make the gang smaller (16 at most)",
            id="larger-than-a-rack",
        ),
        pytest.param(
            (4, 7, 5),
            gang(seats=12, **RACK),
            "needs 12 blades of 8 GPUs in one rack (the largest, b0/r1, has 7); waiting does not "
            "help: use mode Preferred, or make the gang smaller (7 at most)",
            id="racks-differ-and-no-wider-level-is-enough",
        ),
        pytest.param(
            (8, 8),
            gang(seats=12, sizes=(12, 9), **RACK),
            "needs 9 blades of 8 GPUs at the smallest of sizes 12, 9 in one rack (the largest, "
            "b0/r0, has 8); waiting does not help: use mode Preferred, pack at level block, or "
            "make the gang smaller (8 at most)",
            id="the-smallest-size-too",
        ),
        pytest.param(
            (8, 8),
            gang(seats=8, avoid=frozenset({"r0-0", "r1-3"}), **RACK),
            "needs 8 blades of 8 GPUs in one rack (the largest, b0/r0, has 7; 2 blades avoided); "
            "waiting does not help: use mode Preferred, pack at level block, or make the gang "
            "smaller (7 at most)",
            id="avoided",
        ),
        pytest.param(
            (8, 8),
            gang(seats=20, slice_size=10, slice_level="rack", sizes=(10,)),
            "needs 10 blades of 8 GPUs in 1 slice of 10, each in one rack (the largest rack, "
            "b0/r0, has 8); waiting does not help: name block as slice level, do without slices, "
            "or make its slices smaller (5 instead of 10)",
            id="slice-larger-than-a-rack",
        ),
        pytest.param(
            (5, 5, 5),
            gang(seats=9, slice_size=3, slice_level="rack", pack="block", required=True),
            "needs 9 blades of 8 GPUs in 3 slices of 3, each in one rack and all in one block (at "
            "most 2 of these have room, in b0); waiting does not help: use mode Preferred, name "
            "block as slice level, do without slices, or make the gang smaller (6 at most)",
            id="slices-in-a-block",
        ),
        pytest.param(
            (6, 6),
            gang(seats=8, slice_size=4, slice_level="rack", **RACK),
            "needs 8 blades of 8 GPUs in 2 slices of 4, each in one rack and all in one rack (at "
            "most 1 of these have room, in b0/r0); waiting does not help: use mode Preferred, "
            "pack at level block, or make the gang smaller (4 at most)",
            id="slices-and-pack-at-one-level",
        ),
        pytest.param(
            (3, 3, 3, 3),
            gang(seats=8, slice_size=4, slice_level="rack", **RACK),
            "needs 8 blades of 8 GPUs in 2 slices of 4, each in one rack and all in one rack (the "
            "largest rack, b0/r0, has 3); waiting does not help: use mode Preferred and no slices",
            id="only-both",
        ),
        pytest.param(
            (2,),
            gang(seats=6, ask=QUARTER, shares_blades=True, pack="blade", required=True),
            "needs room for 6 pods of 2 GPUs in one blade (the largest, r0-0, has 4); waiting does "
            "not help: use mode Preferred, pack at level rack, or make the gang smaller (4 ",
            id="shared-blades",
        ),
        pytest.param(
            (2, 2),
            gang(
                slots=(Slot("a", 3, Ask(amounts({GPU: "6"}))), Slot("b", 2, QUARTER)),
                shares_blades=True,
                **RACK,
            ),
            "needs room for 5 pods together: 3 of 6 GPUs, 2 of 2 GPUs in one rack (got less in "
            "pool p were all of it healthy and empty); waiting does not help: use mode Preferred "
            "or make the gang smaller",
            id="shared-blades-that-differ",
        ),
    ],
)
def test_what_no_domain_could_hold_is_no_question_of_time(
    racks: tuple[int, ...], wanted: GangRecord, message: str
) -> None:
    for hall in (full(*racks), Hall(racks)):
        answer = told(hall, wanted)
        assert answer.message.startswith(message)
        assert answer.reason == "ExceedsPool"
        assert not PROMISES.search(answer.message)


def test_a_domain_with_blades_of_several_kinds_counts_those_that_serve() -> None:
    hall = Hall([])
    for rack, nvme in ((0, 1), (1, 3)):
        for i in range(4):
            hall.add(rack, labels={"disk": "nvme"} if i < nvme else {})
    answer = told(hall, gang(seats=4, ask=NVME, **RACK))
    assert answer.reason == "ExceedsPool"
    assert "in one rack (the largest, b0/r1, has 3)" in answer.message
    router = Slot("b", 3, Ask(amounts({"cpu": "4"})))
    mixed = gang(slots=(Slot("a", 2, NVME), router), **RACK)
    assert "needs 5 blades of 8 GPUs in one rack (the largest, b0/r0, has 4)" in (
        told(hall, mixed).message
    )


@pytest.mark.parametrize("spares", [0, 1, 4])
def test_spares_never_make_a_gang_too_large(spares: int) -> None:
    wanted = gang(seats=16, spares=spares, **RACK)
    assert isinstance(place(Hall([16, 16]).snapshot(), wanted, NOW), Plan)
    answer = told(full(16, 16), wanted)
    assert answer.reason == "WaitingForCapacity"
    assert "it starts when 14 more are free in rack b0/r0," in answer.message


def test_of_an_elastic_gang_the_smallest_size_counts() -> None:
    answer = told(full(8, 8), gang(seats=12, sizes=(12, 6), **RACK))
    assert answer.reason == "WaitingForCapacity"
    assert "it starts when 4 more are free in rack b0/r0," in answer.message


def test_a_short_slice_takes_what_is_left_over() -> None:
    hall = Hall([3, 3, 1])
    wanted = gang(seats=7, slice_size=3, slice_level="rack")
    assert isinstance(place(hall.snapshot(), wanted, NOW), Plan)
    hall.occupy("r0-0")
    answer = told(hall, wanted)
    assert answer.reason == "WaitingForCapacity"
    assert "it cannot start before 1 more is free, and whole slices of them" in answer.message
    assert told(Hall([3, 3, 2]), gang(seats=8, slice_size=4, slice_level="rack")).reason == (
        "ExceedsPool"
    )


@pytest.mark.parametrize("in_use", [(), ("r0-1", "r0-2", "r1-1", "r1-2", "r1-3")])
def test_blades_that_are_out_may_come_back_and_that_is_said(in_use: tuple[str, ...]) -> None:
    hall = Hall([4, 4])
    hall.break_("r0-0", "r1-0", "r1-1")
    hall.occupy(*in_use)
    answer = told(hall, gang(seats=4, **RACK))
    assert answer.reason == "HealthHold"
    assert answer.message.startswith("needs 4 free blades of 8 GPUs in one rack (got ")
    assert "3 quarantined" in answer.message
    assert "cannot start before 1 more is back in service in one rack, such as b0/r0," in (
        answer.message
    )
    sliced = told(hall, gang(seats=4, slice_size=4, slice_level="rack"))
    assert sliced.reason == "HealthHold"
    assert "before more of those that are out are back in service" in sliced.message


def test_a_packing_that_relaxes_need_not_wait_for_blades_that_are_out() -> None:
    hall = Hall([4, 4])
    hall.break_("r0-0", "r1-0")
    hall.occupy("r0-1", "r1-1", "r1-2", "r1-3")
    answer = told(hall, gang(seats=4, relax_after_s=600.0, **RACK))
    assert answer.reason == "HealthHold"
    assert "such as b0/r0; or it may leave the rack once it has waited for 10m (relaxAfter)," in (
        answer.message
    )


def test_an_ask_that_no_blade_has_is_refused_where_blades_are_shared_too() -> None:
    ask = Ask(amounts({"example.com/card": "1"}))
    answer = told(Hall([2]), gang(seats=2, ask=ask, shares_blades=True))
    assert answer.reason == "ExceedsPool"


def test_what_differs_and_shares_blades_waits_for_blades_that_are_out() -> None:
    slots = (Slot("a", 2, Ask(amounts({GPU: "6"}))), Slot("b", 2, QUARTER))
    both = gang(slots=slots, shares_blades=True, **RACK)
    hall = Hall([2])
    hall.break_("r0-0")
    answer = told(hall, both)
    assert answer.reason == "HealthHold"
    assert "1 quarantined); it cannot start before more blades are back in service, or" in (
        answer.message
    )
    hall = Hall([2, 1])
    hall.break_("r0-0")
    later = told(hall, replace(both, relax_after_s=120.0))
    assert later.reason == "HealthHold"
    assert "back in service; or it may leave the rack once it has waited for 2m" in later.message
    large = told(Hall([1, 1]), replace(both, relax_after_s=120.0))
    assert large.reason == "TopologyPlacementFailed"
    assert "it may leave the rack once it has waited for 2m (relaxAfter); sooner: use mode" in (
        large.message
    )


def test_a_taint_on_one_blade_of_each_rack_is_a_question_of_health() -> None:
    hall = Hall([2, 2])
    for rack in (0, 1):
        hall.add(rack, taints=("dedicated",))
    assert told(hall, gang(seats=3, **RACK)).reason == "HealthHold"
    assert told(hall, gang(seats=4, **RACK)).reason == "ExceedsPool"


def test_seats_that_share_blades_are_counted_as_seats() -> None:
    hall = Hall([2])
    hall.occupy("r0-0", gpus=6)
    hall.occupy("r0-1", gpus=8)
    few = gang(seats=8, ask=QUARTER, shares_blades=True)
    answer = told(hall, few)
    assert answer.reason == "WaitingForCapacity"
    assert answer.message == (
        "needs room for 8 pods of 2 GPUs (got 1 of 8 in pool p: 1 in use); it starts when room "
        "for 7 more is free, or make the gang smaller"
    )
    many = told(hall, gang(seats=9, ask=QUARTER, shares_blades=True))
    assert many.reason == "ExceedsPool"
    assert many.message.startswith("needs room for 9 pods of 2 GPUs (got 8 in pool p)")


@pytest.mark.parametrize("seats", [20, 40])
def test_a_packing_that_relaxes_is_waited_for_and_blades_are_not(seats: int) -> None:
    wanted = gang(seats=seats, relax_after_s=600.0, **RACK)
    answer = told(full(16, 16), wanted)
    if seats > 32:
        assert answer.reason == "ExceedsPool"
        return
    assert answer.reason == "TopologyPlacementFailed"
    assert answer.message.startswith(
        "needs 20 blades of 8 GPUs in one rack (the largest, b0/r0, has 16); it may leave the rack "
        "once it has waited for 10m (relaxAfter); sooner: use mode Preferred"
    )
    assert isinstance(place(Hall([16, 16]).snapshot(), wanted, NOW + 600), Plan)


def outcome(hall: Hall, wanted: GangRecord, *others: GangRecord) -> Outcome:
    return hall.decide(wanted, *others).outcomes[wanted.key]


def test_it_gets_no_estimate_and_equal_gangs_but_one_that_relaxes_another_answer() -> None:
    hall = Hall([4, 4])
    sits = runs("sits", *(f"r0-{i}" for i in range(4)), for_s=100.0, created_s=NOW - 500)
    wanted = gang(seats=6, **RACK)
    relaxes = gang("relaxes", seats=6, relax_after_s=90.0, **RACK)
    outcomes = hall.decide(sits, wanted, relaxes).outcomes
    never = outcomes[wanted.key]
    assert (never.reason, never.estimate, never.reserved_s) == ("ExceedsPool", None, None)
    later = outcomes[relaxes.key]
    assert (later.reason, later.estimate) == ("TopologyPlacementFailed", None)
    relaxed = hall.decide(sits, wanted, relaxes, now=NOW + 40).outcomes[relaxes.key]
    assert (relaxed.reason, relaxed.reserved_s) == ("WaitingForCapacity", NOW + 100)


def test_blades_to_be_delivered_are_no_estimate_for_it() -> None:
    hall = Hall([4, 4])
    pool = PoolRecord("p", LEVELS, deliveries=(DeliveryRecord("t2", 20, NOW + 5000),))
    fleet = build_fleet(hall.blades, hall.nodes, {"p": pool})
    for wanted in (gang(seats=6, **RACK), gang(seats=6, slice_size=6, slice_level="rack")):
        answer = decide(fleet, {wanted.key: wanted}, hall.pods, NOW).outcomes[wanted.key]
        assert (answer.reason, answer.estimate) == ("ExceedsPool", None)


def test_nobody_gives_way_to_it_and_spares_do_not_stand_back() -> None:
    hall = Hall([4, 4])
    sits = replace(runs("sits", "r0-0", "r0-1", "r0-2", for_s=None), spares=1)
    done = hall.decide(sits, gang(seats=6, priority=9, **RACK))
    assert done.outcomes[sits.key].order is None
    held = done.outcomes[sits.key].placement
    assert held is not None
    assert len(held.spares) == 1


BLADES = [f"r{rack}-{i}" for rack in range(5) for i in range(5)]


@st.composite
def asked(draw: st.DrawFn) -> GangRecord:
    """Return a gang as in the other properties, or one that shares blades, avoids, or relaxes."""
    wanted = draw(gangs("g"))
    more: dict[str, Any] = {"avoid": frozenset(draw(st.sets(st.sampled_from(BLADES), max_size=2)))}
    if draw(st.integers(0, 3)) == 0:
        more["shares_blades"] = True
    if wanted.required and draw(st.integers(0, 2)) == 0:
        more["relax_after_s"] = 2e6
    return replace(wanted, **more)


@st.composite
def tight(draw: st.DrawFn) -> tuple[Hall, GangRecord]:
    """Return a hall of a few racks, mostly in use, and a gang about as large as one of them."""
    racks = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    hall = Hall(racks)
    free = draw(st.sets(st.sampled_from(list(hall.blades)), max_size=4))
    hall.occupy(*(name for name in hall.blades if name not in free))
    hall.break_(*draw(st.sets(st.sampled_from(list(hall.blades)), max_size=4)))
    seats = draw(st.integers(2, sum(racks)))
    more: dict[str, Any] = {"pack": draw(st.sampled_from(["rack", "block", "blade"]))}
    more["required"] = draw(st.booleans())
    if not more["required"] or draw(st.booleans()):
        more |= {"slice_size": draw(st.integers(2, 5))}
        more |= {"slice_level": draw(st.sampled_from(["rack", "block"]))}
    wanted = replace(draw(asked()), sizes=(), slots=(), **more)
    asks = [Ask(WHOLE), Ask(WHOLE), QUARTER]
    slots = (Slot("a", seats, draw(st.sampled_from(asks))),)
    return hall, replace(wanted, slots=slots)


CASES = st.one_of(tight(), st.tuples(halls(), asked()))


def emptied(hall: Hall) -> Hall:
    """Return the hall without pods."""
    empty = Hall([])
    empty.blades, empty.nodes = hall.blades, hall.nodes
    return empty


def healed(hall: Hall) -> Hall:
    """Return the hall with all blades healthy and nothing on them."""
    best = Hall([])
    best.blades = {
        name: replace(blade, state="Healthy", severity="None")
        for name, blade in hall.blades.items()
    }
    best.nodes = {
        name: replace(node, ready=True, cordoned=False, taints=())
        for name, node in hall.nodes.items()
    }
    return best


def starts(hall: Hall, wanted: GangRecord) -> bool:
    return isinstance(place(hall.snapshot(), wanted, NOW), Plan)


@thorough
@given(CASES)
def test_no_explanation_promises_a_start_that_an_empty_healthy_pool_could_not_give(
    case: tuple[Hall, GangRecord],
) -> None:
    hall, wanted = case
    answer = outcome(hall, wanted)
    if answer.placement is not None:
        return
    message = answer.message
    could = starts(healed(hall), wanted)
    relaxes = wanted.relax_after_s is not None and starts(
        healed(hall), replace(wanted, required=False)
    )
    assert (answer.reason == "ExceedsPool") == (not could and not relaxes), message
    if not could:
        assert not PROMISES.search(message)
        assert relaxes or answer.estimate is None
    elif answer.reason == "HealthHold":
        assert not starts(emptied(hall), wanted)
        assert "back in service" in message
    else:
        assert starts(emptied(hall), wanted), message


@thorough
@given(CASES)
def test_every_way_out_of_what_is_too_large_was_counted(case: tuple[Hall, GangRecord]) -> None:
    hall, wanted = case
    best = healed(hall)
    answer = place(best.snapshot(), wanted, NOW)
    if isinstance(answer, Plan):
        return
    smallest = min(wanted.wanted_sizes())
    one = replace(wanted, sizes=(smallest,))
    for way, changed in rewritten(answer.message, one):
        assert starts(best, changed), way
    most = re.search(r"make the gang smaller \((\d+) at most\)", answer.message)
    if most and len(one.slots) == 1 and one.slice_size <= 1:
        assert not starts(best, replace(one, sizes=(int(most[1]) + 1,)))


def rewritten(message: str, one: GangRecord) -> list[tuple[str, GangRecord]]:
    """Return the gang as each way out in a message would have it."""
    ways: list[tuple[str, GangRecord]] = []
    if "use mode Preferred and no slices" in message:
        ways.append(("both", replace(one, required=False, slice_size=0, slice_level="")))
    elif "use mode Preferred" in message:
        ways.append(("Preferred", replace(one, required=False)))
    if found := re.search(r"pack at level (\w+)", message):
        ways.append(("pack", replace(one, pack=found[1])))
    if found := re.search(r"name (\w+) as slice level", message):
        ways.append(("level", replace(one, slice_level=found[1])))
    if "do without slices" in message:
        ways.append(("unsliced", replace(one, slice_size=0, slice_level="")))
    if found := re.search(r"slices smaller \((\d+) ", message):
        ways.append(("slices", replace(one, slice_size=int(found[1]))))
    found = re.search(r"make the gang smaller \((\d+) at most\)", message)
    if found and len(one.slots) == 1:
        ways.append(("size", replace(one, sizes=(int(found[1]),))))
    return ways


@thorough
@given(CASES)
def test_as_many_blades_as_are_said_are_enough(case: tuple[Hall, GangRecord]) -> None:
    hall, wanted = case
    wanted = replace(wanted, shares_blades=False, sizes=(), slots=wanted.slots[:1])
    answer = place(hall.snapshot(), wanted, NOW)
    message = answer.message if isinstance(answer, Refusal) else ""
    found = re.search(r"starts when (\d+) more \w+ free(?: in \w+ (\S+?))?, or", message)
    if found is None:
        return
    snapshot = emptied(hall).snapshot()
    inside = [name for name, node in hall.nodes.items() if not found[2] or lies_in(node, found[2])]
    row_of, now = snapshot.fleet.row_of, hall.snapshot()
    ask = wanted.slots[0].ask
    could = snapshot.usable(ask, wanted.avoid) & ~now.usable(ask, wanted.avoid)
    gained = [name for name in inside if could[row_of[name]]][: int(found[1])]
    assert len(gained) == int(found[1])
    freed = Hall([])
    freed.blades, freed.nodes = hall.blades, hall.nodes
    for name, sums in hall.pods.plain.items():
        if name not in gained:
            freed.occupy(name, gpus=sums[GPU])
    assert starts(freed, wanted), message


def lies_in(node: Any, domain: str) -> bool:
    labels = node.labels
    path = [labels["topology/block"], labels["topology/rack"]]
    return path[: len(domain.split("/"))] == domain.split("/")
