"""Choose whose run ends so that a more entitled gang can start, at the least loss of work.

What ending a gang's run loses are the GPU-hours since its last checkpoint. Among sets that lose
as much, the one with fewer gangs; then younger gangs first.

| the gang that needs room | the set |
|---|---|
| equal seats, a blade each          | the cheapest, over all domains that may hold it: `cover` |
| slices, different seats, or several seats to a blade | the greedy one |
| equal seats, more than `MOST_LINKED` linked victims  | the greedy one |

The greedy goes slice by slice, or takes the cheapest per useful blade first; then it leaves out
who is not needed, dearest first, until nobody can be spared.

Whatever is answered was tried by `place`.

Why nobody is preempted in circles. Only gangs of strictly lower rank are ever asked
(`sharing.Shares.may_preempt`), and ranks follow from what gangs ask for, not from what is placed:
between two changes from outside (a gang comes, ends or is edited, a blade fails) they are constant.

* It comes to rest. Of those that wait the most entitled one has its place at the latest when
  those that it asked are gone: nobody chooses before it, and what they free is kept for it. Then
  the same holds for the next one.
* It never comes back to where it was. Let the *potential* be the ranks of all placed gangs,
  highest first, compared like words in a dictionary. Whoever lost its place since the last rest
  lost it to a higher rank that has one, so at the first place where the two words differ the
  later one is higher: the potential has risen. There are finitely many such words.

In particular a victim never preempts whoever preempted it.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.cover import Blade, cheapest_cover, items_of, slice_by_slice
from tramontane.scheduler.fit import groups_of
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.leaving import (
    Leaving,
    give_back,
    leaving,
    spares_held,
    take_back,
    without,
)
from tramontane.scheduler.place import Plan, misconfigured, place, slices_of, top_level
from tramontane.scheduler.releases import placed_since_s
from tramontane.scheduler.shortage import fits
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import BoolArray

# How often it is looked whether the gang fits; once takes about 0.5 ms on 5,000 blades.
MOST_CHECKS: Final = 1000
HELD: Final = "held"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Hold the gangs to end and the GPU-hours lost; `exact` says that no set loses less."""

    keys: tuple[str, ...]
    gpu_hours: float
    exact: bool


def cheapest(
    snapshot: Snapshot,
    pool: Pool,
    gang: GangRecord,
    candidates: Iterable[GangRecord],
    *,
    now_s: float,
) -> Chosen | None:
    """Return whom to end so that the gang, at its smallest size at least, can be placed.

    None where all candidates together are not enough, and where none needs to end. All that the
    candidates hold must be counted in the snapshot.
    """
    if misconfigured(snapshot, gang) is not None:
        return None
    youngest_first = sorted(candidates, key=lambda one: (-placed_since_s(one), one.key))
    victims = [leaving(snapshot, one, now_s) for one in youngest_first]
    found = _Hunt(snapshot, pool, gang, victims, now_s).best()
    if found is None or not found[0]:
        return None
    chosen = [victims[at] for at in found[0]]
    if not isinstance(place(without(snapshot, chosen), gang, now_s), Plan):
        return None
    keys = tuple(sorted(one.key for one in chosen))
    return Chosen(keys, sum(one.gpu_hours for one in chosen), exact=found[1])


class _Hunt:
    """Look for the cheapest set in each domain of the level that must hold the gang."""

    def __init__(
        self,
        snapshot: Snapshot,
        pool: Pool,
        gang: GangRecord,
        victims: Sequence[Leaving],
        now_s: float,
    ) -> None:
        self.snapshot, self.pool, self.gang, self.victims = snapshot, pool, gang, victims
        self.now_s = now_s
        self.groups = groups_of(gang)
        self.counts = self.groups.counts(gang.counts(min(gang.wanted_sizes())))
        self.need = sum(self.counts)
        self.top = top_level(pool, gang, now_s)
        size, level = slices_of(pool, gang)
        # One domain below the slice level holds every slice anyway.
        self.slice_size, self.slice_level = (1, self.top) if self.top > level else (size, level)
        self.alike = len(self.groups.asks) == 1 and not gang.shares_blades
        # GPU-seconds first, then the number of gangs, in one integer that no sum overflows.
        dearest = 2**62 // (len(victims) + 1) ** 2
        self.prices = [
            int(min(one.gpu_hours * 3600, dearest)) * (len(victims) + 1) + 1 for one in victims
        ]
        self.now = self._usable(snapshot)
        self.then = self._usable(without(snapshot, victims))
        self.checks = 0

    def best(self) -> tuple[list[int], bool] | None:
        """Return the best set of all domains, and whether none is better; None where none does.

        Domains are looked at in the order of what they must cost at least, until that is more
        than the best one does.
        """
        topology, level = self.pool.topology, self.top
        have = topology.count(level, np.logical_or.reduce(self.now)).tolist()
        could = topology.count(level, np.logical_or.reduce(self.then))
        if self.gang.shares_blades:  # of which each has several seats
            could[could > 0], have = self.need, [0] * len(have)
        blades = self._blades(level)
        best: tuple[int, list[int]] | None = None
        exact = True
        for bound, domain in sorted(
            (self._bound(blades[domain], self.need - have[domain]), domain)
            for domain in np.flatnonzero(could >= self.need).tolist()
        ):
            if best is not None and bound >= best[0]:
                break
            chosen = self._covering(blades[domain], self.need - have[domain])
            if chosen is None:
                exact = False
                chosen = self._greedy(blades[domain], domain)
            if chosen is not None:
                best = min(best or (self._price(chosen), chosen), (self._price(chosen), chosen))
        return None if best is None else (best[1], exact)

    def _price(self, chosen: Iterable[int]) -> int:
        return sum(self.prices[at] for at in chosen)

    def _usable(self, snapshot: Snapshot) -> list[BoolArray]:
        rows, avoid = self.pool.rows, self.gang.avoid
        return [snapshot.usable(ask, avoid)[rows] for ask in self.groups.asks]

    def _blades(self, level: int) -> dict[int, list[Blade]]:
        """Return, per domain of a level, the blades that can be gained, and by whose end."""
        pool, ids = self.pool, self.pool.topology.ids[level]
        wanted = np.zeros(len(self.snapshot.fleet.names), dtype=np.bool_)
        for before, after in zip(self.now, self.then, strict=True):
            # A blade that takes one seat now may take another one then, where they share blades.
            wanted[pool.rows] |= after if self.gang.shares_blades else after & ~before
        gives: dict[int, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        for at, victim in enumerate(self.victims):
            for requests, rows in victim.holds:
                for row in np.array(rows)[wanted[rows]].tolist():
                    gives[row][at].update(dict(requests))
            for row in spares_held(self.snapshot, victim):
                if wanted[row]:
                    gives[row][at][HELD] = 1
        blades: dict[int, list[Blade]] = defaultdict(list)
        for row in sorted(gives):
            blades[int(ids[row - pool.first])].append(self._blade(row, gives[row]))
        return blades

    def _blade(self, row: int, gives: dict[int, Counter[str]]) -> Blade:
        """Return what the blade lacks; where only the greedy can tell, each victim may do."""
        if len(gives) == 1 or not self.alike:
            return Blade((1,), dict.fromkeys(gives, (1,)))
        free, lacks = self.snapshot.free, {HELD: int(self.snapshot.held[row])}
        for resource, amount in self.groups.asks[0].requests:
            lacks[resource] = amount - int(free[resource][row])
        lacks = {resource: amount for resource, amount in lacks.items() if amount > 0}
        theirs = {at: tuple(own[resource] for resource in lacks) for at, own in gives.items()}
        return Blade(tuple(lacks.values()), theirs).needed()

    def _bound(self, blades: Sequence[Blade], need: int) -> int:
        """Return a price below which nothing is: as if victims could end in parts."""
        bound = 0
        for at, gain in self._by_worth(blades):
            if need <= 0:
                break
            bound += self.prices[at] * min(gain, need) // gain
            need -= gain
        return bound

    def _by_worth(self, blades: Sequence[Blade]) -> list[tuple[int, int]]:
        """Return (victim, useful blades), the lowest price per useful blade first."""
        useful = Counter(at for blade in blades for at in blade.gives)
        return sorted(useful.items(), key=lambda item: (self.prices[item[0]] / item[1], item[0]))

    def _covering(self, blades: Sequence[Blade], need: int) -> list[int] | None:
        """Return the cheapest set for `need` more blades, or None where that is not known."""
        if not self.alike or self.slice_size > 1:
            return None
        items = items_of(blades, self.prices)
        options = None if items is None else cheapest_cover(items, max(0, need))
        return None if options is None else sorted(at for one in options for at in one.victims)

    def _greedy(self, blades: Sequence[Blade], domain: int) -> list[int] | None:
        """Return a set of which nobody can be left out, or None where all do not do."""
        chosen = self._slice_by_slice(domain) if self.slice_size > 1 and self.alike else None
        if chosen is None:
            chosen = self._cheapest_first(blades)
        return None if chosen is None else self._trimmed(chosen)

    def _cheapest_first(self, blades: Sequence[Blade]) -> list[int] | None:
        """Return the shortest beginning of the order by worth that does."""
        order = [at for at, _ in self._by_worth(blades)]

        def does(count: int) -> bool:  # ending more never makes it worse
            gone = (self.victims[at] for at in order[:count])
            return self._fits(without(self.snapshot, gone))

        count = bisect_left(range(len(order) + 1), True, key=does)
        return order[:count] if count <= len(order) else None

    def _slice_by_slice(self, domain: int) -> list[int] | None:
        topology, level = self.pool.topology, self.slice_level
        inside = topology.ids[self.top] == domain
        have = topology.count(level, self.now[0] & inside)
        return slice_by_slice(
            {
                at: of
                for at, of in self._blades(level).items()
                if inside[topology.bounds[level][at]]
            },
            dict(enumerate(have.tolist())),
            self.prices,
            size=self.slice_size,
            slices=-(-self.need // self.slice_size),
        )

    def _trimmed(self, chosen: list[int]) -> list[int]:
        """Return the set without those that are not needed, the dearest of them first."""
        chosen = list(chosen)
        ground = without(self.snapshot, (self.victims[at] for at in chosen))
        for at in sorted(chosen, key=lambda at: (-self.prices[at], -at)):
            if self.checks >= MOST_CHECKS:
                break
            spares = spares_held(self.snapshot, self.victims[at])
            take_back(ground, self.victims[at], spares)
            if self._fits(ground):
                chosen.remove(at)
            else:
                give_back(ground, self.victims[at])
        return chosen

    def _fits(self, snapshot: Snapshot) -> bool:
        self.checks += 1
        return fits(snapshot, self.pool, self.gang, self.now_s)
