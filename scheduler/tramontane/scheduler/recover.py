"""Move lost seats, and only those; take spares anew where there is room.

    for each lost seat, in order:
    1. which blades keep what the gang was promised: the rest of its slice stays in one domain,
       and while packing is required the whole gang does
    2. of these the gang's own spare first, then a free blade; the nearest to the lost one first
    3. none: the seat keeps its old name, and waits

A seat that is not in `spec.lost` never moves. A blade that `spec.lost` names is not taken again,
whatever its state: naming it again would make the old entry true once more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tramontane.scheduler.fit import in_words
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.packing.pack import LEMON_STEPS
from tramontane.scheduler.place import common_domain, pick_spares, slices_of, top_level
from tramontane.scheduler.records import GPU
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray


@dataclass(frozen=True, slots=True)
class Move:
    """Hold one seat's change of blade."""

    seat: int
    old: str
    new: str
    was_spare: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """Hold the placement after the moves, and per seat that must wait, why."""

    placement: Placement
    moves: tuple[Move, ...]
    waiting: tuple[tuple[int, str], ...]


def recover(snapshot: Snapshot, gang: GangRecord, now_s: float) -> Recovery:
    """Return new blades for the lost seats of a placed gang, and count them as taken.

    The old blade is not freed: the lost pod may still be there, and until the next snapshot
    nobody knows.
    """
    assert gang.placement is not None
    pool = snapshot.fleet.pools.get(gang.pool)
    if pool is None:
        why = f"pool {gang.pool} is gone"
        return Recovery(gang.placement, (), tuple((seat, why) for seat in gang.lost_seats()))
    mover = _Mover(snapshot, pool, gang, gang.placement, now_s)
    moves, waiting = [], []
    for seat in gang.lost_seats():
        answer = mover.move(seat)
        if isinstance(answer, Move):
            moves.append(answer)
        else:
            waiting.append((seat, answer))
    placement = Placement(tuple(mover.seats), tuple(mover.spares))
    return Recovery(placement, tuple(moves), tuple(waiting))


def refill(snapshot: Snapshot, gang: GangRecord, placement: Placement, now_s: float) -> Placement:
    """Return the placement with spares as asked for, and count them as held.

    A spare that is out of service is given up only for another one; those beyond what is asked
    for are given up, the last first.
    """
    if not gang.spares and not placement.spares:
        return placement
    fleet, pool = snapshot.fleet, snapshot.fleet.pools.get(gang.pool)

    def serves(name: str) -> bool:
        row = fleet.row_of.get(name)
        return row is not None and bool(fleet.in_service[row]) and not snapshot.busy[row]

    good = [name for name in placement.spares if serves(name)][: gang.spares]
    lacking = gang.spares - len(good)
    fresh: list[str] = []
    if pool is not None and lacking:
        seats = (fleet.row_of.get(name, -1) for name in placement.seats)
        rows = [row - pool.first for row in seats if pool.first <= row < pool.end]
        if rows:
            chosen = pick_spares(snapshot, gang, rows, lacking, now_s)
            fresh = [fleet.names[row] for row in chosen]
    # What is out of service fills up the rest: it may come back, and nobody else can use it.
    broken = [name for name in placement.spares if not serves(name)]
    kept = {*good, *broken[: lacking - len(fresh)]}
    for name in placement.spares:
        row = fleet.row_of.get(name)
        if name not in kept and row is not None and snapshot.spare_of.get(row) == gang.key:
            snapshot.let_go(row)
    for name in fresh:
        snapshot.hold(fleet.row_of[name], gang.key)
    old = tuple(name for name in placement.spares if name in kept)
    return Placement(placement.seats, (*old, *fresh))


class _Mover:
    """Move the lost seats of one gang, one after another."""

    def __init__(
        self, snapshot: Snapshot, pool: Pool, gang: GangRecord, placement: Placement, now_s: float
    ) -> None:
        self.snapshot, self.pool, self.gang = snapshot, pool, gang
        self.seats, self.spares = list(placement.seats), list(placement.spares)
        self._asks = [gang.slots[slot].ask for slot in gang.slot_of_seats(len(self.seats))]
        self._lost = set(gang.lost_seats())
        self._not_again = {blade for _, blade in gang.lost}
        if not gang.shares_blades:
            self._not_again.update(placement.seats)
        self._top = top_level(pool, gang, now_s)

    def move(self, seat: int) -> Move | str:
        """Return the seat's move, counted in the snapshot, or in words why it must wait."""
        candidates, why = self._together(seat, self._usable(seat))
        row = self._nearest(seat, candidates)
        ask = self._asks[seat]
        if row is None:
            return why or f"no blade of {in_words([ask])} is free"
        old, new = self.seats[seat], self.snapshot.fleet.names[row]
        was_spare = new in self.spares
        if was_spare:
            self.spares.remove(new)
            self.snapshot.let_go(row)
        self.snapshot.take([row], ask.requests)
        self.seats[seat] = new
        self._lost.discard(seat)
        if not self.gang.shares_blades:
            self._not_again.add(new)
        return Move(seat, old, new, was_spare)

    def _row(self, name: str) -> int | None:
        """Return a blade's row in the pool, or None where it is not of the pool."""
        row = self.snapshot.fleet.row_of.get(name, -1) - self.pool.first
        return row if 0 <= row < self.pool.topology.rows else None

    def _rows(self, names: Iterable[str]) -> list[int]:
        return [row for name in names if (row := self._row(name)) is not None]

    def _survivors(self, seats: Iterable[int]) -> list[int]:
        """Return the rows of those seats that are not lost, or have been moved."""
        return self._rows(self.seats[seat] for seat in seats if seat not in self._lost)

    def _usable(self, seat: int) -> BoolArray:
        """Return the pool's rows that take the seat: free blades, and the gang's own spares."""
        snapshot, gang, ask = self.snapshot, self.gang, self._asks[seat]
        fleet, pool = snapshot.fleet, self.pool
        mask = snapshot.usable(ask, gang.avoid)[pool.rows].copy()
        for row in self._rows(self.spares):
            at = row + pool.first
            mask[row] = (
                snapshot.spare_of.get(at) == gang.key
                and fleet.in_service[at]
                and fleet.names[at] not in gang.avoid
                and fleet.selected(ask)[at]
                and fleet.tolerated(ask.tolerations)[at]
                and all(r in snapshot.free and snapshot.free[r][at] >= n for r, n in ask.requests)
            )
        mask[self._rows(self._not_again)] = False
        return mask

    def _together(self, seat: int, mask: BoolArray) -> tuple[BoolArray, str]:
        """Return the rows that keep a required pack and the seat's slice whole, and in words why.

        Where nobody of them survives, they go where there is room for all.
        """
        topology, gang = self.pool.topology, self.gang
        why = ""
        if self._top > POOL_LEVEL:
            name = topology.names[self._top]
            mask &= self._home(self._top, range(len(self.seats)), mask)
            why = f"none is free in the {name} that the gang must not leave"
        size, level = slices_of(self.pool, gang)
        if size > 1:
            first = seat // size * size
            mates = range(first, min(first + size, len(self.seats)))
            mask &= self._home(level, mates, mask)
            why = (
                f"none is free in the {topology.names[level]} of seats "
                f"{mates.start} to {mates.stop - 1}, which must stay together"
            )
        return mask, why

    def _home(self, level: int, seats: range, mask: BoolArray) -> BoolArray:
        """Return the rows of the domain that these seats share, or may all go to.

        Seats that lie in several domains already (packing was relaxed) may go anywhere.
        """
        topology, survivors = self.pool.topology, self._survivors(seats)
        if not survivors:
            roomy = topology.count(level, mask) >= len(seats)
            return np.asarray(roomy[topology.ids[level]], dtype=np.bool_)
        home = common_domain(topology, level, survivors)
        return np.ones(topology.rows, dtype=np.bool_) if home is None else home

    def _nearest(self, seat: int, candidates: BoolArray) -> int | None:
        """Return the best row of the fleet for a seat: a spare, then near, then seldom failed.

        The lost blade says where near is; where it is gone, the neighbours in the ring do.
        """
        rows = np.flatnonzero(candidates)
        if not len(rows):
            return None
        fleet, pool, seats = self.snapshot.fleet, self.pool, self.seats
        beside = [seats[seat], *(seats[i] for i in (seat - 1, seat + 1) if 0 <= i < len(seats))]
        origin = self._rows(beside)
        near = pool.topology.nearness(origin[0])[rows] if origin else np.zeros_like(rows)
        gpus = self.snapshot.free.get(GPU)
        at = rows + pool.first
        free = np.zeros_like(rows) if gpus is None else gpus[at]
        lemon = np.round(fleet.lemon[at] * LEMON_STEPS)
        held = np.isin(rows, self._rows(self.spares))
        return int(at[np.lexsort((rows, free, lemon, -near, ~held))[0]])
