"""Share amounts out over the domains of a tree at the least cost: min-plus convolutions.

A table holds per domain what it costs to put an amount there. An amount is one number, or a
vector of a few: (whole slices, short slice or not), or the seats of each different ask. The table
of a domain is the min-plus convolution of those of the domains inside it; the same step of all
domains of a level is done at once, so the work of numpy is in long rows.

What a merge went through is kept, so that the best shares are found by walking back.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.topology import IntArray

# No sum of two of these overflows, and no cost is larger.
NEVER: Final = 1 << 61
MOST_COST: Final = 1 << 60
# What adding one child costs by itself, in elementary steps.
STEP: Final = 30_000
# An element of a table is written, read and kept.
CELL: Final = 8
# More of them are not even estimated.
MOST_STEPS: Final = 1 << 22
# As many elements stay in the processor's cache.
CHUNK: Final = 1 << 15

Amount = tuple[int, ...]


def of_all(amount: Amount) -> tuple[slice | int, ...]:
    """Return the index of one amount in the tables of all domains."""
    return (slice(None), *amount)


def beside(values: IntArray, amounts: int) -> IntArray:
    """Return a value per domain in a form that adds to tables of so many dimensions."""
    return values.reshape(-1, *[1] * amounts)


def weights_for(bounds: Sequence[int]) -> list[int] | None:
    """Return what one unit of each field costs, so that an earlier field outweighs later ones.

    `bounds` are the most that each field can be; None where one int64 cannot hold them all.
    """
    weights = [1]
    for bound in reversed(bounds):
        weights.append(weights[-1] * (bound + 1))
    return weights[-2::-1] if weights[-1] < MOST_COST else None


@dataclass(frozen=True, slots=True)
class Layer:
    """Hold the tables of some domains of one level, ascending: `cost[i]` is of `domains[i]`.

    `cost[i, *amount]` is NEVER where the domain cannot hold that amount, and 0 for nothing.
    `parents[i]` is the domain of the level above.
    """

    domains: IntArray
    parents: IntArray
    cost: IntArray


@dataclass(frozen=True, slots=True)
class Schedule:
    """Hold in which order the children of many parents are merged.

    `parents` have most children first; the `counts[p]` children of each begin at `first[p]` in
    their layer. Step `i` adds the `i`-th child of all parents that have one. Below `floors[i]`
    the first number of an amount is of no use: the children to come could not make up for it.
    """

    parents: IntArray
    first: IntArray
    counts: IntArray
    floors: list[int]
    widest: list[Amount]
    shapes: list[Amount]
    steps: int


def schedule(
    parents: IntArray, widths: IntArray, most: Amount, *, least: int = 0, cut: int = 0
) -> Schedule:
    """Return the schedule of a merge, with its work in elementary steps. O(children).

    `widths[i]` are the numbers of amounts of child `i` along each dimension, `most` those that
    are wanted of a parent. Amounts from 1 to `cut` of a child, and below `least` of a parent, are
    not looked at.
    """
    starts = np.flatnonzero(np.diff(parents, prepend=-1))
    counts = np.diff(np.append(starts, len(parents)))
    order = np.argsort(-counts, kind="stable")
    first, counts = starts[order], counts[order]
    if len(first) * int(counts[0]) > MOST_STEPS:
        return Schedule(parents[first], first, counts, [], [], [], 1 << 62)
    # parents x steps x dimensions: what the child of each step holds, and those up to it together.
    child = first[:, None] + np.arange(counts[0])
    there = np.arange(counts[0]) < counts[:, None]
    holds = np.where(there[:, :, None], widths[np.minimum(child, len(parents) - 1)] - 1, 0)
    sums = np.cumsum(holds, axis=1)
    left = np.where(there, sums[:, -1:, 0] - sums[:, :, 0], 0)
    active = there.sum(axis=0)
    widest = holds.max(axis=0) + 1
    shapes = np.minimum(np.where(there[:, :, None], sums, 0).max(axis=0) + 1, most)
    before, after = np.prod(shapes[:-1], axis=1), active * np.prod(shapes, axis=1)
    amounts = np.prod(widest, axis=1)
    shifts = amounts * np.maximum(1, widest[:, 0] - cut) // widest[:, 0]
    longer = active[1:] * np.maximum(amounts[1:], before)
    loops = np.minimum(shifts[1:], before) * np.minimum(longer, after[1:])
    return Schedule(
        parents[first],
        first,
        counts,
        np.maximum(0, least - left.max(axis=0)).tolist(),
        list(map(tuple, widest.tolist())),
        list(map(tuple, shapes.tolist())),
        len(active) * STEP + CELL * int(after.sum()) + int(loops.sum()),
    )


@dataclass(frozen=True, slots=True)
class Merged:
    """Hold what the domains inside some parents cost together, and how that came about."""

    layer: Layer
    plan: Schedule
    prefixes: list[IntArray]

    def costs(self) -> tuple[IntArray, IntArray]:
        """Return the parents, ascending, and their tables."""
        shape = np.max(self.plan.shapes, axis=0)
        table = np.full((len(self.plan.parents), *shape), NEVER, dtype=np.int64)
        for step, prefix in enumerate(self.prefixes):
            begin = int(np.count_nonzero(self.plan.counts > step + 1))
            done = prefix[begin:]
            table[(slice(begin, len(prefix)), *map(slice, done.shape[1:]))] = done
        order = np.argsort(self.plan.parents)
        return self.plan.parents[order], table[order]

    def shares(self, parent: int, amount: Amount) -> list[tuple[int, Amount]]:
        """Return (place of the child in its layer, its amount) where there is any, ascending.

        Among equals, the first children of the topology hold as much as they can.
        """
        at = int(np.flatnonzero(self.plan.parents == parent)[0])
        first, cost = int(self.plan.first[at]), self.layer.cost
        found = []
        for step in range(int(self.plan.counts[at]) - 1, 0, -1):
            before, total = self.prefixes[step - 1][at], self.prefixes[step][at][amount]
            share = _share(before, cost[first + step], amount, int(total))
            if any(share):
                found.append((first + step, share))
                amount = tuple(k - j for k, j in zip(amount, share, strict=True))
        if any(amount):
            found.append((first, amount))
        return found[::-1]


def _share(before: IntArray, child: IntArray, amount: Amount, total: int) -> Amount:
    """Return the least share of a child that, with what comes before it, costs the total."""
    inside = all(k < n for k, n in zip(amount, before.shape, strict=True))
    if inside and before[amount] == total:
        return (0,) * len(amount)
    ranges = [
        (k, max(0, k - n + 1), min(k, m - 1))
        for k, n, m in zip(amount, before.shape, child.shape, strict=True)
    ]
    rest = before[tuple([slice(k - last, k - first + 1) for k, first, last in ranges])]
    mine = child[tuple([slice(first, last + 1) for _, first, last in ranges])]
    at = int((rest.ravel()[::-1] + mine.ravel() == total).argmax())
    if len(amount) == 1:
        return (ranges[0][1] + at,)
    place = np.unravel_index(at, mine.shape)
    return tuple(int(i) + first for i, (_, first, _) in zip(place, ranges, strict=True))


def merge(layer: Layer, plan: Schedule) -> Merged:
    """Return the merged tables of all parents of a layer. The work is `plan.steps`."""
    prefixes: list[IntArray] = []
    steps = zip(plan.floors, plan.widest, plan.shapes, strict=True)
    for step, (floor, widest, shape) in enumerate(steps):
        n = int(np.count_nonzero(plan.counts > step))
        child = layer.cost[plan.first[:n] + step][(slice(None), *map(slice, widest))]
        prefixes.append(_convolved(prefixes[-1][:n], child, shape, floor) if step else child)
    return Merged(layer, plan, prefixes)


def _convolved(one: IntArray, two: IntArray, shape: Amount, floor: int) -> IntArray:
    """Return the min-plus convolution of two tables of as many domains, cut to `shape`.

    Loops over the shorter one, many of its amounts at a time: `windows[:, i, k]` is what `one`
    costs at `k` less the `i`-th of them. First numbers below `floor` are left out.
    """
    if math.prod(two.shape[1:]) > math.prod(one.shape[1:]):
        one, two = two, one
    count, size, edge = len(one), one.shape[1], two.shape[1] - 1
    padded = np.full((count, size + 2 * edge, *one.shape[2:]), NEVER, dtype=np.int64)
    padded[:, edge : edge + size] = one
    step, along, *strides = padded.strides
    out = np.full((count, *shape), NEVER, dtype=np.int64)
    at_once = max(1, CHUNK // (count * min(size, shape[0]) * math.prod(one.shape[2:])))
    for tail in np.ndindex(*two.shape[2:]):
        costs = two[(slice(None), slice(None), *tail)]
        rest = [min(n, m - j) for n, m, j in zip(one.shape[2:], shape[1:], tail, strict=True)]
        inner = [slice(j, j + n) for j, n in zip(tail, rest, strict=True)]
        for low, high in _runs(np.flatnonzero((costs < NEVER).any(axis=0)), at_once):
            begin, end = max(floor, low), min(shape[0], size + high)
            if begin >= end:
                continue
            windows = np.lib.stride_tricks.as_strided(
                padded[:, begin - low + edge :],
                (count, high - low + 1, end - begin, *rest),
                (step, -along, along, *strides),
            )
            sums = windows + costs[:, low : high + 1].reshape(count, -1, *[1] * len(shape))
            target = out[(slice(None), slice(begin, end), *inner)]
            np.minimum(target, sums.min(axis=1), out=target)
    return out


def _runs(numbers: IntArray, most: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of the runs of neighbours, in pieces of at most so many."""
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
        for first in range(0, len(run), most):
            yield int(run[first]), int(run[first : first + most][-1])
