"""What the simulator says of 1,024 and 16,384 GPUs, how near the closed formula, and how fast.

The long run is 30 days of one job of 2,048 blades; its CPU time is what `SPEED_S` bounds. The
others of that size are shorter: they say the same within their spread.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any

from bench.results import ROOT, Budget, write
from tramontane.lab.sim import charts
from tramontane.lab.sim.study import Answer, Case, ask, sweep, without_tramontane

SPEED_S = 60.0
IMAGE = ROOT / "docs" / "images" / "simulator.svg"

SMALL = Case("1,024 GPUs, 30 s saves", blades=136, job_blades=128, spares=8)
LARGE = Case("16,384 GPUs, 10 s saves", blades=2096, job_blades=2048, spares=32, save_s=10)
SHORT_DAYS = 8.0


def play(case: Case, seeds: range) -> tuple[Answer, float]:
    """Return the answer, and the CPU seconds of one run."""
    began = time.process_time()
    (answer,) = ask([case], seeds)
    taken_s = (time.process_time() - began) / len(seeds)
    print(f"  {case.name} ({case.policy}): ETTR {answer.ettr:.4f}, {taken_s:.1f} s", flush=True)
    return answer, taken_s


def measure() -> list[Budget]:
    """Play all cases; write figures, budgets and the chart."""
    small, _ = play(SMALL, range(1, 5))
    theirs, _ = play(replace(without_tramontane(SMALL), name=f"{SMALL.name}, gang"), range(1, 5))
    large, large_s = play(LARGE, range(1, 2))
    short = replace(LARGE, days=SHORT_DAYS)
    slow, _ = play(replace(short, name="16,384 GPUs, 30 s saves", save_s=30), range(1, 2))
    gang, _ = play(replace(without_tramontane(short), name=f"{LARGE.name}, gang"), range(1, 2))
    table = list(ask([replace(case, days=30) for case in sweep(SMALL)], range(1, 3)))
    answers = [small, theirs, large, slow, gang]

    budgets = [
        Budget("1,024 GPUs, 30 s saves: share of time lost", 1 - small.ettr, 0.03),
        Budget("16,384 GPUs, 10 s saves: share of time lost", 1 - large.ettr, 0.07),
        Budget("16,384 GPUs, 30 s saves: share of time that counts", slow.ettr, 0.90),
        Budget("furthest from the formula where it holds", _furthest([small, large, slow]), 0.02),
        Budget("furthest of the ledger from the model", _ledger(answers), 0.01),
        Budget("CPU of 30 days of 2,048 blades", large_s, SPEED_S, "s"),
    ]
    figures: dict[str, Any] = {
        "cases": [one.to_dict() for one in answers],
        "sweep": {
            "command": (
                "tramontane simulate fleet --blades 136 --job-blades 128 --spares 8"
                " --seeds 2 --sweep"
            ),
            "cases": [one.to_dict() for one in table],
        },
    }
    write("simulator", figures, budgets)
    IMAGE.write_text(charts.svg(answers))
    return budgets


def _furthest(answers: list[Answer]) -> float:
    return max(abs(one.ettr / one.case.plan.ettr - 1) for one in answers if one.case.plan.is_valid)


def _ledger(answers: list[Answer]) -> float:
    return max(abs(one.ledger / one.ettr - 1) for one in answers)


async def run() -> list[Budget]:
    return await asyncio.to_thread(measure)
