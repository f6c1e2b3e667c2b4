"""What monitoring costs at 10,000 GPUs: series to keep, lines per agent, time per scrape.

    make bench ARGS=series

Each component in a process of its own, its collectors filled (support/monitored.py) as those of
1,250 blades, 2,000 jobs that train, 200 tenants and 300 deployments are. The time is CPU time, the
median of some scrapes; a scrape of the operator runs beside its event loop, in a thread.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from support.monitored import BLADES, DEPLOYMENTS, GPUS, JOBS, TENANTS

TESTS = Path(__file__).parents[1]
SCRAPES = 7
MOST_SERIES, MOST_LINES, MOST_S = 300_000, 200, 1.0


def scraped(component: str) -> dict[str, Any]:
    """Return what `support.monitored` found of a component."""
    roots = [str(TESTS), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-m", "support.monitored", component, str(SCRAPES)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "scrape_s": results.summary(found["scrape_s"])}


async def run() -> list[Budget]:
    """Measure, write bench/results/series.json, return the budgets."""
    names = ("operator", "scheduler", "agent")
    found = {name: await asyncio.to_thread(scraped, name) for name in names}
    operator, scheduler, agent = (found[name] for name in names)
    total = operator["series"] + scheduler["series"] + BLADES * agent["series"]
    kept = [
        Budget("series of the hall", total, MOST_SERIES),
        Budget("lines of an agent's scrape", agent["lines"], MOST_LINES),
        Budget("scrape of the operator", operator["scrape_s"]["median"], MOST_S, "s"),
        Budget("scrape of the scheduler", scheduler["scrape_s"]["median"], MOST_S, "s"),
    ]
    hall = {
        "blades": BLADES,
        "gpus": BLADES * GPUS,
        "jobs": JOBS,
        "tenants": TENANTS,
        "deployments": DEPLOYMENTS,
    }
    results.write("series", {"hall": hall, "components": found}, kept)
    return kept
