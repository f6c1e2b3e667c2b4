"""No other choice of rows is better than the chosen one, says an exact solver.

The solver knows nothing of tables and trees: it has a variable per blade and per domain, and
minimises one field of the objective after the other.
"""

import os
import random
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import pytest

from tramontane.scheduler.packing.field import Field, Wish, field_of
from tramontane.scheduler.packing.pack import Choice, choose
from tramontane.scheduler.topology import Topology, build_topology

INSTANCES = int(os.environ.get("TRAMONTANE_EXAMPLES", "400"))
BATCHES = 20
MOST_BLADES = 60


@dataclass(frozen=True)
class Case:
    """A pool and a wish, made from a number."""

    field: Field
    wish: Wish

    @property
    def topology(self) -> Topology:
        return self.field.topology


def case(seed: int) -> Case:
    rng = random.Random(seed)
    depth, blades = rng.randint(0, 3), rng.randint(1, MOST_BLADES)
    # Few branches at the top make many blades share a domain; many leave domains of one blade.
    branches = [rng.choice([1, 2, 2, 3, 4, 6, 10]) for _ in range(depth)]
    paths = sorted(tuple(f"{rng.randrange(n)}" for n in branches) for _ in range(blades))
    topology = build_topology([f"level-{i}" for i in range(depth)], paths)
    most = rng.choice([1, 1, 1, 1, 2, 4])
    usable = rng.choice([0.4, 0.7, 0.9, 1.0])
    room = np.array([rng.randint(1, most) * (rng.random() < usable) for _ in range(blades)])
    lemon = np.array([rng.choice([0.0, 0.0, 0.1, 0.26, 0.3]) for _ in range(blades)])
    free = np.array([rng.choice([8, 8, rng.randint(1, 8)]) for _ in range(blades)])
    total = int(room.sum())
    seats = rng.randint(1, max(1, total if rng.random() < 0.8 else total // 3))
    size, level = 1, topology.blade_level
    if rng.random() < 0.5:
        size, level = rng.randint(2, 5), rng.randint(0, topology.blade_level - 1)
    top = rng.randint(0, topology.blade_level) if rng.random() < 0.4 else 0
    spares = rng.choice([0, 0, 0, 2])
    field = field_of(topology, room.astype(np.int64), lemon, free.astype(np.int64))
    return Case(field, Wish(seats, size, level, top, spares))


Objective = tuple[int, ...]


def objective(case: Case, chosen: Choice) -> Objective:
    """Return the fields of what was chosen: less is better, the first one counts most."""
    field, topology, rows = case.field, case.topology, np.array(chosen.rows)
    common = [len(set(ids[rows].tolist())) == 1 for ids in topology.ids]
    level = max(at for at in range(field.bottom + 1) if common[at])
    counts = [len(np.unique(topology.ids[at][rows])) for at in range(level + 1, field.bottom + 1)]
    home = int(topology.ids[level][rows[0]])
    short = int(field.seats[level][home] < case.wish.seats + case.wish.spares)
    leaves = np.unique(topology.ids[field.leaf][rows])
    touched = np.unique(rows)
    return (
        -level,
        *counts,
        short,
        int(field.seats[field.leaf][leaves].sum()),
        int(field.lemon[touched].sum()),
        int(field.free_gpus[touched].sum()),
    )


class Model:
    """All ways to place the wish inside one domain, for the solver."""

    def __init__(self, case: Case, level: int, domain: int) -> None:
        self.case, self.level, self.domain = case, level, domain
        field, topology, wish = case.field, case.topology, case.wish
        self.solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        self.solver.silent()
        self.solver.setOptionValue("mip_rel_gap", 0.0)
        self.solver.setOptionValue("threads", 1)
        rows = np.flatnonzero((topology.ids[level] == domain) & (field.room > 0)).tolist()
        on = {row: self.solver.addIntegral(0, int(field.room[row])) for row in rows}
        self.touched: list[dict[int, highspy.highs_var]] = []
        for at in range(level + 1, topology.blade_level + 1):
            ids = topology.ids[at]
            inside = {d: self.solver.addBinary() for d in sorted({int(ids[r]) for r in rows})}
            for d, is_touched in inside.items():
                held = sum(on[row] for row in rows if ids[row] == d)
                self.solver.addConstr(held <= int(field.seats[at][d]) * is_touched)
                self.solver.addConstr(held >= is_touched)
            self.touched.append(inside)
        self.solver.addConstr(sum(on.values()) == wish.seats)
        if wish.sliced(level):
            self._slices(on)

    def _slices(self, on: dict[int, highspy.highs_var]) -> None:
        wish, ids = self.case.wish, self.case.topology.ids[self.case.wish.slice_level]
        whole, short = [], []
        for d in sorted({int(ids[row]) for row in on}):
            whole.append(self.solver.addIntegral(0, wish.units))
            short.append(self.solver.addBinary())
            held = sum(on[row] for row in on if ids[row] == d)
            self.solver.addConstr(
                held == wish.slice_size * whole[-1] + max(1, wish.rest) * short[-1]
            )
        self.solver.addConstr(sum(short) == (wish.rest > 0))
        self.solver.addConstr(sum(whole) == wish.units)

    def stages(self) -> list[Any]:
        """Return what is to be minimised, in this order."""
        field, leaf, blades = self.case.field, self.case.field.leaf, self.touched[-1]
        counted = self.touched if field.shared else self.touched[:-1]
        stages: list[Any] = [sum(inside.values()) for inside in counted]
        wish, seats = self.case.wish, field.seats
        stages.append(int(seats[self.level][self.domain] < wish.seats + wish.spares))
        if self.level < leaf:
            leaves = self.touched[leaf - self.level - 1]
            stages.append(sum(int(seats[leaf][d]) * y for d, y in leaves.items()))
        else:
            first = int(self.case.topology.bounds[self.level][self.domain])
            stages.append(int(seats[leaf][self.case.topology.ids[leaf][first]]))
        stages.append(sum(int(field.lemon[row]) * y for row, y in blades.items()))
        stages.append(sum(int(field.free_gpus[row]) * y for row, y in blades.items()))
        return stages

    def least(self, stage: Any) -> int | None:
        """Return the least that a stage can be, and hold it there; None where nothing fits."""
        if isinstance(stage, int):
            self.solver.solve()
            return int(stage) if self._optimal() else None
        self.solver.minimize(stage)
        if not self._optimal():
            return None
        value = round(float(self.solver.getInfo().objective_function_value))
        self.solver.addConstr(stage <= value)
        return value

    def _optimal(self) -> bool:
        return bool(self.solver.getModelStatus() == highspy.HighsModelStatus.kOptimal)


def solved(case: Case) -> Objective | None:
    """Return the best objective there is, or None where nothing fits."""
    field, wish, topology = case.field, case.wish, case.topology
    top = min(wish.top, field.bottom) if wish.seats == 1 else wish.top
    for level in range(field.bottom, top - 1, -1):
        if level == topology.blade_level:
            homes = np.flatnonzero(field.room >= wish.seats).tolist()
            if homes:
                return min((-level, *_on_one_blade(case, row)) for row in homes)
            continue
        fits = np.flatnonzero(field.seats[level] >= wish.seats).tolist()
        models = [Model(case, level, domain) for domain in fits]
        models = [model for model in models if model.least(0) is not None]
        best: list[int] = []
        while models:
            values = [model.least(model.stages()[len(best)]) for model in models]
            least = min(value for value in values if value is not None)
            models = [m for m, value in zip(models, values, strict=True) if value == least]
            best.append(least)
            if len(best) == len(models[0].stages()):
                return -level, *best
    return None


def _on_one_blade(case: Case, row: int) -> Objective:
    field, wish = case.field, case.wish
    short = int(field.room[row] < wish.seats + wish.spares)
    stranded = int(field.seats[field.leaf][case.topology.ids[field.leaf][row]])
    return short, stranded, int(field.lemon[row]), int(field.free_gpus[row])


def check_slices(case: Case, chosen: Choice) -> None:
    size = case.wish.slice_size
    ids = case.topology.ids[case.wish.slice_level]
    for first in range(0, len(chosen.rows), size):
        assert len(set(ids[chosen.rows[first : first + size]].tolist())) == 1


@pytest.mark.parametrize("batch", range(BATCHES))
def test_the_solver_finds_nothing_better(batch: int) -> None:
    for seed in range(batch, INSTANCES, BATCHES):
        instance = case(seed)
        chosen, best = choose(instance.field, instance.wish), solved(instance)
        if chosen is None or best is None:
            assert (chosen, best) == (None, None), f"case({seed})"
            continue
        assert chosen.exact
        assert len(chosen.rows) == instance.wish.seats, f"case({seed})"
        used = np.bincount(chosen.rows, minlength=instance.topology.rows)
        assert (used <= instance.field.room).all(), f"case({seed})"
        check_slices(instance, chosen)
        assert objective(instance, chosen) == best, f"case({seed})"
