"""Measure what gangs wait on a busy hall: best-effort FIFO against the engine, on the same trace.

    make bench ARGS=waits

Two weeks of jobs on 1,024 blades at a load of 0.9, each size from 4 to 512 blades with the same
share of the work (`tramontane.lab.queueing.trace`), on a virtual clock. FIFO and the engine have
the same places to choose from and differ in time alone. Runs side by side, in a process each.
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
from tramontane.lab.queueing.measure import Estimates, Waits, estimates, waits_by_size
from tramontane.lab.queueing.promises import Watched
from tramontane.lab.queueing.simulate import simulate
from tramontane.lab.queueing.trace import Shape, draw
from tramontane.scheduler.engine import decide

SEED = 1
SHAPE = Shape(blades=1024, days=14, load=0.9, smallest=4, largest=512)
FIFO, ENGINE = "best-effort FIFO", "tramontane"
RATIO, POINTS, ERROR, HALF, NINETY = 0.2, 1.0, 0.1, 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Played:
    """What one policy did to the trace."""

    waits: dict[int, Waits]
    utilisation: float
    passes: int
    cpu_s: float
    promised: int = 0
    broken: int = 0
    slips: int = 0
    first: Estimates | None = None
    half_way: Estimates | None = None


def play(policy: str, shape: Shape, seed: int) -> Played:
    """Play the trace against a policy."""
    jobs, began = draw(shape, seed), time.process_time()
    if policy == FIFO:
        run = simulate(Hall(shape.blades), jobs, fifo.decide)
        watched = Watched(fifo.decide, fifo.decide)
    else:
        watched = Watched(Scheduler(), decide)
        run = simulate(Hall(shape.blades), jobs, watched)
    return Played(
        waits_by_size(run.lives),
        run.utilisation,
        run.passes,
        time.process_time() - began,
        len(watched.promised),
        len(watched.broken),
        watched.slips,
        estimates(run.lives),
        estimates(run.lives, at=0.5),
    )


def budgets(fifo_: Played, engine: Played) -> list[Budget]:
    """Return each figure beside its budget."""
    largest = max(fifo_.waits)
    ratio = engine.waits[largest].p99_s / max(1.0, fifo_.waits[largest].p99_s)
    loss = 100 * (fifo_.utilisation - engine.utilisation)
    kept = [
        Budget(f"p99 wait of {largest}-blade gangs against FIFO's", ratio, RATIO),
        Budget("utilisation lost against FIFO", loss, POINTS, "points"),
        Budget("promises broken by lower-ranked gangs", engine.broken, 0),
    ]
    if engine.first is not None:
        half = abs(100 * engine.first.within_p50 - 50)
        ninety = abs(100 * engine.first.within_p90 - 90)
        kept += [
            Budget("first estimate: median error, honest limits", engine.first.median_error, ERROR),
            Budget("starts within p50, off 50 %", half, HALF, "points"),
            Budget("starts within p90, off 90 %", ninety, NINETY, "points"),
        ]
    return kept


def document(played: Played) -> dict[str, Any]:
    """Return what is written of one run; waits in hours."""
    return {
        "utilisation": round(played.utilisation, 4),
        "passes": played.passes,
        "ms_per_pass": round(1000 * played.cpu_s / played.passes, 2),
        "promised": played.promised,
        "broken": played.broken,
        "slips": played.slips,
        "first_estimate": _rounded(played.first),
        "estimate_half_way": _rounded(played.half_way),
        "waits_h": {
            str(size): {
                "jobs": waits.jobs,
                **{
                    name.removesuffix("_s"): round(value / 3600, 2)
                    for name, value in asdict(waits).items()
                    if name != "jobs"
                },
            }
            for size, waits in played.waits.items()
        },
    }


def _rounded(found: Estimates | None) -> dict[str, float] | None:
    return None if found is None else {k: round(v, 4) for k, v in asdict(found).items()}


def figures(shape: Shape, seed: int, policies: Sequence[str] = (FIFO, ENGINE)) -> list[Played]:
    """Return what each policy did to the same trace."""
    with ProcessPoolExecutor(len(policies)) as pool:
        return list(pool.map(play, policies, [shape] * len(policies), [seed] * len(policies)))


async def run(shape: Shape = SHAPE, seed: int = SEED) -> list[Budget]:
    """Measure, write bench/results/waits.json and its chart, return the budgets."""
    fifo_, engine = await asyncio.to_thread(figures, shape, seed)
    kept = budgets(fifo_, engine)
    runs = {FIFO: document(fifo_), ENGINE: document(engine)}
    results.write("waits", {"seed": seed, "shape": asdict(shape), "runs": runs}, kept)
    curves = {name: run["waits_h"] for name, run in runs.items()}
    waits_chart.write(results.ROOT / "docs" / "images" / "waits.svg", curves)
    return kept
