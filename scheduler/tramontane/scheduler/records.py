"""Hold what the scheduler keeps of Blades, Nodes, NodePools and Pods.

A fleet of 12,500 blades has a hundred thousand pods: a record keeps only what decides about a
place. Requests, labels and names that many objects share are interned. Equal records mean that
nothing of interest changed, which is how most watch events end without a new pass.

Amounts are integers: CPU in thousandths of a core, memory in bytes, everything else in pieces,
each rounded up.
"""

import functools
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.names import GPU_RESOURCE, LABEL_GANG, LABEL_SEAT, LABEL_WORK
from tramontane.api.quantity import parse_quantity

GPU: Final = GPU_RESOURCE
CPU: Final = "cpu"
HARD_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})
GOOD_SEVERITIES: Final = frozenset({"", "None", "Info"})
FINISHED: Final = frozenset({"Succeeded", "Failed"})
# Allocatable "resources" that no pod asks for by this name.
NOT_REQUESTED: Final = frozenset({"pods"})

Requests = tuple[tuple[str, int], ...]
Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Taint:
    """Hold a taint that keeps pods away: NoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class BladeRecord:
    """Hold a blade's pool and whether the operator calls it fit for work."""

    name: str
    pool: str
    state: str
    severity: str
    lemon: float
    deleting: bool


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """Hold a node's labels, capacity, and whether Kubernetes would use it."""

    name: str
    labels: Mapping[str, str]
    capacity: Requests
    taints: tuple[Taint, ...]
    cordoned: bool
    ready: bool
    deleting: bool


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """Hold a tenant's share of a pool, in GPUs; `most` is None where there is no limit."""

    name: str
    guaranteed: int = 0
    most: int | None = None
    weight: int = 1
    namespaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """Hold capacity to come: how many blades, and when (Unix seconds)."""

    tranche: str
    blades: int
    at_s: float


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """Hold a pool's topology levels, widest first, as (name, node label), and its shares."""

    name: str
    levels: tuple[tuple[str, str], ...]
    tenants: tuple[TenantRecord, ...] = ()
    deliveries: tuple[DeliveryRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class PodRecord:
    """Hold what an unfinished pod takes on its node.

    `gang` is `namespace/name` of the gang that the pod belongs to, or empty; `seat` is -1 where
    the pod names none.
    """

    node: str
    gang: str
    seat: int
    deleting: bool
    requests: Requests


# What a pod that takes nothing anywhere is decoded into: one object for all of them.
NO_POD: Final = PodRecord("", "", -1, False, ())


def decode_blade(raw: Raw) -> BladeRecord:
    """Return the record of a Blade; a missing state is `Unknown`."""
    meta, status = raw["metadata"], raw.get("status") or {}
    history = status.get("history") or {}
    return BladeRecord(
        name=sys.intern(meta["name"]),
        pool=sys.intern(str((raw.get("spec") or {}).get("pool") or "")),
        state=sys.intern(str(status.get("state") or "Unknown")),
        severity=sys.intern(str((status.get("verdict") or {}).get("severity") or "")),
        lemon=_number(history.get("lemonScore")),
        deleting=bool(meta.get("deletionTimestamp")),
    )


def decode_node(raw: Raw) -> NodeRecord:
    """Return the record of a Node; without a Ready condition it is not ready."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels = {sys.intern(k): sys.intern(v) for k, v in (meta.get("labels") or {}).items()}
    return NodeRecord(
        name=sys.intern(meta["name"]),
        labels=labels,
        capacity=amounts(
            {k: v for k, v in (status.get("allocatable") or {}).items() if k not in NOT_REQUESTED}
        ),
        taints=tuple(
            Taint(sys.intern(t["key"]), sys.intern(t.get("value") or ""), sys.intern(t["effect"]))
            for t in spec.get("taints") or ()
            if t.get("effect") in HARD_EFFECTS
        ),
        cordoned=bool(spec.get("unschedulable")),
        ready=any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in status.get("conditions") or ()
        ),
        deleting=bool(meta.get("deletionTimestamp")),
    )


def decode_pool(raw: Raw) -> PoolRecord:
    """Return the record of a NodePool."""
    spec = raw.get("spec") or {}
    topology = spec.get("topology") or {}
    return PoolRecord(
        name=sys.intern(raw["metadata"]["name"]),
        levels=tuple(
            (sys.intern(level["name"]), sys.intern(level["label"]))
            for level in topology.get("levels") or ()
        ),
        tenants=tuple(
            TenantRecord(
                sys.intern(tenant["name"]),
                int(tenant.get("guaranteedGPUs") or 0),
                None if (most := tenant.get("maxGPUs")) is None else int(most),
                int(tenant.get("weight") or 1),
                frozenset(map(sys.intern, tenant.get("namespaces") or ())),
            )
            for tenant in spec.get("tenants") or ()
        ),
        deliveries=tuple(
            DeliveryRecord(d.get("tranche") or "", int(d["blades"]), clock.parse(d["at"]))
            for d in spec.get("availableFrom") or ()
        ),
    )


def decode_pod(raw: Raw) -> PodRecord:
    """Return the record of a Pod, or `NO_POD` where it holds nothing of a node."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    node = spec.get("nodeName")
    if not node or (raw.get("status") or {}).get("phase") in FINISHED:
        return NO_POD
    labels = meta.get("labels") or {}
    if LABEL_WORK in labels:  # a test or a repair; it gives way to any work
        return NO_POD
    gang = labels.get(LABEL_GANG)
    requests = pod_requests(spec)
    if not gang and not requests:
        return NO_POD
    return PodRecord(
        node=sys.intern(node),
        gang=sys.intern(f"{meta.get('namespace', '')}/{gang}") if gang else "",
        seat=int(seat) if (seat := str(labels.get(LABEL_SEAT, ""))).isdecimal() else -1,
        deleting=bool(meta.get("deletionTimestamp")),
        requests=requests,
    )


def pod_requests(spec: Raw) -> Requests:
    """Return what the scheduler of Kubernetes would count for a pod.

    The sum of the containers and of the init containers that keep running, or the largest init
    container with those started before it, whichever is more; pod-level requests replace that;
    overhead comes on top.
    Source: KEP-753 (sidecar containers), KEP-2837 (pod-level resources).
    """
    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            _add(running, asked)
            _raise(peak, running.items())
        else:
            _raise(peak, ((name, n + running.get(name, 0)) for name, n in asked))
    for container in spec.get("containers") or ():
        _add(running, _asked(container))
    _raise(running, peak.items())
    if spec.get("resources"):
        running.update(_asked(spec))
    if spec.get("overhead"):
        _add(running, amounts(spec["overhead"]))
    return _shared(tuple(sorted((k, v) for k, v in running.items() if v)))


def amounts(quantities: Mapping[str, Any]) -> Requests:
    """Return quantities as sorted integers; what is zero is left out.

    Raises:
        InvalidValue: one of them is no quantity.
    """
    named = ((sys.intern(k), _whole(k == CPU, v)) for k, v in quantities.items())
    return _shared(tuple(sorted((k, v) for k, v in named if v)))


@functools.lru_cache(maxsize=4096)
def _whole(in_thousandths: bool, quantity: str | int) -> int:
    value = parse_quantity(quantity)
    return math.ceil(value * 1000 if in_thousandths else value)


@functools.lru_cache(maxsize=4096)
def _shared(requests: Requests) -> Requests:
    return requests


def _asked(container: Raw) -> Requests:
    return amounts((container.get("resources") or {}).get("requests") or {})


def _add(total: dict[str, int], asked: Requests) -> None:
    for name, amount in asked:
        total[name] = total.get(name, 0) + amount


def _raise(total: dict[str, int], floor: Iterable[tuple[str, int]]) -> None:
    for name, amount in floor:
        total[name] = max(total.get(name, 0), amount)


def _number(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return 0.0
