"""Keep of a Pod and a Node what is decided upon: some 20 fields of some 500.

A pod of 6 KB of JSON becomes a view of about 2 KB; the decoders touch only what they keep,
because they run for each event of each pod. Times are Unix seconds.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tramontane.api.clock import parse
from tramontane.api.names import ANNOTATION_PEERS, GPU_RESOURCE, GROUP
from tramontane.api.quantity import parse_quantity

_PREFIX = f"{GROUP}/"
_FINISHED = frozenset({"Succeeded", "Failed"})
_MILLI = 1000
_TRUTH = {"True": True, "False": False}
_NO_CONDITION: Mapping[str, str] = {}
_NO_STATE: Mapping[str, Mapping[str, Any]] = {}
_NO_DETAILS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ContainerView:
    """What became of one container.

    Attributes:
        state: `waiting`, `running`, `terminated`, or empty where nothing is known yet.
        exit_code: of a terminated container.
        reason: of the waiting or terminated state, e.g. `CrashLoopBackOff`, `OOMKilled`.
        last_exit_code: of the run before this one.
        message: what a terminated container left as its last word, or why a waiting one waits.
    """

    name: str
    state: str = ""
    exit_code: int | None = None
    reason: str = ""
    restart_count: int = 0
    last_exit_code: int | None = None
    last_reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod as the caches hold it.

    Attributes:
        annotations: those of tramontane.dev, without the list of peers, which is as long as
            the gang and stands in each of its pods.
        owner_uid: of the owner that is its controller.
        gpus: what its containers request together, or one init container if that is more.
        ready: its Ready condition is True.
    """

    name: str
    namespace: str
    uid: str
    node: str | None
    phase: str
    deleting: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_uid: str | None
    reason: str
    message: str
    ready: bool
    restarts: int
    host_ip: str | None
    pod_ip: str | None
    gpus: int
    started_at: float | None
    containers: tuple[ContainerView, ...]
    created_at: float
    init_containers: tuple[ContainerView, ...] = ()

    @property
    def key(self) -> str:
        """Return `namespace/name`, its key in a cache."""
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Return whether it has ended for good and holds nothing any more."""
        return self.phase in _FINISHED


@dataclass(frozen=True, slots=True)
class TaintView:
    """One taint of a node."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the caches hold it.

    Attributes:
        annotations: those of tramontane.dev.
        ready: the Ready condition; None where it is Unknown or absent.
        ready_since: when that condition last changed; the node's creation where it has none.
        gpus, cpu_m, memory_b, pods: what pods can have of it (status.allocatable).
        conditions: type to status of all conditions.
    """

    name: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    unschedulable: bool
    deleting: bool
    taints: tuple[TaintView, ...]
    ready: bool | None
    ready_since: float
    gpus: int
    cpu_m: int
    memory_b: int
    pods: int
    conditions: Mapping[str, str]
    created_at: float


def decode_pod(raw: Mapping[str, Any]) -> PodView:
    """Return the view of a raw pod."""
    meta = raw["metadata"]
    spec = raw["spec"]
    status = raw.get("status") or {}
    containers = tuple(map(_container, status.get("containerStatuses") or ()))
    return PodView(
        name=meta["name"],
        namespace=sys.intern(meta["namespace"]),
        uid=meta["uid"],
        node=_interned(spec.get("nodeName")),
        phase=sys.intern(status.get("phase", "Pending")),
        deleting="deletionTimestamp" in meta,
        labels=_pairs(meta.get("labels")),
        annotations=_ours(meta.get("annotations")),
        owner_uid=_controller_uid(meta.get("ownerReferences") or ()),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        ready=any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in status.get("conditions") or ()
        ),
        restarts=sum(container.restart_count for container in containers),
        host_ip=_interned(status.get("hostIP")),
        pod_ip=status.get("podIP"),
        gpus=_gpus(spec),
        started_at=_time(status.get("startTime")),
        containers=containers,
        created_at=_time(meta.get("creationTimestamp")) or 0.0,
        init_containers=tuple(map(_container, status.get("initContainerStatuses") or ())),
    )


def decode_node(raw: Mapping[str, Any]) -> NodeView:
    """Return the view of a raw node."""
    meta = raw["metadata"]
    spec = raw.get("spec") or {}
    status = raw.get("status") or {}
    allocatable = status.get("allocatable") or {}
    conditions: Sequence[Mapping[str, str]] = status.get("conditions") or ()
    ready = next((one for one in conditions if one["type"] == "Ready"), _NO_CONDITION)
    created_at = _time(meta.get("creationTimestamp")) or 0.0
    return NodeView(
        name=sys.intern(meta["name"]),
        uid=meta["uid"],
        labels=_pairs(meta.get("labels")),
        annotations=_ours(meta.get("annotations")),
        unschedulable=bool(spec.get("unschedulable")),
        deleting="deletionTimestamp" in meta,
        taints=tuple(
            TaintView(taint["key"], taint.get("value", ""), taint["effect"])
            for taint in spec.get("taints") or ()
        ),
        ready=_TRUTH.get(ready.get("status", "")),
        ready_since=_time(ready.get("lastTransitionTime")) or created_at,
        gpus=_quantity(allocatable.get(GPU_RESOURCE, "0")),
        cpu_m=_quantity(allocatable.get("cpu", "0"), _MILLI),
        memory_b=_quantity(allocatable.get("memory", "0")),
        pods=_quantity(allocatable.get("pods", "0")),
        conditions={sys.intern(one["type"]): sys.intern(one["status"]) for one in conditions},
        created_at=created_at,
    )


def _container(raw: Mapping[str, Any]) -> ContainerView:
    state, details = next(iter((raw.get("state") or _NO_STATE).items()), ("", _NO_DETAILS))
    last = (raw.get("lastState") or {}).get("terminated") or {}
    return ContainerView(
        name=sys.intern(raw["name"]),
        state=sys.intern(state),
        exit_code=details.get("exitCode"),
        reason=sys.intern(details.get("reason", "")),
        restart_count=raw.get("restartCount", 0),
        last_exit_code=last.get("exitCode"),
        last_reason=sys.intern(last.get("reason", "")),
        message=details.get("message", ""),
    )


def _controller_uid(owners: Iterable[Mapping[str, Any]]) -> str | None:
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _gpus(spec: Mapping[str, Any]) -> int:
    together = sum(map(_container_gpus, spec["containers"]))
    return max(together, *map(_container_gpus, spec.get("initContainers") or ()), 0)


def _container_gpus(container: Mapping[str, Any]) -> int:
    resources = container.get("resources") or {}
    for amounts in (resources.get("requests"), resources.get("limits")):
        if amounts and GPU_RESOURCE in amounts:
            return _quantity(amounts[GPU_RESOURCE])
    return 0


def _pairs(raw: Mapping[str, str] | None) -> dict[str, str]:
    """Return labels whose keys (and mostly values) are shared between thousands of objects."""
    return {sys.intern(key): sys.intern(value) for key, value in raw.items()} if raw else {}


def _ours(raw: Mapping[str, str] | None) -> dict[str, str]:
    return {
        sys.intern(key): value
        for key, value in (raw or {}).items()
        if key.startswith(_PREFIX) and key != ANNOTATION_PEERS
    }


def _interned(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)


@lru_cache(maxsize=4096)
def _time(text: str | None) -> float | None:
    return None if text is None else parse(text)


@lru_cache(maxsize=1024)
def _quantity(text: str | int, times: int = 1) -> int:
    return int(parse_quantity(text) * times)
