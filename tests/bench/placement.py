"""Measure placing one gang by itself: a snapshot and a plan, in milliseconds of CPU.

Whole passes are `engine`'s. Here is what an exact choice costs beside one that is cut short, and
how the cost grows with the fleet: the gang is an eighth of it, 70 % of the blades are in use.
"""

import asyncio
import math
import random
import statistics
from dataclasses import replace
from functools import partial
from typing import Any

from bench import results
from bench.engine import HALLS, LEVELS, NOW, World, fleet_of, gang, p99, times_ms
from bench.placement_chart import draw
from bench.results import Budget
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.packing.pack import EXACT_STEPS
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.snapshot import take_snapshot

FLEETS = (1_000, 2_000, 4_000, 8_000, 16_000)
SHARE = 8
STATES = 20
WITHOUT_END = 1 << 60


def decision(world: World, new: GangRecord, budget: int) -> Plan:
    """Return where a gang goes, from nothing but the objects."""
    answer = place(take_snapshot(world.fleet, world.gangs, world.pods), new, NOW, budget=budget)
    assert isinstance(answer, Plan), answer
    return answer


def exact_and_quick() -> dict[str, float]:
    """Return milliseconds for the largest gangs, exact and cut short."""
    found = {}
    world, huge = fleet_of(0.2, 16_000), gang("ns/new", 10_000)
    for name, budget in (("exact", WITHOUT_END), ("cut short", 0)):
        cut = decision(world, huge, budget).note
        assert bool(cut) == (budget == 0), cut
        found[f"10,000 seats on 16,000 blades, {name}"] = max(
            times_ms(partial(decision, world, huge, budget), 5)
        )
    sliced = replace(huge, slice_size=3, slice_level="rack")
    found["10,000 seats in slices of 3 per rack, 16,000 blades, exact"] = max(
        times_ms(partial(decision, world, sliced, WITHOUT_END), 5)
    )
    return found


def scaling(levels: tuple[tuple[str, str], ...]) -> list[dict[str, float]]:
    """Return the cost per size of the fleet, over random states."""
    rows = []
    for blades in FLEETS:
        world, new, taken = World(blades, levels), gang("ns/new", blades // SHARE), []
        for seed in range(STATES):
            world.clear()
            world.fill(0.7, random.Random(seed))
            taken.append(min(times_ms(partial(decision, world, new, EXACT_STEPS), 3)))
        rows.append(
            {
                "blades": blades,
                "seats": blades // SHARE,
                "median_ms": round(statistics.median(taken), 3),
                "p99_ms": round(p99(taken), 3),
            }
        )
    return rows


def exponent(rows: list[dict[str, float]]) -> float:
    """Return the slope of the medians against the blades, both in logarithms: least squares."""
    logs = [(math.log(row["blades"]), math.log(row["median_ms"])) for row in rows]
    return round(statistics.linear_regression(*zip(*logs, strict=True)).slope, 3)


def figures() -> tuple[dict[str, float], dict[str, Any]]:
    """Return milliseconds by what was measured, and the growth per number of levels."""
    growth = {}
    for name, levels in (("2 named levels", LEVELS), ("3 named levels", HALLS)):
        rows = scaling(levels)
        growth[name] = {"exponent": exponent(rows), "rows": rows}
    return {name: round(ms, 2) for name, ms in exact_and_quick().items()}, growth


BUDGETS_MS = {
    "10,000 seats on 16,000 blades, exact": 2_000,
    "10,000 seats on 16,000 blades, cut short": 100,
    "10,000 seats in slices of 3 per rack, 16,000 blades, exact": 2_000,
}
MOST_EXPONENT = 1.5


async def run() -> list[Budget]:
    """Measure, write bench/results/placement.json and the chart, return the budgets."""
    found, growth = await asyncio.to_thread(figures)
    kept = [Budget(name, value, BUDGETS_MS[name], "ms") for name, value in found.items()]
    kept += [
        Budget(f"growth with the fleet, {name}", of["exponent"], MOST_EXPONENT)
        for name, of in growth.items()
    ]
    draw(results.write("placement", {"ms": found, "scaling": growth}, kept))
    return kept
