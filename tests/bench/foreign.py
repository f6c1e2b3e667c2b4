"""Pods of others: from the first create to the last pod bound, beside a bare client.

Two cases, each on a lab of its own; in each round the bare client goes first, then we. Both have
32 requests in flight; the same client creates the pods. The lab is that of the peers' figures:
API server, nodes and scheduler, and blades that are healthy because they are written so.

* one gang: 2,048 pods of a whole blade each, on 2,560 blades
* a crowd: 200 gangs of 16 at once on 1,024 blades, of which 64 fit; the bare client creates all
  pods and binds as many
"""

import asyncio
import contextlib
import json
import statistics
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from bench.start import IN_FLIGHT, pod_times, run_client
from bench.writes import count_writes, of_the_start
from tramontane.api.names import ANNOTATION_GANG_SIZE, GPU_RESOURCE, LABEL_GANG, SCHEDULER_NAME
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, EVENTS, NODEPOOLS, PODS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.fleet import Layout
from tramontane.lab.processes import rss_mib

Raw = dict[str, Any]

ROUNDS = 3
RATIO, CROWD_RATIO, CROWD_ALLOWANCE_S = 1.3, 1.5, 2.0
WRITES_PER_POD, WRITES_PER_WAITING = 2.02, 3.0
LABEL = "bench.tramontane.dev/round"
_PATIENCE_S = 400.0


@dataclass(frozen=True, slots=True)
class Case:
    """How many gangs of how many pods of a whole blade each, and how many of them fit."""

    name: str
    blades: int
    gangs: int
    size: int
    fit: int

    @property
    def bound(self) -> int:
        """Return how many pods can be bound."""
        return self.fit * self.size


ONE = Case("one gang", 2560, 1, 2048, 1)
CROWD = Case("a crowd", 1024, 200, 16, 64)


async def run() -> list[Budget]:
    """Measure both cases, write bench/results/foreign.json, return the budgets."""
    one, crowd = await _measure(ONE), await _measure(CROWD)
    budgets = [
        Budget(
            f"foreign gang of {ONE.bound:,} pods on {ONE.blades:,} blades, created and bound",
            one["ours_s"]["median"],
            round(one["bare_s"]["median"] * RATIO, 4),
            f"s; bare client {one['bare_s']['median']} s",
        ),
        Budget("foreign gang, API writes per pod", one["writes_per_pod"], WRITES_PER_POD),
        Budget(
            f"{CROWD.gangs} foreign gangs of {CROWD.size} on {CROWD.blades:,} blades, last bound",
            crowd["ours_s"]["median"],
            round(crowd["bare_s"]["median"] * CROWD_RATIO + CROWD_ALLOWANCE_S, 4),
            f"s; bare client {crowd['bare_s']['median']} s",
        ),
        Budget("gangs partly bound at rest", crowd["partly_bound"], 0),
        Budget("writes per gang that waits", crowd["writes_per_waiting"], WRITES_PER_WAITING),
    ]
    results.write("foreign", {"in_flight": IN_FLIGHT, "one": one, "crowd": crowd}, budgets)
    return budgets


async def _measure(case: Case) -> Raw:
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            Layout(blades=case.blades), components=("scheduler",), simulated_agents=False,
            log_level="warning",
        )  # fmt: skip
        async with Lab(Path(folder), setup, say=_say) as lab:
            await _make_healthy(lab)
            await _ours(lab, Path(folder), Case("warm", case.blades, 1, 1, 1), "warm")
            return await _rounds(lab, Path(folder), case)


async def _make_healthy(lab: Lab) -> None:
    """Write a pool and its healthy blades, as the operator would."""
    pool = pool_of(lab.setup.layout)
    await lab.client.apply(NODEPOOLS, pool, manager="bench")
    status = {"state": "Healthy", "verdict": {"severity": "None", "action": "None"}}

    async def one(name: str) -> None:
        meta = {"metadata": {"name": name}}
        await lab.client.create(BLADES, {**meta, "spec": {"pool": pool["metadata"]["name"]}})
        await lab.client.merge_patch(BLADES, name, {"status": status}, subresource="status")

    async with asyncio.TaskGroup() as group:
        for name in lab.fleet.names:
            group.create_task(one(name))


async def _rounds(lab: Lab, folder: Path, case: Case) -> Raw:
    bare: list[float] = []
    ours: list[float] = []
    last: Raw = {}
    for number in range(ROUNDS):
        bare.append(await _bare(lab, folder, case, f"bare{number}"))
        last = await _ours(lab, folder, case, f"ours{number}")
        ours.append(last.pop("seconds"))
        _say(f"{case.name}, round {number}: bare {bare[-1]:.2f} s, ours {ours[-1]:.2f} s")
    return {
        "blades": case.blades,
        "gangs": case.gangs,
        "pods": case.gangs * case.size,
        "bare_s": results.summary(bare),
        "ours_s": results.summary(ours),
        "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
        **last,
    }


async def _bare(lab: Lab, folder: Path, case: Case, name: str) -> float:
    nodes = list(lab.fleet.names)[: case.bound]
    _, seconds = await _client(lab, folder, _pods(case, name, "nobody"), nodes)
    await _clear(lab.client, name)
    return seconds


async def _ours(lab: Lab, folder: Path, case: Case, name: str) -> Raw:
    """Return the seconds of one round of ours, what it wrote, and how the gangs are at rest."""
    async with pod_times(lab.client, f"{LABEL}={name}") as times:
        before = await count_writes(lab.client)
        began, _ = await _client(lab, folder, _pods(case, name, SCHEDULER_NAME), [])
        seconds = await times.all_bound(case.bound) - began
        reasons = await _reasons(lab.client, name, case.gangs - case.fit)
        writes = of_the_start(before, await count_writes(lab.client))
        bound = Counter(
            raw["metadata"]["labels"][LABEL_GANG]
            for raw in times.informer.cache.values()
            if raw["spec"].get("nodeName")
        )
    rss = round(rss_mib(lab.processes.get("scheduler").pid) * 2**20 / 1e6, 1)
    waiting = case.gangs - case.fit
    created = writes["pods/"]
    # A condition on the first pod goes with each Event; the kubelets' are not told apart from it.
    told = 2 * writes.get("events/", 0)
    await _clear(lab.client, name)
    return {
        "seconds": seconds,
        "writes": writes,
        "writes_per_pod": round((created + writes["pods/binding"] + told) / created, 4),
        "writes_per_waiting": round(told / waiting, 3) if waiting else 0.0,
        "reasons": dict(reasons),
        "partly_bound": sum(count != case.size for count in bound.values()),
        "rss_mb": rss,
    }


async def _reasons(client: Client, name: str, waiting: int) -> Counter[str]:
    """Return the reasons of all gangs that wait, once each has said one."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            events = [
                event
                for event in await client.list_all(EVENTS, "default")
                if event["regarding"]["name"].startswith(f"{name}-")
            ]
            if len({event["regarding"]["name"] for event in events}) >= waiting:
                return Counter(event["reason"] for event in events)
            await asyncio.sleep(0.5)


def _pods(case: Case, name: str, scheduler: str) -> list[Raw]:
    return [
        _pod(f"{name}-{gang}", i, case.size, name, scheduler)
        for gang in range(case.gangs)
        for i in range(case.size)
    ]


def _pod(gang: str, number: int, size: int, name: str, scheduler: str) -> Raw:
    gpus = {GPU_RESOURCE: "8"}
    container = {
        "name": "trainer",
        "image": "registry.example/train:1",
        "command": ["torchrun", "train.py"],
        "resources": {"requests": gpus, "limits": gpus},
    }
    return {
        "metadata": {
            "name": f"{gang}-{number}",
            "labels": {LABEL_GANG: gang, LABEL: name},
            "annotations": {ANNOTATION_GANG_SIZE: str(size)},
        },
        "spec": {
            "schedulerName": scheduler,
            "restartPolicy": "Never",
            "containers": [container],
        },
    }


async def _client(lab: Lab, folder: Path, pods: list[Raw], nodes: list[str]) -> tuple[float, float]:
    """Let a client of its own process create pods, and bind them if there are nodes for them."""
    (folder / "pods.json").write_text(json.dumps(pods))
    (folder / "nodes.json").write_text(json.dumps(nodes))
    output = await run_client(
        lab,
        "bench.foreign_client",
        "--pods",
        folder / "pods.json",
        "--nodes",
        folder / "nodes.json",
    )
    began, seconds = map(float, output.split())
    return began, seconds


async def _clear(client: Client, name: str) -> None:
    """Delete the pods of a round, and return when they are gone and the dust has settled."""
    selector = f"{LABEL}={name}"
    async with asyncio.TaskGroup() as group:
        for pod in await client.list_all(PODS, "default", label_selector=selector):
            group.create_task(
                client.delete(PODS, pod["metadata"]["name"], "default", grace_period_s=0)
            )
    async with asyncio.timeout(_PATIENCE_S):
        while await client.list_all(PODS, "default", label_selector=selector):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    await asyncio.sleep(3)


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"  {text}", flush=True)
