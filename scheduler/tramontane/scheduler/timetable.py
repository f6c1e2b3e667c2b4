"""Know when blades come free, and for whom they are kept until then.

A blade comes free when what sits on it ends (`releases`). A gang that has to wait is promised the
earliest time at which it fits, and blades for it. A reserved blade is reserved whole. Whoever comes
after may use it until then, if his own limit says that he is gone by then: so nobody further back
delays anybody before him.

Blades that are out of service are not expected back, and none that was not delivered yet is
promised.

From pass to pass a promise keeps its blades, unless others are free sooner. Were they chosen anew,
one that starts beside them could make other ones look better, which are promised to somebody
further back; and he would wait longer because of one who came after him.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from tramontane.scheduler.fit import groups_of
from tramontane.scheduler.fleet import FloatArray, Pool
from tramontane.scheduler.gangs import Ask, GangRecord, Placement
from tramontane.scheduler.place import common_domain, find, slices_of, top_level
from tramontane.scheduler.records import Requests
from tramontane.scheduler.releases import (
    ENDING_S,
    NEVER,
    Releases,
    Settled,
    layers,
    releases_of,
    rows_of,
    settled,
)
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import BoolArray, IntArray, Topology

MOST_STEPS: Final = 16


@dataclass(frozen=True, slots=True)
class Reservation:
    """Hold what a waiting gang is promised: rows of the fleet from `start_s` to `end_s`."""

    gang: str
    start_s: float
    end_s: float
    rows: IntArray


@dataclass(frozen=True, slots=True)
class Promise:
    """Hold what a waiting gang was promised, and to which words of its spec."""

    uid: str
    generation: int
    start_s: float
    placement: Placement


@dataclass(slots=True)
class TimeTable:
    """Hold the future of one pool within one pass.

    `settle` tells of gangs that sit from now on, `reserve` of those that wait.
    """

    snapshot: Snapshot
    pool: Pool
    now_s: float
    reservations: list[Reservation] = field(default_factory=list)
    _sitting: dict[str, tuple[GangRecord, Placement, float]] = field(default_factory=dict)
    _ending: list[Settled] = field(default_factory=list)
    _releases: Releases | None = None
    _blocked: dict[int, BoolArray] = field(default_factory=dict)
    _free_at: dict[object, FloatArray] = field(default_factory=dict)

    def settle(self, gang: GangRecord, placement: Placement, end_s: float) -> None:
        """Count a placed gang: its blades are back at `end_s`. O(1) until somebody waits."""
        self._sitting[gang.key] = (gang, placement, end_s)
        self._forget()

    def settle_pod(self, row: int, requests: Requests) -> None:
        """Count a pod of a gang that holds no seats any more: it is ending."""
        self._ending.append(
            Settled(self.now_s + ENDING_S, np.array([row], dtype=np.int64), requests)
        )
        self._forget()

    def give_way(self, gang: str, end_s: float) -> None:
        """Count a gang that sits as gone by `end_s`."""
        sits, placement, _ = self._sitting[gang]
        self.settle(sits, placement, end_s)

    def reserve(self, gang: GangRecord, start_s: float, placement: Placement) -> None:
        """Keep blades for a waiting gang."""
        rows = rows_of(self.snapshot.fleet.row_of, placement.seats)
        end_s = start_s + (NEVER if gang.max_runtime_s is None else gang.max_runtime_s)
        self.reservations.append(Reservation(gang.key, start_s, end_s, rows))
        self.reservations.sort(key=lambda one: one.start_s)
        self._blocked.clear()

    def now(self, gang: GangRecord) -> Snapshot:
        """Return the snapshot as the gang may use it now, without what is kept for others."""
        if not self.reservations:
            return self.snapshot
        blocked = self._blocked_until(self.now_s + _duration(gang))
        snapshot = self.snapshot
        return replace(snapshot, held=snapshot.held | blocked, _usable={})

    def earliest(
        self, gang: GangRecord, before: Promise | None = None
    ) -> tuple[float, Placement] | None:
        """Return the earliest time at which all of the gang fits, and where, or None if never.

        Exact where slots ask for the same. With slices or different slots it looks at the next
        `MOST_STEPS` times one by one, and bisects the rest. O(rows · log rows) per step. The blades
        that were promised `before` are promised again where none are free sooner.
        """
        wanted = replace(gang, spares=0)
        known = None if before is None else self._again(wanted, before)
        if known is None:
            return self._earliest(wanted, NEVER)
        found = self._earliest(wanted, known[0])
        return known if found is None else found

    def kept_now(self, gang: GangRecord, before: Promise) -> Placement | None:
        """Return the promised place where all of it is free now, for long enough."""
        known = self._again(replace(gang, spares=0), before)
        return known[1] if known is not None and known[0] <= self.now_s else None

    def _earliest(self, wanted: GangRecord, before_s: float) -> tuple[float, Placement] | None:
        """Return the earliest time, before a given one, and the place."""
        at_s = self.now_s
        for _ in range(MOST_STEPS):
            free_at = self._next_free(wanted, at_s)
            bound = self._bound(wanted, free_at, at_s)
            if bound >= before_s:
                return None
            if bound > at_s:
                at_s = bound
                continue
            if (found := self._place_at(wanted, at_s)) is not None:
                return at_s, found
            later = np.unique(np.concatenate(free_at))
            later = later[(later > at_s) & (later < before_s)]
            if not len(later):
                return None
            at_s = float(later[0])
        return self._first(wanted, later.tolist())

    def _again(self, gang: GangRecord, before: Promise) -> tuple[float, Placement] | None:
        """Return from when on all blades of an earlier promise are free, or None where it is void.

        It is for another spec, for fewer seats than may be had, or where blades are shared.
        """
        seats = before.placement.seats
        same = (before.uid, before.generation) == (gang.uid, gang.generation)
        if not same or gang.shares_blades or gang.size_of(len(seats)) != gang.wanted_sizes()[0]:
            return None
        row_of, groups = self.snapshot.fleet.row_of, groups_of(gang)
        if not all(self.pool.first <= row_of.get(name, -1) < self.pool.end for name in seats):
            return None
        rows = rows_of(row_of, seats) - self.pool.first
        asks = np.array(groups.of_slot)[list(gang.slot_of_seats(len(seats)))]
        at_s = self.now_s
        for _ in range(MOST_STEPS):
            times = np.stack(self._next_free(gang, at_s))[asks, rows]
            if (last_s := float(times.max())) <= at_s:
                kept = _together(self.pool, gang, rows.tolist(), at_s)
                return (at_s, before.placement) if kept else None
            if last_s == NEVER:
                return None
            at_s = last_s
        return None

    def _first(self, gang: GangRecord, times: Sequence[float]) -> tuple[float, Placement] | None:
        """Return the earliest of these times that serves, by bisection.

        Where promises to others lie between, it may be a later one than need be.
        """
        best: tuple[float, Placement] | None = None
        low, high = 0, len(times)
        while low < high:
            middle = (low + high) // 2 if best or high < len(times) else high - 1
            found = self._place_at(gang, times[middle])
            if found is None:
                low = middle + 1
            else:
                best, high = (times[middle], found), middle
        return best

    def _place_at(self, gang: GangRecord, at_s: float) -> Placement | None:
        plan = find(self.at(gang, at_s), gang, at_s)
        return None if plan is None else plan.placement

    def kept_for(self, gang: GangRecord) -> tuple[Reservation, ...]:
        """Return the promises that a gang which starts now would break."""
        end_s = self.now_s + _duration(gang)
        return tuple(one for one in self.reservations if one.start_s < end_s)

    def rows_ever(self, gang: GangRecord) -> int:
        """Return how many blades of the pool come free for the gang at some time."""
        times = [self._free_from(ask, gang.avoid) for ask in groups_of(gang).asks]
        return int((np.minimum.reduce(times)[self.pool.rows] < NEVER).sum())

    def _forget(self) -> None:
        self._releases = None
        self._free_at.clear()

    def _flat(self) -> Releases:
        """Return all releases in arrays; remembered until one more is known."""
        if self._releases is None:
            row_of, parts = self.snapshot.fleet.row_of, [*self._ending]
            for sitting in self._sitting.values():
                parts += settled(row_of, *sitting)
            self._releases = releases_of(self.snapshot, parts)
        return self._releases

    def _blocked_until(self, end_s: float) -> BoolArray:
        """Return the rows of the fleet with a promise that begins before `end_s`."""
        count = sum(one.start_s < end_s for one in self.reservations)
        if count not in self._blocked:
            blocked = np.zeros(len(self.snapshot.fleet.names), dtype=np.bool_)
            for one in self.reservations[:count]:
                blocked[one.rows] = True
            self._blocked[count] = blocked
        return self._blocked[count]

    def ends(self) -> list[float]:
        """Return the times at which blades come free, ascending, each once."""
        releases = self._flat()
        times = np.unique(np.concatenate((releases.times, releases.held)))
        ends: list[float] = times[(times > self.now_s) & (times < NEVER)].tolist()
        return ends

    def at(self, gang: GangRecord, at_s: float, *, promises: bool = True) -> Snapshot:
        """Return the snapshot as the gang may use it at a time, as far as that is known.

        Without `promises` as one that comes before them may.
        """
        now, releases = self.snapshot, self._flat()
        free = {
            resource: amounts + releases.until(at_s, resource)
            for resource, amounts in now.free.items()
        }
        held = releases.held > at_s
        end_s = at_s + _duration(gang)
        kept = [
            one
            for one in self.reservations
            if promises and one.start_s < end_s and at_s < one.end_s
        ]
        for one in kept:
            held[one.rows] = True
        # Kept rows name no gang any more: whose end would free them is not known.
        spare_of = {row: key for row, key in now.spare_of.items() if releases.held[row] > at_s}
        for one in kept:
            for row in one.rows.tolist():
                spare_of.pop(row, None)
        return replace(now, free=free, held=held, spare_of=spare_of, _usable={})

    def _next_free(self, gang: GangRecord, at_s: float) -> list[FloatArray]:
        """Return per ask and row of the pool from when on, not before `at_s`, it is free."""
        rows, duration = self.pool.rows, _duration(gang)
        found = []
        for ask in groups_of(gang).asks:
            times = np.maximum(self._free_from(ask, gang.avoid), at_s)
            for one in self.reservations:
                clash = (times[one.rows] < one.end_s) & (times[one.rows] + duration > one.start_s)
                if clash.any():
                    times[one.rows[clash]] = one.end_s
            found.append(times[rows])
        return found

    def _free_from(self, ask: Ask, avoid: frozenset[str]) -> FloatArray:
        """Return per row of the fleet from when on it has room for an ask, promises apart.

        One step per release on the same blade, of all blades at once.
        """
        key = (ask, avoid, self.snapshot.version)
        if key in self._free_at:
            return self._free_at[key]
        snapshot, fleet, releases = self.snapshot, self.snapshot.fleet, self._flat()
        allowed = fleet.in_service & fleet.could_hold(ask) & fleet.tolerated(ask.tolerations)
        allowed[[row for name in avoid if (row := fleet.row_of.get(name)) is not None]] = False
        times = np.where(allowed & snapshot.has_room(ask), self.now_s, NEVER)
        if not allowed.any():
            return times
        free = {r: snapshot.free[r].copy() for r, _ in ask.requests if r in snapshot.free}
        for at in layers(releases.rows):
            rows = releases.rows[at]
            room = allowed[rows] & (times[rows] == NEVER)
            for resource, amount in ask.requests:
                free[resource][rows] += releases.amounts[resource][at]
                room &= free[resource][rows] >= amount
            times[rows[room]] = releases.times[at[room]]
        self._free_at[key] = times = np.maximum(times, releases.held)
        return times

    def _bound(self, gang: GangRecord, free_at: Sequence[FloatArray], at_s: float) -> float:
        """Return a time before which no domain has as many free blades as there are seats."""
        groups = groups_of(gang)
        counts = groups.counts(gang.counts(min(gang.wanted_sizes())))
        level = top_level(self.pool, gang, at_s)
        if gang.shares_blades:
            asks = zip(groups.asks, counts, strict=True)
            return max([at_s, *(self._room_from(ask, need, level, at_s) for ask, need in asks)])
        topology = self.pool.topology
        seats = zip(free_at, counts, strict=True)
        return max([at_s, *(_time_of(topology, level, times, need) for times, need in seats)])

    def _room_from(self, ask: Ask, need: int, level: int, at_s: float) -> float:
        """Return when a domain of a level first has room for so many seats that share blades.

        By bisection over the times at which anything ends. O(rows · log releases).
        """
        releases, fleet, rows = self._flat(), self.snapshot.fleet, self.pool.rows
        allowed = (fleet.in_service & fleet.could_hold(ask) & fleet.tolerated(ask.tolerations))[
            rows
        ]
        times = [at_s, *np.unique(releases.times[releases.times > at_s]).tolist()]

        def enough(number: int) -> bool:
            room = np.where(allowed & (releases.held[rows] <= times[number]), need, 0)
            for resource, amount in ask.requests:
                free = self.snapshot.free.get(resource)
                if free is None:
                    return False
                free = free[rows] + releases.until(times[number], resource)[rows]
                room = np.minimum(room, free // amount)
            sums = np.bincount(self.pool.topology.ids[level], weights=room.clip(0))
            return bool(len(sums)) and sums.max() >= need

        found = bisect.bisect_left(range(len(times)), True, key=enough)
        return times[found] if found < len(times) else NEVER


def _time_of(topology: Topology, level: int, times: FloatArray, need: int) -> float:
    """Return when the first domain of a level has `need` free rows."""
    if need < 1:
        return -NEVER
    order = np.lexsort((times, topology.ids[level]))
    bounds = topology.bounds[level]
    reached = bounds[:-1] + need - 1
    enough = reached[reached < bounds[1:]]
    return float(times[order[enough]].min()) if len(enough) else NEVER


def _together(pool: Pool, gang: GangRecord, rows: list[int], at_s: float) -> bool:
    """Return whether rows of the pool keep what packing and slices require: labels may change."""
    topology = pool.topology
    size, level = slices_of(pool, gang)
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    return common_domain(topology, top_level(pool, gang, at_s), rows) is not None and (
        size == 1 or all(common_domain(topology, level, part) is not None for part in parts)
    )


def _duration(gang: GangRecord) -> float:
    return NEVER if gang.max_runtime_s is None else gang.max_runtime_s
