"""Make what stands beside the pods of a deployment, as plain dicts, all owned by it.

| object | name | what for |
|---|---|---|
| Service | the deployment's | the pods that get requests |
| ConfigMap | `<name>-tramontane` | the agent's files |
| NetworkPolicy | the deployment's | who may talk to whom |
| ControllerRevision | `<name>-<hash>` | what a revision's pods are made from |
| EndpointSlice | `<name>-activator` | who answers while no replica does |
| Service, HTTPRoute | `<name>-<hash>`, the deployment's | weights, where a mesh reads routes |
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from tramontane.api.gang import GangSpec
from tramontane.api.inferencedeployment import (
    Egress,
    InferenceDeployment,
    InferenceDeploymentSpec,
)
from tramontane.api.names import (
    API_VERSION,
    IN_ROTATION,
    LABEL_INFERENCE,
    LABEL_REVISION,
    LABEL_ROTATION,
    LABEL_SEAT,
)
from tramontane.controllers.gangpods.writer import owner_of
from tramontane.controllers.inferencedeployment.overrides import address_of, stores
from tramontane.controllers.trainingjob.render import AGENT_FILE, agent_source

Raw = dict[str, Any]

API_PORT: Final = 8000
AGENT_PORT: Final = 8901
_PORT_NAME: Final = "api"
_PODFILES: Final = "tramontane.controllers.inferencedeployment.podfiles"
_DNS: Final = tuple({"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP"))


def metadata(deployment: InferenceDeployment, name: str, **labels: str) -> Raw:
    """Return the metadata of an object of the deployment."""
    return {
        "name": name,
        "namespace": deployment.metadata.namespace,
        "labels": {LABEL_INFERENCE: deployment.metadata.name, **labels},
        "ownerReferences": [owner_of(deployment)],
    }


def gang(deployment: InferenceDeployment, name: str, revision: str, spec: GangSpec) -> Raw:
    """Return the Gang of a replica, to be applied."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Gang",
        "metadata": metadata(deployment, name, **{LABEL_REVISION: revision}),
        "spec": spec.to_dict(),
    }


def service(deployment: InferenceDeployment, revision: str | None = None) -> Raw:
    """Return the Service of the pods in rotation, or of all of one revision that are ready.

    A mesh that gives a revision its part by weight must always find its pods; rotation gives the
    others theirs by taking a pod away for a time.
    """
    name = deployment.metadata.name
    of_revision = {LABEL_REVISION: revision} if revision else {}
    answers = {LABEL_SEAT: "0"} if revision else {LABEL_ROTATION: IN_ROTATION}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            deployment, revision_name(name, revision) if revision else name, **of_revision
        ),
        "spec": {
            "selector": {LABEL_INFERENCE: name, **answers, **of_revision},
            "ports": [
                {"name": _PORT_NAME, "port": API_PORT, "targetPort": API_PORT, "protocol": "TCP"}
            ],
        },
    }


def config_name(deployment: InferenceDeployment) -> str:
    """Return the name of the deployment's ConfigMap."""
    return f"{deployment.metadata.name}-tramontane"


def config_map(deployment: InferenceDeployment) -> Raw:
    """Return the ConfigMap with the files of the agent and of the init container."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(deployment, config_name(deployment)),
        "data": dict(_pod_files()),
    }


@cache
def _pod_files() -> Mapping[str, str]:
    found = {
        one.name: one.read_text("utf-8")
        for one in files(_PODFILES).iterdir()
        if one.name.endswith(".py") and not one.name.startswith("__")
    }
    return {AGENT_FILE: agent_source(), **found}


def revision_name(deployment: str, revision: str) -> str:
    """Return the name of what belongs to one revision."""
    return f"{deployment}-{revision}"


def controller_revision(
    deployment: InferenceDeployment, revision: str, number: int, data: Mapping[str, Any]
) -> Raw:
    """Return a stored revision; its data never changes."""
    name = revision_name(deployment.metadata.name, revision)
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(deployment, name, **{LABEL_REVISION: revision}),
        "data": dict(data),
        "revision": number,
    }


def network_policy(
    deployment: InferenceDeployment, former: Iterable[InferenceDeploymentSpec] = ()
) -> Raw:
    """Return who may talk to the pods, and to whom they may.

    `former` are the specs of stored revisions, whose pods may have other sources.

    | egress | reach |
    |---|---|
    | None | pods of the same deployment, no DNS |
    | DNSOnly | these, and port 53 |
    | Open | everything |

    A source in an object store is reached in each case, or nothing could be served: at its
    address, or, as a policy knows no names, by port 53 and its port anywhere. The API is for all
    of the cluster, the agent's port for the kubelet's probes from anywhere.
    """
    name = deployment.metadata.name
    selector = {"matchLabels": {LABEL_INFERENCE: name}}
    own: Raw = {"podSelector": selector}
    spec: Raw = {
        "podSelector": selector,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"namespaceSelector": {}}], "ports": [_tcp(API_PORT)]},
            {"ports": [_tcp(AGENT_PORT)]},
            {"from": [own]},
        ],
        "egress": [{"to": [own]}, *_outward(deployment.spec, former)],
    }
    if deployment.spec.egress is Egress.OPEN:
        spec["policyTypes"] = ["Ingress"]
        del spec["egress"]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployment, name),
        "spec": spec,
    }


def _outward(
    spec: InferenceDeploymentSpec, former: Iterable[InferenceDeploymentSpec]
) -> Iterator[Raw]:
    reached = (address_of(store) for one in (spec, *former) for store in stores(one))
    rules = [_to_store(*address) for address in reached if address is not None]
    named = any("to" not in rule for rule in rules)
    if spec.egress is Egress.DNS_ONLY or named:
        yield {"ports": list(_DNS)}
    for index, rule in enumerate(rules):
        if rule not in rules[:index]:
            yield rule


def _to_store(host: str, port: int) -> Raw:
    rule: Raw = {"ports": [_tcp(port)]}
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return rule
    return {"to": [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}], **rule}


def _tcp(port: int) -> Raw:
    return {"port": port, "protocol": "TCP"}


def activator_name(deployment: InferenceDeployment) -> str:
    """Return the name of the EndpointSlice that leads to the operator."""
    return f"{deployment.metadata.name}-activator"


def activator_slice(deployment: InferenceDeployment, address: str, port: int) -> Raw:
    """Return the EndpointSlice by which requests reach the operator while no replica serves."""
    version = ipaddress.ip_address(address).version
    labels = {
        "kubernetes.io/service-name": deployment.metadata.name,
        # Whose it is: what has another value, Kubernetes' own controller leaves alone.
        "endpointslice.kubernetes.io/managed-by": "tramontane.dev",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(deployment, activator_name(deployment), **labels),
        "addressType": f"IPv{version}",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": _PORT_NAME, "port": port, "protocol": "TCP"}],
    }


def http_route(deployment: InferenceDeployment, weights: Iterable[tuple[str, int]]) -> Raw:
    """Return the route by which a mesh splits the Service's requests among the revisions."""
    name = deployment.metadata.name
    backends = [
        {"name": revision_name(name, revision), "port": API_PORT, "weight": weight}
        for revision, weight in weights
    ]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(deployment, name),
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": name, "port": API_PORT}],
            "rules": [{"backendRefs": backends}],
        },
    }
