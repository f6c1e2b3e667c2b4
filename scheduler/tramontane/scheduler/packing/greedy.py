"""Find rows for equal seats quickly: level by level, the fewest domains, the least left over.

For what is too large for `exact`. Each level is divided by itself, so a level further down may
have more domains than is possible; how few are possible at least is `bounds`.

"Fewest domains, least left over" is exact per level (a subset of at most `SUBSET_STEPS` work);
beyond that the largest domains are taken first, which still is the fewest.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tramontane.scheduler.packing.field import Field, Room, Task, fewest_of, owners
from tramontane.scheduler.topology import Topology

SUBSET_STEPS: Final = 20_000


def search(task: Task) -> list[int]:
    """Return the rows in the order of seats inside a good one of the domains that fit."""
    domain = _best(task)
    if task.room is not None and task.sliced:
        return _slices(task, task.room, domain)
    counts = [seats.tolist() for seats in task.field.seats]
    return _seats(task.field, counts, domain, level=task.level, seats=task.wish.seats)


def bounds(task: Task) -> tuple[int, ...]:
    """Return per level, from the pool to the blade, how few domains any solution touches."""
    topology, wish = task.field.topology, task.wish
    least = [1] * (task.level + 1)
    for at in range(task.level + 1, topology.blade_level + 1):
        inside = np.flatnonzero(task.inside(at))
        homes = topology.ids[task.level][topology.bounds[at][inside]]
        need = wish.units if task.in_slices(at) else wish.seats
        counts, _ = fewest_of(task.caps(at)[inside], homes, need)
        least.append(max(least[-1], int(counts.min())))
    return tuple(least)


def fewest(room: Sequence[int], need: int) -> list[int]:
    """Return the indices of the fewest rooms that hold `need` together, ascending.

    Among as few, those with the least left over. The rooms must hold it.
    """
    order = sorted((i for i, r in enumerate(room) if r), key=lambda i: (-room[i], i))
    total = count = 0
    while total < need:
        total += room[order[count]]
        count += 1
    if len(order) * count <= SUBSET_STEPS:
        return _least_left_over(room, sorted(order), need, count)
    before = sum(room[i] for i in order[: count - 1])
    last = min((room[i], i) for i in order[count - 1 :] if room[i] >= need - before)[1]
    return sorted([*order[: count - 1], last])


def _least_left_over(room: Sequence[int], order: list[int], need: int, count: int) -> list[int]:
    """Return the `count` indices whose rooms sum up to the least that is enough.

    A subset sum over bit sets: bit `s` of `reach[c]` says that some `c` rooms sum up to `s`.
    """
    reach = [1] + [0] * count
    history = []
    for index in order:
        history.append(reach)
        step = room[index]
        reach = [1, *(reach[c] | (reach[c - 1] << step) for c in range(1, count + 1))]
    enough = reach[count] >> need
    total = need + (enough & -enough).bit_length() - 1
    chosen = []
    for index, before in zip(reversed(order), reversed(history), strict=True):
        if not before[count] >> total & 1:
            chosen.append(index)
            total -= room[index]
            count -= 1
    return chosen[::-1]


def _best(task: Task) -> int:
    """Return the domain with the fewest inside, then room for spares, then the least left over."""
    wish, fits, below = task.wish, task.fits, task.level + 1
    inside = np.flatnonzero(task.inside(below))
    parents = owners(task.field.topology, below)[inside]
    need = wish.units if task.sliced else wish.seats
    counts, _ = fewest_of(task.caps(below)[inside], parents, need)
    held = task.field.seats[task.level][fits]
    short = held < wish.seats + wish.spares
    return int(fits[np.lexsort((held, short, counts[np.searchsorted(parents, fits)]))[0]])


def _slices(task: Task, room: Room, domain: int) -> list[int]:
    """Return the rows of all slices inside one domain; a short slice comes last.

    Where the whole slices leave none over, the short one goes where the least remains beside them.
    """
    wish, level, topology = task.wish, task.level, task.field.topology
    short_is_unit = bool(wish.rest) and int(room.units[level][domain]) > wish.units
    units = [counts.tolist() for counts in room.units]
    need = wish.units + short_is_unit
    shares = _share(topology, units, need, level=level, domain=domain, down_to=wish.slice_level)
    seats = {at: share * wish.slice_size for at, share in shares}
    short_at = -1
    if short_is_unit:
        short_at = shares[-1][0]
        seats[short_at] -= wish.slice_size
    elif wish.rest:
        short_at = _least_rest(topology, task, room, domain)
        seats.setdefault(short_at, 0)
    counts = [held.tolist() for held in task.field.seats]
    rows: list[int] = []
    for at in sorted(seats, key=lambda at: at == short_at):
        amount = seats[at] + wish.rest * (at == short_at)
        rows += _seats(task.field, counts, at, level=wish.slice_level, seats=amount)
    return rows


def _least_rest(topology: Topology, task: Task, room: Room, domain: int) -> int:
    """Return the domain of the slice level that keeps just enough beside its whole slices."""
    wish, rests = task.wish, room.rests[task.wish.slice_level]
    owner = topology.ids[task.level][topology.bounds[wish.slice_level][:-1]]
    enough = np.flatnonzero((owner == domain) & (rests >= wish.rest)).tolist()
    return min(enough, key=lambda at: (int(rests[at]), -at))


def _share(
    topology: Topology,
    room: Sequence[Sequence[int]],
    need: int,
    *,
    level: int,
    domain: int,
    down_to: int,
) -> list[tuple[int, int]]:
    """Return (domain of `down_to`, amount) that share `need` out inside one domain, in order.

    All chosen domains are filled but one, which keeps what is left over: the one in which that
    saves most domains further down.
    """
    shares = [(domain, need)] if need else []
    for at in range(level, down_to):
        edges, deeper = topology.children[at], at + 1 < down_to
        below: list[tuple[int, int]] = []
        for parent, amount in shares:
            first = int(edges[parent])
            children = room[at + 1][first : edges[parent + 1]]
            chosen = [first + i for i in fewest(children, amount)]
            over = sum(room[at + 1][child] for child in chosen) - amount
            keeps = chosen[-1]
            if over and deeper:
                inner, next_edges = room[at + 2], topology.children[at + 1]
                saved = {
                    child: _saved(inner[next_edges[child] : next_edges[child + 1]], over)
                    for child in chosen
                }
                keeps = max(chosen, key=lambda child: (saved[child], child))
            below += [(c, room[at + 1][c] - (over if c == keeps else 0)) for c in chosen]
        shares = below
    return shares


def _saved(room: Sequence[int], over: int) -> int:
    """Return how many of the rooms stay untouched where `over` of all they hold is left over."""
    saved = 0
    for size in sorted(filter(None, room)):
        if size > over:
            break
        over -= size
        saved += 1
    return saved


def _seats(
    field: Field, counts: Sequence[Sequence[int]], domain: int, *, level: int, seats: int
) -> list[int]:
    """Return rows with room for `seats` inside one domain of a level, along the topology.

    On the lowest level, blades with the most room come first, then those that failed least and
    are fullest already.
    """
    rows: list[int] = []
    bounds = field.topology.bounds[field.leaf]
    shares = _share(field.topology, counts, seats, level=level, domain=domain, down_to=field.leaf)
    for at, share in shares:
        inside = np.flatnonzero(field.room[bounds[at] : bounds[at + 1]]) + bounds[at]
        room = field.room[inside]
        best = inside[np.lexsort((inside, field.free_gpus[inside], field.lemon[inside], -room))]
        rows += np.sort(np.repeat(best, field.room[best])[:share]).tolist()
    return rows
