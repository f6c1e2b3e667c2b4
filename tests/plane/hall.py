"""A hall of healthy blades with a scheduler, and a controller that runs in the test's process."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from plane.harness import SYSTEM, Plane
from tramontane.api.names import API_VERSION, LEASE_SCHEDULER
from tramontane.controllers import informers as caches
from tramontane.controllers.inferencedeployment import InferenceDeploymentController
from tramontane.controllers.trainingjob import TrainingJobController
from tramontane.kube.client import Client, NotFound
from tramontane.kube.events import EventRecorder
from tramontane.kube.informer import Informer
from tramontane.kube.resources import BLADES, LEASES, NODEPOOLS, Resource
from tramontane.lab.fleet import Fleet, Layout

SOON_S = 30.0
NAMESPACE = "default"
Raw = dict[str, Any]
Controller = TypeVar("Controller", TrainingJobController, InferenceDeploymentController)
Made = Callable[[Client, Any, EventRecorder, Callable[[], float]], Controller]


@asynccontextmanager
async def controlled(
    plane: Plane, resource: Resource, make: Made[Controller]
) -> AsyncIterator[Controller]:
    """Run a controller in this process, as the operator does, until the context ends."""
    async with await Client.connect(plane.kubeconfig, user_agent="controller") as client:
        informers = caches.connect(client, SYSTEM)
        recorder = EventRecorder(client, "tramontane.dev/operator")
        controller = make(client, informers, recorder, time.time)
        controller.wire()
        owners = Informer(client, resource, lambda raw: raw["metadata"]["resourceVersion"])
        owners.add_listener(lambda key, _old, _new: controller.queue.add(key))
        stop = asyncio.Event()
        following = [
            asyncio.create_task(work) for work in (informers.run(), owners.run(), recorder.run())
        ]
        await informers.wait_synced()
        running = asyncio.create_task(controller.run(stop))
        try:
            yield controller
        finally:
            stop.set()
            await running
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)


@asynccontextmanager
async def scheduling(plane: Plane) -> AsyncIterator[None]:
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    arguments = ("-m", "tramontane.scheduler", "--namespace", SYSTEM)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        async with await plane.client() as client:
            with contextlib.suppress(NotFound):
                await client.delete(LEASES, LEASE_SCHEDULER, SYSTEM)


@asynccontextmanager
async def a_scheduled_hall(plane: Plane, blades: int, **pool: Any) -> AsyncIterator[Client]:
    async with await plane.client() as client:
        fleet = Fleet(client, Layout(blades=blades, rack=4, racks_per_block=2))
        await fleet.create()
        await fleet.wait_ready()
        selector = {"matchLabels": {"node-role/gpu": "h200"}}
        spec = {"nodeSelector": selector, "gpu": {"count": 8}} | pool
        await client.create(NODEPOOLS, made("NodePool", "paris", spec))
        for name in fleet.names:
            await client.create(BLADES, made("Blade", name, {"pool": "paris"}))
            await say_state(client, name, "Healthy")
        async with scheduling(plane):
            yield client


def made(kind: str, name: str, spec: Raw) -> Raw:
    clusterwide = kind in {"NodePool", "Blade"}
    metadata = {"name": name} | ({} if clusterwide else {"namespace": NAMESPACE})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


async def say_state(client: Client, blade: str, state: str) -> None:
    """Say what the nodepool controller would say of a blade."""
    severity = "None" if state == "Healthy" else "Fatal"
    verdict = {"severity": severity, "action": "None"}
    status: Raw = {"state": state, "verdict": verdict}
    if state == "Quarantined":
        status["reason"] = "HardwareFault"
    await client.merge_patch(BLADES, blade, {"status": status}, subresource="status")
