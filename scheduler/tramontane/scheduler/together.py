"""Count how much of a gang each domain has room for: of the seats that must lie together.

| the gang | is counted in | a domain has room for |
|---|---|---|
| equal seats      | seats  | what its blades hold |
| slots that differ | seats | those that its blades hold together (Hall's theorem) |
| slices           | slices | whole ones, and the short one where what is left over holds it |

It starts where one domain of its widest level has room for all of it, and not otherwise: `place`
and this count agree. Spares are not counted, since no gang waits for its spares.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tramontane.scheduler.packing.mixed import most_seats_each, types_of
from tramontane.scheduler.topology import POOL_LEVEL, IntArray, Topology

# Seats that each row has room for: per ask, or one array where all asks are counted as one.
Rooms = Sequence[IntArray]


@dataclass(frozen=True, slots=True)
class Together:
    """Hold what one domain of level `top` must take: seats per ask, in slices of `size`.

    A slice lies in one domain of `level`. Where `top` is narrower than that, slices change nothing.
    """

    topology: Topology
    counts: tuple[int, ...]
    size: int
    level: int
    top: int

    @property
    def seats(self) -> int:
        """Return the number of seats."""
        return sum(self.counts)

    @property
    def sliced(self) -> bool:
        """Return whether slices say more than `top` does."""
        return self.size > 1 and self.top <= self.level

    @property
    def parts(self) -> int:
        """Return the number of slices, or of seats where there are none."""
        return -(-self.seats // self.size) if self.sliced else self.seats

    def room(self, rooms: Rooms) -> IntArray:
        """Return how many parts each domain of `top` has room for at once. O(rows)."""
        topology, top = self.topology, self.top
        if len(rooms) > 1:
            types = types_of([room > 0 for room in rooms])
            return most_seats_each(topology, top, types, self.counts)
        if not self.sliced:
            return _sums(topology, top, rooms[0])
        inside, short = _sums(topology, self.level, rooms[0]), self.seats % self.size
        whole = inside // self.size
        left = (inside % self.size >= short).astype(np.int64) * min(1, short)
        for above in range(self.level - 1, top - 1, -1):
            whole, left = topology.roll_up(above, whole), topology.roll_up(above, left)
        return np.asarray(whole + left.clip(max=1), dtype=np.int64)

    def fits(self, rooms: Rooms) -> bool:
        """Return whether some domain of `top` has room for all of it. O(rows)."""
        if len(rooms) == 1 and self.top == POOL_LEVEL and not self.sliced:
            return int(rooms[0].sum()) >= self.seats
        return bool((self.room(rooms) >= self.parts).any())

    def unsliced(self) -> "Together":
        """Return the same seats without slices."""
        return replace(self, size=1, level=self.topology.blade_level)

    def anywhere(self) -> "Together":
        """Return the same seats and slices, wherever in the pool."""
        return replace(self, top=POOL_LEVEL)


def _sums(topology: Topology, level: int, room: IntArray) -> IntArray:
    """Return how many seats each domain of a level has room for."""
    sums, bounds = np.concatenate(([0], np.cumsum(room))), topology.bounds[level]
    found: IntArray = sums[bounds[1:]] - sums[bounds[:-1]]
    return found
