"""From `apply` to the last pod created on its node, beside a bare client and an Indexed Job.

Each size has a lab of its own. In each round the bare client goes first, then we; both use 32
requests in flight, the same pods, and the same standing load. Then the same pods as a batch/v1
Indexed Job with kube-scheduler on control planes of their own with as many nodes, at the default
client limits and at 5,000 requests a second.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from bench.writes import count_writes, of_the_start
from tramontane.api.names import LABEL_GANG, LABEL_JOB
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import JOBS, PODS, TRAININGJOBS
from tramontane.lab.cluster import Lab, Setup, pool_of
from tramontane.lab.controlplane import ControlPlane, NodeTiming, Options
from tramontane.lab.demo import training_job
from tramontane.lab.fleet import Fleet, Layout
from tramontane.lab.processes import rss_mib

Raw = dict[str, Any]

BLADES = {128: 256, 2048: 2560}
ROUNDS = {128: 5, 2048: 3}
IN_FLIGHT = 32
RATIO, ALLOWANCE_S, WRITES_PER_POD, RSS_MB = 1.25, 0.25, 1.1, 250
PEER_LIMITS = {"default limits": None, "5,000 requests a second": 5000}
_PATIENCE_S = 400.0


class PodTimes:
    """When pods of one label value were created and bound, as a watch shows it (monotonic, s)."""

    def __init__(self, client: Client, selector: str) -> None:
        self.created: list[float] = []
        self.bound: dict[str, float] = {}
        self.informer = Informer[Raw](client, PODS, lambda raw: raw, label_selector=selector)
        self.informer.add_listener(self._on_pod)
        self._changed = asyncio.Event()

    def _on_pod(self, key: str, old: Raw | None, new: Raw | None) -> None:
        now = time.monotonic()
        if new is not None and old is None:
            self.created.append(now)
        if new is not None and new["spec"].get("nodeName"):
            self.bound.setdefault(key, now)
        self._changed.set()

    async def all_bound(self, count: int) -> float:
        """Return when the last of `count` pods was on its node."""
        async with asyncio.timeout(_PATIENCE_S):
            while len(self.bound) < count:
                self._changed.clear()
                await self._changed.wait()
        return max(self.bound.values())


@asynccontextmanager
async def pod_times(client: Client, selector: str) -> AsyncIterator[PodTimes]:
    """Yield times of the pods that `selector` finds from now on."""
    times = PodTimes(client, selector)
    task = asyncio.create_task(times.informer.run())
    try:
        await times.informer.wait_synced()
        yield times
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run(size: int) -> list[Budget]:
    """Measure a job of `size` pods, write bench/results/start-SIZE.json, return the budgets."""
    blades = BLADES[size]
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(blades=blades)
        setup = Setup(layout, pool=pool_of(layout), log_level="warning")
        async with Lab(Path(folder), setup, say=_say) as lab:
            measured = await _rounds(lab, Path(folder), size)
    measured["indexed_job_s"] = {
        label: await _indexed_job(size, qps) for label, qps in PEER_LIMITS.items()
    }
    budgets = _budgets(size, blades, measured)
    figures = {"blades": blades, "pods": size, "in_flight": IN_FLIGHT, **measured}
    results.write(f"start-{size}", figures, budgets)
    return budgets


def _budgets(size: int, blades: int, measured: Raw) -> list[Budget]:
    bare = measured["bare_s"]["median"]
    return [
        Budget(
            f"{size} pods, apply → last pod created",
            measured["ours_s"]["median"],
            round(bare * RATIO + ALLOWANCE_S, 4),
            f"s; bare client {bare} s",
        ),
        Budget(f"{size} pods, API writes per pod", measured["writes_per_pod"], WRITES_PER_POD),
        *(
            Budget(f"{name} RSS at {blades:,} blades and {size:,} pods", rss, RSS_MB, "MB")
            for name, rss in measured["rss_mb"].items()
        ),
    ]


async def _rounds(lab: Lab, folder: Path, size: int) -> Raw:
    """Measure rounds of one size; the first start of ours gives the pods to copy."""
    _, _, pod = await _ours(lab, size, "warm")
    bare: list[float] = []
    ours: list[float] = []
    writes: dict[str, int] = {}
    rss: dict[str, float] = {}
    for number in range(ROUNDS[size]):
        bare.append(await bare_client(lab, folder, pod, size))
        seconds, writes, _ = await _ours(lab, size, f"r{number}", rss)
        ours.append(seconds)
        _say(f"{size} pods, round {number}: bare {bare[-1]:.2f} s, ours {ours[-1]:.2f} s")
    return {
        "bare_s": results.summary(bare),
        "ours_s": results.summary(ours),
        "ratio": round(statistics.median(ours) / statistics.median(bare), 3),
        "writes": writes,
        "writes_per_pod": round(sum(writes.values()) / size, 4),
        "rss_mb": rss,
    }


async def _ours(
    lab: Lab, size: int, name: str, rss: dict[str, float] | None = None
) -> tuple[float, dict[str, int], Raw]:
    """Start a TrainingJob; returns seconds, writes by resource, and one of its pods."""
    job = training_job(name, size, "paris-a", spares=0)
    async with pod_times(lab.client, f"{LABEL_JOB}={name}") as times:
        before = await count_writes(lab.client)
        began = time.monotonic()
        await lab.client.apply(TRAININGJOBS, job, manager="kubectl")
        last = await times.all_bound(size)
        await _phase(lab.client, name, "Running")
        writes = of_the_start(before, await count_writes(lab.client))
        pod = next(iter(times.informer.cache.values()))
    if rss is not None:
        for process in ("operator", "scheduler"):
            rss[process] = round(rss_mib(lab.processes.get(process).pid) * 2**20 / 1e6, 1)
    await lab.client.delete(TRAININGJOBS, name, "default", propagation="Background")
    await _gone(lab.client, f"{LABEL_JOB}={name}")
    return last - began, writes, pod


async def run_client(lab: Lab, module: str, *arguments: str | Path) -> str:
    """Run a client of its own process against the lab; returns what it prints.

    Raises:
        RuntimeError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", module,
        "--kubeconfig", lab.plane.kubeconfig, "--in-flight", str(IN_FLIGHT), *arguments,
        stdout=asyncio.subprocess.PIPE, cwd=results.ROOT,
        env={"PYTHONPATH": str(results.ROOT / "tests"), "PATH": ""},
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} must end well (got exit {process.returncode})")
    return output.decode()


async def bare_client(lab: Lab, folder: Path, pod: Raw, size: int) -> float:
    """Let the bare client create copies of the pod on as many blades; returns its seconds."""
    labels = {key: value for key, value in pod["metadata"]["labels"].items() if key != LABEL_GANG}
    labels |= {LABEL_JOB: "bare", "bench.tramontane.dev/gang": "bare"}
    spec = {
        key: value
        for key, value in pod["spec"].items()
        if key not in {"nodeName", "hostname", "serviceAccount", "tolerations"}
    }
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "bare",
            "labels": labels,
            "annotations": pod["metadata"].get("annotations", {}),
        },
        "spec": spec,
    }
    names = list(lab.fleet.names)[:size]
    (folder / "pod.json").write_text(json.dumps(body))
    (folder / "nodes.json").write_text(json.dumps(names))
    output = await run_client(
        lab, "bench.bare", "--pod", folder / "pod.json", "--nodes", folder / "nodes.json"
    )
    await _delete_pods(lab.client, f"{LABEL_JOB}=bare")
    return float(output)


async def _delete_pods(client: Client, selector: str) -> None:
    async with asyncio.TaskGroup() as group:
        for pod in await client.list_all(PODS, "default", label_selector=selector):
            group.create_task(
                client.delete(PODS, pod["metadata"]["name"], "default", grace_period_s=0)
            )
    await _gone(client, selector)


async def _gone(client: Client, selector: str) -> None:
    """Return when no pod of the selector is left and the dust has settled."""
    async with asyncio.timeout(_PATIENCE_S):
        while await client.list_all(PODS, "default", label_selector=selector):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    await asyncio.sleep(3)


async def _phase(client: Client, name: str, phase: str) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            job = await client.get(TRAININGJOBS, name, "default")
            if job.get("status", {}).get("phase") == phase:
                return
            await asyncio.sleep(0.2)


async def _indexed_job(size: int, qps: int | None) -> float:
    """Return the seconds an Indexed Job takes until its last pod is bound."""
    nodes = BLADES[size]
    options = Options(
        nodes=NodeTiming.for_blades(nodes),
        kube_scheduler=True,
        kube_scheduler_qps=qps or 50,
        controller_qps=qps or 20,
    )
    with tempfile.TemporaryDirectory() as folder:
        async with (
            ControlPlane(Path(folder), options) as plane,
            await Client.connect(plane.kubeconfig) as client,
        ):
            fleet = Fleet(client, Layout(blades=nodes))
            await fleet.create()
            await fleet.wait_ready()
            async with pod_times(client, "batch.kubernetes.io/job-name=peer") as times:
                began = time.monotonic()
                await client.create(JOBS, _peer_job(size), "default")
                seconds = await times.all_bound(size) - began
    _say(f"{size} pods, Indexed Job at {qps or 'default limits'}: {seconds:.1f} s")
    return round(seconds, 3)


def _peer_job(size: int) -> Raw:
    gpus = {"nvidia.com/gpu": "8"}
    container = {
        "name": "trainer",
        "image": "registry.example/train:1",
        "command": ["torchrun", "train.py"],
        "resources": {"requests": gpus, "limits": gpus},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "peer"},
        "spec": {
            "completionMode": "Indexed",
            "completions": size,
            "parallelism": size,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"  {text}", flush=True)
