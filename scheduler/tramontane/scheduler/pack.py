"""Choose blades for seats that all ask for the same, as near to each other as there is room.

The order of what is better: the lowest level that one domain of which holds everything; then the
fewest domains one level further down, and so on to the blades; then the least left over in the
domains that are touched; then blades that failed least; then the order of the topology.

Seats come out contiguous along the topology, so that neighbours in the ring are neighbours in
the hall. A slice of `size` consecutive seats never leaves its domain of the slice level; the last
slice may be shorter.

"Fewest domains, least left over" is exact per level (a subset of at most `EXACT_STEPS` work);
beyond that the largest domains are taken first, which still is the fewest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.fleet import FloatArray
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray, IntArray, Topology

EXACT_STEPS: Final = 20_000
LEMON_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class Wish:
    """Hold what is to be placed: `seats` in slices of `slice_size` inside `slice_level`.

    Without slices `slice_size` is 1 and `slice_level` the blade. `top` is the widest level that
    one domain of must hold everything. `spares` more usable blades in that domain are welcome.
    """

    seats: int
    slice_size: int
    slice_level: int
    top: int = POOL_LEVEL
    spares: int = 0

    @property
    def units(self) -> int:
        """Return the number of whole slices."""
        return self.seats // self.slice_size

    @property
    def rest(self) -> int:
        """Return the seats of the short last slice."""
        return self.seats % self.slice_size


@dataclass(frozen=True, slots=True)
class Room:
    """Hold, per level from the pool to the slice level, how many slices each domain has room for.

    `rests[l][d]` is the most that a domain of the slice level inside `d` has beyond whole slices:
    room for the short last slice when all whole ones are needed.
    """

    units: tuple[IntArray, ...]
    rests: tuple[IntArray, ...]

    def fits(self, level: int, wish: Wish) -> BoolArray:
        """Return the domains of a level that hold everything."""
        units: IntArray = self.units[level]
        enough: BoolArray = units >= wish.units
        if not wish.rest:
            return enough
        return enough & ((units > wish.units) | (self.rests[level] >= wish.rest))


@dataclass(frozen=True, slots=True)
class Field:
    """Hold the rows of a pool that may be used, and what makes one better than another.

    `seats[l][d]` is the number of usable rows of a domain, down to the level above the blade.
    """

    topology: Topology
    usable: BoolArray
    lemon: FloatArray
    free_gpus: IntArray
    seats: tuple[list[int], ...]

    @property
    def leaf(self) -> int:
        """Return the lowest level whose domains are more than one blade."""
        return self.topology.blade_level - 1


def field_of(
    topology: Topology, usable: BoolArray, lemon: FloatArray, free_gpus: IntArray
) -> Field:
    """Return the field of these rows. O(rows · levels)."""
    seats = tuple(topology.count(level, usable).tolist() for level in range(topology.blade_level))
    return Field(topology, usable, lemon, free_gpus, seats)


def room_for(field: Field, wish: Wish) -> Room:
    """Return the room in whole slices per domain and level. O(rows)."""
    topology = field.topology
    seats = topology.count(wish.slice_level, field.usable)
    units, rests = [seats // wish.slice_size], [seats % wish.slice_size]
    for level in range(wish.slice_level - 1, POOL_LEVEL - 1, -1):
        units.append(topology.roll_up(level, units[-1]))
        most = np.zeros(len(units[-1]), dtype=np.int64)
        owner = topology.ids[level][topology.bounds[wish.slice_level][:-1]]
        np.maximum.at(most, owner, rests[0])
        rests.append(most)
    return Room(tuple(reversed(units)), tuple(reversed(rests)))


def choose(field: Field, wish: Wish) -> list[int] | None:
    """Return the pool's rows in the order of seats, or None where no domain holds all of them.

    None is final: no other choice of rows would satisfy the wish either.
    """
    room = room_for(field, wish)
    lowest = min(wish.slice_level, field.leaf)
    top = min(wish.top, lowest) if wish.seats == 1 else wish.top
    for level in range(lowest, top - 1, -1):
        fits = np.flatnonzero(room.fits(level, wish))
        if len(fits):
            domain = _best(field, wish, room, level, fits)
            if wish.slice_size == 1:
                return _seats(field, level, domain, wish.seats)
            return _slices(field, wish, room, level, domain)
    return None


def fewest(room: Sequence[int], need: int) -> list[int]:
    """Return the indices of the fewest rooms that hold `need` together, ascending.

    Among as few, those with the least left over. The rooms must hold it.
    """
    order = sorted((i for i, r in enumerate(room) if r), key=lambda i: (-room[i], i))
    total = count = 0
    while total < need:
        total += room[order[count]]
        count += 1
    if len(order) * count <= EXACT_STEPS:
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


def _best(field: Field, wish: Wish, room: Room, level: int, fits: IntArray) -> int:
    """Return the best of the domains that fit: see the order in the module's story."""
    topology, seats = field.topology, field.seats[level]
    mass = np.bincount(
        topology.ids[level], weights=field.lemon * field.usable, minlength=len(seats)
    ).tolist()
    below = room.units[level + 1] if level < min(wish.slice_level, field.leaf) else None

    def cost(domain: int) -> tuple[int, bool, int, int, int]:
        inside = 1
        if below is not None:
            first, end = topology.children[level][domain : domain + 2]
            most_first = np.sort(below[first:end])[::-1].cumsum()
            inside = int(most_first.searchsorted(wish.units)) + 1
        count = seats[domain]
        short = count < wish.seats + wish.spares
        return inside, short, count, round(mass[domain] / count * LEMON_STEPS), domain

    return min((int(domain) for domain in fits), key=cost)


def _slices(field: Field, wish: Wish, room: Room, level: int, domain: int) -> list[int]:
    """Return the rows of all slices inside one domain; a short slice comes last.

    Where the whole slices leave none over, the short one goes where the least remains beside them.
    """
    size, unit_level = wish.slice_size, wish.slice_level
    short_is_unit = bool(wish.rest) and int(room.units[level][domain]) > wish.units
    counts = [units.tolist() for units in room.units]
    units = wish.units + short_is_unit
    shares = _share(field.topology, counts, units, level=level, domain=domain, down_to=unit_level)
    seats = {at: share * size for at, share in shares}
    short_at = -1
    if short_is_unit:
        short_at = shares[-1][0]
        seats[short_at] -= size
    elif wish.rest:
        short_at = _least_rest(field.topology, wish, room, level, domain)
        seats.setdefault(short_at, 0)
    rows: list[int] = []
    last: list[int] = []
    for at, whole in seats.items():
        if at == short_at:
            both = _seats(field, unit_level, at, whole + wish.rest)
            rows, last = rows + both[:whole], both[whole:]
        else:
            rows += _seats(field, unit_level, at, whole)
    return rows + last


def _least_rest(topology: Topology, wish: Wish, room: Room, level: int, domain: int) -> int:
    """Return the domain of the slice level that keeps just enough beside its whole slices."""
    rests = room.rests[wish.slice_level]
    owner = topology.ids[level][topology.bounds[wish.slice_level][:-1]]
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


def _seats(field: Field, level: int, domain: int, seats: int) -> list[int]:
    """Return `seats` usable rows inside one domain, ascending along the topology.

    On the lowest level, blades that failed least and are fullest already come first.
    """
    rows: list[int] = []
    bounds = field.topology.bounds[field.leaf]
    shares = _share(
        field.topology, field.seats, seats, level=level, domain=domain, down_to=field.leaf
    )
    for at, share in shares:
        inside = np.flatnonzero(field.usable[bounds[at] : bounds[at + 1]]) + bounds[at]
        lemon = np.round(field.lemon[inside] * LEMON_STEPS)
        order = np.lexsort((inside, field.free_gpus[inside], lemon))
        rows += np.sort(inside[order[:share]]).tolist()
    return rows
