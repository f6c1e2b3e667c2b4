"""Slots that ask for different things lie in the fewest domains, says an exact solver."""

import os
import random
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import pytest

from tramontane.scheduler.packing.mixed import choose_mixed, most_seats, types_of
from tramontane.scheduler.topology import BoolArray, Topology, build_topology

INSTANCES = int(os.environ.get("TRAMONTANE_EXAMPLES", "200"))
BATCHES = 10


@dataclass(frozen=True)
class Case:
    """A pool, and which of its blades serve each of some slots; made from a number."""

    topology: Topology
    masks: tuple[BoolArray, ...]
    counts: tuple[int, ...]
    top: int
    spares: int

    def usable(self, level: int, domain: int) -> int:
        inside = self.topology.ids[level] == domain
        return int((inside & (types_of(self.masks) > 0)).sum())


def case(seed: int) -> Case:
    rng = random.Random(seed)
    depth, blades = rng.randint(0, 3), rng.randint(2, 30)
    branches = [rng.choice([2, 2, 3, 4]) for _ in range(depth)]
    paths = sorted(tuple(f"{rng.randrange(n)}" for n in branches) for _ in range(blades))
    topology = build_topology([f"level-{i}" for i in range(depth)], paths)
    masks = tuple(
        np.array([rng.random() < share for _ in range(blades)])
        for share in rng.choices([0.3, 0.6, 0.9], k=rng.randint(2, 3))
    )
    counts = tuple(rng.randint(1, max(1, blades // 4)) for _ in masks)
    return Case(topology, masks, counts, rng.choice([0, 0, rng.randint(0, depth + 1)]), spares=0)


def solved(case: Case) -> tuple[int, ...] | None:
    """Return (less the common level, domains per level, blades left over), or None."""
    types, topology = types_of(case.masks), case.topology
    leaf = topology.blade_level - 1
    for level in range(leaf, case.top - 1, -1):
        ids = topology.ids[level]
        fits = [
            domain
            for domain in range(len(topology.bounds[level]) - 1)
            if most_seats(types[ids == domain], case.counts) == sum(case.counts)
        ]
        if fits:
            return -level, *min(_least(case, level, domain) for domain in fits)
    return None


def _least(case: Case, level: int, domain: int) -> tuple[int, ...]:
    topology, leaf = case.topology, case.topology.blade_level - 1
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.silent()
    # All solvers of a process share their threads, and must agree on how many.
    solver.setOptionValue("threads", 1)
    serving = types_of(case.masks) > 0
    rows = np.flatnonzero((topology.ids[level] == domain) & serving).tolist()
    seat = {
        (row, slot): solver.addBinary()
        for row in rows
        for slot, mask in enumerate(case.masks)
        if mask[row]
    }
    for row in rows:
        solver.addConstr(sum(x for (at, _), x in seat.items() if at == row) <= 1)
    for slot, count in enumerate(case.counts):
        solver.addConstr(sum(x for (_, s), x in seat.items() if s == slot) == count)
    stages: list[Any] = []
    for at in range(level + 1, leaf + 1):
        ids = topology.ids[at]
        touched = {d: solver.addBinary() for d in sorted({int(ids[row]) for row in rows})}
        for (row, _), x in seat.items():
            solver.addConstr(x <= touched[int(ids[row])])
        stages.append(sum(touched.values()))
        if at == leaf:
            stages.append(sum(case.usable(leaf, d) * y for d, y in touched.items()))
    if not stages:
        return (case.usable(level, domain),)
    found = []
    for stage in stages:
        solver.minimize(stage)
        found.append(round(float(solver.getInfo().objective_function_value)))
        solver.addConstr(stage <= found[-1])
    return tuple(found)


def objective(case: Case, rows: list[list[int]]) -> tuple[int, ...]:
    used = np.array([row for mine in rows for row in mine])
    topology, leaf = case.topology, case.topology.blade_level - 1
    counts = [len(np.unique(ids[used])) for ids in topology.ids]
    level = max(at for at in range(leaf + 1) if counts[at] == 1)
    leaves = np.unique(topology.ids[leaf][used]).tolist()
    left = sum(case.usable(leaf, domain) for domain in leaves)
    return -level, *counts[level + 1 : leaf + 1], left


def check(case: Case, rows: list[list[int]], seed: int) -> None:
    assert tuple(len(mine) for mine in rows) == case.counts, f"case({seed})"
    assert all(mask[row] for mask, mine in zip(case.masks, rows, strict=True) for row in mine)
    assert len({row for mine in rows for row in mine}) == sum(case.counts), f"case({seed})"
    assert all(mine == sorted(mine) for mine in rows)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_solver_finds_no_fewer_domains(batch: int) -> None:
    for seed in range(batch, INSTANCES, BATCHES):
        mixed = case(seed)
        dealt = choose_mixed(mixed.topology, mixed.masks, mixed.counts, mixed.top)
        best = solved(mixed)
        assert (dealt is None) == (best is None), f"case({seed})"
        if dealt is None:
            continue
        check(mixed, dealt.rows, seed)
        assert dealt.exact
        assert objective(mixed, dealt.rows) == best, f"case({seed})"


def test_cut_short_it_is_a_valid_choice_and_the_bound_holds() -> None:
    worse = 0
    for seed in range(INSTANCES):
        mixed = case(seed)
        best = choose_mixed(mixed.topology, mixed.masks, mixed.counts, mixed.top)
        quick = choose_mixed(mixed.topology, mixed.masks, mixed.counts, mixed.top, budget=0)
        assert (best is None) == (quick is None), f"case({seed})"
        if best is None or quick is None:
            continue
        check(mixed, quick.rows, seed)
        exact, cut = objective(mixed, best.rows), objective(mixed, quick.rows)
        assert exact[:-1] <= cut[:-1], f"case({seed})"
        assert all(low <= used for low, used in zip(quick.bound, best.bound, strict=True))
        worse += exact < cut
    assert worse  # else the search would not be worth its work


def test_rows_of_the_least_rank_come_first() -> None:
    topology = build_topology([], [()] * 4)
    both = np.ones(4, dtype=np.bool_)
    first = np.array([True, False, True, True])
    dealt = choose_mixed(topology, [both, first], [1, 1], 0, rank=np.array([3, 2, 0, 1]))
    assert dealt is not None
    assert dealt.rows == [[1], [2]]


def test_a_domain_with_room_for_spares_comes_before_one_without() -> None:
    topology = build_topology(["rack"], [("a",)] * 2 + [("b",)] * 3)
    masks = [np.ones(5, dtype=np.bool_), np.array([True, False, True, False, True])]
    without = choose_mixed(topology, masks, [1, 1], 0)
    spare = choose_mixed(topology, masks, [1, 1], 0, spares=1)
    assert without is not None
    assert spare is not None
    assert without.rows == [[1], [0]]
    assert spare.rows == [[3], [2]]
