"""Make the caches that all controllers of the operator share, one watch per kind.

| cache  | holds                                            | indexes                    |
|--------|--------------------------------------------------|----------------------------|
| pools  | every NodePool                                   |                            |
| blades | every Blade, its GPUs slimmed (`decode_blade`)   | pool                       |
| nodes  | every Node: a pool chooses among all of them     |                            |
| pods   | pods with a gang label                           | job (`namespace/job`),     |
|        |                                                  | inference (the same), node |
| others | pods without one that hold GPUs of a node, slim  | node                       |
| gangs  | every Gang                                       | blade (seats and spares),  |
|        |                                                  | inference                  |
| leases | the agents' heartbeats, by Lease name            |                            |
| works  | pods that test or repair a blade                 | blade, pool                |

Of the pods that have no gang only those with GPUs are kept, and of these three fields: at 12,500
nodes nearly all pods are neither.

The kubelets' Leases are not here: 12,500 of them renew 1,250 times a second, and are asked for
only while an agent is silent (nodepool/kubelet.py).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from sys import intern
from typing import Any, cast

from tramontane.api import clock, names
from tramontane.api.blade import Blade, GpuInventory
from tramontane.api.gang import Gang
from tramontane.api.nodepool import NodePool
from tramontane.controllers.nodepool import works
from tramontane.controllers.nodepool.works import WorkPod
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import BLADES, GANGS, LEASES, NODEPOOLS, NODES, PODS
from tramontane.kube.views import NodeView, PodView, decode_node, decode_pod

Raw = dict[str, Any]

# What has a node and has not ended, and is neither of a gang nor a test or repair of ours.
_BOUND = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_OTHERS = f"!{names.LABEL_GANG},!{names.LABEL_WORK}"
_GPU_FIELDS = ("index", "product", "memory", "vbios", "gspFirmware", "nvlinks")
_NODE_FIELDS = tuple(one.name for one in fields(NodeView))


@dataclass(frozen=True, slots=True)
class Node(NodeView):
    """A Node with what only the operator asks of it.

    Attributes:
        boot_id: of the machine's present boot, as its kubelet says; empty where it does not.
        gpu_healthy_reason: reason of our condition GPUHealthy; empty where there is none.
        version: resourceVersion as a number, to tell older from newer.
    """

    boot_id: str = ""
    gpu_healthy_reason: str = ""
    version: int = field(default=0, compare=False)

    @property
    def gpu_healthy(self) -> str:
        """Return the status of our condition GPUHealthy; empty where there is none."""
        return self.conditions.get(names.CONDITION_GPU_HEALTHY, "")


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A heartbeat: `renewed_at` is the holder's own time (Unix seconds), 0 when never renewed."""

    name: str
    renewed_at: float


@dataclass(frozen=True, slots=True)
class OtherPod:
    """A pod of no gang that holds GPUs of its node. `key`: `namespace/name`."""

    key: str
    node: str
    deleting: bool


@dataclass(frozen=True, slots=True)
class Informers:
    """The shared caches. Add listeners and indexes before `run`."""

    pools: Informer[NodePool]
    blades: Informer[Blade]
    nodes: Informer[Node]
    pods: Informer[PodView]
    others: Informer[OtherPod]
    gangs: Informer[Gang]
    leases: Informer[LeaseView]
    works: Informer[WorkPod]

    @property
    def all(self) -> tuple[Informer[Any], ...]:
        """Return the eight informers."""
        return tuple(getattr(self, one.name) for one in fields(self))

    @property
    def synced(self) -> bool:
        """Return whether every cache has been filled once."""
        return all(informer.synced for informer in self.all)

    def sizes(self) -> Mapping[str, int]:
        """Return how many objects each cache holds."""
        return {one.name: len(getattr(self, one.name).cache) for one in fields(self)}

    async def wait_synced(self) -> None:
        """Return when every cache has been filled once."""
        await asyncio.gather(*(informer.wait_synced() for informer in self.all))

    async def run(self) -> None:
        """Keep all caches up to date for ever; raises what ends one of them."""
        async with asyncio.TaskGroup() as group:
            for informer in self.all:
                group.create_task(informer.run())


def connect(client: Client, namespace: str) -> Informers:
    """Return the caches, indexed, not yet running; `namespace` is where the agents' Leases are."""
    informers = Informers(
        pools=Informer(client, NODEPOOLS, NodePool.model_validate),
        blades=Informer(client, BLADES, decode_blade),
        nodes=Informer(client, NODES, decode_operator_node),
        pods=Informer(client, PODS, decode_pod, label_selector=names.LABEL_GANG),
        others=Informer(
            client,
            PODS,
            # What is decoded into None is not kept: so with nearly all of the cluster's pods.
            cast("Callable[[Raw], OtherPod]", decode_other),
            label_selector=_OTHERS,
            field_selector=_BOUND,
        ),
        gangs=Informer(client, GANGS, Gang.model_validate),
        leases=Informer(
            client,
            LEASES,
            decode_lease,
            namespace=namespace,
            label_selector=f"{names.LABEL_HEARTBEAT}=true",
        ),
        works=Informer(
            client, PODS, works.decode, namespace=namespace, label_selector=names.LABEL_WORK
        ),
    )
    informers.blades.add_index("pool", lambda blade: (blade.spec.pool,))
    informers.pods.add_index("job", job_of)
    informers.pods.add_index("inference", inference_of_pod)
    informers.pods.add_index("node", lambda pod: (pod.node,) if pod.node else ())
    informers.others.add_index("node", lambda pod: (pod.node,))
    informers.gangs.add_index("blade", blades_of)
    informers.gangs.add_index("inference", inference_of_gang)
    informers.works.add_index("blade", lambda pod: (pod.blade,))
    informers.works.add_index("pool", lambda pod: (pod.pool,))
    return informers


def job_of(pod: PodView) -> Iterable[str]:
    """Return the job of a pod as `namespace/name`, or nothing for the pod of a foreign gang."""
    job = pod.labels.get(names.LABEL_JOB)
    return (f"{pod.namespace}/{job}",) if job else ()


def inference_of_pod(pod: PodView) -> Iterable[str]:
    """Return the InferenceDeployment of a pod as `namespace/name`, or nothing for another's."""
    return _inference(pod.namespace, pod.labels)


def inference_of_gang(gang: Gang) -> Iterable[str]:
    """Return the InferenceDeployment of a Gang as `namespace/name`, or nothing for another's."""
    return _inference(gang.metadata.namespace, gang.metadata.labels)


def _inference(namespace: str | None, labels: Mapping[str, str]) -> Iterable[str]:
    name = labels.get(names.LABEL_INFERENCE)
    return (f"{namespace}/{name}",) if name else ()


def blades_of(gang: Gang) -> Iterable[str]:
    """Return the blades that a gang's placement names: its seats, then its spares."""
    placement = gang.status.placement
    return () if placement is None else (*placement.seats, *placement.spares)


def decode_other(raw: Raw) -> OtherPod | None:
    """Return the view of a bound pod, or None where it holds no GPU: who does never changes."""
    view = decode_pod(raw)
    if not view.gpus or view.node is None:
        return None
    return OtherPod(view.key, view.node, view.deleting)


def decode_operator_node(raw: Raw) -> Node:
    """Return the view of a Node."""
    view = decode_node(raw)
    status = raw.get("status") or {}
    ours = (
        one.get("reason", "")
        for one in status.get("conditions") or ()
        if one["type"] == names.CONDITION_GPU_HEALTHY
    )
    return Node(
        **{name: getattr(view, name) for name in _NODE_FIELDS},
        boot_id=(status.get("nodeInfo") or {}).get("bootID", ""),
        gpu_healthy_reason=intern(next(ours, "")),
        version=int(raw["metadata"].get("resourceVersion") or 0),
    )


def decode_lease(raw: Raw) -> LeaseView:
    """Return the view of a heartbeat Lease."""
    renewed = (raw.get("spec") or {}).get("renewTime")
    return LeaseView(raw["metadata"]["name"], clock.parse(renewed) if renewed else 0.0)


def decode_blade(raw: Raw) -> Blade:
    """Return the Blade without what nobody here reads of its GPUs.

    UUIDs, serial numbers and addresses are 4 KB per blade. What remains of a GPU is the same on
    most blades, and therefore shared between them.
    """
    meta = dict(raw["metadata"])
    for key in ("labels", "annotations"):
        if meta.get(key):
            meta[key] = _own(meta[key])
    slim = {**raw, "metadata": meta}
    report = (raw.get("status") or {}).get("report")
    if report and report.get("gpus"):
        gpus = _inventory(
            tuple(tuple(gpu.get(name) for name in _GPU_FIELDS) for gpu in report["gpus"])
        )
        slim["status"] = {**raw["status"], "report": {**report, "gpus": gpus}}
    return Blade.model_validate(slim)


def _own(texts: Mapping[str, str]) -> dict[str, str]:
    return {intern(k): intern(v) for k, v in texts.items() if k.startswith("tramontane.dev/")}


@lru_cache(maxsize=1024)
def _inventory(gpus: tuple[tuple[int | str | None, ...], ...]) -> tuple[GpuInventory, ...]:
    return tuple(
        GpuInventory.model_validate(dict(zip(_GPU_FIELDS, gpu, strict=True))) for gpu in gpus
    )
