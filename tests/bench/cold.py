"""How soon a scheduler that knows nothing decides about a full hall, and what it then holds.

    make bench ARGS=cold

12,500 nodes and Blades, as many pods, and a gang that waits, all in a real API server. The
process is started, and the clock runs until that gang has its placement in the API server.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import results
from bench.results import Budget
from tramontane.api.names import API_VERSION, GPU_RESOURCE, SYSTEM_NAMESPACE
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS, NODES, PODS, Resource
from tramontane.lab.cluster import apply_crds, ensure_namespace, pool_of
from tramontane.lab.controlplane import ControlPlane, NodeTiming, Options
from tramontane.lab.fleet import Layout
from tramontane.lab.processes import Processes, rss_mib

BLADES_N = 12_500
FREE = 64
MOST_S, MOST_MB = 10.0, 400
ROUNDS = 3
_IN_FLIGHT = 64
_PATIENCE_S = 120.0
_FOR_EVER_S = 100_000  # nobody renews the Leases of these nodes
_READY = {"type": "Ready", "status": "True", "reason": "Bench", "message": ""}

Raw = dict[str, Any]


async def run() -> list[Budget]:
    """Measure, write bench/results/cold.json, return the budgets."""
    layout = Layout(blades=BLADES_N)
    took, held = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = Processes(folder)
        options = Options(nodes=NodeTiming(lease_s=_FOR_EVER_S, grace_s=_FOR_EVER_S))
        async with (
            ControlPlane(folder, options, processes) as plane,
            await Client.connect(
                plane.kubeconfig, user_agent="bench", max_in_flight=_IN_FLIGHT
            ) as client,
        ):
            await apply_crds(client)
            await ensure_namespace(client, SYSTEM_NAMESPACE)
            await client.apply(NODEPOOLS, pool_of(layout), manager="bench")
            await _fill(client, layout)
            for number in range(ROUNDS):
                seconds, rss = await _start(client, processes, plane.kubeconfig, number)
                print(f"  round {number}: {seconds:.2f} s, {rss:.0f} MB", flush=True)
                took.append(seconds)
                held.append(rss)
    budgets = [
        Budget("scheduler, start → first placement", max(took), MOST_S, "s"),
        Budget("scheduler, RSS then", max(held), MOST_MB, "MB"),
    ]
    figures = {
        "nodes": BLADES_N,
        "pods": BLADES_N,
        "first_placement_s": results.summary(took),
        "rss_mb": results.summary(held),
    }
    results.write("cold", figures, budgets)
    return budgets


async def _start(
    client: Client, processes: Processes, kubeconfig: Path, number: int
) -> tuple[float, float]:
    """Start a scheduler; returns seconds until its first placement, and its RSS then (MB)."""
    name = f"first-{number}"
    slots = [{"name": "worker", "count": 8, "requests": {GPU_RESOURCE: "8"}}]
    spec = {"pool": "paris-a", "slots": slots}
    await client.create(GANGS, _object("Gang", name, spec, namespace="default"), "default")
    began = time.monotonic()
    process = f"scheduler-{number}"
    processes.start(
        process,
        [sys.executable, "-P", "-m", "tramontane.scheduler", "--identity", process,
         "--namespace", SYSTEM_NAMESPACE, "--metrics-port", "0"],
        env={"KUBECONFIG": str(kubeconfig)},
        gentle=True,
    )  # fmt: skip
    async with asyncio.timeout(_PATIENCE_S):
        while not (await client.get(GANGS, name, "default")).get("status", {}).get("placement"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    seconds = time.monotonic() - began
    rss = rss_mib(processes.get(process).pid) * 2**20 / 1e6
    processes.stop(process)
    return round(seconds, 3), round(rss, 1)


async def _fill(client: Client, layout: Layout) -> None:
    limit = asyncio.Semaphore(_IN_FLIGHT)

    async def create(resource: Resource, body: Raw, status: Raw | None = None) -> None:
        async with limit:
            namespace = body["metadata"].get("namespace")
            await client.create(resource, body, namespace)
            if status is not None:
                await client.merge_patch(
                    resource,
                    body["metadata"]["name"],
                    {"status": status},
                    namespace,
                    subresource="status",
                )

    async with asyncio.TaskGroup() as group:
        for index, name in enumerate(layout.names()):
            node = layout.node(name, index)
            node["metadata"].pop("annotations")  # nobody plays the kubelet
            group.create_task(create(NODES, node, {"conditions": [_READY]}))
            blade = _object("Blade", name, {"pool": "paris-a"})
            healthy = {"state": "Healthy", "verdict": {"severity": "None", "action": "None"}}
            group.create_task(create(BLADES, blade, healthy))
    async with asyncio.TaskGroup() as group:
        for body in _pods(layout):
            group.create_task(create(PODS, body))
    # A node is born with a taint, which the controller manager takes off when it gets to it.
    for name in list(layout.names())[-FREE:]:
        while (await client.get(NODES, name))["spec"].get("taints"):  # noqa: ASYNC110 - no event
            await asyncio.sleep(1)


def _pods(layout: Layout) -> Iterator[Raw]:
    """Yield a pod per blade; all but the last `FREE` take whole blades."""
    names = list(layout.names())
    for index, name in enumerate(names):
        full = index < len(names) - FREE
        asked = {GPU_RESOURCE: "8"} if full else {"cpu": "1"}
        container = {
            "name": "work",
            "image": "registry.example/work:1",
            "resources": {"requests": asked, "limits": asked},
        }
        meta = {"name": f"work-{index}", "namespace": "default"}
        spec = {"nodeName": name, "containers": [container]}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _object(kind: str, name: str, spec: Raw, namespace: str = "") -> Raw:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "spec": spec}
