"""Put a pod onto its blade."""

from collections.abc import Mapping
from typing import Any

Raw = dict[str, Any]


def on_blade(spec: Mapping[str, Any], blade: str) -> Raw:
    """Return the fields of a pod's spec that put it onto the blade.

    With a node name, pods that have devices or volumes of their own would wait for ever for what
    the default scheduler allocates on binding; they get an affinity that leaves it one choice.
    """
    return {"affinity": _only_on(blade)} if needs_scheduler(spec) else {"nodeName": blade}


def needs_scheduler(spec: Mapping[str, Any]) -> bool:
    """Return whether only the default scheduler can start the pod. O(volumes)."""
    volumes = spec.get("volumes") or ()
    return bool(spec.get("resourceClaims")) or any("ephemeral" in volume for volume in volumes)


def _only_on(blade: str) -> Raw:
    term = {"key": "metadata.name", "operator": "In", "values": [blade]}
    terms = {"nodeSelectorTerms": [{"matchFields": [term]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
