"""The control plane as a test sees it."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.kube.client import Client, NotFound
from tramontane.kube.resources import (
    BLADES,
    CONFIGMAPS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    GANGS,
    INFERENCEDEPLOYMENTS,
    JOBS,
    LEASES,
    NETWORKPOLICIES,
    NODEPOOLS,
    NODES,
    PODS,
    PRIORITYCLASSES,
    SERVICES,
    TRAININGJOBS,
    Resource,
)
from tramontane.lab.controlplane import ControlPlane

SYSTEM = "tramontane-system"
# Owners before what they own, so that nothing is made again while we delete.
OURS = (TRAININGJOBS, INFERENCEDEPLOYMENTS, GANGS, NODEPOOLS, BLADES)
THEIRS = (
    *(DEPLOYMENTS, JOBS, PODS, SERVICES, ENDPOINTSLICES, NETWORKPOLICIES, CONFIGMAPS),
    *(CONTROLLERREVISIONS, LEASES, NODES, PRIORITYCLASSES),
)
KEPT = frozenset({"kubernetes", "kube-root-ca.crt"})


@dataclass(frozen=True, slots=True)
class Plane:
    """The control plane as a test sees it."""

    control: ControlPlane

    @property
    def kubeconfig(self) -> Path:
        return self.control.kubeconfig

    async def client(self, user_agent: str = "tests") -> Client:
        """Return a client of the cluster's administrator; use it by `async with await`."""
        return await Client.connect(self.kubeconfig, user_agent=user_agent)

    async def reset(self) -> None:
        """Delete all that a test can have made: our kinds, pods, nodes, and what goes with them."""
        async with await self.client() as client:
            for resource in (*OURS, *THEIRS):
                await _delete_all(client, resource)


async def _delete_all(client: Client, resource: Resource) -> None:
    while left := [item for item in await client.list_all(resource) if not _is_kept(item)]:
        async with asyncio.TaskGroup() as group:
            for item in left:
                group.create_task(_delete(client, resource, item["metadata"]))


def _is_kept(item: dict[str, Any]) -> bool:
    meta = item["metadata"]
    return (
        meta["name"] in KEPT
        or meta["name"].startswith("system-")
        or (
            # Leases of nodes go with their nodes.
            meta.get("namespace") in {"kube-system", "kube-node-lease"}
        )
    )


async def _delete(client: Client, resource: Resource, meta: dict[str, Any]) -> None:
    name, namespace = meta["name"], meta.get("namespace")
    with contextlib.suppress(NotFound):
        if meta.get("finalizers"):
            patch = {"metadata": {"finalizers": None}}
            await client.merge_patch(resource, name, patch, namespace)
        await client.delete(resource, name, namespace, grace_period_s=0, propagation="Background")
