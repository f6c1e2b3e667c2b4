"""Equal seats go to the lowest level, the fewest domains, the least left over."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.packing.greedy import fewest
from tramontane.scheduler.packing.mixed import choose_mixed, most_seats
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.topology import build_topology
from unit.scheduler.builders import Hall, gang, racks_of


def plan(hall: Hall, wanted: GangRecord, now: float = 0.0) -> Plan:
    answer = place(hall.snapshot(), wanted, now)
    assert isinstance(answer, Plan), answer
    return answer


@given(st.lists(st.integers(0, 12), min_size=1, max_size=7), st.integers(1, 40))
def test_fewest_is_the_best_subset(room: list[int], need: int) -> None:
    if sum(room) < need:
        return
    takes = fewest(room, need)
    assert takes == sorted(set(takes))
    best = min(
        (n, sum(room[i] for i in subset) - need)
        for n in range(1, len(room) + 1)
        for subset in itertools.combinations(range(len(room)), n)
        if sum(room[i] for i in subset) >= need
    )
    assert (len(takes), sum(room[i] for i in takes) - need) == best


def test_fewest_beyond_the_exact_budget_still_takes_the_fewest() -> None:
    room = [16] * 1500 + [5]
    takes = fewest(room, 16 * 1400 + 3)
    assert len(takes) == 1401
    assert takes[-1] == 1500


@pytest.mark.parametrize(
    ("racks", "seats", "expected"),
    [
        pytest.param([4, 4, 4, 4], 4, ["r0"], id="one-rack"),
        pytest.param([4, 3, 4, 4], 3, ["r1"], id="best-fit-rack"),
        pytest.param([4, 4, 3, 3], 6, ["r2", "r3"], id="block-with-least-left-over"),
        pytest.param([2, 2, 4, 4], 7, ["r2", "r3"], id="block-that-holds-it"),
        pytest.param([4, 4, 4, 4], 10, ["r0", "r1", "r2"], id="two-blocks"),
        pytest.param([3, 4, 4, 4], 12, ["r1", "r2", "r3"], id="fewest-racks-over-two-blocks"),
        pytest.param([4, 2, 4, 4], 1, ["r1"], id="a-single-seat-fills-up-the-fullest-rack"),
    ],
)
def test_where_seats_go(racks: list[int], seats: int, expected: list[str]) -> None:
    placement = plan(Hall(racks), gang(seats=seats)).placement
    assert racks_of(placement.seats) == expected


def test_two_even_racks_rather_than_one_full_and_a_crumb() -> None:
    # Greedy would take [19, 1]: the same number of racks, but 9 blades left over in the second.
    hall = Hall([19, 11, 10, 10], racks_per_block=4)
    placement = plan(hall, gang(seats=20)).placement
    assert racks_of(placement.seats) == ["r2", "r3"]


def test_a_pool_without_levels_is_one_domain() -> None:
    hall = Hall([3, 3], levels=())
    assert plan(hall, gang(seats=5)).placement.seats == ("r0-0", "r0-1", "r0-2", "r1-0", "r1-1")


def test_blades_that_failed_less_come_first() -> None:
    hall = Hall([])
    for lemon in (0.9, 0.0, 0.5, 0.1):
        hall.add(0, lemon=lemon)
    assert plan(hall, gang(seats=2)).placement.seats == ("r0-1", "r0-3")


@pytest.mark.parametrize(
    ("racks", "seats", "size", "expected"),
    [
        pytest.param([5, 5, 5], 6, 2, ["r0", "r1"], id="a-block-first"),
        pytest.param([5, 3, 4], 6, 2, ["r0", "r1"], id="whole-slices-only"),
        pytest.param([3, 3, 3, 3], 8, 2, ["r0", "r1", "r2", "r3"], id="one-left-over-in-each"),
        pytest.param([4, 2], 5, 2, ["r0", "r1"], id="a-short-slice-has-room-as-a-whole-one"),
        pytest.param([2, 3], 5, 2, ["r0", "r1"], id="a-short-slice-beside-the-whole-ones"),
        pytest.param([3, 2], 5, 2, ["r1", "r0"], id="the-rack-of-the-short-slice-comes-last"),
    ],
)
def test_a_slice_never_leaves_its_rack(
    racks: list[int], seats: int, size: int, expected: list[str]
) -> None:
    wanted = gang(seats=seats, slice_size=size, slice_level="rack")
    placement = plan(Hall(racks, racks_per_block=4), wanted).placement
    assert len(set(placement.seats)) == seats
    for first in range(0, seats, size):
        assert len(racks_of(placement.seats[first : first + size])) == 1
    if seats != 6:
        assert racks_of(placement.seats) == expected


def test_slices_of_a_block_are_packed_into_racks_too() -> None:
    hall = Hall([2, 4, 4, 4], racks_per_block=2)
    wanted = gang(seats=8, slice_size=4, slice_level="block")
    placement = plan(hall, wanted).placement
    assert racks_of(placement.seats) == ["r2", "r3"]


def test_a_required_rack_below_the_slice_level_holds_all_slices() -> None:
    wanted = gang(seats=4, slice_size=2, slice_level="block", pack="rack", required=True)
    assert len(racks_of(plan(Hall([3, 4]), wanted).placement.seats)) == 1


def three_racks() -> tuple[object, list[np.ndarray]]:
    topology = build_topology(["rack"], [("a",)] * 3 + [("b",)] * 3 + [("c",)] * 2)
    big = np.array([1, 1, 0, 1, 1, 1, 1, 1], dtype=bool)
    small = np.array([0, 1, 1, 0, 1, 1, 0, 0], dtype=bool)
    return topology, [big, small]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param([1, 1], [[0], [2]], id="one-rack-least-flexible-blades"),
        pytest.param([1, 2], [[0], [1, 2]], id="the-flexible-blade-goes-where-it-is-needed"),
        pytest.param([2, 2], [[0, 3], [1, 4]], id="over-two-racks"),
        pytest.param([8, 1], None, id="too-many"),
    ],
)
def test_different_asks_share_a_domain(counts: list[int], expected: list[list[int]] | None) -> None:
    topology, masks = three_racks()
    dealt = choose_mixed(topology, masks, counts, 0)  # type: ignore[arg-type]
    if expected is None:
        assert dealt is None
        return
    assert dealt is not None
    chosen = dealt.rows
    assert [len(rows) for rows in chosen] == counts
    assert all(masks[slot][row] for slot, rows in enumerate(chosen) for row in rows)
    assert len({row for rows in chosen for row in rows}) == sum(counts)
    if counts != [2, 2]:
        assert chosen == expected


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=8),
    st.lists(st.integers(1, 3), min_size=3, max_size=3),
)
@example([1, 3, 5], [1, 1, 1])
@example([3, 5], [1, 1, 0])
@example([7, 3, 5, 6], [2, 1, 1])
def test_mixed_asks_fit_exactly_when_a_matching_exists(types: list[int], counts: list[int]) -> None:
    kinds = np.array(types)
    masks = [(kinds >> slot & 1).astype(bool) for slot in range(3)]
    topology = build_topology([], [()] * len(types))
    wanted = [slot for slot, count in enumerate(counts) for _ in range(count)]
    best = _matching(types, wanted)
    assert most_seats(kinds, counts) == best
    dealt = choose_mixed(topology, masks, counts, 0)
    assert (dealt is not None) == (best == len(wanted))
    if dealt is not None:
        chosen = dealt.rows
        assert [len(rows) for rows in chosen] == counts
        assert all(masks[slot][row] for slot, rows in enumerate(chosen) for row in rows)
        assert len({row for rows in chosen for row in rows}) == len(wanted)


def _matching(types: list[int], wanted: list[int]) -> int:
    """Return the largest matching of seats to blades, by augmenting paths."""
    owner: dict[int, int] = {}

    def seat_one(seat: int, seen: set[int]) -> bool:
        for row, kind in enumerate(types):
            if kind >> wanted[seat] & 1 and row not in seen:
                seen.add(row)
                if row not in owner or seat_one(owner[row], seen):
                    owner[row] = seat
                    return True
        return False

    return sum(seat_one(seat, set()) for seat in range(len(wanted)))
