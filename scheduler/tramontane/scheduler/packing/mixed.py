"""Choose blades for slots that ask for different things, each seat on a blade of its own.

Which slots a blade could serve is its *type*, a bit set. Whether a domain holds all slots depends
only on how many blades it has of each type: by Hall's theorem it does exactly where, for every set
of slots, the blades that serve at least one of them are as many as those slots need. So a refusal
is exact here too, and one blade more never makes one.

How the seats are divided among the domains further down is exact as well (`vectors`), until that
would be too much work; then the smallest domains are dropped as long as the others do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.packing.field import fewest_of
from tramontane.scheduler.packing.knapsack import Amount
from tramontane.scheduler.packing.pack import EXACT_STEPS, domains_of
from tramontane.scheduler.packing.vectors import divide
from tramontane.scheduler.topology import BoolArray, IntArray, Topology

# 2^8 sets of slots are looked at; a gang with more different asks uses blades that serve all.
MOST_ASKS: Final = 8


def types_of(masks: Sequence[BoolArray]) -> IntArray:
    """Return the type of each row: bit `s` is set where slot `s` could use it."""
    types = np.zeros(len(masks[0]), dtype=np.int64)
    for bit, mask in enumerate(masks):
        types |= mask.astype(np.int64) << bit
    return types


@dataclass(frozen=True, slots=True)
class Dealt:
    """Hold the rows of each slot, ascending; `exact` where no fewer domains would do.

    `bound` is, per level from the pool to the blade, how few domains there must be at least.
    """

    rows: list[list[int]]
    exact: bool
    bound: tuple[int, ...]


def choose_mixed(
    topology: Topology,
    masks: Sequence[BoolArray],
    counts: Sequence[int],
    top: int,
    *,
    rank: IntArray | None = None,
    spares: int = 0,
    budget: int = EXACT_STEPS,
) -> Dealt | None:
    """Return the rows of each slot, or None where no domain holds all of them.

    The lowest level that holds everything, then the fewest domains per level, then room for
    spares, then the least left over; rows with the least `rank` (of the pool's rows) come first.
    """
    types, slots = types_of(masks), len(masks)
    rank = np.arange(topology.rows) if rank is None else rank
    leaf = topology.blade_level - 1
    lowest = min(top, leaf) if sum(counts) == 1 else top
    for level in range(leaf, lowest - 1, -1):
        fits = np.flatnonzero(_holds(_supply(topology, level, types, slots), counts))
        if len(fits):
            break
    else:
        return None
    supplies = [_supply(topology, at, types, slots) for at in range(leaf + 1)]
    usable = supplies[level][fits][:, 1:].sum(axis=1)
    domain = int(fits[np.lexsort((fits, usable, usable < sum(counts) + spares))[0]])
    shares: list[tuple[int, Amount]] | None = [(domain, tuple(counts))]
    if level < leaf:
        shares = divide(
            topology, supplies, counts, level=level, fits=fits, spares=spares, budget=budget
        )
    if shares is None:
        kept = (topology.ids[level] == domain) & (types > 0)
        for below in range(level + 1, leaf + 1):
            kept &= _narrowed(topology, below, np.where(kept, types, 0), counts)
        rows = _dealt(np.where(kept, types, 0), counts, rank)
        return Dealt(rows, False, _bound(topology, supplies, counts, level, fits))
    rows = _dealt_each(topology, types, shares, rank)
    return Dealt(rows, True, domains_of(topology, [row for mine in rows for row in mine]))


def most_seats(types: IntArray, counts: Sequence[int]) -> int:
    """Return how many of the seats the rows of these types hold: all of them, less what lacks."""
    supply = np.bincount(types, minlength=1 << len(counts))
    lack = max(need - int(have[0]) for have, need in _sets(supply[None, :], counts))
    return sum(counts) - max(0, lack)


def most_seats_each(
    topology: Topology, level: int, types: IntArray, counts: Sequence[int]
) -> IntArray:
    """Return `most_seats` of each domain of a level. O(rows + domains · sets of slots)."""
    lack = np.zeros(len(topology.bounds[level]) - 1, dtype=np.int64)
    for have, need in _sets(_supply(topology, level, types, len(counts)), counts):
        np.maximum(lack, need - have, out=lack)
    return sum(counts) - lack


def _supply(topology: Topology, level: int, types: IntArray, slots: int) -> IntArray:
    """Return domains x types: how many rows of each type a domain has."""
    domains, kinds = len(topology.bounds[level]) - 1, 1 << slots
    flat = np.bincount(topology.ids[level] * kinds + types, minlength=domains * kinds)
    return flat.reshape(domains, kinds)


def _sets(supply: IntArray, counts: Sequence[int]) -> Iterable[tuple[IntArray, int]]:
    """Yield (rows that serve it, seats it needs) for every set of slots."""
    kinds = np.arange(supply.shape[1])
    for slots in range(1, 1 << len(counts)):
        need = sum(count for slot, count in enumerate(counts) if slots >> slot & 1)
        yield supply[:, (kinds & slots) > 0].sum(axis=1), need


def _holds(supply: IntArray, counts: Sequence[int]) -> BoolArray:
    fits = np.ones(supply.shape[0], dtype=np.bool_)
    for have, need in _sets(supply, counts):
        fits &= have >= need
    return fits


def _narrowed(topology: Topology, level: int, types: IntArray, counts: Sequence[int]) -> BoolArray:
    """Return the rows that are left when every domain that can be spared is, smallest first."""
    supply = _supply(topology, level, types, len(counts))
    usable = supply[:, 1:].sum(axis=1)
    left = supply.sum(axis=0, keepdims=True)
    dropped = []
    for domain in np.lexsort((-np.arange(len(usable)), usable)):
        without = left - supply[domain]
        if usable[domain] and _holds(without, counts)[0]:
            left = without
            dropped.append(domain)
    return ~np.isin(topology.ids[level], dropped)


def _bound(
    topology: Topology,
    supplies: Sequence[IntArray],
    counts: Sequence[int],
    level: int,
    fits: IntArray,
) -> tuple[int, ...]:
    """Return per level how few domains hold at least each set of slots by itself."""
    least = [1] * (level + 1)
    for at in range(level + 1, topology.blade_level):
        homes = topology.ids[level][topology.bounds[at][:-1]]
        inside = np.isin(homes, fits)
        per_home = [
            fewest_of(have[inside], homes[inside], need)[0]
            for have, need in _sets(supplies[at], counts)
        ]
        least.append(max(least[-1], int(np.max(per_home, axis=0).min())))
    return (*least, sum(counts))


def _dealt_each(
    topology: Topology, types: IntArray, shares: Sequence[tuple[int, Amount]], rank: IntArray
) -> list[list[int]]:
    """Return the rows of each slot, given how many of each go into domains of the lowest level."""
    bounds = topology.bounds[topology.blade_level - 1]
    rows: list[list[int]] = [[] for _ in shares[0][1]]
    for domain, amount in shares:
        first, end = bounds[domain : domain + 2].tolist()
        dealt = _dealt(types[first:end], amount, rank[first:end])
        for mine, fresh in zip(rows, dealt, strict=True):
            mine += [first + row for row in fresh]
    return rows


def _dealt(types: IntArray, counts: Sequence[int], rank: IntArray) -> list[list[int]]:
    """Return the rows of each slot, given that there are enough for every set of slots.

    Slot by slot, from its least flexible type on, as many as leave no set of later slots short.
    That never fails: were a slot left short, its sets together would be, too.
    """
    kinds = 1 << len(counts)
    order = np.argsort(rank, kind="stable")
    rows = {kind: order[types[order] == kind].tolist() for kind in range(1, kinds)}
    needs = list(counts)
    dealt: list[list[int]] = []
    for slot in range(len(counts)):
        mine: list[int] = []
        serving = [kind for kind in range(1, kinds) if kind >> slot & 1]
        for kind in sorted(serving, key=lambda k: (k.bit_count(), k)):
            supply = np.array([[0, *(len(rows[k]) for k in range(1, kinds))]])
            slack = [
                int(have[0]) - need
                for slots, (have, need) in enumerate(_sets(supply, needs), start=1)
                if not slots >> slot & 1 and slots & kind and need
            ]
            take = min([needs[slot], len(rows[kind]), *slack])
            mine += rows[kind][:take]
            rows[kind] = rows[kind][take:]
            needs[slot] -= take
        dealt.append(sorted(mine))
    return dealt
