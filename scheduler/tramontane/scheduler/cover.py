"""Choose the cheapest victims that free enough blades, exactly.

A blade that one victim alone keeps is gained by ending that one. Where several sit on a blade,
what ending them gains depends on who else ends: such victims are *linked*. Groups of linked ones
are small on a real fleet; each becomes an item with one option per subset that is worth having,
every other victim an item with one option. The items are then a knapsack turned round: the least
price for a gain of at least `need`, by dynamic programming over the gain.

Slices need their blades in whole lots, which is no knapsack any more. `slice_by_slice` frees one
after the other, each time the one that costs least beside what is freed already: not exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.topology import IntArray

# 2^8 subsets of linked victims are looked at.
MOST_LINKED: Final = 8
# Cells of the table: 50 million take about a third of a second.
MOST_CELLS: Final = 50_000_000
# Domains priced for one more slice, at about 0.2 ms each.
MOST_PRICED: Final = 2000
UNREACHED: Final = 2**62


@dataclass(frozen=True, slots=True)
class Blade:
    """Hold a blade that is gained once the victims on it have given back what `lacks`.

    `gives[victim]` is what each of them would give back, one number per entry of `lacks`.
    """

    lacks: tuple[int, ...]
    gives: Mapping[int, tuple[int, ...]]

    def needed(self) -> "Blade":
        """Return the blade without the victims that make no difference to it.

        Where those that cannot be done without are enough together, the others are of no use.
        """
        total = [sum(column) for column in zip(*self.gives.values(), strict=True)]
        must = {
            victim: own
            for victim, own in self.gives.items()
            if any(t - o < lack for t, o, lack in zip(total, own, self.lacks, strict=True))
        }
        columns = list(zip(*must.values(), strict=True)) or [()] * len(self.lacks)
        enough = all(sum(c) >= lack for c, lack in zip(columns, self.lacks, strict=True))
        return Blade(self.lacks, must) if enough else self

    def after(self, ended: set[int]) -> "Blade | None":
        """Return the blade when these victims have ended, or None where it is gained by that."""
        given = [self.gives[victim] for victim in self.gives if victim in ended]
        if not given:
            return self
        lacks = tuple(
            max(0, lack - sum(column)) for lack, *column in zip(self.lacks, *given, strict=True)
        )
        if not any(lacks):
            return None
        return Blade(lacks, {v: own for v, own in self.gives.items() if v not in ended})


@dataclass(frozen=True, slots=True)
class Option:
    """Hold some victims, the blades that ending all of them gains, and their price."""

    gain: int
    price: int
    victims: tuple[int, ...]


def items_of(blades: Sequence[Blade], prices: Sequence[int]) -> list[list[Option]] | None:
    """Return the items to choose from, or None where too many victims are linked.

    At most one option of an item may be taken.
    """
    group = {victim: victim for blade in blades for victim in blade.gives}

    def root(victim: int) -> int:
        while group[victim] != victim:
            group[victim] = victim = group[group[victim]]
        return victim

    for blade in blades:
        first, *others = blade.gives
        for other in others:
            group[root(other)] = root(first)
    members: dict[int, list[int]] = {}
    for victim in sorted(group):
        members.setdefault(root(victim), []).append(victim)
    if any(len(linked) > MOST_LINKED for linked in members.values()):
        return None
    theirs: dict[int, list[Blade]] = {}
    for blade in blades:
        theirs.setdefault(root(next(iter(blade.gives))), []).append(blade)
    return [_options(linked, theirs[at], prices) for at, linked in members.items()]


def cheapest_cover(items: Sequence[Sequence[Option]], need: int) -> list[Option] | None:
    """Return the options whose gains reach `need` for the least price, or None where none do.

    At equal prices those of earlier items. O(options · need); None also beyond `MOST_CELLS`.
    """
    if len(items) * (need + 1) > MOST_CELLS:
        return None
    least = np.full(need + 1, UNREACHED, dtype=np.int64)
    least[0] = 0
    taken = np.full((len(items), need + 1), -1, dtype=np.int16)
    for at, options in enumerate(items):
        before = least.copy()
        for number, option in enumerate(options):
            gain = min(option.gain, need)
            through = np.concatenate((np.zeros(gain, np.int64), before[: need + 1 - gain]))
            through += option.price
            better = through < least
            least[better] = through[better]
            taken[at, better] = number
    if least[need] >= UNREACHED:
        return None
    chosen: list[Option] = []
    for at in range(len(items) - 1, -1, -1):
        if taken[at, need] >= 0:
            option = items[at][taken[at, need]]
            chosen.append(option)
            need = max(0, need - option.gain)
    return chosen


def slice_by_slice(
    blades: Mapping[int, Sequence[Blade]],
    have: Mapping[int, int],
    prices: Sequence[int],
    *,
    size: int,
    slices: int,
) -> list[int] | None:
    """Return victims whose end gives room for so many slices of `size` blades, or None.

    Both mappings are by domain of the slices' level; `have` counts blades that are free already.
    None also beyond `MOST_PRICED`.
    """
    left, free = {at: list(of) for at, of in blades.items()}, dict(have)
    domains: dict[int, set[int]] = {}
    for at, of in blades.items():
        for victim in {victim for blade in of for victim in blade.gives}:
            domains.setdefault(victim, set()).add(at)
    ended: set[int] = set()
    nexts: dict[int, tuple[int, set[int]]] = {}
    changed, priced = set(blades), 0
    while sum(count // size for count in free.values()) < slices:
        for at in changed:
            items = items_of(left[at], prices)
            more = None if items is None else cheapest_cover(items, size - free[at] % size)
            nexts.pop(at, None)
            if more is not None:
                victims = {victim for option in more for victim in option.victims}
                nexts[at] = sum(option.price for option in more), victims
        priced += len(changed)
        if not nexts or priced > MOST_PRICED:
            return None
        newly = nexts[min(nexts, key=lambda at: (nexts[at][0], at))][1]
        ended |= newly
        changed = {at for victim in newly for at in domains[victim]}
        for at in changed:
            rest = [blade.after(newly) for blade in left[at]]
            left[at] = [blade for blade in rest if blade is not None]
            free[at] += len(rest) - len(left[at])
    return sorted(ended)


def _options(linked: list[int], blades: Sequence[Blade], prices: Sequence[int]) -> list[Option]:
    """Return the subsets that gain more than every cheaper one."""
    if len(linked) == 1:
        return [Option(len(blades), prices[linked[0]], (linked[0],))]
    column = {victim: at for at, victim in enumerate(linked)}
    ended: IntArray = np.arange(1 << len(linked))[:, None] >> np.arange(len(linked)) & 1
    gains = np.zeros(len(ended), dtype=np.int64)
    for blade in blades:
        given = ended[:, [column[v] for v in blade.gives]] @ np.array(list(blade.gives.values()))
        gains += (given >= np.array(blade.lacks)).all(axis=1)
    costs = ended @ np.array([prices[victim] for victim in linked])
    found: list[Option] = []
    most = 0
    for subset in np.lexsort((-gains, costs)).tolist():
        if gains[subset] > most:
            most = int(gains[subset])
            victims = tuple(v for v in linked if ended[subset, column[v]])
            found.append(Option(most, int(costs[subset]), victims))
    return found
