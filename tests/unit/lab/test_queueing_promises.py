"""No reservation is delayed by lower-ranked work: in small random traces, played to their end."""

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from tramontane.lab.queueing.hall import Hall
from tramontane.lab.queueing.learning import Scheduler
from tramontane.lab.queueing.lives import Fault, Run
from tramontane.lab.queueing.promises import Watched
from tramontane.lab.queueing.simulate import simulate
from tramontane.lab.queueing.trace import Job, job
from tramontane.scheduler.engine import decide

TRACES = int(os.environ.get("TRAMONTANE_EXAMPLES", "500"))
BATCHES = 20

Case = tuple[Callable[[], Hall], list[Job], list[Fault]]


def case_of(seed: int) -> Case:
    """Draw a hall of at most 12 blades, at most 15 jobs that crowd it, and seldom faults."""
    rng = random.Random(seed)
    blades, rack = rng.randint(2, 12), rng.randint(1, 4)
    jobs = []
    at_s = 0.0
    for number in range(rng.randint(3, 15)):
        at_s += rng.choice([0, 1, rng.randint(1, 100)])
        seats, limit_s = rng.randint(1, blades), rng.choice([10, 50, 100, rng.randint(1, 300)])
        runtime_s = limit_s * rng.choice([1, 1, rng.uniform(0.1, 1)])
        more: dict[str, Any] = {"priority": rng.choice([0, 0, 0, 1, 2])}
        if rng.random() < 0.3:
            more |= {"pack": "rack", "required": seats <= rack and rng.random() < 0.5}
        elif rng.random() < 0.2:
            more |= {"slice_size": rng.randint(2, 3), "slice_level": "block"}
        more["max_runtime_s"] = None if rng.random() < 0.05 else float(limit_s)
        jobs.append(job(f"j{number}", at_s, seats, max(1, round(runtime_s)), **more))
    faults = []
    if rng.random() < 0.2:
        fails_s = rng.uniform(0, at_s + 100)
        faults.append(
            Fault(f"b{rng.randrange(blades):05d}", fails_s, fails_s + rng.uniform(1, 200))
        )
    return (lambda: Hall(blades, rack=rack, racks_per_block=2)), jobs, faults


def told(seed: int, case: Case, run: Run) -> str:
    """Return what is needed to play a case again, and what became of it."""
    _, jobs, faults = case
    lines = [f"seed {seed}, faults {faults}"]
    for one, life in zip(jobs, run.lives, strict=True):
        gang = one.gang
        lines.append(
            f"{gang.uid}: {one.seats} seats at {gang.created_s:g} priority {gang.priority} limit "
            f"{gang.max_runtime_s} runs {one.runtime_s:g} started {life.start_s} "
            f"promised {[(p.made_s, p.start_s) for p in life.promises]}"
        )
    return "\n".join(lines)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_reservation_is_delayed_by_lower_ranked_work(batch: int) -> None:
    promised = 0
    for seed in range(batch, TRACES, BATCHES):
        hall, jobs, faults = case = case_of(seed)
        watched = Watched(Scheduler(), decide)
        run = simulate(hall(), jobs, watched, faults)
        promised += len(watched.promised)
        assert not watched.broken, f"{watched.broken}\n{told(seed, case, run)}"
    assert promised > TRACES / BATCHES  # more than one gang of a trace has to wait


@pytest.mark.parametrize("seed", [813, 826, 1505, 1952, 2964, 3847, 3963, 4362, 5631, 9300])
def test_traces_in_which_a_gang_once_started_elsewhere_than_promised(seed: int) -> None:
    hall, jobs, faults = case = case_of(seed)
    watched = Watched(Scheduler(), decide)
    run = simulate(hall(), jobs, watched, faults)
    assert not watched.broken, f"{watched.broken}\n{told(seed, case, run)}"
