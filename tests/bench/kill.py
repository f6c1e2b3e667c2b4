"""Kill operator and scheduler at random moments; the job must come out whole each time.

    make bench ARGS=kill

Twenty times while a 128-pod job starts, twenty times while it recovers from a lost GPU: one or
both processes get SIGKILL at a seeded random moment and are started again. Afterwards there are
exactly 128 pods on 128 different healthy blades, and no pod went without a recorded cause.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from tramontane.kube.resources import TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.demo import training_job
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout
from tramontane.lab.watcher import Watcher, watching

Raw = dict[str, Any]

NODES = 128
MOMENTS = 20
SEED = 20261124
# Within these a start and a recovery have ended on the slowest machine we know.
START_WINDOW_S, RECOVERY_WINDOW_S = 1.2, 1.5
_PATIENCE_S = 90.0


async def run(moments: int = MOMENTS) -> list[Budget]:
    """Measure, write bench/results/kill.json, return the budgets."""
    rounds, violations = await torment(moments, SEED, print)
    wrong = [one for one in rounds if one["wrong"]]
    budgets = [
        Budget("moments after which the job was not whole", len(wrong), 0),
        Budget("broken invariants", len(violations), 0),
    ]
    figures = {
        "seed": SEED,
        "moments": len(rounds),
        "whole_again_s": results.summary([one["whole_s"] for one in rounds]),
        "rounds": rounds,
        "violations": violations,
    }
    results.write("kill", figures, budgets)
    return budgets


async def torment(
    moments: int, seed: int, say: Callable[[str], None]
) -> tuple[list[Raw], list[str]]:
    """Kill at `moments` moments of a start and as many of a recovery; returns what was seen."""
    chance = random.Random(seed)
    layout = Layout(blades=136, rack=8)
    pool = pool_of(layout)
    pool["spec"]["health"] = {"clearAfter": "1s"}
    rounds: list[Raw] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Lab(Path(folder), Setup(layout, pool=pool)) as lab,
            watching(lab.client) as watcher,
        ):
            for number in range(moments):
                if number:
                    await _clear_hall(lab, watcher, f"j{number - 1}")
                rounds += await _life(lab, watcher, f"j{number}", chance)
                for one in rounds[-2:]:
                    say(f"  {one['while']}: {one}")
            violations = [str(one) for one in watcher.violations()]
    return rounds, violations


async def _life(lab: Lab, watcher: Watcher, name: str, chance: random.Random) -> list[Raw]:
    """Start a job under fire, and let it lose a GPU under fire."""
    job = f"default/{name}"
    await lab.client.apply(TRAININGJOBS, training_job(name, NODES, "paris-a"), manager="kubectl")
    start = await _under_fire(lab, watcher, job, chance, "start", START_WINDOW_S, attempt=1)
    pods = watcher.pods_of(job)
    sick = pods[chance.choice(sorted(pods))]["spec"]["nodeName"]
    async with lab.remote() as remote:
        await remote.inject(sick, parse_fault("gpu-lost", gpu=chance.randrange(8)))
        recovery = await _under_fire(
            lab, watcher, job, chance, "recovery", RECOVERY_WINDOW_S, attempt=2
        )
        await remote.clear(sick)
    return [start, recovery]


async def _clear_hall(lab: Lab, watcher: Watcher, name: str) -> None:
    """Take the job away, and return when all blades are free and Healthy again."""
    job = f"default/{name}"
    await lab.client.delete(TRAININGJOBS, name, "default", propagation="Background")
    await watcher.until("no pods", lambda: not watcher.pods_of(job), timeout_s=_PATIENCE_S)
    await watcher.until(
        "all blades Healthy again",
        lambda: all(
            blade.get("status", {}).get("state") == "Healthy"
            for blade in watcher.blades.cache.values()
        ),
        timeout_s=_PATIENCE_S,
    )


async def _under_fire(
    lab: Lab,
    watcher: Watcher,
    job: str,
    chance: random.Random,
    what: str,
    window_s: float,
    *,
    attempt: int,
) -> Raw:
    """Kill at a random moment from now, start again, wait until the job is whole."""
    victims = chance.choice([["operator"], ["scheduler"], ["operator", "scheduler"]])
    moment = chance.uniform(0, window_s)
    began = time.monotonic()
    await asyncio.sleep(moment)
    for victim in victims:
        lab.processes.kill(victim)
    for victim in victims:
        lab.processes.stop(victim)
        lab.start_component(victim)

    def whole() -> bool:
        status = watcher.jobs.cache.get(job, {}).get("status", {})
        return status.get("phase") == "Running" and int(status.get("attempt", 1)) >= attempt

    wrong = ""
    try:
        await watcher.until(f"{job} whole", whole, timeout_s=_PATIENCE_S)
    except TimeoutError as error:
        wrong = str(error)
    whole_s = time.monotonic() - began
    await asyncio.sleep(0.5)  # whatever would still go wrong shows itself
    return {
        "while": what,
        "killed": victims,
        "after_s": round(moment, 3),
        "whole_s": round(whole_s, 2),
        "wrong": wrong or _wrong(watcher, job),
    }


def _wrong(watcher: Watcher, job: str) -> str:
    """Say what is wrong with the pods of a job that should be whole; empty when nothing."""
    pods = watcher.pods_of(job)
    nodes = {pod["spec"]["nodeName"] for pod in pods.values()}
    sick = sorted(
        node for node in nodes if watcher.blades.cache[node]["status"]["state"] != "Healthy"
    )
    if len(pods) != NODES or len(nodes) != NODES:
        return f"{NODES} pods on {NODES} blades must be there (got {len(pods)} on {len(nodes)})"
    return f"all blades must be Healthy (got {', '.join(sick)})" if sick else ""
