"""Hold what equal seats are placed on, and what is wished for, in arrays over a pool's rows."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.fleet import FloatArray
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray, IntArray, Topology

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

    def sliced(self, level: int) -> bool:
        """Return whether a domain of this level may have to divide slices among several."""
        return self.slice_size > 1 and level < self.slice_level


@dataclass(frozen=True, slots=True)
class Field:
    """Hold how many seats each row of a pool has room for, and what makes one row better.

    `seats[l][d]` is the room of a domain, for every level. `lemon` is in whole steps. Where no
    row has room for two seats, rows of one domain of the lowest level differ only in `lemon` and
    `free_gpus`; else (`shared`) the blade is one more level on which few domains are better.
    """

    topology: Topology
    room: IntArray
    lemon: IntArray
    free_gpus: IntArray
    seats: tuple[IntArray, ...]
    shared: bool

    @property
    def leaf(self) -> int:
        """Return the lowest level whose domains are more than one blade."""
        return self.topology.blade_level - 1

    @property
    def bottom(self) -> int:
        """Return the lowest level at which domains are counted."""
        return self.topology.blade_level if self.shared else self.leaf


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
class Task:
    """Hold a wish, and the domains `fits` of one level each of which holds all of it.

    `level` is the lowest one with such domains. `room` is that in slices, where there are any.
    """

    field: Field
    wish: Wish
    level: int
    fits: IntArray
    room: Room | None

    @property
    def sliced(self) -> bool:
        """Return whether slices may have to be divided among several domains."""
        return self.wish.sliced(self.level)

    def in_slices(self, at: int) -> bool:
        """Return whether the amounts of domains of a level are slices, not seats."""
        return self.sliced and at <= self.wish.slice_level

    def caps(self, at: int) -> IntArray:
        """Return how much each domain of a level has room for: slices or seats."""
        if self.room is not None and self.in_slices(at):
            return self.room.units[at]
        return self.field.seats[at]

    def inside(self, at: int) -> BoolArray:
        """Return the domains of a level inside those that fit which a seat could go to."""
        topology = self.field.topology
        homes = topology.ids[self.level][topology.bounds[at][:-1]]
        inside: BoolArray = np.isin(homes, self.fits) & (self.field.seats[at] > 0)
        return inside


def owners(topology: Topology, level: int) -> IntArray:
    """Return the domain of the level above that each domain of a level lies in."""
    return topology.ids[level - 1][topology.bounds[level][:-1]]


def fewest_of(caps: IntArray, parents: IntArray, need: int) -> tuple[IntArray, IntArray]:
    """Return per child how many of its parent's children hold `need`, and how much the others can.

    The largest first; the others are all but the last one that this takes. `parents` ascend.
    Where all together do not hold it, all are taken.
    """
    order = np.lexsort((-caps, parents))
    sorted_caps = caps[order]
    starts = np.flatnonzero(np.diff(parents, prepend=-1))
    sizes = np.diff(np.append(starts, len(parents)))
    before = np.cumsum(sorted_caps) - sorted_caps
    before -= np.repeat(before[starts], sizes)
    counts = np.maximum(1, np.add.reduceat((before < need).astype(np.int64), starts))
    others = before[starts + counts - 1]
    return np.repeat(counts, sizes), np.repeat(others, sizes)


def field_of(topology: Topology, room: IntArray, lemon: FloatArray, free_gpus: IntArray) -> Field:
    """Return the field of these rows. O(rows · levels)."""
    seats = [room]
    for level in range(topology.blade_level - 1, POOL_LEVEL - 1, -1):
        seats.append(topology.roll_up(level, seats[-1]))
    steps = np.rint(lemon * LEMON_STEPS).astype(np.int64)
    shared = bool(topology.rows and room.max() > 1)
    return Field(topology, room, steps, free_gpus, tuple(reversed(seats)), shared)


def room_for(field: Field, wish: Wish) -> Room:
    """Return the room in whole slices per domain and level. O(rows)."""
    topology = field.topology
    seats = field.seats[wish.slice_level]
    units, rests = [seats // wish.slice_size], [seats % wish.slice_size]
    for level in range(wish.slice_level - 1, POOL_LEVEL - 1, -1):
        units.append(topology.roll_up(level, units[-1]))
        most = np.zeros(len(units[-1]), dtype=np.int64)
        owner = topology.ids[level][topology.bounds[wish.slice_level][:-1]]
        np.maximum.at(most, owner, rests[0])
        rests.append(most)
    return Room(tuple(reversed(units)), tuple(reversed(rests)))
