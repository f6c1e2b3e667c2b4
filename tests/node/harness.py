"""A cluster of real nodes as a test sees it."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plane.harness import KEPT
from tramontane.api import clock
from tramontane.kube.client import Client, NotFound
from tramontane.kube.resources import (
    BLADES,
    CONFIGMAPS,
    GANGS,
    PODS,
    SERVICES,
    TRAININGJOBS,
    Resource,
)
from tramontane.lab.cluster import Lab, pool_of
from tramontane.lab.nodes import RealNodes

SOON_S = 60.0
NODES = 4  # three for a gang, and a spare
POOL = "paris-a"
_RELEASE_AFTER_S = 5.0


def pool(layout: Any) -> dict[str, Any]:
    """A pool of four blades, of which most may be out at once: tests break them."""
    body = pool_of(layout, POOL)
    body["spec"]["remediation"] = {
        "maxUnavailable": NODES - 1,
        "breaker": {"threshold": "100%", "window": "1m"},
    }
    body["spec"]["health"] = {"clearAfter": "1s"}
    return body


@dataclass(frozen=True, slots=True)
class Tier:
    """The cluster: its lab, and the folder that pods see as their file system of checkpoints."""

    lab: Lab
    shared: Path

    @property
    def kubeconfig(self) -> Path:
        return self.lab.plane.kubeconfig

    @property
    def nodes(self) -> RealNodes:
        return self.lab.nodes

    async def client(self, user_agent: str = "tests") -> Client:
        """Return a client of the cluster's administrator; use it by `async with await`."""
        return await Client.connect(self.kubeconfig, user_agent=user_agent)

    async def reset(self) -> None:
        """Delete what a test has made, give all nodes power and cable, and repair all blades."""
        for name in self.nodes.names:
            await self.nodes.link(name, up=True)
            if not self.nodes.has_power(name):
                await self.nodes.power_on(name)
            await self.nodes.set_sick(name)
        async with await self.client() as client, self.lab.remote() as remote:
            for resource in (TRAININGJOBS, GANGS, PODS, SERVICES, CONFIGMAPS):
                await delete_all(client, resource)
            for name in await remote.faults():
                await remote.clear(name)
            await self.nodes.wait_ready(client)
            await self._release_blades(client)

    async def _release_blades(self, client: Client) -> None:
        """Return when all blades are Healthy; those that tests broke too often are released."""
        asked = time.monotonic()

        async def healthy() -> bool:
            nonlocal asked
            blades = await client.list_all(BLADES)
            broken = [one for one in blades if state(one) != "Healthy"]
            if broken and time.monotonic() > asked + _RELEASE_AFTER_S:
                asked = time.monotonic()
                wish = {"reason": "another test", "by": "tests", "at": clock.utc(time.time())}
                for blade in broken:
                    patch = {"spec": {"release": wish}}
                    await client.merge_patch(BLADES, blade["metadata"]["name"], patch)
            return len(blades) == NODES and not broken

        await until(healthy, "all blades Healthy")


async def delete_all(client: Client, resource: Resource) -> None:
    """Delete all of a kind, as their owners do, and wait: a pod's end is its kubelet's work."""

    async def gone() -> bool:
        left = [one for one in await client.list_all(resource) if _is_ours(one)]
        for item in left:
            meta = item["metadata"]
            if "deletionTimestamp" not in meta:
                with contextlib.suppress(NotFound):
                    await client.delete(resource, meta["name"], meta.get("namespace"))
        return not left

    await until(gone, f"no {resource.plural}")


def _is_ours(item: dict[str, Any]) -> bool:
    return item["metadata"]["name"] not in KEPT


def state(blade: dict[str, Any]) -> str:
    return str(blade.get("status", {}).get("state", ""))


async def until(
    holds: Callable[[], Awaitable[bool]], what: str = "it", within_s: float = SOON_S
) -> float:
    """Return after how many seconds something held."""
    began = time.monotonic()
    while not await holds():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"{what}: not within {within_s:.0f} s")
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def wait_phase(
    client: Client, name: str, *phases: str, namespace: str = "default", within_s: float = SOON_S
) -> dict[str, Any]:
    """Return the pod when it is in one of the phases."""

    async def reached() -> bool:
        try:
            found = await client.get(PODS, name, namespace)
        except NotFound:
            return False
        return found["status"].get("phase") in phases

    await until(reached, f"pod {name} {' or '.join(phases)}", within_s)
    return await client.get(PODS, name, namespace)


async def log_of(client: Client, name: str, namespace: str = "default") -> list[str]:
    """Return the lines that a pod has printed."""
    async with client.pod_log(namespace, name, follow=False) as lines:
        return [line.decode() async for line in lines]


async def lines_until(client: Client, name: str, text: str, times: int = 1) -> list[str]:
    """Follow a pod's log until `text` has come so many times; return all lines up to it."""
    seen: list[str] = []
    async with (
        asyncio.timeout(SOON_S),
        client.pod_log("default", name, follow=True) as lines,
    ):
        async for line in lines:
            seen.append(line.decode())
            if sum(text in one for one in seen) == times:
                return seen
    raise AssertionError(f"the log of {name} ended without {text!r}: {seen}")
