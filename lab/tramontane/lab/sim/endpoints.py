"""Say what an endpoint takes of what it is sent: the main one, or the status; pure."""

from collections.abc import Mapping
from typing import Any

from tramontane.kube.errors import Conflict, Invalid
from tramontane.lab.sim.kinds import Kind

Raw = dict[str, Any]

# What the server says of an object, whatever a writer sends.
_KEPT = (
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
)


def with_requests(spec: Raw) -> Raw:
    """Return a pod's spec with what its containers may use requested, as the server defaults it."""
    containers = spec.get("containers")
    if not containers or not any((one.get("resources") or {}).get("limits") for one in containers):
        return spec
    return {**spec, "containers": [_requesting(one) for one in containers]}


def _requesting(container: Raw) -> Raw:
    resources = container.get("resources") or {}
    if not (limits := resources.get("limits")):
        return container
    requests = {**limits, **(resources.get("requests") or {})}
    return {**container, "resources": {**resources, "requests": requests}}


def check(kind: Kind, raw: Raw, meta: Mapping[str, Any], subresource: str | None) -> None:
    """Refuse a patch or an apply that means another object, or an older one.

    A uid is a field like others there, that cannot be changed; the status endpoint of our kinds
    takes nothing but the status, so that a uid in its body says nothing.
    """
    mine = raw["metadata"]
    ignored = subresource == "status" and kind.counts
    if (uid := meta.get("uid")) and uid != mine["uid"] and not ignored:
        raise Invalid(422, "Invalid", f'metadata.uid: Invalid value: "{uid}": field is immutable')
    if (version := meta.get("resourceVersion")) and version != mine["resourceVersion"]:
        text = "the object has been modified; please apply your changes to the latest version"
        raise Conflict(409, "Conflict", text)


def of_endpoint(body: Raw, kind: Kind, subresource: str | None) -> Raw:
    """Return what of an applied body its endpoint takes: the status, or all else."""
    if not kind.has_status:
        return body
    if subresource == "status":
        names = ("name", "namespace", "uid", "resourceVersion")
        meta = {name: body["metadata"][name] for name in names if name in body["metadata"]}
        status = {"status": body["status"]} if "status" in body else {}
        return {"metadata": meta, **status}
    return {name: value for name, value in body.items() if name != "status"}


def only(old: Raw, new: Raw, kind: Kind, subresource: str | None) -> Raw:
    """Return the object with what the endpoint may change; what the server owns stays."""
    if "metadata" not in new or new["metadata"].get("name") != old["metadata"]["name"]:
        raise Invalid(422, "Invalid", "metadata.name: field is immutable")
    if subresource == "status" and kind.has_status:
        result = {k: v for k, v in old.items() if k != "status"}
        if "status" in new:
            result["status"] = new["status"]
        return result
    result = dict(new)
    if kind.has_status:
        result.pop("status", None)
        if "status" in old:
            result["status"] = old["status"]
    meta = {k: v for k, v in result["metadata"].items() if k not in _KEPT}
    meta |= {k: old["metadata"][k] for k in _KEPT if k in old["metadata"]}
    # Empty maps and lists of metadata are not stored.
    for name in ("labels", "annotations", "ownerReferences", "finalizers"):
        if name in meta and not meta[name]:
            del meta[name]
    meta["resourceVersion"] = old["metadata"]["resourceVersion"]
    result["metadata"] = meta
    if kind.has_spec:
        # Go leaves out of the core kinds what is empty.
        spec = {k: v for k, v in (result.get("spec") or {}).items() if v not in ([], {})}
        result["spec"] = spec
    return result
