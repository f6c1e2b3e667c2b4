"""Choose blades for seats that all ask for the same, as near to each other as there is room.

The order of what is better:

1. the lowest level that one domain of which holds everything
2. the fewest domains one level further down, and so on to the lowest level above the blade; and
   the fewest blades, where a blade has room for several seats
3. room for the gang's spares in the domain that holds everything
4. the least left over in the domains of the lowest level that are touched
5. blades that failed least, then the fullest ones, then the order of the topology

Seats come out contiguous along the topology, so that neighbours in the ring are neighbours in
the hall. A slice of `size` consecutive seats never leaves its domain of the slice level; the last
slice may be shorter, and the domains that it lies in come last.

`exact` finds the best; where that would take more than `budget` elementary steps (about a
nanosecond each), `greedy` finds a good one, and `bound` says how far from the best it may be.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.packing import exact, greedy
from tramontane.scheduler.packing.field import LEMON_STEPS, Field, Task, Wish, field_of, room_for
from tramontane.scheduler.topology import Topology

__all__ = [
    "EXACT_STEPS",
    "LEMON_STEPS",
    "Choice",
    "Field",
    "Wish",
    "choose",
    "domains_of",
    "field_of",
]

EXACT_STEPS: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Choice:
    """Hold the rows of the seats, and how many domains of each level they lie in.

    `bound` is how many there must be at least; where the choice is exact it is what there is.
    Both begin with the pool and end with the blade.
    """

    rows: list[int]
    exact: bool
    domains: tuple[int, ...]
    bound: tuple[int, ...]


def choose(field: Field, wish: Wish, budget: int = EXACT_STEPS) -> Choice | None:
    """Return where the seats go, or None where no domain holds all of them.

    None is final: no other choice of rows would satisfy the wish either.
    """
    room = room_for(field, wish) if wish.slice_size > 1 else None
    top = min(wish.top, field.bottom) if wish.seats == 1 else wish.top
    for level in range(field.bottom, top - 1, -1):
        if room is not None and wish.sliced(level):
            fits = np.flatnonzero(room.fits(level, wish))
        else:
            fits = np.flatnonzero(field.seats[level] >= wish.seats)
        if not len(fits):
            continue
        task = Task(field, wish, level, fits, room)
        best = exact.search(task, budget)
        if best is not None:
            return exactly(field.topology, best)
        rows = greedy.search(task)
        return Choice(rows, False, domains_of(field.topology, rows), greedy.bounds(task))
    return None


def exactly(topology: Topology, rows: list[int]) -> Choice:
    """Return the choice of rows that cannot be bettered."""
    used = domains_of(topology, rows)
    return Choice(rows, True, used, used)


def domains_of(topology: Topology, rows: list[int]) -> tuple[int, ...]:
    """Return how many domains of each level these rows lie in, from the pool to the blade."""
    return tuple(int(np.count_nonzero(np.bincount(ids[rows]))) for ids in topology.ids)
