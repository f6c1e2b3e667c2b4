"""What holds of every choice of rows for equal seats, exact or cut short."""

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.scheduler.packing.field import Field, Wish, field_of
from tramontane.scheduler.packing.knapsack import weights_for
from tramontane.scheduler.packing.pack import Choice, choose
from tramontane.scheduler.topology import build_topology

thorough = settings(max_examples=int(os.environ.get("TRAMONTANE_EXAMPLES", "150")), deadline=None)

Blade = tuple[tuple[str, ...], int, float, int]


@st.composite
def halls(draw: st.DrawFn) -> tuple[int, list[Blade]]:
    """Draw levels, and blades: (path, room, lemon, free GPUs)."""
    depth = draw(st.integers(0, 3))
    most = draw(st.sampled_from([1, 1, 3]))
    blade = st.tuples(
        st.tuples(*[st.sampled_from("abc")] * depth),
        st.integers(0, most),
        st.sampled_from([0.0, 0.0, 0.2, 0.7]),
        st.integers(1, 8),
    )
    return depth, draw(st.lists(blade, min_size=1, max_size=24))


def field(depth: int, blades: list[Blade]) -> Field:
    blades = sorted(blades, key=lambda blade: blade[0])
    topology = build_topology([f"level-{i}" for i in range(depth)], [path for path, *_ in blades])
    _, room, lemon, free = zip(*blades, strict=True)
    return field_of(
        topology,
        np.array(room, dtype=np.int64),
        np.array(lemon, dtype=np.float64),
        np.array(free, dtype=np.int64),
    )


@st.composite
def wishes(draw: st.DrawFn, depth: int) -> Wish:
    seats, size, level = draw(st.integers(1, 30)), 1, depth + 1
    if draw(st.booleans()):
        size, level = draw(st.integers(2, 4)), draw(st.integers(0, depth))
    return Wish(seats, size, level, draw(st.integers(0, depth + 1)), draw(st.integers(0, 2)))


def better_first(hall: Field, wish: Wish, choice: Choice) -> tuple[int, ...]:
    """Return what one blade more must not make worse: common level, domains, room for spares."""
    ids = hall.topology.ids
    level = max(at for at in range(hall.bottom + 1) if choice.domains[at] == 1)
    home = int(ids[level][choice.rows[0]])
    short = hall.seats[level][home] < wish.seats + wish.spares
    return (-level, *choice.domains[level + 1 : hall.bottom + 1], short)


@thorough
@given(halls(), st.data())
def test_all_seats_or_none_and_no_row_beyond_its_room(
    hall: tuple[int, list[Blade]], data: st.DataObject
) -> None:
    fields, wish = field(*hall), data.draw(wishes(hall[0]))
    choice = choose(fields, wish)
    if choice is None:
        return
    assert len(choice.rows) == wish.seats
    used = np.bincount(choice.rows, minlength=fields.topology.rows)
    assert (used <= fields.room).all()
    top = min(wish.top, fields.bottom) if wish.seats == 1 else wish.top
    assert choice.domains[top] == 1
    ids = fields.topology.ids[wish.slice_level]
    for first in range(0, wish.seats, wish.slice_size):
        assert len({int(ids[row]) for row in choice.rows[first : first + wish.slice_size]}) == 1


@thorough
@given(halls(), st.data())
def test_seats_are_contiguous_along_the_tree(
    hall: tuple[int, list[Blade]], data: st.DataObject
) -> None:
    fields, wish = field(*hall), data.draw(wishes(hall[0]))
    choice = choose(fields, wish)
    if choice is None:
        return
    for level in range(fields.bottom + 1):
        own = fields.topology.ids[level][choice.rows]
        assert 1 + int(np.count_nonzero(np.diff(own))) == choice.domains[level]


@thorough
@given(halls(), st.data())
def test_one_blade_more_never_makes_it_worse(
    hall: tuple[int, list[Blade]], data: st.DataObject
) -> None:
    depth, blades = hall
    wish = data.draw(wishes(depth))
    path = data.draw(st.tuples(*[st.sampled_from("abcd")] * depth))
    more = [*blades, (path, 1, 0.0, 8)]
    before, later = field(depth, blades), field(depth, more)
    one, two = choose(before, wish), choose(later, wish)
    if one is not None:
        assert two is not None
        assert better_first(later, wish, two) <= better_first(before, wish, one)


@thorough
@given(halls(), st.data())
def test_cut_short_it_is_a_valid_choice_and_the_bound_holds(
    hall: tuple[int, list[Blade]], data: st.DataObject
) -> None:
    fields, wish = field(*hall), data.draw(wishes(hall[0]))
    best, quick = choose(fields, wish), choose(fields, wish, budget=0)
    assert (best is None) == (quick is None)
    if best is None or quick is None:
        return
    assert len(quick.rows) == wish.seats
    assert (np.bincount(quick.rows, minlength=fields.topology.rows) <= fields.room).all()
    assert best.domains <= quick.domains
    counted = range(fields.bottom + 1)
    assert all(quick.bound[at] <= best.domains[at] for at in counted)
    assert all(quick.bound[at] <= quick.domains[at] for at in counted)
    ids = fields.topology.ids[wish.slice_level]
    for first in range(0, wish.seats, wish.slice_size):
        assert len({int(ids[row]) for row in quick.rows[first : first + wish.slice_size]}) == 1


def test_the_bound_is_that_of_the_best_domain() -> None:
    racks = {("a", "0"): 2, ("a", "1"): 2, ("a", "2"): 2, ("b", "3"): 3, ("b", "4"): 3}
    hall = field(2, [(path, 1, 0.0, 8) for path, count in racks.items() for _ in range(count)])
    quick = choose(hall, Wish(6, 1, 3), budget=0)
    assert quick is not None
    assert quick.bound == quick.domains == (1, 1, 2, 6)


def test_scores_too_large_for_one_number_are_left_out_the_least_one_first() -> None:
    paths = [("a",)] * 2 + [("b",)] * 2
    topology = build_topology(["rack"], paths)
    room, lemon = np.ones(4, dtype=np.int64), np.array([0.0, 9e15, 0.0, 0.0])
    hall = field_of(topology, room, lemon, np.array([1, 8, 8, 1 << 40]))
    chosen = choose(hall, Wish(2, 1, 2))
    assert chosen is not None
    assert chosen.rows == [2, 3]
    assert chosen.exact


def test_an_earlier_field_outweighs_all_later_ones_or_there_are_no_weights() -> None:
    assert weights_for([3, 9, 1]) == [20, 2, 1]
    assert weights_for([1 << 20, 1 << 20, 1 << 20]) is None
