"""The cheapest set of gangs to end: against all subsets, and what it may never be."""

import itertools
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tramontane.scheduler.cover import Blade, Option, cheapest_cover, items_of, slice_by_slice
from tramontane.scheduler.gangs import Ask, GangRecord, Slot, Told
from tramontane.scheduler.leaving import gpu_hours_lost, leaving, without
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.records import GPU, PodRecord, amounts
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.victims import Chosen, cheapest
from unit.scheduler.builders import NOW, WHOLE, Hall, gang, placed

EXAMPLES = int(os.environ.get("TRAMONTANE_EXAMPLES", "300"))
HALF = amounts({GPU: "4", "cpu": "32"})


def sitting(name: str, seats: Sequence[str], lost: float, **more: Any) -> GangRecord:
    """Return a placed gang that would lose so many GPU-hours."""
    return placed(name, seats, lost_work=lost, **more)


def choose(hall: Hall, wanted: GangRecord, *candidates: GangRecord) -> Chosen | None:
    snapshot = hall.snapshot(*candidates)
    return cheapest(snapshot, snapshot.fleet.pools["p"], wanted, candidates, now_s=NOW)


def test_the_set_that_loses_least_not_the_fewest_gangs_nor_the_youngest() -> None:
    hall = Hall([2, 2])
    both = sitting("both", ["r0-0", "r0-1"], 90.0)
    one, two = sitting("one", ["r1-0"], 20.0), sitting("two", ["r1-1"], 30.0)
    assert choose(hall, gang("new", 2), both, one, two) == Chosen(("ns/one", "ns/two"), 50.0, True)


@pytest.mark.parametrize(
    ("lost", "since", "keys"),
    [
        pytest.param((5.0, 5.0, 10.0), (1, 2, 3), ("ns/c",), id="fewer-gangs"),
        pytest.param((5.0, 5.0, 5.0), (1, 9, 9), ("ns/c",), id="fewer-gangs-when-all-are-cheap"),
    ],
)
def test_equal_losses(
    lost: tuple[float, float, float], since: tuple[int, int, int], keys: tuple[str, ...]
) -> None:
    hall = Hall([4])
    seats = (["r0-0"], ["r0-1"], ["r0-2", "r0-3"])
    candidates = [
        sitting(name, at, cost, told=Told("Placed", placed_s=NOW - age))
        for name, at, cost, age in zip("abc", seats, lost, since, strict=True)
    ]
    chosen = choose(hall, gang("new", 2), *candidates)
    assert chosen is not None
    assert chosen.keys == keys


def test_of_equal_gangs_the_youngest_gives_way_whatever_the_order_they_are_told_in() -> None:
    hall = Hall([3])
    candidates = [
        sitting(f"g{age}", [f"r0-{i}"], 5.0, told=Told("Placed", placed_s=NOW - age))
        for i, age in enumerate((30, 10, 20))
    ]
    for order in itertools.permutations(candidates):
        chosen = choose(hall, gang("new", 1), *order)
        assert chosen is not None
        assert chosen.keys == ("ns/g10",)


def test_a_required_rack_is_emptied_where_that_is_cheapest() -> None:
    hall = Hall([3, 3, 2])
    candidates = [
        sitting("wide", ["r0-0", "r1-0"], 1.0),
        sitting("a", ["r0-1"], 10.0),
        sitting("b", ["r1-1"], 8.0),
        sitting("small", ["r2-0", "r2-1"], 0.1),
    ]
    wanted = gang("new", 3, pack="rack", required=True)
    assert choose(hall, wanted, *candidates) == Chosen(("ns/b", "ns/wide"), 9.0, True)
    assert choose(hall, replace(wanted, required=False), *candidates) == Chosen(
        ("ns/small",), 0.1, True
    )


def test_nobody_is_ended_in_vain() -> None:
    hall = Hall([2, 1])
    hall.occupy("r0-0")
    candidates = [sitting("a", ["r0-1"], 1.0)]
    assert choose(hall, gang("new", 3), *candidates) is None
    assert choose(hall, gang("new", 1), *candidates) is None  # r1-0 is free
    assert choose(hall, gang("new", 2, pack="nowhere"), *candidates) is None
    assert choose(hall, gang("new", 2)) is None


def test_an_elastic_gang_is_made_room_for_at_its_smallest_size() -> None:
    hall = Hall([4])
    candidates = [sitting(f"g{i}", [f"r0-{i}"], 1.0 + i) for i in range(4)]
    wanted = gang("new", 4, sizes=(4, 2))
    assert choose(hall, wanted, *candidates) == Chosen(("ns/g0", "ns/g1"), 3.0, True)


def test_spares_and_pods_beyond_the_seats_come_free_too() -> None:
    hall = Hall([4])
    hall.occupy("r0-2", gang="ns/a", seat=7)  # a pod of the gang's that is still ending
    hall.pods.change("ns/a-0", None, PodRecord("r0-0", "ns/a", 0, False, WHOLE))
    victim = sitting("a", ["r0-0"], 1.0, spares=["r0-1"])
    wanted = gang("new", 4)
    assert choose(hall, wanted, victim) == Chosen(("ns/a",), 1.0, True)
    snapshot = hall.snapshot(victim)
    gone = without(snapshot, [leaving(snapshot, victim, NOW)])
    empty = Hall([4]).snapshot()
    assert all((gone.free[r] == empty.free[r]).all() for r in empty.free)
    assert not gone.busy.any()
    assert not gone.held.any()
    assert snapshot.held.any(), "the snapshot itself must stay as it is"


def test_what_a_run_loses() -> None:
    since = Told("Placed", placed_s=NOW - 1800)
    assert gpu_hours_lost(placed("g", ["r0-0", "r0-1"], told=since), NOW) == 8.0
    assert gpu_hours_lost(sitting("g", ["r0-0"], 2.5, told=since), NOW) == 2.5
    assert gpu_hours_lost(sitting("g", ["r0-0"], float("nan")), NOW) == 0.0


def test_linked_victims_are_ended_together_or_one_of_them() -> None:
    half = Ask(HALF)
    hall = Hall([2])
    a, b, c = (
        sitting(name, [blade], lost, slots=(Slot("w", 1, half),))
        for name, blade, lost in (("a", "r0-0", 1.0), ("b", "r0-0", 2.0), ("c", "r0-1", 9.0))
    )
    d = sitting("d", ["r0-1"], 0.5, slots=(Slot("w", 1, half),))
    assert choose(hall, gang("new", 1), a, b, c, d) == Chosen(("ns/a", "ns/b"), 3.0, True)
    small = gang("new", 1, ask=half)
    assert choose(hall, small, a, b, c, d) == Chosen(("ns/d",), 0.5, True)


def test_more_linked_victims_than_are_looked_at_one_by_one() -> None:
    one = Ask(amounts({GPU: "1"}))
    hall = Hall([2])
    crowd = [
        sitting(f"g{i}", ["r0-0" if i < 8 else "r0-1"] * 1, 1.0, slots=(Slot("w", 1, one),))
        for i in range(8)
    ]
    across = [sitting(f"x{i}", ["r0-1"], 3.0, slots=(Slot("w", 1, one),)) for i in range(8)]
    bridge = replace(crowd[0], slots=(Slot("w", 2, one),))
    assert bridge.placement is not None
    bridge = replace(bridge, placement=replace(bridge.placement, seats=("r0-0", "r0-1")))
    chosen = choose(hall, gang("new", 1), bridge, *crowd[1:], *across[1:])
    assert chosen == Chosen(tuple(f"ns/g{i}" for i in range(8)), 8.0, False)


def test_slices_are_freed_one_after_the_other_where_that_is_cheapest() -> None:
    hall = Hall([2, 2, 2])
    candidates = [
        sitting("a", ["r0-0"], 5.0),
        sitting("ab", ["r0-1", "r1-0"], 1.0),
        sitting("b", ["r1-1"], 6.0),
        sitting("c", ["r2-0"], 2.0),
        sitting("d", ["r2-1"], 9.0),
    ]
    two = gang("new", 2, slice_size=2, slice_level="rack")
    assert choose(hall, two, *candidates) == Chosen(("ns/a", "ns/ab"), 6.0, False)
    # With `ab` gone for the first slice, the second one costs only b.
    four = gang("new", 4, slice_size=2, slice_level="rack")
    assert choose(hall, four, *candidates) == Chosen(("ns/a", "ns/ab", "ns/b"), 12.0, False)
    short = gang("new", 3, slice_size=2, slice_level="rack")
    assert choose(hall, short, *candidates) == Chosen(("ns/a", "ns/ab"), 6.0, False)


def test_a_domain_whose_slices_are_all_free_is_done_with() -> None:
    blades = {at: [Blade((1,), {2 * at + i: (1,)}) for i in range(2)] for at in range(3)}
    prices = [1, 1, 5, 5, 2, 9]
    have = dict.fromkeys(range(3), 0)
    assert slice_by_slice(blades, have, prices, size=2, slices=2) == [0, 1, 2, 3]
    assert slice_by_slice(blades, have, prices, size=2, slices=4) is None
    assert slice_by_slice(blades, {**have, 1: 4}, prices, size=2, slices=2) == []


def test_the_domain_that_seems_cheapest_need_not_be() -> None:
    hall = Hall([4, 3])
    candidates = [
        sitting("wide", [f"r0-{i}" for i in range(4)], 10.0),  # 7.5 for three of its blades
        *(sitting(f"g{i}", [f"r1-{i}"], 3.0) for i in range(3)),
    ]
    wanted = gang("new", 3, pack="rack", required=True)
    assert choose(hall, wanted, *candidates) == Chosen(("ns/g0", "ns/g1", "ns/g2"), 9.0, True)


def test_a_domain_whose_best_victim_is_more_than_is_needed() -> None:
    hall = Hall([4, 1])
    candidates = [
        sitting("wide", [f"r0-{i}" for i in range(3)], 6.0),
        sitting("small", ["r0-3"], 2.5),
        sitting("other", ["r1-0"], 4.0),
    ]
    wanted = gang("new", 1, pack="rack", required=True)
    assert choose(hall, wanted, *candidates) == Chosen(("ns/small",), 2.5, True)


def test_a_spare_on_which_another_gangs_pod_still_runs_needs_both_to_leave() -> None:
    hall = Hall([1, 2])
    hall.occupy("r0-0", gang="ns/b", seat=5)
    candidates = [
        sitting("a", ["r1-0"], 1.0, spares=["r0-0"]),
        sitting("b", ["r1-1"], 2.0),
    ]
    wanted = gang("new", 1, pack="rack", required=True, avoid=frozenset({"r1-0", "r1-1"}))
    assert choose(hall, wanted, *candidates) == Chosen(("ns/a", "ns/b"), 3.0, True)


def test_seats_that_share_blades() -> None:
    half = Ask(HALF)
    hall = Hall([3])
    candidates = [
        sitting("whole", ["r0-0"], 5.0),
        sitting("half", ["r0-1"], 1.0, slots=(Slot("w", 1, half),)),
        sitting("dear", ["r0-2"], 7.0),
    ]
    wanted = gang("new", 2, ask=half, shares_blades=True)
    assert choose(hall, wanted, *candidates) == Chosen(("ns/half",), 1.0, False)
    wanted = gang("new", 3, ask=half, shares_blades=True)
    assert choose(hall, wanted, *candidates) == Chosen(("ns/whole",), 5.0, False)
    wanted = gang("new", 4, ask=half, shares_blades=True)
    assert choose(hall, wanted, *candidates) == Chosen(("ns/half", "ns/whole"), 6.0, False)


def test_a_gang_that_gives_way_frees_no_blade_that_is_kept_for_others() -> None:
    hall = Hall([2])
    candidates = [sitting("a", ["r0-0"], 1.0), sitting("b", ["r0-1"], 5.0)]
    snapshot = hall.snapshot(*candidates)
    snapshot.hold(snapshot.fleet.row_of["r0-0"], "ns/somebody")
    pool = snapshot.fleet.pools["p"]
    chosen = cheapest(snapshot, pool, gang("new", 1), candidates, now_s=NOW)
    assert chosen == Chosen(("ns/b",), 5.0, True)


@pytest.mark.parametrize("seed", range(40))
def test_items_and_cover_against_all_subsets(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 7)
    prices = [rng.randint(1, 50) for _ in range(count)]
    blades = []
    for _ in range(rng.randint(1, 10)):
        on = rng.sample(range(count), rng.randint(1, min(3, count)))
        gives = {v: (rng.randint(0, 4), rng.randint(0, 4)) for v in on}
        total = [sum(own[i] for own in gives.values()) for i in (0, 1)]
        if min(total) > 0:
            blades.append(Blade(tuple(rng.randint(1, t) for t in total), gives))

    def gain(ended: Sequence[int]) -> int:
        return sum(
            all(
                sum(own[i] for v, own in blade.gives.items() if v in ended) >= blade.lacks[i]
                for i in (0, 1)
            )
            for blade in blades
        )

    subsets = [s for n in range(count + 1) for s in itertools.combinations(range(count), n)]
    items = items_of([blade.needed() for blade in blades], prices)
    assert items is not None
    for need in range(len(blades) + 2):
        least = min((sum(prices[v] for v in s) for s in subsets if gain(s) >= need), default=None)
        chosen = cheapest_cover(items, need)
        if chosen is None:
            assert least is None
            continue
        ended = [v for option in chosen for v in option.victims]
        assert (sum(option.price for option in chosen), gain(ended) >= need) == (least, True)


def test_a_table_beyond_the_budget_is_not_filled() -> None:
    assert cheapest_cover([[Option(1, 1, (0,))]] * 1000, 60_000) is None


# Random halls against brute force.


def scene(rng: random.Random, *, plain: bool) -> tuple[Hall, GangRecord, list[GangRecord]]:
    """Return a hall of at most 12 blades, at most 8 gangs on it, and one that wants a place."""
    racks = [rng.randint(1, 4) for _ in range(rng.randint(1, 4))]
    while sum(racks) > 12:
        racks.pop()
    hall = Hall(racks)
    room = dict.fromkeys(hall.blades, 8)
    for name in hall.blades:
        if rng.random() < 0.1:
            hall.break_(name)
        if rng.random() < 0.1:
            hall.occupy(name, gpus=(gpus := rng.choice([2, 4, 8])))
            room[name] -= gpus
    candidates = [seated(rng, f"v{number}", room) for number in range(rng.randint(1, 8))]
    return hall, newcomer(rng, list(hall.blades), plain=plain), [c for c in candidates if c]


def seated(rng: random.Random, name: str, room: dict[str, int]) -> GangRecord | None:
    """Return a gang that sits where there is room, if there is."""
    gpus = rng.choice([8, 8, 8, 4, 4, 2])
    roomy = [blade for blade, left in room.items() if left >= gpus]
    seats = rng.sample(roomy, min(len(roomy), rng.randint(1, 3)))
    if not seats:
        return None
    for blade in seats:
        room[blade] -= gpus
    spares: list[str] = []
    if rng.random() < 0.2 and (whole := [blade for blade, left in room.items() if left == 8]):
        spares = [rng.choice(whole)]
        room[spares[0]] = 0
    return sitting(
        name,
        seats,
        float(rng.randint(0, 30)),
        spares=spares,
        slots=(Slot("w", len(seats), Ask(amounts({GPU: str(gpus)}))),),
        told=Told("Placed", placed_s=NOW - rng.randint(0, 5)),
    )


def newcomer(rng: random.Random, blades: list[str], *, plain: bool) -> GangRecord:
    """Return a gang that wants a place."""
    more: dict[str, Any] = {}
    if rng.random() < 0.5:
        more = {"pack": rng.choice(["block", "rack"]), "required": rng.random() < 0.8}
    slots: tuple[Slot, ...] = (
        Slot("w", rng.randint(1, 6), Ask(amounts({GPU: str(rng.choice([8, 8, 4]))}))),
    )
    if not plain and rng.random() < 0.5:
        more |= {"slice_size": rng.randint(2, 3), "slice_level": "rack"}
    elif not plain:
        other = Ask(amounts({GPU: str(rng.choice([2, 8]))}))
        slots = (*slots, Slot("x", rng.randint(1, 3), other))
    if rng.random() < 0.2:
        more["avoid"] = frozenset(rng.sample(blades, 1))
    if rng.random() < 0.2 and slots[0].count > 1:
        more["sizes"] = (slots[0].count, slots[0].count - 1)
    return gang("new", slots=slots, **more)


def brute_force(
    snapshot: Snapshot, wanted: GangRecord, candidates: Sequence[GangRecord]
) -> tuple[float, int] | None:
    """Return the least (GPU-hours, gangs) over all subsets."""
    gone = [leaving(snapshot, one, NOW) for one in candidates]
    costs = [
        (sum(one.gpu_hours for one in subset), len(subset))
        for size in range(len(gone) + 1)
        for subset in itertools.combinations(gone, size)
        if isinstance(place(without(snapshot, subset), wanted, NOW), Plan)
    ]
    return min(costs, default=None)


def test_plain_gangs_cost_exactly_as_little_as_the_best_of_all_subsets() -> None:
    chosen_at_all = 0
    for seed in range(EXAMPLES):
        hall, wanted, candidates = scene(random.Random(seed), plain=True)
        snapshot = hall.snapshot(*candidates)
        best = brute_force(snapshot, wanted, candidates)
        chosen = choose(hall, wanted, *candidates)
        if best is None or best[1] == 0:
            assert chosen is None, seed
            continue
        chosen_at_all += 1
        assert chosen is not None, seed
        assert (chosen.gpu_hours, len(chosen.keys), chosen.exact) == (*best, True), seed
    assert chosen_at_all > EXAMPLES / 5


def test_other_gangs_get_a_set_of_which_nobody_can_be_left_out() -> None:
    lost = least = 0.0
    for seed in range(EXAMPLES):
        hall, wanted, candidates = scene(random.Random(seed), plain=False)
        snapshot = hall.snapshot(*candidates)
        best = brute_force(snapshot, wanted, candidates)
        chosen = choose(hall, wanted, *candidates)
        if best is None or best[1] == 0:
            assert chosen is None, seed
            continue
        assert chosen is not None, seed
        gone = [leaving(snapshot, one, NOW) for one in candidates if one.key in chosen.keys]
        assert isinstance(place(without(snapshot, gone), wanted, NOW), Plan), seed
        for one in gone:
            others = [other for other in gone if other is not one]
            assert not isinstance(place(without(snapshot, others), wanted, NOW), Plan), seed
        lost, least = lost + chosen.gpu_hours, least + best[0]
    assert lost <= 1.1 * least, (lost, least)
