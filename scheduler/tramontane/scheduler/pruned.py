"""Cut API objects down to what decides about a place; pruning twice changes nothing."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from tramontane.api.names import (
    ANNOTATION_GANG_SIZE,
    ANNOTATION_PACK,
    LABEL_GANG,
    LABEL_POOL,
    LABEL_SEAT,
    LABEL_WORK,
)
from tramontane.scheduler.foreign.member import ANNOTATION_PACK_MODE, is_foreign
from tramontane.scheduler.records import Raw

META: Final = ("name", "namespace", "deletionTimestamp")
IDENTITY: Final = (*META, "uid", "generation", "resourceVersion", "creationTimestamp")
OWN_LABELS: Final = frozenset({LABEL_GANG, LABEL_SEAT, LABEL_WORK})
GROUPS: Final = (
    "jobset.sigs.k8s.io/",
    "leaderworkerset.sigs.k8s.io/",
    "scheduling.k8s.io/",
    "scheduling.x-k8s.io/",
)
NOTES: Final = frozenset({ANNOTATION_GANG_SIZE, ANNOTATION_PACK, ANNOTATION_PACK_MODE, LABEL_POOL})
# What the record of a pod that names our scheduler is made of, besides its requests.
FOREIGN: Final = (
    "schedulerName",
    "priority",
    "nodeSelector",
    "tolerations",
    "schedulingGates",
    "affinity",
    "topologySpreadConstraints",
    "schedulingGroup",
    "workloadRef",
    "activeDeadlineSeconds",
)


def pool(raw: Raw) -> Raw:
    """Keep the nodes, GPUs, levels, tenants and deliveries of a NodePool."""
    spec = _only(raw.get("spec"), "nodeSelector", "gpu", "topology", "tenants", "availableFrom")
    return _object(raw, META, spec=spec)


def priority_class(raw: Raw) -> Raw:
    """Keep the value of a PriorityClass."""
    return {**_object(raw, META), **_only(raw, "value", "globalDefault")}


def blade(raw: Raw) -> Raw:
    """Keep the pool, state, verdict and lemon score of a Blade."""
    status = raw.get("status") or {}
    kept = _only(status, "state", "reason")
    if verdict := _only(status.get("verdict"), "severity"):
        kept["verdict"] = verdict
    if history := _only(status.get("history"), "lemonScore"):
        kept["history"] = history
    return _object(raw, META, spec=_only(raw.get("spec"), "pool"), status=kept)


def node(raw: Raw) -> Raw:
    """Keep the labels, taints, capacity and readiness of a Node."""
    status = raw.get("status") or {}
    kept = _only(status, "allocatable")
    if ready := _conditions(status, "Ready"):
        kept["conditions"] = ready
    spec = _only(raw.get("spec"), "taints", "unschedulable")
    return _object(raw, (*META, "labels"), spec=spec, status=kept)


def gang(raw: Raw) -> Raw:
    """Keep all that a Gang asks for and what its status says."""
    return _object(raw, IDENTITY, spec=raw.get("spec") or {}, status=raw.get("status") or {})


def pod(raw: Raw) -> Raw:
    """Keep the node, gang, seat and requests of a Pod; more of one that we are to bind."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    foreign = is_foreign(raw)
    kept_meta = _only(meta, *(IDENTITY if foreign else META))
    named = {k: v for k, v in (meta.get("labels") or {}).items() if _tells(k, OWN_LABELS, foreign)}
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if _tells(k, NOTES, foreign)}
    kept_meta |= {"labels": named} if named else {}
    kept_meta |= {"annotations": notes} if notes and foreign else {}
    kept = _only(spec, "nodeName", "overhead", *(FOREIGN if foreign else ()))
    for kind in ("initContainers", "containers"):
        asking = [_container(one) for one in spec.get(kind) or ()]
        if any(asking):
            kept[kind] = asking
    if requests := _requests(spec):
        kept["resources"] = requests
    if foreign and spec.get("resourceClaims"):
        kept["resourceClaims"] = [_only(claim, "name") for claim in spec["resourceClaims"]]
    told = _only(status, "phase")
    if foreign and (scheduled := _conditions(status, "PodScheduled")):
        told["conditions"] = scheduled
    return _object({"metadata": kept_meta}, tuple(kept_meta), spec=kept, status=told)


PRUNE: Final[Mapping[str, Callable[[Raw], Raw]]] = {
    "nodepools": pool,
    "priorityclasses": priority_class,
    "blades": blade,
    "nodes": node,
    "gangs": gang,
    "pods": pod,
}


def _object(raw: Raw, meta: tuple[str, ...], **parts: Raw) -> dict[str, Any]:
    """Return an object of these parts; empty ones are left out."""
    kept = {"metadata": _only(raw["metadata"], *meta)}
    return kept | {name: dict(part) for name, part in parts.items() if part}


def _only(raw: Raw | None, *keys: str) -> dict[str, Any]:
    return {key: raw[key] for key in keys if raw and raw.get(key) is not None}


def _conditions(status: Raw, type_: str) -> list[Raw]:
    kept = ("type", "status", "reason", "message", "lastTransitionTime")
    found = (c for c in status.get("conditions") or () if c.get("type") == type_)
    return [_only(c, *(kept if type_ == "PodScheduled" else kept[:2])) for c in found]


def _tells(key: str, own: frozenset[str], foreign: bool) -> bool:
    return key in own or (foreign and key.startswith(GROUPS))


def _container(raw: Raw) -> dict[str, Any]:
    kept = _only(raw, "restartPolicy")
    if requests := _requests(raw):
        kept["resources"] = requests
    return kept


def _requests(raw: Raw) -> dict[str, Any]:
    return _only(raw.get("resources"), "requests")
