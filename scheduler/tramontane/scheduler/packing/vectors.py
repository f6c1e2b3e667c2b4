"""Divide slots that ask for different things among domains, the fewest of each level, exactly.

As `exact` does for equal seats, but an amount is a vector: the seats of each slot. A domain of the
lowest level holds a vector where it has, for every set of slots, as many blades that serve at
least one of them as these slots have seats there.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from tramontane.scheduler.packing.field import owners
from tramontane.scheduler.packing.knapsack import (
    NEVER,
    Amount,
    Layer,
    Merged,
    beside,
    merge,
    of_all,
    schedule,
    weights_for,
)
from tramontane.scheduler.topology import IntArray, Topology


def serving(supply: IntArray) -> IntArray:
    """Return per domain and set of slots the rows that serve one of them, given those per type."""
    kinds = np.arange(supply.shape[1])
    meets = (kinds[:, None] & kinds[None, :]) > 0
    return supply @ meets.astype(np.int64)


def divide(
    topology: Topology,
    supplies: Sequence[IntArray],
    counts: Sequence[int],
    *,
    level: int,
    fits: IntArray,
    spares: int,
    budget: int,
) -> list[tuple[int, Amount]] | None:
    """Return (domain of the lowest level, seats of each slot there), or None beyond the budget.

    `supplies[l]` is domains x types of the rows of each level. Each of the domains `fits` of
    `level` holds everything; fewest domains inside it, room for the spares, least left over.
    """
    leaf, need = topology.blade_level - 1, tuple(counts)
    budget -= sum(map(len, supplies)) * 4 ** len(need)
    if budget < 0:
        return None
    have = [serving(supply) for supply in supplies]
    usable = [supply[:, 1:].sum(axis=1) for supply in supplies]
    live = {
        at: np.flatnonzero(
            np.isin(topology.ids[level][topology.bounds[at][:-1]], fits) & (usable[at] > 0)
        )
        for at in range(level + 1, leaf + 1)
    }
    bounds = [min(len(domains), sum(need)) for domains in live.values()]
    weights = weights_for([*bounds, int(usable[leaf].sum())])
    budget -= _lattice(have[leaf][live[leaf]], need) * len(live[leaf]) * (1 << len(need))
    if weights is None or budget < 0:
        return None
    weight_of = dict(zip(live, weights, strict=False))
    cost = _held(have[leaf][live[leaf]], need)
    cost += beside(weights[-1] * usable[leaf][live[leaf]], len(need))
    merges: list[Merged] = []
    for at in range(leaf, level, -1):
        cost = np.minimum(cost + weight_of[at], NEVER)
        cost[of_all((0,) * len(need))] = 0
        layer = Layer(live[at], owners(topology, at)[live[at]], cost)
        plan = schedule(
            layer.parents, _widths(have[at][live[at]], need), tuple(n + 1 for n in need)
        )
        budget -= plan.steps
        if budget < 0:
            return None
        merges.append(merge(layer, plan))
        domains, cost = merges[-1].costs()
    total = cost[of_all(need)]
    short = usable[level][domains] < sum(need) + spares
    best = np.lexsort((total % weights[-2], short, total // weights[-2]))[0]
    return _walk(merges, int(domains[best]), need)


def _walk(merges: Sequence[Merged], domain: int, need: Amount) -> list[tuple[int, Amount]]:
    """Return the shares of the domains of the lowest level."""
    shares = [(domain, need)]
    for merged in reversed(merges):
        found = itertools.chain.from_iterable(merged.shares(d, amount) for d, amount in shares)
        shares = [(int(merged.layer.domains[i]), amount) for i, amount in found]
    return shares


def _widths(have: IntArray, need: Amount) -> IntArray:
    """Return how many amounts of each slot each domain may hold."""
    alone = have[:, [1 << slot for slot in range(len(need))]]
    return np.minimum(alone, need) + 1


def _lattice(have: IntArray, need: Amount) -> int:
    return math.prod(_widths(have, need).max(axis=0).tolist())


def _held(have: IntArray, need: Amount) -> IntArray:
    """Return the tables of domains that hold these vectors: 0, or NEVER."""
    grid = np.indices(tuple(_widths(have, need).max(axis=0).tolist()))
    cost = np.zeros((len(have), *grid.shape[1:]), dtype=np.int64)
    for slots in range(1, have.shape[1]):
        seats = sum(grid[slot] for slot in range(len(need)) if slots >> slot & 1)
        cost[seats > beside(have[:, slots], len(need))] = NEVER
    return cost
