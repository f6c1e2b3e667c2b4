"""Simulated blades: Nodes that KWOK plays the kubelet for.

A blade's power is its heartbeat. KWOK renews a node's Lease while it holds it, and plays only
the nodes (and their pods) whose Lease it holds; so whoever takes the Lease away cuts the power:
no heartbeat, no pod starts, and none that was deleted goes away, exactly as on a dead machine.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tramontane.api import clock
from tramontane.api.names import GPU_RESOURCE, LABEL_HOSTNAME, LABEL_TRANCHE
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.informer import Informer
from tramontane.kube.resources import LEASES, NODES
from tramontane.lab.paths import LabError

LABEL_BLOCK = "topology.tramontane.dev/block"
LABEL_RACK = "topology.tramontane.dev/rack"
LABEL_GPU = "node-role/gpu"
ANNOTATION_SIMULATED = "kwok.x-k8s.io/node"
NODE_LEASES = "kube-node-lease"
_NOBODY = "power-cut"
_FOR_EVER_S = 2**31 - 1
_IN_FLIGHT = 32
_MANAGER = "tramontane-lab-kubelet"
_BACK_S = 30.0
_POLL_S = 0.1


def blade_name(number: int) -> str:
    """Return the name of the blade with this number; the first is 1."""
    return f"gpu-{number:04d}"


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands in the hall."""

    blades: int
    rack: int = 16
    racks_per_block: int = 8
    tranche: int = 0  # blades per delivery; 0: all came at once
    gpu: str = "h200"
    product: str = "NVIDIA-H200"
    gpus: int = 8
    cpu: str = "192"
    memory: str = "2Ti"
    pods: str = "110"
    first: int = 1

    def names(self) -> Iterator[str]:
        """Yield the blades' names in order."""
        return (blade_name(self.first + index) for index in range(self.blades))

    def node(self, name: str, index: int) -> dict[str, Any]:
        """Return the Node of one blade, as its kubelet would register it."""
        rack = index // self.rack
        resources = {
            "cpu": self.cpu,
            "memory": self.memory,
            "pods": self.pods,
            GPU_RESOURCE: str(self.gpus),
        }
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {ANNOTATION_SIMULATED: "fake"},
                "labels": {
                    LABEL_HOSTNAME: name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                    LABEL_GPU: self.gpu,
                    "nvidia.com/gpu.product": self.product,
                    LABEL_BLOCK: f"block-{rack // self.racks_per_block + 1}",
                    LABEL_RACK: f"rack-{rack + 1}",
                    LABEL_TRANCHE: f"t{index // self.tranche + 1 if self.tranche else 1}",
                },
            },
            "status": {"capacity": resources, "allocatable": resources},
        }


def is_ready(node: dict[str, Any]) -> bool:
    """Tell whether a Node's Ready condition is True."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in node.get("status", {}).get("conditions", ())
    )


class Fleet:
    """The simulated blades of one cluster."""

    def __init__(self, client: Client, layout: Layout) -> None:
        self.client = client
        self.layout = layout

    @property
    def names(self) -> tuple[str, ...]:
        """The blades' names in order."""
        return tuple(self.layout.names())

    async def create(self, created: Callable[[int], None] = lambda _: None) -> None:
        """Create all Nodes, some at a time; `created` hears how many there are."""
        slots = asyncio.Semaphore(_IN_FLIGHT)
        count = 0

        async def one(name: str, index: int) -> None:
            nonlocal count
            async with slots:
                await self.client.create(NODES, self.layout.node(name, index))
            count += 1
            created(count)

        async with asyncio.TaskGroup() as group:
            for index, name in enumerate(self.names):
                group.create_task(one(name, index))

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return when all Nodes are Ready.

        Raises:
            LabError: they were not within `timeout` seconds; by default a minute, and more for
                a big fleet on a busy machine.
        """
        patience_s = 60 + self.layout.blades / 10 if timeout is None else timeout
        await self._wait("be Ready", self.names, True, patience_s)

    async def wait_not_ready(self, name: str, timeout: float) -> None:
        """Return when the Node is NotReady, as the node life-cycle controller sees it."""
        await self._wait("be NotReady", (name,), False, timeout)

    async def _wait(self, what: str, names: Iterable[str], wanted: bool, timeout: float) -> None:
        """Watch the Nodes until the readiness of all the named ones is the wanted one."""
        waiting = set(names)
        nodes = Informer(self.client, NODES, is_ready)
        done = asyncio.Event()

        def changed(name: str, _old: bool | None, ready: bool | None) -> None:
            if ready is wanted:
                waiting.discard(name)
            if not waiting:
                done.set()

        nodes.add_listener(changed)
        watch = asyncio.create_task(nodes.run())
        try:
            async with asyncio.timeout(timeout):
                await done.wait()
        except TimeoutError:
            raise LabError(
                f"fleet: all Nodes must {what} within {timeout:.0f} s (got {len(waiting)}"
                f" that did not, {min(waiting)} first); see kwok.log and"
                " kube-controller-manager.log"
            ) from None
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def power_off(self, name: str) -> None:
        """Cut a blade's power: its Node turns NotReady after the grace period."""
        # KWOK keeps the Lease that an earlier Node of this name owned; the garbage collector
        # would take it away, and with it the power cut.
        node = await self.client.get(NODES, name)
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
        spec = {"holderIdentity": _NOBODY, "leaseDurationSeconds": _FOR_EVER_S}
        await self._lease(name, {"metadata": {"ownerReferences": [owner]}, "spec": spec})

    async def power_on(self, name: str) -> None:
        """Give a blade its power back: KWOK takes the Lease and plays the node again."""
        await self._lease(name, {"spec": {"holderIdentity": None}})

    async def reboot(self, name: str, boot_id: str) -> None:
        """Let a blade's Node be NotReady for a moment, and come back from another boot.

        Raises:
            LabError: KWOK did not bring it back.
        """
        down = {
            "type": "Ready",
            "status": "False",
            "reason": "Rebooting",
            "message": "the blade reboots",
            "lastTransitionTime": clock.utc(time.time()),
            "lastHeartbeatTime": clock.utc(time.time()),
        }
        # By apply, so that the conditions of others stay; the kubelet's next one undoes it.
        status = {"conditions": [down], "nodeInfo": {"bootID": boot_id}}
        body = {"metadata": {"name": name}, "status": status}
        await self.client.apply(NODES, body, manager=_MANAGER, subresource="status")
        try:
            async with asyncio.timeout(_BACK_S):
                while not is_ready(await self.client.get(NODES, name)):  # noqa: ASYNC110 - once
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise LabError(
                f"blade {name}: its Node must be Ready within {_BACK_S:.0f} s of a reboot"
                " (got: it is not); see kwok.log"
            ) from None

    async def _lease(self, name: str, body: dict[str, Any]) -> None:
        try:
            await self.client.merge_patch(LEASES, name, body, NODE_LEASES)
        except NotFound as error:
            raise LabError(
                f"blade {name}: must be a simulated blade with a heartbeat (got none);"
                f" blades are named {blade_name(1)} and so on"
            ) from error

    async def delete(self) -> None:
        """Delete all Nodes."""
        slots = asyncio.Semaphore(_IN_FLIGHT)

        async def one(name: str) -> None:
            async with slots:
                await self.client.delete(NODES, name)

        async with asyncio.TaskGroup() as group:
            for name in self.names:
                group.create_task(one(name))
