"""Choose blades for slots that ask for different things, each seat on a blade of its own.

Which slots a blade could serve is its *type*, a bit set. Whether a domain holds all slots depends
only on how many blades it has of each type: by Hall's theorem it does exactly where, for every set
of slots, the blades that serve at least one of them are as many as those slots need. So a refusal
is exact here too, and one blade more never makes one.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from tramontane.scheduler.topology import BoolArray, IntArray, Topology

# 2^8 sets of slots are looked at; a gang with more different asks uses blades that serve all.
MOST_ASKS: Final = 8


def types_of(masks: Sequence[BoolArray]) -> IntArray:
    """Return the type of each row: bit `s` is set where slot `s` could use it."""
    types = np.zeros(len(masks[0]), dtype=np.int64)
    for bit, mask in enumerate(masks):
        types |= mask.astype(np.int64) << bit
    return types


def choose_mixed(
    topology: Topology, masks: Sequence[BoolArray], counts: Sequence[int], top: int
) -> list[list[int]] | None:
    """Return the rows of each slot, ascending, or None where no domain holds all of them.

    The lowest level that holds everything, the domain with the least left over; inside it, as few
    domains per level as dropping the smallest ones allows.
    """
    types, total = types_of(masks), sum(counts)
    leaf = topology.blade_level - 1
    for level in range(leaf, (min(top, leaf) if total == 1 else top) - 1, -1):
        supply = _supply(topology, level, types, len(masks))
        fits = np.flatnonzero(_holds(supply, counts))
        if len(fits):
            usable = supply[fits][:, 1:].sum(axis=1)
            domain = int(fits[np.lexsort((fits, usable))[0]])
            kept = (topology.ids[level] == domain) & (types > 0)
            for below in range(level + 1, leaf + 1):
                kept &= _narrowed(topology, below, np.where(kept, types, 0), counts)
            return _dealt(np.where(kept, types, 0), counts)
    return None


def most_seats(types: IntArray, counts: Sequence[int]) -> int:
    """Return how many of the seats the rows of these types hold: all of them, less what lacks."""
    supply = np.bincount(types, minlength=1 << len(counts))
    lack = max(need - int(have[0]) for have, need in _sets(supply[None, :], counts))
    return sum(counts) - max(0, lack)


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


def _dealt(types: IntArray, counts: Sequence[int]) -> list[list[int]]:
    """Return the rows of each slot, given that there are enough for every set of slots.

    Slot by slot, from its least flexible type on, as many as leave no set of later slots short.
    That never fails: were a slot left short, its sets together would be, too.
    """
    kinds = 1 << len(counts)
    rows = {kind: np.flatnonzero(types == kind).tolist() for kind in range(1, kinds)}
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
