"""Measure what it costs to say why a gang waits and what would let it run, in milliseconds of CPU.

Each figure is of a refusal and all ways out, every one of them tried: the worst of some random
gangs on halls in random states. Of each, the first way out is applied, and the gang must fit.
"""

import asyncio
import random
from collections.abc import Iterator

from bench import results
from bench.engine import NOW, World, gang, times_ms
from bench.results import Budget
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.place import Plan
from tramontane.scheduler.unblocking.unblock import ways_out
from tramontane.scheduler.unblocking.whatif import Case

BLADES = 5000
GANGS = 25
BUDGETS_MS = {
    f"why not, with all ways out, {BLADES:,} blades 70 % full": 1000,
    f"why not, with all ways out, {BLADES:,} blades 98 % full": 1000,
}


def figures() -> dict[str, float]:
    """Return the figures, by the names of their budgets."""
    return {
        name: worst_ms(share, seed)
        for seed, (name, share) in enumerate(zip(BUDGETS_MS, (0.7, 0.98), strict=True))
    }


def worst_ms(share: float, seed: int) -> float:
    """Return the most that an explanation of some pending gangs took."""
    rng = random.Random(seed)
    world = World(BLADES)
    world.fill(share, rng)
    taken = []
    for one in pending(world, rng):
        cases = iter([Case(world.fleet, world.gangs, world.pods, one, NOW) for _ in range(2)])
        taken += times_ms(lambda cases=cases: ways_out(next(cases)), 1)  # type: ignore[misc]
        case = next(cases)
        first = ways_out(case)[0]
        assert isinstance(first.apply(case).answer(), Plan), f"{one}: {first}"
    return max(taken)


def pending(world: World, rng: random.Random) -> Iterator[GangRecord]:
    """Yield gangs that have no place: of all sizes, packed, sliced, with spares."""
    found = 0
    while found < GANGS:
        more: dict[str, object] = {"spares": rng.randint(0, 2)}
        if rng.random() < 0.5:
            more |= {"pack": rng.choice(["block", "rack"]), "required": True}
        if rng.random() < 0.3:
            more |= {"slice_size": rng.choice([4, 8, 16]), "slice_level": "rack"}
        one = gang("ns/x", rng.choice([16, 64, 128, 600, 1600, 3000, 6000]), **more)
        case = Case(world.fleet, world.gangs, world.pods, one, NOW)
        if not isinstance(case.answer(), Plan):
            found += 1
            yield one


async def run() -> list[Budget]:
    """Measure, write bench/results/explanations.json, return the budgets."""
    found = await asyncio.to_thread(figures)
    kept = [Budget(name, value, BUDGETS_MS[name], "ms") for name, value in found.items()]
    results.write("explanations", {"ms": found}, kept)
    return kept
