"""Say which gangs have to end for a pending one to fit: the next, the fewest, the cheapest.

A gang that is gone already, or holds no seats any more, still has its blades until its last pod is
gone; so the pods of each count here as what it has.

Whether some gangs are enough is asked of the whole snapshot without them. What a gang is worth in
a domain is guessed first: the rows that it would free there, a row that several share in equal
parts. Where nothing is shared, no slices are cut and all seats ask for the same, the guess is the
truth, and taking the largest first is the fewest there can be. Elsewhere the first that are enough
in that order are found by bisection, and then those that are not needed are left out, so that
none of those named can stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tramontane.scheduler import victims
from tramontane.scheduler.fleet import FloatArray, Pool
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.leaving import gpu_hours_lost
from tramontane.scheduler.place import Plan
from tramontane.scheduler.releases import placed_since_s
from tramontane.scheduler.shortage import Need, fits, lacks, needs_of, rooms_of
from tramontane.scheduler.topology import IntArray
from tramontane.scheduler.unblocking.whatif import Case, Change
from tramontane.scheduler.unblocking.wording import least

MOST_DOMAINS = 3
MOST_TRIED = 16


@dataclass(frozen=True, slots=True)
class Holders:
    """Hold who has which of the pool's rows: entry `i` says that `keys[key[i]]` has `row[i]`."""

    keys: tuple[str, ...]
    key: IntArray
    row: IntArray


def holders_of(case: Case, pool: Pool) -> Holders:
    """Return the gangs that have something on the pool's blades. O(seats + pods of gangs)."""
    row_of, keys = case.fleet.row_of, sorted({*case.gangs, *case.pods.of_gang})
    held: list[tuple[int, int]] = []
    named: list[str] = []
    for key in keys:
        rows = {row_of[name] - pool.first for name in blades_of(case, key) if name in row_of}
        inside = sorted(row for row in rows if 0 <= row < pool.end - pool.first)
        if inside:
            held += [(len(named), row) for row in inside]
            named.append(key)
    entries = np.array(held, dtype=np.int64).reshape(-1, 2)
    return Holders(tuple(named), entries[:, 0], entries[:, 1])


def blades_of(case: Case, key: str) -> set[str]:
    """Return the blades that a gang has: seats, spares, and wherever a pod of it is."""
    gang = case.gangs.get(key)
    placement = gang.placement if gang is not None and gang.active else None
    seated = {*placement.seats, *placement.spares} if placement and key != case.gang.key else set()
    return seated | {pod.node for pod in case.pods.of_gang.get(key, {}).values()}


def limit_s(gang: GangRecord | None, now_s: float) -> float | None:
    """Return when a gang has to be gone, or None where nothing says so.

    | the gang | is gone |
    |---|---|
    | is gone, or holds no seats; only pods are left | now: they are ending |
    | must give way    | at its deadline |
    | has a maxRuntime | when that is over |
    | has none         | nobody knows |
    """
    if gang is None or gang.deleting or not gang.active or gang.placement is None:
        return now_s
    if gang.told.order is not None:
        return max(now_s, gang.told.order.deadline_s)
    if gang.max_runtime_s is None:
        return None
    return max(now_s, placed_since_s(gang) + gang.max_runtime_s)


def next_ends(case: Case, pool: Pool) -> tuple[tuple[str, ...], float] | None:
    """Return the gangs whose limits let the gang fit soonest, and when; None where none do."""
    limits = {
        key: at_s
        for key in holders_of(case, pool).keys
        if (at_s := limit_s(case.gangs.get(key), case.now_s)) is not None
    }
    order = sorted(limits, key=lambda key: (limits[key], key))
    first = _first(case, pool, order)
    # Of those that are over by then, only what the gang would sit on matters.
    plan = Change(ended=first).apply(case).answer()
    if not first or not isinstance(plan, Plan):
        return None
    seats = {*plan.placement.seats}
    needed = [key for key in first if seats & blades_of(case, key)]
    return _pruned(case, pool, needed), limits[first[-1]]


def fewest_ends(case: Case, pool: Pool) -> tuple[str, ...]:
    """Return the fewest gangs without which the gang fits; none where all gone is not enough.

    Among as few, the last one is the one that wastes least.
    """
    needs = needs_of(pool, case.gang, case.now_s)
    need, holders = needs[-1], holders_of(case, pool)
    now = rooms_of(case.snapshot, pool, case.gang, need)
    without = Change(ended=holders.keys).apply(case)
    then = rooms_of(without.snapshot, pool, case.gang, need)
    gain = np.maximum.reduce([a - b for a, b in zip(then, now, strict=True)])
    worth = _Worth(case, need, holders, gain, alone=len(needs) == 1)
    lacking = lacks(need, now, then)
    ranked = sorted((worth.atleast(domain, lack), domain) for domain, lack in lacking.items())
    if worth.exact:
        return worth.cheapest(ranked[0][1], lacking[ranked[0][1]]) if ranked else ()
    best: tuple[str, ...] = ()
    for _, domain in ranked[:MOST_DOMAINS]:
        found = _pruned(case, pool, _first(case, pool, worth.order(domain)))
        if found and (not best or len(found) < len(best)):
            best = found
    return best


def cheapest_ends(case: Case, pool: Pool) -> tuple[str, ...]:
    """Return the gangs whose ends lose the least work, whoever they are; none where none do."""
    sitting = [
        one
        for one in case.gangs.values()
        if one.pool == pool.name and one.active and one.placement is not None
    ]
    found = victims.cheapest(case.snapshot, pool, case.gang, sitting, now_s=case.now_s)
    return () if found is None else found.keys


class _Worth:
    """Guess what each gang's end is worth in each domain; `exact` where that is no guess.

    `gain` is what all ends together would free on each row, in seats.
    """

    def __init__(
        self, case: Case, need: Need, holders: Holders, gain: IntArray, *, alone: bool
    ) -> None:
        sharing = np.bincount(holders.row, minlength=len(gain))
        useful = gain[holders.row] > 0
        self._key, row = holders.key[useful], holders.row[useful]
        self._domain = need.topology.ids[need.top][row]
        self._worth: FloatArray = gain[row] / sharing[row]
        self._keys = holders.keys
        self._hours = [
            gpu_hours_lost(case.gangs[key], case.now_s) if key in case.gangs else 0.0
            for key in holders.keys
        ]
        plain = bool(((sharing[row] == 1) & (gain[row] == 1)).all())
        self.exact = plain and alone and need.size == 1 and len(need.counts) == 1

    def atleast(self, domain: int, lack: int) -> int:
        """Return how many gangs it takes, the largest first."""
        worth = np.sort(self._in(domain))[::-1].cumsum()
        return int(worth.searchsorted(lack - 1e-9)) + 1

    def order(self, domain: int) -> tuple[str, ...]:
        """Return the gangs that are worth something in a domain, the most first."""
        return tuple(self._keys[i] for i in self._ranked(self._in(domain)))

    def cheapest(self, domain: int, lack: int) -> tuple[str, ...]:
        """Return the fewest that free `lack` rows of a domain."""
        worth = self._in(domain)
        ranked = self._ranked(worth)
        count = self.atleast(domain, lack)
        left = lack - worth[ranked[: count - 1]].sum()
        enough = [i for i in ranked[count - 1 :] if worth[i] >= left]
        last = min(enough, key=lambda i: (self._hours[i], self._keys[i]))
        return tuple(sorted(self._keys[i] for i in (*ranked[: count - 1], last)))

    def _in(self, domain: int) -> FloatArray:
        here = self._domain == domain
        worth = np.bincount(self._key[here], self._worth[here], minlength=len(self._keys))
        return worth.astype(np.float64)

    def _ranked(self, worth: FloatArray) -> list[int]:
        some = np.flatnonzero(worth).tolist()
        return sorted(some, key=lambda i: (-worth[i], self._hours[i], self._keys[i]))


def _first(case: Case, pool: Pool, order: Sequence[str]) -> tuple[str, ...]:
    """Return the fewest first ones that are enough; none where all are not."""
    count = least(len(order), lambda count: _enough(case, pool, order[:count]))
    return tuple(order[: count or 0])


def _pruned(case: Case, pool: Pool, enough: Sequence[str]) -> tuple[str, ...]:
    """Return those of some gangs that are enough of which none can stay.

    The last ones are tried first, `MOST_TRIED` of them.
    """
    chosen = list(enough)
    for key in enough[::-1][:MOST_TRIED]:
        fewer = [one for one in chosen if one != key]
        if fewer and _enough(case, pool, fewer):
            chosen = fewer
    return tuple(sorted(chosen))


def _enough(case: Case, pool: Pool, keys: Sequence[str]) -> bool:
    """Return whether the gang fits without these; O(seats), as a snapshot is."""
    changed = Change(ended=tuple(keys)).apply(case)
    return fits(changed.snapshot, pool, case.gang, case.now_s)
