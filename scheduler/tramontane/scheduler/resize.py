"""Place a gang anew at another size, on the blades that it has and those that are free.

The owner has ended the pods (`spec.resize`), so every seat may be numbered anew and every blade
left; still as many of its blades are kept as can be, since images and checkpoints lie there:

    1. fewer seats than blades it keeps: the nearest together of these
    2. else all that it keeps, and for each seat more the nearest blade; its own spares first
    3. else, where slices or required packing forbid that, the best place there is, in which its
       own blades go before others that are as good

A blade that `spec.lost` names, that is out of service or avoided is not kept. Whatever comes out
was found by `place.find`, so it satisfies all that a fresh placement does; and where `find` finds
nothing in the whole room, nothing is found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.leaving import without
from tramontane.scheduler.place import common_domain, find
from tramontane.scheduler.recover import recover
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import POOL_LEVEL

# Lemon scores lie between 0 and 1: others look this much worse than the gang's own blades.
OTHERS_ARE_WORSE = 1.0


def wish(snapshot: Snapshot, gang: GangRecord, sizes: Sequence[int]) -> GangRecord:
    """Return what is looked for: the gang at these sizes, without spares, not on lost blades.

    Where its seats lie apart although packing is required, that was relaxed, and stays so.
    """
    wanted = replace(
        gang,
        sizes=tuple(sizes),
        spares=0,
        avoid=gang.avoid | {blade for _, blade in gang.lost},
    )
    pool = snapshot.fleet.pools[gang.pool]
    level = pool.topology.level(gang.pack) or POOL_LEVEL
    rows = [row - pool.first for row in _rows(snapshot, pool, _seats(gang))]
    apart = bool(rows) and common_domain(pool.topology, level, rows) is None
    return replace(wanted, required=False) if gang.required and apart else wanted


def anew(room: Snapshot, gang: GangRecord, size: int, now_s: float) -> tuple[str, ...] | None:
    """Return the blade of each seat at a size of the first slot, or None where it does not fit.

    In `room` all that the gang has is free, and all that it may not take is not.
    """
    wanted = wish(room, gang, (size,))
    needed = sum(wanted.counts(size))
    kept = _kept(room, wanted)
    if len(kept) >= needed and (seats := _within(room, wanted, kept, now_s)) is not None:
        return seats
    filled = _filled(room, wanted, kept, size, now_s)
    if filled is not None and (seats := _within(room, wanted, filled, now_s)) is not None:
        return seats
    return _found(_preferring(room, _seats(gang)), wanted, now_s)


def _kept(room: Snapshot, wanted: GangRecord) -> list[str]:
    """Return the seats' blades that may be kept, in the order of seats, each for its own slot."""
    pool, seats = room.fleet.pools[wanted.pool], _seats(wanted)
    usable = [room.usable(slot.ask, wanted.avoid) for slot in wanted.slots]
    kept = []
    for owner, name in zip(wanted.slot_of_seats(len(seats)), seats, strict=True):
        row = room.fleet.row_of.get(name, -1)
        if pool.first <= row < pool.end and usable[owner][row]:
            kept.append(name)
    return kept


def _filled(
    room: Snapshot, wanted: GangRecord, kept: Sequence[str], size: int, now_s: float
) -> list[str] | None:
    """Return all kept blades and, for every seat that has none, the nearest; None without one.

    It is a recovery in which the seats that are new have been lost as well. Slices keep their
    seats' numbers, so one that loses seats only is left to the search for a place.
    """
    placement, of_kept = wanted.placement, set(kept)
    assert placement is not None
    old = wanted.size_of(len(placement.seats))
    first, rest = list(placement.seats[:old]), list(placement.seats[old:])
    if size < old:
        if wanted.slice_size > 1:
            return None
        # The seats that go are the lost ones, the last of these first.
        lost = [seat for seat, name in enumerate(first) if name not in of_kept]
        gone = set(lost[len(lost) - (old - size) :]) if len(lost) >= old - size else set()
        first = [name for seat, name in enumerate(first) if seat not in gone]
        if len(first) != size:
            return None
    seats = [*first, *[""] * (size - len(first)), *rest]
    broken = tuple((seat, name) for seat, name in enumerate(seats) if name not in of_kept)
    fleet, pool = room.fleet, room.fleet.pools[wanted.pool]
    trial = without(room, ())
    for row in _rows(room, pool, placement.spares):
        if fleet.in_service[row] and not trial.held[row]:
            trial.hold(row, wanted.key)
    virtual = replace(
        wanted,
        lost=(*wanted.lost, *broken),
        placement=Placement(tuple(seats), placement.spares),
    )
    recovery = recover(trial, virtual, now_s)
    return None if recovery.waiting else list(recovery.placement.seats)


def _within(
    room: Snapshot, wanted: GangRecord, names: Iterable[str], now_s: float
) -> tuple[str, ...] | None:
    """Return the seats where only these blades may be used."""
    held = np.ones_like(room.held)
    rows = [room.fleet.row_of[name] for name in names]
    held[rows] = room.held[rows]
    return _found(replace(room, held=held, _usable={}), wanted, now_s)


def _preferring(room: Snapshot, names: Iterable[str]) -> Snapshot:
    """Return the room in which, of blades that are equally good, these come first."""
    lemon = room.fleet.lemon + OTHERS_ARE_WORSE
    rows = [row for name in names if (row := room.fleet.row_of.get(name)) is not None]
    lemon[rows] -= OTHERS_ARE_WORSE
    return replace(room, fleet=replace(room.fleet, lemon=lemon))


def _found(room: Snapshot, wanted: GangRecord, now_s: float) -> tuple[str, ...] | None:
    plan = find(room, wanted, now_s)
    return None if plan is None else plan.placement.seats


def _seats(gang: GangRecord) -> tuple[str, ...]:
    return gang.placement.seats if gang.placement else ()


def _rows(snapshot: Snapshot, pool: Pool, names: Iterable[str]) -> list[int]:
    """Return the rows of the fleet of those blades that are of the pool."""
    row_of = snapshot.fleet.row_of
    return [row for name in names if pool.first <= (row := row_of.get(name, -1)) < pool.end]
