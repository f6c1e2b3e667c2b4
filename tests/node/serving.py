"""Serve a model on real nodes: real agents and probes over an engine that only plays vLLM.

    async with serving(tier, "claims", replicas=2) as served:
        await served.serves(2)
        async with served.streams().running() as streams:
            ...

The model is a folder that the operator mounts from the node, with weights of some kilobytes; how
the engine behaves stands in a file beside them, so that a revision can be a bad one.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from node.harness import POOL, Tier, until
from tramontane.api.names import LABEL_INFERENCE, LABEL_ROTATION, LABEL_SEAT
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.resources import INFERENCEDEPLOYMENTS, PODS
from tramontane.lab.serving.deployment import deployment, install_engine, spec_of
from tramontane.lab.serving.model import write_model
from tramontane.lab.serving.streams import Streams

NAMESPACE = "default"
PATIENCE_S = 90.0

Raw = dict[str, Any]


@dataclass(slots=True)
class Served:
    """An InferenceDeployment on real nodes."""

    tier: Tier
    client: Client
    name: str
    spec: Raw

    async def change(self, **spec: Any) -> None:
        await self.client.merge_patch(INFERENCEDEPLOYMENTS, self.name, {"spec": spec}, NAMESPACE)

    async def status(self) -> Raw:
        found = await self.client.get(INFERENCEDEPLOYMENTS, self.name, NAMESPACE)
        return dict(found.get("status") or {})

    async def pods(self, seat: int | None = None) -> list[Raw]:
        """Return the pods of all replicas, or only those of one seat."""
        found = [
            pod
            for pod in await self.client.list_all(PODS, NAMESPACE)
            if pod["metadata"].get("labels", {}).get(LABEL_INFERENCE) == self.name
        ]
        if seat is None:
            return found
        return [pod for pod in found if pod["metadata"]["labels"].get(LABEL_SEAT) == str(seat)]

    async def until(
        self, holds: Callable[[Raw], bool], what: str, within_s: float = PATIENCE_S
    ) -> float:
        """Return after how many seconds something held of the status."""
        status: Raw = {}

        async def reached() -> bool:
            nonlocal status
            status = await self.status()
            return holds(status)

        try:
            return await until(reached, what, within_s)
        except AssertionError as error:
            phases = {pod["metadata"]["name"]: pod["status"] for pod in await self.pods()}
            raise AssertionError(
                f"{error}; status {json.dumps(status, indent=1)}\n"
                f"pods {json.dumps(phases, indent=1)[:6000]}"
            ) from None

    async def serves(self, replicas: int, phase: str = "Serving") -> None:
        """Return once so many replicas serve, and that is all there are."""

        def done(status: Raw) -> bool:
            states = [one["state"] for one in status.get("replicas", ())]
            return status.get("phase") == phase and states == ["Serving"] * replicas

        await self.until(done, f"{replicas} replicas {phase}")

    async def bind(self, node: str) -> None:
        """Put the pod of profile Edge onto a node: the lab has no kube-scheduler."""

        async def made() -> bool:
            return len(await self.pods()) == 1

        await until(made, "the Deployment's pod")
        [pod] = await self.pods()
        name = pod["metadata"]["name"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self.client.create(PODS, body, NAMESPACE, name=name, subresource="binding")

    def streams(self, **options: Any) -> Streams:
        return Streams(self.client, self.name, self.name, **options)

    async def fault(self, pod: Raw, fault: str, **body: Any) -> None:
        """Let the engine of a seat 0 break."""
        url = f"http://{pod['status']['podIP']}:8000/fake/{fault}"
        async with aiohttp.ClientSession() as session:
            with contextlib.suppress(aiohttp.ClientError):
                await session.post(url, json=body)

    async def in_rotation(self) -> list[str]:
        """Return the pods that get requests, as the Service selects them."""
        return [
            pod["metadata"]["name"]
            for pod in await self.pods(0)
            if pod["metadata"]["labels"].get(LABEL_ROTATION) == "in"
            and any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in pod["status"].get("conditions", ())
            )
        ]


@contextlib.asynccontextmanager
async def serving(
    tier: Tier, name: str, model: Path | None = None, /, **spec: Any
) -> AsyncIterator[Served]:
    """Create a deployment, and delete it at the end."""
    async with await tier.client() as client:
        folder = model or write_model(tier.shared / "models" / name / "v1")
        engine = install_engine(tier.shared)
        body = deployment(name, spec_of(POOL, engine, folder, **spec), NAMESPACE)
        await client.create(INFERENCEDEPLOYMENTS, body)
        served = Served(tier, client, name, body["spec"])
        try:
            yield served
        finally:
            with contextlib.suppress(NotFound):
                await client.delete(INFERENCEDEPLOYMENTS, name, NAMESPACE, propagation="Background")
