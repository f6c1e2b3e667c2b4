"""GPUs fall off the bus under a job of 1,024 of them: how soon is each step taken?

Five times one GPU, each time on another blade with a real agent process over the simulated NVML
library; then as many at once as the job has spares, whose agents run in the simulator. Times run
from just before the fault is ordered to when a watch shows the step for the last of the blades, so
they include both.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from tramontane.api.names import TAINT_BLADE
from tramontane.kube.resources import TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.demo import training_job
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout, blade_name
from tramontane.lab.watcher import Watcher, watching

Raw = dict[str, Any]

NODES, SPARES = 128, 4
SICK = tuple(blade_name(number) for number in (5, 23, 48, 77, 110))
# Rounds in which as many blades as there are spares break at once: with the others that is less
# than the tenth of the pool that may be out of service.
CROWDS = 2
JOB = "default/llama"
_MOST_S = {"reported_s": 1.0, "tainted_s": 1.5, "moved_s": 0.5, "replaced_s": 3.0}
_PATIENCE_S = 60.0


async def run() -> list[Budget]:
    """Measure, write bench/results/recovery.json, return the budgets."""
    layout = Layout(blades=NODES + SPARES + 28, rack=8)
    setup = Setup(layout, pool=pool_of(layout), real_agents=SICK)
    crowds: list[Raw] = []
    with tempfile.TemporaryDirectory() as folder:
        async with Lab(Path(folder), setup) as lab, watching(lab.client) as watcher:
            job = training_job("llama", NODES, "paris-a", spares=SPARES)
            await lab.client.apply(TRAININGJOBS, job, manager="kubectl")
            await _running(watcher, attempt=1)
            single = [await _round(lab, watcher, {blade}) for blade in SICK]
            for _ in range(CROWDS):
                await _all_spares(watcher)
                crowds.append(await _round(lab, watcher, _crowd(watcher)))
            violations = [str(one) for one in watcher.violations()]
    budgets = [*_budgets("fault", single), *_budgets(f"{SPARES} faults at once", crowds)]
    budgets.append(Budget("broken invariants", len(violations), 0))
    figures = {
        "seconds": _seconds(single),
        "seconds_crowd": _seconds(crowds),
        "rounds": single,
        "crowds": crowds,
        "violations": violations,
    }
    results.write("recovery", figures, budgets)
    return budgets


def _seconds(rounds: list[Raw]) -> Raw:
    return {
        name: results.summary([one[name] for one in rounds])
        for name in (*_MOST_S, "running_s", "stepping_s")
    }


def _budgets(what: str, rounds: list[Raw]) -> list[Budget]:
    figures = _seconds(rounds)
    found = [
        Budget(f"{what} → {name.removesuffix('_s')}", figures[name]["median"], most, "s")
        for name, most in _MOST_S.items()
    ]
    touched = max(one["touched"] for one in rounds)
    lives = max(one["lives"] for one in rounds)
    found.append(Budget(f"{what}: survivors that lost pod or seat", touched, 0))
    found.append(Budget(f"{what}: recoveries that it took", lives, 1))
    return found


def _crowd(watcher: Watcher) -> set[str]:
    """Return as many of the job's blades as it has spares, far apart, with simulated agents."""
    pods = watcher.pods_of(JOB)
    blades = [pods[seat]["spec"]["nodeName"] for seat in sorted(pods)]
    others = [blade for blade in blades if blade not in SICK]
    return set(others[:: len(others) // SPARES][:SPARES])


async def _all_spares(watcher: Watcher) -> None:
    def there() -> bool:
        placement = watcher.gangs.cache[JOB].get("status", {}).get("placement") or {}
        return len(placement.get("spares", ())) == SPARES

    await watcher.until("all spares", there, timeout_s=_PATIENCE_S)


async def _round(lab: Lab, watcher: Watcher, blades: set[str]) -> Raw:
    """Lose a GPU on each of the blades and wait until the job trains again."""
    before = watcher.pods_of(JOB)
    seats = {seat for seat, pod in before.items() if pod["spec"]["nodeName"] in blades}
    old = {seat: pod["metadata"]["uid"] for seat, pod in before.items()}
    on = {seat: before[seat]["spec"]["nodeName"] for seat in seats}
    status = watcher.jobs.cache[JOB]["status"]
    attempt, step = int(status["attempt"]), int(status.get("step", 0))
    async with lab.remote() as remote:
        struck = time.monotonic()
        await asyncio.gather(
            *(remote.inject(blade, parse_fault("gpu-lost", gpu=3)) for blade in blades)
        )
    seen: Raw = {"blades": sorted(blades), "seats": sorted(seats)}
    for name, see in (
        ("reported_s", lambda: all(_faulty(watcher, blade) for blade in blades)),
        ("tainted_s", lambda: all(_tainted(watcher, blade) for blade in blades)),
        ("moved_s", lambda: all(_moved(watcher, seat, blade) for seat, blade in on.items())),
        ("replaced_s", lambda: all(_replaced(watcher, seat, old[seat]) for seat in seats)),
    ):
        _, at = await watcher.until(name, see, timeout_s=_PATIENCE_S)
        seen[name] = round(at - struck, 4)
    seen["running_s"] = round(await _running(watcher, attempt + 1) - struck, 4)
    _, at = await watcher.until(
        "a step beyond the loss",
        lambda: int(watcher.jobs.cache[JOB]["status"].get("step", 0)) > step,
        timeout_s=_PATIENCE_S,
    )
    seen["stepping_s"] = round(at - struck, 4)
    after = watcher.pods_of(JOB)
    seen["lives"] = int(watcher.jobs.cache[JOB]["status"]["attempt"]) - attempt
    seen["touched"] = sum(
        kept not in after
        or after[kept]["metadata"]["uid"] != old[kept]
        or after[kept]["spec"]["nodeName"] != pod["spec"]["nodeName"]
        for kept, pod in before.items()
        if kept not in seats
    )
    return seen


async def _running(watcher: Watcher, attempt: int) -> float:
    """Return when the job ran in at least its `attempt`th life, all ranks ready."""

    def running() -> bool:
        status = watcher.jobs.cache.get(JOB, {}).get("status", {})
        return status.get("phase") == "Running" and int(status.get("attempt", 1)) >= attempt

    _, at = await watcher.until("the phase Running", running, timeout_s=_PATIENCE_S)
    await watcher.until(
        "a step", lambda: "step" in watcher.jobs.cache[JOB]["status"], timeout_s=_PATIENCE_S
    )
    return at


def _faulty(watcher: Watcher, blade: str) -> bool:
    report = watcher.blades.cache[blade].get("status", {}).get("report") or {}
    return bool(report.get("faults"))


def _tainted(watcher: Watcher, blade: str) -> bool:
    taints = watcher.nodes.cache[blade].get("spec", {}).get("taints") or ()
    return any(taint["key"] == TAINT_BLADE for taint in taints)


def _moved(watcher: Watcher, seat: int, blade: str) -> bool:
    placement = watcher.gangs.cache[JOB].get("status", {}).get("placement") or {}
    seats = placement.get("seats") or ()
    return seat < len(seats) and seats[seat] != blade


def _replaced(watcher: Watcher, seat: int, old_uid: str) -> bool:
    pod = watcher.pods_of(JOB).get(seat)
    return pod is not None and pod["metadata"]["uid"] != old_uid
