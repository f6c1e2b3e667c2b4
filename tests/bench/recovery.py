"""A GPU falls off the bus under a 128-blade job, five times: how soon is each step taken?

Each time another blade, each with a real agent process over the simulated NVML library. Times
run from just before the fault is ordered to when a watch shows the step, so they include both.
"""

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

NODES = 128
SICK = tuple(blade_name(number) for number in (5, 23, 48, 77, 110))
JOB = "default/llama"
_MOST_S = {"reported_s": 1.0, "tainted_s": 1.5, "moved_s": 0.5, "replaced_s": 3.0}
_PATIENCE_S = 60.0


async def run() -> list[Budget]:
    """Measure, write bench/results/recovery.json, return the budgets."""
    layout = Layout(blades=136, rack=8)
    setup = Setup(layout, pool=pool_of(layout), real_agents=SICK)
    rounds: list[Raw] = []
    with tempfile.TemporaryDirectory() as folder:
        async with Lab(Path(folder), setup) as lab, watching(lab.client) as watcher:
            job = training_job("llama", NODES, "paris-a")
            await lab.client.apply(TRAININGJOBS, job, manager="kubectl")
            await _running(watcher, attempt=1)
            for number, blade in enumerate(SICK):
                rounds.append(await _round(lab, watcher, blade, attempt=number + 2))
            violations = [str(one) for one in watcher.violations()]
    figures = {
        name: results.summary([one[name] for one in rounds])
        for name in (*_MOST_S, "running_s", "stepping_s")
    }
    survivors = min(one["survivors"] for one in rounds)
    budgets = [
        Budget(f"fault → {name.removesuffix('_s')}", figures[name]["median"], most, "s")
        for name, most in _MOST_S.items()
    ]
    budgets.append(Budget("survivors that lost pod or seat", NODES - 1 - survivors, 0))
    budgets.append(Budget("broken invariants", len(violations), 0))
    results.write(
        "recovery", {"seconds": figures, "rounds": rounds, "violations": violations}, budgets
    )
    return budgets


async def _round(lab: Lab, watcher: Watcher, blade: str, attempt: int) -> Raw:
    """Lose one GPU and wait until the job trains again."""
    before = watcher.pods_of(JOB)
    seat = next(seat for seat, pod in before.items() if pod["spec"]["nodeName"] == blade)
    step = int(watcher.jobs.cache[JOB]["status"].get("step", 0))
    async with lab.remote() as remote:
        struck = time.monotonic()
        await remote.inject(blade, parse_fault("gpu-lost", gpu=3))
    seen: Raw = {"blade": blade, "seat": seat}
    _, at = await watcher.until("a fault", lambda: _faulty(watcher, blade), timeout_s=_PATIENCE_S)
    seen["reported_s"] = round(at - struck, 4)
    _, at = await watcher.until("a taint", lambda: _tainted(watcher, blade), timeout_s=_PATIENCE_S)
    seen["tainted_s"] = round(at - struck, 4)
    _, at = await watcher.until(
        "a new place", lambda: _moved(watcher, seat, blade), timeout_s=_PATIENCE_S
    )
    seen["moved_s"] = round(at - struck, 4)
    old = before[seat]["metadata"]["uid"]
    _, at = await watcher.until(
        "a replacement pod", lambda: _replaced(watcher, seat, old), timeout_s=_PATIENCE_S
    )
    seen["replaced_s"] = round(at - struck, 4)
    seen["running_s"] = round(await _running(watcher, attempt) - struck, 4)
    _, at = await watcher.until(
        "a step beyond the loss",
        lambda: int(watcher.jobs.cache[JOB]["status"].get("step", 0)) > step,
        timeout_s=_PATIENCE_S,
    )
    seen["stepping_s"] = round(at - struck, 4)
    after = watcher.pods_of(JOB)
    seen["survivors"] = sum(
        after[kept]["metadata"]["uid"] == pod["metadata"]["uid"]
        and after[kept]["spec"]["nodeName"] == pod["spec"]["nodeName"]
        for kept, pod in before.items()
        if kept != seat
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
