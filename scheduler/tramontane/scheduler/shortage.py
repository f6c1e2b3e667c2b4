"""Count what a domain lacks for a gang, and name the fewest blades that would fill it.

`now` says how many seats each of the pool's rows has room for, per ask; `then` the same after some
change, never less. A gang fits where one domain of its widest level lacks nothing, so the fewest
blades are those of the domain that lacks least:

| the gang | a domain lacks |
|---|---|
| equal seats          | the seats less what its rows have room for |
| slots that differ    | the seats less those that its rows hold together (Hall's theorem) |
| slices               | what fills up the slices that are nearest to whole ones |

All three are exact where each seat has a blade of its own and a changed row took none before.
Where seats share blades, the rows that gain most are taken first, which is exact without slices.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tramontane.scheduler.fit import groups_of, room_now
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.packing.mixed import most_seats, types_of
from tramontane.scheduler.place import slices_of, top_level
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import IntArray, Topology

# Seats that each row has room for: per ask, or one array where all asks are counted as one.
Rooms = Sequence[IntArray]


@dataclass(frozen=True, slots=True)
class Need:
    """Hold what one domain of level `top` must take: seats per ask, in slices of `size`."""

    topology: Topology
    counts: tuple[int, ...]
    size: int
    unit_level: int
    top: int

    @property
    def seats(self) -> int:
        """Return the number of seats."""
        return sum(self.counts)

    def domains(self) -> Iterable[tuple[int, slice]]:
        """Yield the domains of the widest level, and their rows."""
        bounds = self.topology.bounds[self.top].tolist()
        for domain in range(len(bounds) - 1):
            yield domain, slice(bounds[domain], bounds[domain + 1])


def needs_of(pool: Pool, gang: GangRecord, now_s: float) -> tuple[Need, ...]:
    """Return what the gang needs at the smallest size that it accepts.

    Seats of different asks that may share blades are looked at twice: as if all asked for the most
    that any does, and with a blade for each. `place` may still find room where neither has any.
    """
    groups, per_slot = groups_of(gang), gang.counts(min(gang.wanted_sizes()))
    size, level = slices_of(pool, gang)
    top = top_level(pool, gang, now_s)
    if top > level:  # one domain below the slice level holds every slice anyway
        size, level = 1, pool.topology.blade_level
    counts = tuple(groups.counts(per_slot))
    alike = Need(pool.topology, (sum(counts),), size, level, top)
    if size > 1 or len(counts) == 1:
        return (alike,)
    apart = replace(alike, counts=counts)
    return (alike, apart) if gang.shares_blades else (apart,)


def rooms_of(snapshot: Snapshot, pool: Pool, gang: GangRecord, need: Need) -> Rooms:
    """Return what the pool's rows have room for now."""
    groups = groups_of(gang)
    if len(need.counts) == 1:
        return [room_now(snapshot, pool, gang, groups, need.seats)]
    masks = (snapshot.usable(ask, gang.avoid)[pool.rows] for ask in groups.asks)
    return [mask.astype(np.int64) for mask in masks]


def fits(snapshot: Snapshot, pool: Pool, gang: GangRecord, now_s: float) -> bool:
    """Return whether the gang has a place as things are; cheaper than to place it."""
    for need in needs_of(pool, gang, now_s):
        rooms = rooms_of(snapshot, pool, gang, need)
        if _fewest(need, rooms, rooms) == []:
            return True
    return False


def fewest(
    before: Snapshot,
    after: Snapshot,
    pool: Pool,
    gang: GangRecord,
    *,
    then: GangRecord,
    now_s: float,
) -> list[int] | None:
    """Return the fewest rows that must come to be as they are after a change of all of them.

    `gang` asks before the change, `then` after it, for the same seats. None where even all are
    not enough, empty where the gang fits before. Among as few, those of the first domain.
    """
    found = [
        _fewest(need, rooms_of(before, pool, gang, need), rooms_of(after, pool, then, need))
        for need in needs_of(pool, gang, now_s)
    ]
    return min((rows for rows in found if rows is not None), key=len, default=None)


def lacks(need: Need, now: Rooms, then: Rooms) -> Mapping[int, int]:
    """Return domain → rows that it lacks, for those in which all of `then` would be enough."""
    found = {
        domain: _in_domain(need, rows, now, then)
        for domain, rows in _large_enough(need, then).items()
    }
    return {domain: len(rows) for domain, rows in found.items() if rows is not None}


def _fewest(need: Need, now: Rooms, then: Rooms) -> list[int] | None:
    best: list[int] | None = None
    for rows in _large_enough(need, then).values():
        found = _in_domain(need, rows, now, then)
        if found is not None and (best is None or len(found) < len(best)):
            best = found
            if not best:
                break
    return best


def _large_enough(need: Need, then: Rooms) -> Mapping[int, slice]:
    """Return the domains, with their rows, that would have room for as many seats at all."""
    most = np.maximum.reduce(then)
    sums = np.concatenate(([0], most.cumsum()))
    return {
        d: rows for d, rows in need.domains() if sums[rows.stop] - sums[rows.start] >= need.seats
    }


def _in_domain(need: Need, rows: slice, now: Rooms, then: Rooms) -> list[int] | None:
    """Return the fewest rows of one domain, or None."""
    if len(need.counts) > 1:
        return _mixed(need, rows, now, then)
    if need.size > 1:
        return _sliced(need, rows, now[0], then[0])
    return _first_to_fill(now[0][rows], then[0][rows], need.seats, rows.start)


def _first_to_fill(now: IntArray, then: IntArray, seats: int, start: int) -> list[int] | None:
    """Return the fewest rows, from `start` on, that together have room for some seats."""
    lack = seats - int(now.sum())
    if lack <= 0:
        return []
    gain = then - now
    order = np.argsort(-gain, kind="stable")
    count = int(gain[order].cumsum().searchsorted(lack)) + 1
    return None if count > len(order) else sorted((order[:count] + start).tolist())


def _mixed(need: Need, rows: slice, now: Rooms, then: Rooms) -> list[int] | None:
    """Return rows that each let one seat more be held, until all are."""
    types = types_of([room[rows] > 0 for room in now])
    target = types_of([room[rows] > 0 for room in then])
    if most_seats(target, need.counts) < need.seats:
        return None
    have = most_seats(types, need.counts)
    chosen: list[int] = []
    while have < need.seats:
        better = _one_more(types, target, need.counts, have)
        if better is None:  # only several rows together help: take them all, and do with fewer
            return _pruned(types, target, need, chosen, rows.start)
        types[better] = target[better]
        chosen.append(better)
        have += 1
    return sorted(row + rows.start for row in chosen)


def _one_more(types: IntArray, target: IntArray, counts: Sequence[int], have: int) -> int | None:
    """Return a row whose change holds one seat more; rows that change alike are tried once."""
    tried: set[tuple[int, int]] = set()
    for row in np.flatnonzero(types != target).tolist():
        kind = int(types[row]), int(target[row])
        if kind in tried:
            continue
        tried.add(kind)
        changed = types.copy()
        changed[row] = target[row]
        if most_seats(changed, counts) > have:
            return int(row)
    return None


def _pruned(
    types: IntArray, target: IntArray, need: Need, chosen: list[int], first: int
) -> list[int]:
    rest = np.flatnonzero(types != target).tolist()
    before, changed = types.copy(), target.copy()
    for row in rest:
        changed[row] = before[row]
        if most_seats(changed, need.counts) < need.seats:
            changed[row] = target[row]
    kept = np.flatnonzero(changed != before).tolist()
    return sorted(row + first for row in {*kept, *chosen})


def _sliced(need: Need, rows: slice, now: IntArray, then: IntArray) -> list[int] | None:
    """Return rows that fill up slices: those that lack least, and the short one where it is best.

    The k-th slice of a domain costs what it lacks: nothing, then the rest of one, then whole
    ones. These costs never fall, so taking the cheapest ones first is the least for all.
    """
    units = need.topology.ids[need.unit_level][rows]
    first, domains = int(units[0]), int(units[-1] - units[0]) + 1
    have, most = (
        np.bincount(units - first, room[rows], minlength=domains).astype(np.int64)
        for room in (now, then)
    )
    whole, short = divmod(need.seats, need.size)
    best: tuple[int, IntArray] | None = None
    tried: set[tuple[int, int]] = set()
    for host in range(domains) if short else (-1,):
        kind = (int(have[host]), int(most[host]))
        if host >= 0 and (kind in tried or kind[1] < short):
            continue
        tried.add(kind)
        beside = np.zeros(domains, dtype=np.int64)
        if host >= 0:
            beside[host] = short
        ends = _ends(have, most, beside, whole, need.size)
        if ends is not None:
            cost = int((ends - have).clip(0).sum())
            if best is None or cost < best[0]:
                best = cost, ends
    if best is None:
        return None
    chosen: list[int] = []
    for unit in np.flatnonzero(best[1] > have).tolist():
        inside = np.flatnonzero(units == unit + first)
        at = slice(rows.start + int(inside[0]), rows.start + int(inside[-1]) + 1)
        chosen += _first_to_fill(now[at], then[at], int(best[1][unit]), at.start) or []
    return chosen


def _ends(
    have: IntArray, most: IntArray, beside: IntArray, whole: int, size: int
) -> IntArray | None:
    """Return how many rows each domain is to have for `whole` slices, or None.

    `beside` are the rows of the short slice, in the domain that has it beside its whole ones.
    """
    free = (have - beside).clip(0) // size
    more = (most - beside).clip(0) // size - free
    left = whole - int(free.sum())
    slices = np.minimum(free, whole)
    if left > int(more.sum()):
        return None
    if left > 0:
        # What the first further slice lacks; each one after it is a whole one.
        lack = size - (have - beside).clip(0) % size
        started = np.flatnonzero(more)
        order = started[np.lexsort((started, lack[started]))][:left]
        slices[order] += 1
        left -= len(order)
        for domain in order.tolist():
            extra = min(left, int(more[domain]) - 1)
            slices[domain] += extra
            left -= extra
    ends: IntArray = slices * size + beside
    return ends
