"""Find the rows for equal seats at the least cost, exactly, or say that it would take too long.

    1. of the domains that hold everything, keep those that divide it among the fewest domains one
       level down; of these, the ones without which the fewest cannot do
    2. a table per domain of the lowest level: its best rows come first, in order
    3. merge the tables upwards, counting each domain that is touched; above the slice level the
       amounts are slices, and one short slice or none
    4. take the best domain, and walk back down

What is better is one number, its fields from the most significant one: domains per level, widest
first; usable seats left over in the touched domains of the lowest level; the lemon score of the
rows; their free GPUs. Where they do not all go into 60 bits, the last ones are left out.
"""

from dataclasses import dataclass

import numpy as np

from tramontane.scheduler.packing.field import Field, Task, fewest_of, owners
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
from tramontane.scheduler.topology import IntArray


@dataclass(frozen=True, slots=True)
class Weights:
    """Hold what one of each field costs; `domains` per level on which touched ones count."""

    domains: dict[int, int]
    stranded: int
    lemon: int
    free_gpus: int


@dataclass(frozen=True, slots=True)
class Top:
    """Hold the domains one level below the best common level that a best solution may touch.

    One that is touched holds at least `lower`; no more than `most` of one parent's are.
    """

    domains: IntArray
    parents: IntArray
    lower: IntArray
    most: IntArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Hold the usable rows of some domains of the lowest level, in each the best one first."""

    domains: IntArray
    first: IntArray
    rows: IntArray
    costs: IntArray

    def of(self, domain: int, seats: int) -> list[int]:
        """Return the best rows of a domain, along the topology."""
        first = int(self.first[np.searchsorted(self.domains, domain)])
        return sorted(self.rows[first : first + seats].tolist())


def search(task: Task, budget: int) -> list[int] | None:
    """Return the rows in the order of seats inside the best of the domains that fit.

    None where the work would exceed `budget` elementary steps.
    """
    field, level = task.field, task.level
    if level == field.bottom:
        return _in_one(task)
    top = _top(task)
    live = {level + 1: top.domains}
    for at in range(level + 2, field.bottom + 1):
        inside = np.isin(owners(field.topology, at), live[at - 1])
        live[at] = np.flatnonzero(inside & (field.seats[at] > 0))
    weights = _weights(task, live)
    return None if weights is None else _Search(task, top, live, weights).run(budget)


class _Search:
    """Merge tables from the lowest level up to the best common one, and walk back."""

    def __init__(self, task: Task, top: Top, live: dict[int, IntArray], weights: Weights) -> None:
        self.task, self.top, self.live, self.weights = task, top, live, weights
        self.field, self.wish, self.level = task.field, task.wish, task.level
        self.need: Amount = (self.wish.seats,)
        if task.sliced:
            self.need = (self.wish.units, 1) if self.wish.rest else (self.wish.units,)

    def run(self, budget: int) -> list[int] | None:
        """Return the rows in the order of seats, or None beyond the budget."""
        rows, layer = self._lowest()
        merges: list[tuple[int, Merged]] = []
        for at in range(self.field.bottom, self.level, -1):
            if self.task.sliced and at == self.wish.slice_level:
                layer = Layer(layer.domains, layer.parents, self._in_slices(layer.cost))
            if at == self.level + 1:
                layer = self._needed(layer)
            needed = self.need if self.task.in_slices(at) else (self.wish.seats,)
            most = tuple(n + 1 for n in needed)
            plan = schedule(
                layer.parents,
                self._widths(at, layer.domains, most),
                most,
                least=self._least(at),
                cut=max(0, int(self.top.lower.min()) - 1) if at == self.level + 1 else 0,
            )
            budget -= plan.steps
            if budget < 0:
                return None
            merged = merge(layer, plan)
            merges.append((at, merged))
            domains, cost = merged.costs()
            if at - 1 > self.level:
                layer = self._touched(at - 1, domains, cost)
        best = int(domains[self._best(domains, cost[of_all(self.need)])])
        return self._seats(rows, merges, best)

    def _lowest(self) -> tuple[Rows | None, Layer]:
        """Return the tables of the lowest level."""
        field, at, width = self.field, self.field.bottom, self.wish.seats + 1
        domains = self.live[at]
        if field.shared:
            room = field.room[domains]
            amounts = np.arange(min(int(room.max()) + 1, width))
            cost = np.where(amounts <= room[:, None], 0, NEVER)
            cost[:, 1:] += _row_costs(field, self.weights)[domains][:, None]
            return None, self._touched(at, domains, np.minimum(cost, NEVER))
        rows = _rows(field, self.weights, domains)
        room = field.seats[at][domains]
        amounts = np.arange(min(int(room.max()) + 1, width))
        sums = np.concatenate(([0], np.cumsum(rows.costs)))
        ends = np.minimum(rows.first[:, None] + amounts, len(rows.rows))
        cost = sums[ends] - sums[rows.first][:, None]
        cost[amounts > room[:, None]] = NEVER
        return rows, self._touched(at, domains, cost)

    def _touched(self, at: int, domains: IntArray, cost: IntArray) -> Layer:
        """Return the layer of these tables, in which touching a domain of it is counted."""
        extra = np.full(len(domains), self.weights.domains[at])
        if at == self.field.leaf:
            extra += self.weights.stranded * self.field.seats[at][domains]
        amounts = cost.ndim - 1
        cost = np.minimum(cost + beside(extra, amounts), NEVER)
        cost[of_all((0,) * amounts)] = 0
        return Layer(domains, owners(self.field.topology, at)[domains], cost)

    def _in_slices(self, cost: IntArray) -> IntArray:
        """Return tables over (slices, short slice or not), given those over seats."""
        size, rest = self.wish.slice_size, self.wish.rest
        width = min(self.wish.units, (cost.shape[1] - 1) // size) + 1
        whole = np.arange(width) * size
        if not rest:
            return cost[:, whole]
        seats = whole[:, None] + np.array([0, rest])
        within = seats < cost.shape[1]
        picked: IntArray = cost[:, np.where(within, seats, 0)]
        return np.where(within, picked, NEVER)

    def _needed(self, layer: Layer) -> Layer:
        """Return the layer without amounts, and without equal domains, that no best one uses."""
        cost, top = layer.cost, self.top
        amounts = np.arange(cost.shape[1])
        idle = (amounts > 0) & (amounts < top.lower[:, None])
        cost = cost.copy()
        cost[idle] = NEVER
        kinds: dict[bytes, int] = {}
        kind = np.array([kinds.setdefault(table.tobytes(), len(kinds)) for table in cost])
        order = np.lexsort((layer.domains, kind, layer.parents))
        fresh = np.diff(layer.parents[order], prepend=-1) | np.diff(kind[order], prepend=-1)
        place = np.arange(len(order))
        place -= np.maximum.accumulate(np.where(fresh != 0, place, 0))
        kept = np.sort(order[place < top.most[order]])
        return Layer(layer.domains[kept], layer.parents[kept], cost[kept])

    def _widths(self, at: int, domains: IntArray, most: Amount) -> IntArray:
        first = np.minimum(self.task.caps(at)[domains] + 1, most[0])
        return np.stack([first, *(np.full(len(domains), n) for n in most[1:])], axis=1)

    def _least(self, at: int) -> int:
        """Return the least amount of a parent, in whose children it is divided, that is of use."""
        if at == self.level + 1:
            return self.need[0]
        if at != self.level + 2:
            return 0
        seats_of_slices = self.task.sliced and at == self.wish.slice_level + 1
        size = self.wish.slice_size if seats_of_slices else 1
        return int(self.top.lower.min()) * size

    def _best(self, domains: IntArray, costs: IntArray) -> int:
        """Return the place of the best domain: fewest domains, room for spares, the rest."""
        least = min(self.weights.domains.values())
        counts, rest = costs // least, costs % least
        return _first(self.task, domains, counts, rest, stranded=self.weights.stranded)

    def _seats(self, rows: Rows | None, merges: list[tuple[int, Merged]], best: int) -> list[int]:
        """Return the rows in the order of seats; the domain with the short slice comes last."""
        size, rest = self.wish.slice_size, self.wish.rest
        shares: list[tuple[int, Amount]] = [(best, self.need)]
        for at, merged in reversed(merges):
            below: list[tuple[int, Amount]] = []
            for domain, amount in shares:
                found = merged.shares(domain, amount)
                below += sorted(found, key=lambda share: share[1][1:])
            if self.task.sliced and at == self.wish.slice_level:
                below = [(i, (sum(map(int.__mul__, a, (size, rest))),)) for i, a in below]
            shares = [(int(merged.layer.domains[i]), amount) for i, amount in below]
        if rows is None:
            return [row for row, (seats,) in shares for _ in range(seats)]
        return [row for domain, (seats,) in shares for row in rows.of(domain, seats)]


def _top(task: Task) -> Top:
    """Return the children of the domains that fit which a best solution may touch.

    Where there is a short slice, room for one more whole one bounds the fewest from above.
    """
    at, wish = task.level + 1, task.wish
    caps, parents = task.caps(at), owners(task.field.topology, at)
    need, rest = (wish.units, wish.rest) if task.sliced else (wish.seats, 0)
    live = caps > 0
    if rest and task.room is not None:
        live |= task.room.rests[at] >= rest
    domains = np.flatnonzero(live & np.isin(parents, task.fits))
    at_least, _ = fewest_of(caps[domains], parents[domains], need)
    most, others = fewest_of(caps[domains], parents[domains], need + (rest > 0))
    lower = np.maximum(0, need - others)
    kept = (at_least <= most.min()) & (caps[domains] >= lower)
    chosen = domains[kept]
    return Top(chosen, parents[chosen], lower[kept], most[kept])


def _weights(task: Task, live: dict[int, IntArray]) -> Weights | None:
    """Return the weights of all fields, of as many as fit into one number, or None."""
    field, seats = task.field, task.wish.seats
    usable = field.room > 0
    counted = range(task.level + 1, field.bottom + 1)
    bounds = [min(len(live[at]), seats) for at in counted]
    bounds.append(int(field.seats[field.leaf][live.get(field.leaf, slice(None))].sum()))
    for score in (field.lemon[usable], field.free_gpus[usable]):
        excess = score - score.min()
        bounds.append(min(int(excess.sum()), int(excess.max()) * seats))
    for left_out in range(3):
        weights = weights_for(bounds[: len(bounds) - left_out])
        if weights is not None:
            domains = dict(zip(counted, weights, strict=False))
            stranded, lemon, free_gpus = (*weights[len(domains) :], 0, 0)[:3]
            return Weights(domains, stranded, lemon, free_gpus)
    return None


def _row_costs(field: Field, weights: Weights) -> IntArray:
    """Return what each row costs: only differences between usable ones matter."""
    usable = field.room > 0
    lemon = field.lemon - field.lemon[usable].min()
    free = field.free_gpus - field.free_gpus[usable].min()
    costs: IntArray = lemon * weights.lemon + free * weights.free_gpus
    return costs


def _rows(field: Field, weights: Weights, domains: IntArray) -> Rows:
    """Return the usable rows of these domains of the lowest level, the best of each first."""
    ids, costs = field.topology.ids[field.leaf], _row_costs(field, weights)
    rows = np.flatnonzero((field.room > 0) & np.isin(ids, domains))
    rows = rows[np.lexsort((costs[rows], ids[rows]))]
    return Rows(domains, np.searchsorted(ids[rows], domains), rows, costs[rows])


def _in_one(task: Task) -> list[int]:
    """Return the rows inside the best domain of the lowest level."""
    field, fits, seats = task.field, task.fits, task.wish.seats
    weights = _weights(task, {})
    assert weights is not None
    alike = np.zeros(len(fits), dtype=np.int64)
    if field.shared:
        costs = _row_costs(field, weights)[fits]
        best = _first(task, fits, alike, costs, stranded=weights.stranded)
        return [int(fits[best])] * seats
    rows = _rows(field, weights, fits)
    sums = np.concatenate(([0], np.cumsum(rows.costs)))
    costs = sums[rows.first + seats] - sums[rows.first]
    best = _first(task, fits, alike, costs, stranded=weights.stranded)
    return rows.of(int(fits[best]), seats)


def _first(
    task: Task, domains: IntArray, counts: IntArray, costs: IntArray, *, stranded: int
) -> int:
    """Return the place of the best of some domains that fit, given what each costs.

    From the lowest level on, what is left over is not in the costs yet.
    """
    field, wish = task.field, task.wish
    if task.level >= field.leaf:
        leaves = field.topology.ids[field.leaf][field.topology.bounds[task.level][domains]]
        costs = costs + stranded * field.seats[field.leaf][leaves]
    short = field.seats[task.level][domains] < wish.seats + wish.spares
    return int(np.lexsort((costs, short, counts))[0])
