"""Measure what gangs wait on a busy hall: best-effort FIFO against the engine, on the same traces.

    make bench ARGS=waits

Two weeks of jobs on 1,024 blades at a load of 0.9, each size from 4 to 512 blades with the same
share of the work (`tramontane.lab.queueing.trace`), on a virtual clock; several seeds, pooled.
FIFO and the engine have the same places to choose from and differ in time alone.

All jobs have one priority. Where more important ones keep arriving, nobody can know of them when
a wait begins: a first estimate is off by what they will take.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from bench import results, waits_chart
from bench.results import Budget
from tramontane.lab.queueing import fifo
from tramontane.lab.queueing.hall import Hall
from tramontane.lab.queueing.learning import Scheduler
from tramontane.lab.queueing.lives import Run
from tramontane.lab.queueing.measure import Estimates, Waits, estimates, waits_by_size
from tramontane.lab.queueing.promises import Watched
from tramontane.lab.queueing.simulate import simulate
from tramontane.lab.queueing.trace import Shape, draw
from tramontane.scheduler.engine import decide

SEEDS = (1, 2)
SHAPE = Shape(smallest=4, priorities=((0, 1.0),))
FIFO, ENGINE = "best-effort FIFO", "tramontane"
RATIO, POINTS, ERROR, HALF, NINETY = 0.2, 1.0, 0.1, 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Played:
    """What one policy did to one trace."""

    run: Run
    cpu_s: float
    promised: int
    broken: int
    slips: int
    overtaken: int


def play(policy: str, shape: Shape, seed: int) -> Played:
    """Play a trace against a policy."""
    jobs, began = draw(shape, seed), time.process_time()
    engine = Watched(Scheduler(), decide)
    chosen = fifo.decide if policy == FIFO else engine
    run = simulate(Hall(shape.blades), jobs, chosen)
    cpu_s = time.process_time() - began
    return Played(
        run, cpu_s, len(engine.promised), len(engine.broken), engine.slips, engine.overtaken
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What one policy did to all traces."""

    waits: dict[int, Waits]
    utilisation: float
    passes: int
    cpu_s: float
    promised: int
    broken: int
    slips: int
    overtaken: int
    first_estimate: Estimates | None
    estimate_half_way: Estimates | None


def figures_of(all_: Sequence[Played]) -> Figures:
    """Return the figures of several runs as if they were one."""
    lives = [life for one in all_ for life in one.run.lives]
    return Figures(
        waits=waits_by_size(lives),
        utilisation=sum(one.run.used_s for one in all_) / sum(one.run.offered_s for one in all_),
        passes=sum(one.run.passes for one in all_),
        cpu_s=sum(one.cpu_s for one in all_),
        promised=sum(one.promised for one in all_),
        broken=sum(one.broken for one in all_),
        slips=sum(one.slips for one in all_),
        overtaken=sum(one.overtaken for one in all_),
        first_estimate=estimates(lives),
        estimate_half_way=estimates(lives, at=0.5),
    )


def budgets(fifo_: Figures, engine: Figures) -> list[Budget]:
    """Return each figure beside its budget."""
    largest = max(fifo_.waits)
    ratio = engine.waits[largest].p99_s / max(1.0, fifo_.waits[largest].p99_s)
    loss = 100 * (fifo_.utilisation - engine.utilisation)
    kept = [
        Budget(f"p99 wait of {largest}-blade gangs against FIFO's", ratio, RATIO),
        Budget("utilisation lost against FIFO", loss, POINTS, "points"),
        Budget("promises broken by lower-ranked gangs", engine.broken, 0),
    ]
    if said := engine.first_estimate:
        half, ninety = abs(100 * said.within_p50 - 50), abs(100 * said.within_p90 - 90)
        kept += [
            Budget("first estimate: median error, honest limits", said.median_error, ERROR),
            Budget("starts within p50, off 50 %", half, HALF, "points"),
            Budget("starts within p90, off 90 %", ninety, NINETY, "points"),
        ]
    return kept


def document(found: Figures) -> dict[str, Any]:
    """Return what is written of one policy; waits in hours."""
    flat = asdict(found)
    waits: dict[int, dict[str, float]] = flat.pop("waits")
    cpu_s = flat.pop("cpu_s")
    return {
        **{key: _rounded(value) for key, value in flat.items()},
        "ms_per_pass": round(1000 * cpu_s / found.passes, 2),
        "waits_h": {
            str(size): {
                key.removesuffix("_s"): round(value / 3600, 3) if key.endswith("_s") else value
                for key, value in one.items()
            }
            for size, one in waits.items()
        },
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def figures(shape: Shape, seeds: Sequence[int]) -> tuple[Figures, Figures]:
    """Return what FIFO and the engine did to the same traces; the long runs begin first."""
    todo = [(policy, seed) for policy in (ENGINE, FIFO) for seed in seeds]
    with ProcessPoolExecutor() as pool:
        runs = [pool.submit(play, policy, shape, seed) for policy, seed in todo]
        played = [run.result() for run in runs]
    return figures_of(played[len(seeds) :]), figures_of(played[: len(seeds)])


async def run(shape: Shape = SHAPE, seeds: Sequence[int] = SEEDS) -> list[Budget]:
    """Measure, write bench/results/waits.json and its chart, return the budgets."""
    fifo_, engine = await asyncio.to_thread(figures, shape, seeds)
    kept = budgets(fifo_, engine)
    runs = {FIFO: document(fifo_), ENGINE: document(engine)}
    results.write("waits", {"seeds": seeds, "shape": asdict(shape), "runs": runs}, kept)
    curves = {name: one["waits_h"] for name, one in runs.items()}
    waits_chart.write(results.ROOT / "docs" / "images" / "waits.svg", curves)
    return kept
