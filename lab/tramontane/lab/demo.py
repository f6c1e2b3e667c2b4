"""The main job, shown: 1,024 GPUs train, one falls off the bus, and the job is whole again.

Everything is real but the blades: the API server, the operator, the scheduler, and on the blade
that fails the health agent over a simulated NVML library. A bystander (`watcher`) times what the
API objects show and checks the invariants of docs/architecture.md the whole while.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tramontane.api.names import API_VERSION, TAINT_BLADE
from tramontane.kube.resources import TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout
from tramontane.lab.invariants import Violation
from tramontane.lab.scenario import Findings, play
from tramontane.lab.timeline import Timeline
from tramontane.lab.watcher import Watcher

Raw = dict[str, Any]

BLADES = 136
NODES = 128
RACK = 8
SICK = "gpu-0017"
SICK_GPU = 3
JOB = "default/llama"
# What the bystander allows itself to see things late; the budgets are the system's.
_PATIENCE_S = 60.0


@dataclass(slots=True)
class Measured:
    """What the demo measured (s), and who came through."""

    seconds: dict[str, float] = field(default_factory=dict)
    survivors: int = 0


def training_job(name: str, nodes: int, pool: str, *, spares: int = 2) -> Raw:
    """Return a TrainingJob of `nodes` blades as a researcher would write it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodePool": pool,
            "nodes": nodes,
            "spares": spares,
            "topology": {"pack": "block", "mode": "Preferred"},
            "launcher": {"type": "torchrun", "procsPerNode": 8},
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "trainer",
                            "image": "registry.example/train:1",
                            "command": ["torchrun", "train.py"],
                            "env": [{"name": "TRAMONTANE_LAB_STEP_TIME", "value": "0.2"}],
                        }
                    ]
                }
            },
            "progress": {"stepPattern": r"step[ =:]+(?P<step>\d+)"},
            "checkpoint": {"savedPattern": r"saved checkpoint.*step[ =:]+(?P<step>\d+)"},
        },
    }


async def run(folder: Path, console: Console, *, keep: bool = False) -> int:
    """Run the demo; returns 0, or 1 when an invariant was broken.

    Raises:
        LabError, TimeoutError: something did not come up or did not happen in time.
    """
    layout = Layout(blades=BLADES, rack=RACK)
    setup = Setup(layout, pool=pool_of(layout), real_agents=(SICK,))
    opening = (
        f"{BLADES} simulated blades of {layout.gpus} GPUs in racks of {RACK}; starting etcd, "
        "kube-apiserver, kube-controller-manager, KWOK, operator, scheduler, agents"
    )
    return await play(folder, console, setup, opening, _story, keep=keep)


async def _story(lab: Lab, watcher: Watcher, timeline: Timeline) -> Findings:
    assert lab.setup.pool is not None
    watcher.sick = frozenset({SICK})
    found = Measured()
    pods = await _start(lab, watcher, timeline, lab.setup.pool["metadata"]["name"], found)
    await _lose_a_gpu(lab, watcher, timeline, pods, found)
    return _findings(found, watcher.violations())


async def _start(
    lab: Lab, watcher: Watcher, timeline: Timeline, pool: str, found: Measured
) -> dict[int, Raw]:
    """Submit the job and follow it until it trains; returns its pods by seat."""
    job = training_job("llama", NODES, pool)
    applied = time.monotonic()
    await lab.client.apply(TRAININGJOBS, job, manager="kubectl")
    timeline.say(f"TrainingJob llama applied: {NODES} blades, {NODES * 8:,} GPUs, 2 spares")
    with timeline.during("placing, creating pods, starting to train"):
        _, placed = await watcher.until(
            "the gang's placement", lambda: _seats(watcher), timeout_s=_PATIENCE_S
        )
        timeline.say(f"placed: {NODES} seats at once", at=placed)
        pods, created = await watcher.until(
            f"{NODES} pods",
            lambda: p if len(p := watcher.pods_of(JOB)) == NODES else None,
            timeout_s=_PATIENCE_S,
        )
        timeline.say(f"{NODES} pods created, each on its blade", at=created)
        _, running = await watcher.until(
            "the job's phase Running",
            lambda: _status(watcher).get("phase") == "Running" or None,
            timeout_s=_PATIENCE_S,
        )
        timeline.good("Running: all ranks are up", at=running)
        saved, at = await watcher.until(
            "a first checkpoint", lambda: _checkpoint(watcher), timeout_s=_PATIENCE_S
        )
    timeline.good(f"training: checkpoint saved at step {saved}", at=at)
    found.seconds |= {
        "apply → gang placed": placed - applied,
        "apply → last pod created": created - applied,
        "apply → Running": running - applied,
    }
    return watcher.pods_of(JOB) or pods


async def _lose_a_gpu(
    lab: Lab, watcher: Watcher, timeline: Timeline, pods: dict[int, Raw], found: Measured
) -> None:
    """Let a GPU fall off the bus under the job and follow its recovery."""
    seat = next(seat for seat, pod in pods.items() if pod["spec"]["nodeName"] == SICK)
    old_uid = pods[seat]["metadata"]["uid"]
    step = int(_status(watcher).get("step", 0))
    async with lab.remote() as remote:
        struck = time.monotonic()
        await remote.inject(SICK, parse_fault("gpu-lost", gpu=SICK_GPU))
    timeline.bad(f"GPU {SICK_GPU} of {SICK} falls off the bus (XID 79), seat {seat}", at=struck)
    with timeline.during("recovering"):
        fault, reported = await watcher.until(
            "the fault in Blade.status", lambda: _fault(watcher), timeout_s=_PATIENCE_S
        )
        timeline.say(f"the agent reports {fault} on {SICK}", at=reported)
        _, tainted = await watcher.until(
            "the taint", lambda: _tainted(watcher), timeout_s=_PATIENCE_S
        )
        timeline.say(f"{SICK} is quarantined and tainted", at=tainted)
        new, replaced = await watcher.until(
            "the replacement pod",
            lambda: _replacement(watcher, seat, old_uid),
            timeout_s=_PATIENCE_S,
        )
        blade = new["spec"]["nodeName"]
        timeline.say(f"seat {seat} has a new pod {new['metadata']['name']} on {blade}", at=replaced)
        _, running = await watcher.until(
            "the job's phase Running again",
            lambda: (
                (
                    _status(watcher).get("phase") == "Running"
                    and int(_status(watcher).get("attempt", 1)) > 1
                )
                or None
            ),
            timeout_s=_PATIENCE_S,
        )
        timeline.good("Running: whole again, all ranks step", at=running)
        beyond, at = await watcher.until(
            "the first step beyond the loss",
            lambda: s if (s := int(_status(watcher).get("step", 0))) > step else None,
            timeout_s=_PATIENCE_S,
        )
    timeline.good(f"training: step {beyond}, what was lost is made good", at=at)
    now = watcher.pods_of(JOB)
    found.survivors = sum(
        1
        for kept, pod in pods.items()
        if kept != seat
        and kept in now
        and now[kept]["metadata"]["uid"] == pod["metadata"]["uid"]
        and now[kept]["spec"]["nodeName"] == pod["spec"]["nodeName"]
    )
    found.seconds |= {
        "fault → reported in Blade.status": reported - struck,
        "fault → taint": tainted - struck,
        "fault → replacement pod created": replaced - struck,
        "fault → Running: all ranks step again": running - struck,
        "fault → status.step beyond the loss": at - struck,
    }


_BUDGETS = {
    "fault → reported in Blade.status": 1.0,
    "fault → taint": 1.5,
    "fault → replacement pod created": 3.0,
}


def _findings(found: Measured, violations: list[Violation]) -> Findings:
    rows = [
        (what, f"{seconds:.2f} s", f"{_BUDGETS[what]:.1f} s" if what in _BUDGETS else "")
        for what, seconds in found.seconds.items()
    ]
    rows.append(("survivors with pod, blade and rank", f"{found.survivors}", f"{NODES - 1}"))
    if found.survivors != NODES - 1:
        violations.append(
            Violation(
                "survivors untouched by another's loss",
                f"{NODES - 1} survivors must keep pod and blade (got {found.survivors})",
                time.monotonic(),
            )
        )
    return Findings(rows, violations)


def _status(watcher: Watcher) -> Raw:
    status: Raw = watcher.jobs.cache.get(JOB, {}).get("status", {})
    return status


def _seats(watcher: Watcher) -> list[str] | None:
    status = watcher.gangs.cache.get(JOB, {}).get("status", {})
    return (status.get("placement") or {}).get("seats") or None


def _checkpoint(watcher: Watcher) -> int | None:
    return (_status(watcher).get("lastCheckpoint") or {}).get("step")


def _fault(watcher: Watcher) -> str | None:
    report = watcher.blades.cache.get(SICK, {}).get("status", {}).get("report") or {}
    return next((fault["code"] for fault in report.get("faults") or ()), None)


def _tainted(watcher: Watcher) -> bool | None:
    taints = watcher.nodes.cache.get(SICK, {}).get("spec", {}).get("taints") or ()
    return any(taint["key"] == TAINT_BLADE for taint in taints) or None


def _replacement(watcher: Watcher, seat: int, old_uid: str) -> Raw | None:
    pod = watcher.pods_of(JOB).get(seat)
    return pod if pod is not None and pod["metadata"]["uid"] != old_uid else None
