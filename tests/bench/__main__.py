"""Measure the budgets: `make bench`, or some of it by `make bench ARGS="recovery kill"`.

Ends with 1 when a budget is not kept. Results are written to bench/results.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from bench import (
    agent,
    cold,
    crowd,
    engine,
    explanations,
    follower,
    foreign,
    kill,
    placement,
    recovery,
    series,
    simulator,
    start,
    waits,
)
from bench.results import Budget

BENCHES: dict[str, Callable[[], Coroutine[Any, Any, list[Budget]]]] = {
    "engine": engine.run,
    "placement": placement.run,
    "recovery": recovery.run,
    "start-128": partial(start.run, 128),
    "start-2048": partial(start.run, 2048),
    "kill": kill.run,
    "agent": agent.run,
    "cold": cold.run,
    "explanations": explanations.run,
    "follower": follower.run,
    "foreign": foreign.run,
    "crowd": crowd.run,
    "series": series.run,
    "waits": waits.run,
    "simulator": simulator.run,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks (all); returns the exit status."""
    if unknown := set(names) - set(BENCHES):
        print(f"bench: must be among {', '.join(BENCHES)} (got {', '.join(sorted(unknown))})")
        return 2
    kept = True
    for name in names or BENCHES:
        print(f"{name}:", flush=True)
        kept &= all(budget.kept for budget in asyncio.run(BENCHES[name]()))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
