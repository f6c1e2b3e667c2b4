"""Read what `tramontane doctor` judges: each thing by itself, so that a missing right hides one.

Rights are asked for by SubjectAccessReview in the components' names; who may not ask learns that.
"""

import asyncio
import importlib.metadata
import json
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar

from tramontane.api.names import GPU_RESOURCE, GROUP
from tramontane.cli.doctorchecks import COMPONENT, MONITORING_GROUP, POD_SECURITY
from tramontane.cli.doctorfacts import Access, Facts, Raw, Unreadable
from tramontane.kube.client import ApiError, Client
from tramontane.kube.metrics import CLOCK_SKEW
from tramontane.kube.resources import (
    BLADES,
    CRDS,
    DEPLOYMENTS,
    LEASES,
    NAMESPACES,
    NODEPOOLS,
    NODES,
    Resource,
)

T = TypeVar("T")

_OURS: Final = "app.kubernetes.io/part-of=tramontane"
_DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=True)
_POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)
_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
_MONITORS = tuple(
    Resource(MONITORING_GROUP, "v1", kind.lower() + "s", kind, namespaced=True)
    for kind in ("PodMonitor", "ServiceMonitor")
)

# What each component cannot work without, and what none of them may have.
ACCESS: Final = (
    Access("operator", "patch", "", "nodes"),
    Access("operator", "create", "", "pods"),
    Access("operator", "patch", GROUP, "blades", "status"),
    Access("operator", "create", GROUP, "gangs"),
    Access("operator", "list", "", "secrets", wanted=False),
    Access("scheduler", "patch", GROUP, "gangs", "status"),
    Access("scheduler", "create", "", "pods", "binding"),
    Access("scheduler", "list", "", "nodes"),
    Access("scheduler", "delete", "", "pods", wanted=False),
    Access("agent", "patch", GROUP, "blades", "status"),
    Access("agent", "get", "", "secrets", wanted=False),
    Access("agent", "patch", "", "nodes", wanted=False),
)


async def look(client: Client, namespace: str) -> Facts:
    """Return what could be read; raises Unreachable where nobody answers."""
    version = await _or_why(_json(client, "/version"))
    groups, crds, workloads, leases, policies, pod_security = await asyncio.gather(
        _or_why(_groups(client)),
        _or_why(_by_name(client, CRDS)),
        _or_why(_workloads(client, namespace)),
        _or_why(_by_name(client, LEASES, namespace)),
        _or_why(_by_name(client, _POLICY_BINDINGS, selector=_OURS)),
        _or_why(_pod_security(client, namespace)),
    )
    pools, blades, nodes = await asyncio.gather(
        _or_why(client.list_all(NODEPOOLS)),
        _or_why(client.list_kept(BLADES, _blade)),
        _or_why(client.list_kept(NODES, _node)),
    )
    watched = not isinstance(groups, Unreadable) and MONITORING_GROUP in groups
    return Facts(
        now=time.time(),
        namespace=namespace,
        client_version=importlib.metadata.version("tramontane"),
        skew_s=_skew_s(),
        server_version=version,
        groups=groups,
        crds=crds,
        leases=leases,
        workloads=workloads,
        policies=policies if isinstance(policies, Unreadable) else sorted(policies),
        pod_security=pod_security,
        monitors=await _or_why(_monitors(client, namespace)) if watched else (),
        access=await _or_why(_access(client, namespace, workloads)),
        pools=pools,
        blades=blades,
        nodes=nodes,
    )


def _skew_s() -> float | None:
    """Return what the answers so far say of our clock; None where they do not tell."""
    samples = next(CLOCK_SKEW.collect()).samples
    return samples[0].value if samples else None


async def _or_why(reading: Awaitable[T]) -> T | Unreadable:
    """Return what was read, or why the API server would not tell."""
    try:
        return await reading
    except ApiError as error:
        return Unreadable(str(error))


async def _json(client: Client, path: str) -> Any:
    return json.loads(await client.get_raw(path))


async def _groups(client: Client) -> Sequence[str]:
    return [group["name"] for group in (await _json(client, "/apis"))["groups"]]


async def _by_name(
    client: Client, resource: Resource, namespace: str | None = None, selector: str | None = None
) -> Mapping[str, Raw]:
    found = await client.list_all(resource, namespace, label_selector=selector)
    return {raw["metadata"]["name"]: raw for raw in found}


# What is kept of each: a hall of 12,500 blades is 130 MB of Blades and Nodes.
def _blade(raw: Raw) -> Raw:
    return {"metadata": {"name": raw["metadata"]["name"]}, "spec": {"pool": raw["spec"]["pool"]}}


def _node(raw: Raw) -> Raw:
    meta, status = raw["metadata"], raw.get("status") or {}
    gpus = (status.get("allocatable") or {}).get(GPU_RESOURCE, 0)
    return {
        "metadata": {"name": meta["name"], "labels": meta.get("labels") or {}},
        "status": {"allocatable": {GPU_RESOURCE: gpus}},
    }


async def _workloads(client: Client, namespace: str) -> Mapping[str, Raw]:
    return {
        **await _by_name(client, DEPLOYMENTS, namespace, _OURS),
        **await _by_name(client, _DAEMONSETS, namespace, _OURS),
    }


async def _pod_security(client: Client, namespace: str) -> str:
    meta = (await client.get(NAMESPACES, namespace))["metadata"]
    return str((meta.get("labels") or {}).get(POD_SECURITY, ""))


async def _monitors(client: Client, namespace: str) -> Sequence[str]:
    return [
        f"{resource.kind} {name}"
        for resource in _MONITORS
        for name in await _by_name(client, resource, namespace, _OURS)
    ]


async def _access(
    client: Client, namespace: str, workloads: Mapping[str, Raw] | Unreadable
) -> Mapping[Access, bool]:
    """Ask for the rights of those components that run here as pods."""
    if isinstance(workloads, Unreadable):
        return {}
    accounts = {
        raw["metadata"].get("labels", {}).get(COMPONENT): account
        for raw in workloads.values()
        if (account := raw["spec"]["template"]["spec"].get("serviceAccountName"))
    }
    asked = [one for one in ACCESS if one.component in accounts]
    users = [f"system:serviceaccount:{namespace}:{accounts[one.component]}" for one in asked]
    answers = await asyncio.gather(*map(_may, [client] * len(asked), users, asked))
    return dict(zip(asked, answers, strict=True))


async def _may(client: Client, user: str, one: Access) -> bool:
    account = user.split(":")
    body = {
        "spec": {
            "user": user,
            "groups": [
                "system:authenticated",
                "system:serviceaccounts",
                f"system:serviceaccounts:{account[2]}",
            ],
            "resourceAttributes": {
                "verb": one.verb,
                "group": one.group,
                "resource": one.resource,
                "subresource": one.subresource,
            },
        }
    }
    answer = await client.create(_REVIEWS, body)
    return bool(answer["status"]["allowed"])
