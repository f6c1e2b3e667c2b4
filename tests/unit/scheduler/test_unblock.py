"""Each way out that is named is one: the gang has a place after it, and not after less."""

import itertools
import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tramontane.scheduler.gangs import Ask, GangRecord, Slot, Told
from tramontane.scheduler.place import Plan
from tramontane.scheduler.records import GPU, PodRecord, amounts
from tramontane.scheduler.unblocking.unblock import ways_out
from tramontane.scheduler.unblocking.whatif import Case, Change, Kind, WayOut
from unit.scheduler.builders import NOW, WHOLE, Hall, gang, placed

CASES = int(os.environ.get("TRAMONTANE_EXAMPLES", "1000"))
HALF = amounts({GPU: "4", "cpu": "16"})


def case_of(hall: Hall, one: GangRecord, *others: GangRecord) -> Case:
    return Case(hall.fleet, {g.key: g for g in (one, *others)}, hall.pods, one, NOW)


def starts(case: Case) -> bool:
    return isinstance(case.answer(), Plan)


def named(case: Case, kind: Kind) -> WayOut:
    """Return the smallest way out of a kind, which must be there and must be one."""
    ways = {way.kind: way for way in reversed(ways_out(case))}
    assert kind in ways, ways
    assert starts(ways[kind].apply(case))
    return ways[kind]


def run_on(hall: Hall, name: str, *blades: str, **more: Any) -> GangRecord:
    """Return a gang that sits on these blades, its pods too."""
    for seat, blade in enumerate(blades):
        hall.occupy(blade, gang=f"ns/{name}", seat=seat)
    return placed(name, blades, **more)


def test_nothing_is_named_where_the_gang_fits() -> None:
    assert ways_out(case_of(Hall([2]), gang(seats=2))) == ()


def test_blades_back_in_service_are_the_fewest() -> None:
    hall = Hall([4, 4])
    hall.break_("r0-0", "r0-1", "r0-2", "r1-3")
    way = named(case_of(hall, gang(seats=4, pack="rack", required=True)), Kind.REPAIR)
    assert (way.change.back, way.things) == (("r1-3",), 1)
    assert way.words == "1 blade back in service: r1-3 (quarantined)"


def test_slices_are_filled_where_least_is_missing() -> None:
    hall = Hall([4, 4, 4])
    hall.break_("r0-0", "r0-1", "r0-2", "r1-0", "r2-0", "r2-1")
    way = named(case_of(hall, gang(seats=8, slice_size=4, slice_level="rack")), Kind.REPAIR)
    assert way.change.back == ("r1-0", "r2-0", "r2-1")


def test_the_short_slice_goes_where_it_costs_least() -> None:
    hall = Hall([4, 4])
    hall.break_("r0-0", "r1-0", "r1-1", "r1-2")
    way = named(case_of(hall, gang(seats=5, slice_size=4, slice_level="rack")), Kind.REPAIR)
    assert way.change.back == ("r0-0",)


def test_the_largest_gangs_are_the_fewest_to_end() -> None:
    hall = Hall([8])
    small = [run_on(hall, f"s{i}", f"r0-{i}") for i in range(4)]
    large = run_on(hall, "large", *(f"r0-{i}" for i in range(4, 8)), lost_work=7.0)
    way = named(case_of(hall, gang(seats=4), *small, large), Kind.END)
    assert (way.change.ended, way.gpu_hours) == (("ns/large",), 7.0)
    way = named(case_of(hall, gang(seats=5), *small, large), Kind.END)
    assert way.change.ended == ("ns/large", "ns/s0")


def test_of_as_many_gangs_those_that_lose_least_are_named() -> None:
    hall = Hall([3])
    gangs = [run_on(hall, f"g{i}", f"r0-{i}", lost_work=w) for i, w in enumerate([5.0, 2.0, 9.0])]
    way = named(case_of(hall, gang(), *gangs), Kind.END)
    assert (way.change.ended, way.gpu_hours) == (("ns/g1",), 2.0)


def test_where_more_gangs_lose_less_work_both_are_named() -> None:
    hall = Hall([4])
    dear = run_on(hall, "dear", "r0-0", "r0-1", lost_work=100.0)
    cheap = [run_on(hall, f"c{i}", f"r0-{i + 2}", lost_work=1.0) for i in range(2)]
    ways = [w for w in ways_out(case_of(hall, gang(seats=2), dear, *cheap)) if w.kind is Kind.END]
    assert [(way.change.ended, way.gpu_hours) for way in ways] == [
        (("ns/dear",), 100.0),
        (("ns/c0", "ns/c1"), 2.0),
    ]


def test_a_blade_that_two_gangs_share_needs_both_to_end() -> None:
    hall = Hall([1])
    gangs = [placed(f"g{i}", ["r0-0"], ask=Ask(HALF)) for i in range(2)]
    assert named(case_of(hall, gang(), *gangs), Kind.END).change.ended == ("ns/g0", "ns/g1")


def test_waiting_names_the_gangs_whose_time_ends_next_and_when() -> None:
    hall = Hall([4])
    since = Told(phase="Placed", epoch=1, ready=True, ready_since_s=NOW - 100)
    gangs = [
        run_on(hall, f"g{i}", f"r0-{i}", told=since, max_runtime_s=limit)
        for i, limit in enumerate([4000.0, 1000.0, None, 2000.0])
    ]
    way = named(case_of(hall, gang(seats=2), *gangs), Kind.WAIT)
    assert (way.change.ended, way.at_s) == (("ns/g1", "ns/g3"), NOW + 1900)


def test_pods_of_a_gang_that_is_gone_are_waited_for() -> None:
    hall = Hall([1])
    hall.occupy("r0-0", gang="ns/gone", seat=0)
    way = named(case_of(hall, gang()), Kind.WAIT)
    assert (way.change.ended, way.at_s) == (("ns/gone",), NOW)


def test_spares_of_others_are_given_up() -> None:
    hall = Hall([3])
    hall.occupy("r0-0", gang="ns/other", seat=0)
    other = placed("other", ["r0-0"], ["r0-1", "r0-2"])
    way = named(case_of(hall, gang(), other), Kind.RELEASE)
    assert way.change.released == ("r0-1",)
    assert way.words == "1 spare given up: r0-1 (ns/other)"


def test_pods_of_no_gang_are_named_by_their_blades() -> None:
    hall = Hall([2])
    hall.occupy("r0-0", "r0-1")
    assert named(case_of(hall, gang()), Kind.CLEAR).change.cleared == ("r0-0",)


def test_where_no_one_kind_does_the_fewest_blades_are_freed_by_any() -> None:
    hall = Hall([3])
    hall.break_("r0-0")
    hall.occupy("r0-1")
    other = run_on(hall, "other", "r0-2")
    case = case_of(hall, gang(seats=3), other)
    way = named(case, Kind.FREE)
    assert way.change.back == ("r0-0",)
    assert way.change.ended == ("ns/other",)
    assert way.words == "3 blades in service and empty: r0-0, r0-1, r0-2; that ends ns/other"


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        (
            {"pack": "rack", "required": True, "seats": 4},
            Kind.PACK,
            "topology.pack: block instead of rack",
        ),
        ({"pack": "rack", "required": True, "seats": 5}, Kind.PACK, "topology.mode: Preferred"),
        (
            {"pack": "rack", "required": True, "seats": 5},
            Kind.SIZE,
            "2 instead of 5 seats in the gang",
        ),
        ({"pack": "aisle", "seats": 2}, Kind.PACK, "topology.pack: rack instead of aisle"),
        (
            {"slice_size": 4, "slice_level": "rack", "seats": 4},
            Kind.SLICE,
            "topology.slice.level: block instead of rack",
        ),
        (
            {"slice_size": 6, "slice_level": "block", "seats": 6},
            Kind.SLICE,
            "topology.slice.size: 2 instead of 6",
        ),
        (
            {"avoid": frozenset({"r0-0", "r0-1"}), "seats": 5},
            Kind.AVOID,
            "not avoiding 1 blade: r0-0",
        ),
        (
            {"ask": Ask(amounts({GPU: "16"})), "seats": 6},
            Kind.REQUEST,
            "8 GPUs instead of 16 GPUs per pod",
        ),
        ({"ask": Ask(WHOLE, (("disk", "nvme"),))}, Kind.SELECTOR, "no nodeSelector disk=nvme"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:40],
)  # fmt: skip
def test_the_gang_asks_for_less(more: dict[str, Any], kind: Kind, words: str) -> None:
    hall = Hall([2, 2, 2])  # two racks to a block
    one = gang(seats=more.pop("seats", 1), **more)
    assert named(case_of(hall, one), kind).words == words


def test_a_taint_is_tolerated_unless_it_goes_with_the_repair() -> None:
    hall = Hall([])
    hall.add(0, taints=("dedicated",))
    hall.add(0, taints=("tramontane.dev/blade",), state="Quarantined")
    case = case_of(hall, gang())
    assert named(case, Kind.REPAIR).change.back == ("r0-1",)
    assert named(case, Kind.TOLERATION).words == "a toleration of dedicated=x:NoSchedule"
    assert {way.kind for way in ways_out(case)} == {Kind.REPAIR, Kind.TOLERATION}


def test_a_gang_that_is_too_large_and_finds_all_taken_gets_both_steps() -> None:
    hall = Hall([2])
    other = run_on(hall, "other", "r0-0", "r0-1", max_runtime_s=600.0)
    way = named(case_of(hall, gang(seats=3), other), Kind.SIZE)
    assert (
        way.words == "2 instead of 3 seats in the gang, and 1 gang at the end of its time: ns/other"
    )
    assert way.change.gang is not None
    assert way.change.ended == ("ns/other",)


def test_a_spec_that_cannot_be_read_has_no_way_out_here() -> None:
    assert ways_out(case_of(Hall([2]), gang(flaw="no good"))) == ()


def test_seats_that_share_blades_need_fewer_of_them() -> None:
    hall = Hall([4])
    hall.break_("r0-0", "r0-1")
    hall.occupy("r0-2", gpus=4)
    hall.occupy("r0-3")
    one = gang(seats=3, ask=Ask(HALF), shares_blades=True)
    assert named(case_of(hall, one), Kind.REPAIR).change.back == ("r0-0",)
    assert named(case_of(hall, one), Kind.CLEAR).change.cleared == ("r0-3",)


# 1,000 random cases


def random_case(seed: int) -> Case:
    """Return a hall with faults, gangs, spares and foreign pods, and a gang that may not fit."""
    rng = random.Random(seed)
    hall = Hall([])
    for rack in range(rng.randint(1, 6)):
        for _ in range(rng.randint(1, 6)):
            hall.add(
                rack,
                state=rng.choice(["Healthy"] * 8 + ["Quarantined", "Lost"]),
                cordoned=rng.random() < 0.05,
                taints=("dedicated",) if rng.random() < 0.05 else (),
                labels={"disk": "nvme"} if rng.random() < 0.6 else {},
            )
    free = list(hall.blades)
    rng.shuffle(free)
    others = [one for number in range(rng.randint(0, 6)) for one in seated(rng, hall, free, number)]
    for name in free[: rng.randint(0, len(free))]:
        if rng.random() < 0.4:
            hall.occupy(name, gpus=rng.choice([1, 8]))
    return case_of(hall, random_gang(rng, list(hall.blades)), *others)


def seated(rng: random.Random, hall: Hall, free: list[str], number: int) -> list[GangRecord]:
    """Return a gang on free blades, or two that share them, most of them with their pods."""
    size, spares = rng.randint(1, 5), rng.randint(0, 1)
    if size + spares > len(free):
        return []
    seats, held = free[:size], free[size : size + spares]
    del free[: size + spares]
    shared = rng.random() < 0.3
    requests = HALF if shared else WHOLE
    since = Told("Placed", 1, ready=True, ready_since_s=NOW - rng.randint(1, 9999))
    found = []
    for part in range(2 if shared else 1):
        name = f"o{number}{part}"
        limit = rng.choice([None, 10_000.0, 20_000.0])
        mine = () if part else held
        one = placed(name, seats, mine, ask=Ask(requests), told=since, max_runtime_s=limit)
        found.append(one)
        if rng.random() < 0.8:
            for seat, blade in enumerate(seats):
                pod = PodRecord(blade, one.key, seat, deleting=False, requests=requests)
                hall.pods.change(f"{one.key}-{seat}", None, pod)
    return found


def random_gang(rng: random.Random, blades: list[str]) -> GangRecord:
    asks = [Ask(WHOLE), Ask(HALF), Ask(amounts({GPU: "8"}), (("disk", "nvme"),))]
    most = max(1, len(blades) * 2 // 3) if rng.random() < 0.9 else 40
    slots = [Slot("a", rng.randint(1, most), rng.choice(asks))]
    if rng.random() < 0.25:
        slots.append(Slot("b", rng.randint(1, 4), rng.choice(asks)))
    more: dict[str, Any] = {}
    if rng.random() < 0.5:
        more |= {"pack": rng.choice(["block", "rack"]), "required": rng.random() < 0.8}
    if rng.random() < 0.3:
        more |= {"slice_size": rng.randint(2, 4), "slice_level": rng.choice(["rack", "block"])}
    if rng.random() < 0.2:
        more["avoid"] = frozenset(rng.sample(blades, min(len(blades), rng.randint(1, 4))))
    more["shares_blades"] = rng.random() < 0.1
    return gang(slots=tuple(slots), **more)


def pending_cases(count: int) -> Iterator[tuple[int, Case]]:
    seeds = ((seed, random_case(seed)) for seed in itertools.count())
    return itertools.islice(((s, c) for s, c in seeds if not starts(c)), count)


PARTS = {
    Kind.REPAIR: "back",
    Kind.RELEASE: "released",
    Kind.CLEAR: "cleared",
    Kind.WAIT: "ended",
    Kind.END: "ended",
}


def less(way: WayOut) -> Iterator[Change]:
    """Yield the change less one of its things, where it is made of such."""
    part = PARTS.get(way.kind)
    for name in getattr(way.change, part) if part else ():
        rest: Any = tuple(other for other in getattr(way.change, part or "") if other != name)
        yield replace(way.change, **{part or "": rest})


def test_every_way_out_is_one_and_none_of_it_can_be_left_out() -> None:
    kinds: Counter[Kind] = Counter()
    for seed, case in pending_cases(CASES):
        ways = ways_out(case)
        assert ways, f"seed {seed}: no way out of {case.answer()}"
        assert [way.things for way in ways] == sorted(way.things for way in ways)
        for way in ways:
            assert starts(way.apply(case)), f"seed {seed}: {way}"
            for smaller in less(way):
                assert not starts(smaller.apply(case)), f"seed {seed}: {smaller} is enough"
        kinds.update(way.kind for way in ways)
    # The queue is not asked here, and there is one pool.
    assert set(kinds) == set(Kind) - {Kind.POOL, Kind.PRIORITY, Kind.LIMIT}, kinds


def test_no_fewer_blades_or_gangs_of_any_others_would_do() -> None:
    """Try every smaller set; for gangs where each blade has one, and seats are all alike."""
    looked: Counter[Kind] = Counter()
    for seed, case in pending_cases(max(200, CASES // 5)):
        holders = Counter(
            name
            for key, one in case.gangs.items()
            for name in {*(one.placement.seats if one.placement else ())}
        )
        alike = len(case.gang.slots) == 1 and case.gang.slice_size < 2
        ways = ways_out(case)
        for way in ways:
            part = PARTS.get(way.kind)
            exact = way.kind is not Kind.END or (alike and max(holders.values()) == 1)
            if way.kind is Kind.END and way is not next(w for w in ways if w.kind is way.kind):
                continue  # of those that lose least there may be more
            if part is None or way.kind is Kind.WAIT or not exact or way.change.gang:
                continue
            every = case.gangs if part == "ended" else case.fleet.names
            if math.comb(len(every), way.things - 1) > 500:
                continue
            looked[way.kind] += 1
            fewer: Any
            for fewer in itertools.combinations(every, way.things - 1):
                changed = Change(**{part: fewer}).apply(case)
                assert not starts(changed), f"seed {seed}: {way.kind} {fewer} is enough"
    assert set(looked) == {Kind.REPAIR, Kind.RELEASE, Kind.CLEAR, Kind.END}, looked
