"""Say of each kind what the in-memory API must know: its schema, its status, its grace.

What of our own kinds is a list with keys stands in their CRDs, and is read from there: the same
files that the real API server is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import yaml

from tramontane.api.names import GROUP
from tramontane.kube.resources import NODES, PODS, SERVICES, Resource
from tramontane.lab.paths import crd_dir
from tramontane.lab.sim.owning import Schema, schema_of

_CONTAINER = "spec", "containers"
# Of the core kinds: what is merged by key there. Source: the `patchMergeKey` and
# `x-kubernetes-list-map-keys` of the Kubernetes API reference.
_CORE = MappingProxyType(
    {
        PODS: schema_of(
            keys={
                _CONTAINER: ("name",),
                (*_CONTAINER, "*", "env"): ("name",),
                ("status", "conditions"): ("type",),
            },
            whole={("spec", "nodeSelector")},
        ),
        NODES: schema_of(
            keys={("status", "conditions"): ("type",), ("status", "addresses"): ("type",)}
        ),
        SERVICES: schema_of(
            keys={("spec", "ports"): ("port", "protocol")}, whole={("spec", "selector")}
        ),
    }
)
# The same in C, where it was built: ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WITH_STATUS = frozenset({PODS, NODES, SERVICES})
# The status that the API server gives a new object, whatever its creator wrote there.
_FIRST_STATUS: Mapping[Resource, Mapping[str, str]] = {PODS: {"phase": "Pending"}}


@dataclass(frozen=True, slots=True)
class Kind:
    """What the store knows of one resource.

    Attributes:
        has_status: it has a status subresource, and other writes do not touch the status.
        counts: metadata.generation counts the changes of its spec.
        keeps_status: a status that is there at creation stays (of Nodes: a kubelet brings it).
        first_status: the status of a new object.
        has_grace: deletion is a request that somebody else carries out.
        has_spec: it always has a spec, which shows no empty lists and maps.
    """

    schema: Schema
    has_status: bool = False
    counts: bool = False
    keeps_status: bool = False
    first_status: Mapping[str, str] | None = None
    has_grace: bool = False
    has_spec: bool = False


@cache
def kind_of(resource: Resource) -> Kind:
    """Return what is known of a resource; a kind nobody told of is a plain one."""
    if resource.group == GROUP:
        schema = _crds().get(resource.plural, schema_of())
        return Kind(schema, has_status=True, counts=True)
    return Kind(
        _CORE.get(resource) or schema_of(),
        has_status=resource in _WITH_STATUS,
        keeps_status=resource == NODES,
        first_status=_FIRST_STATUS.get(resource),
        has_grace=resource == PODS,
        has_spec=resource in _WITH_STATUS,
    )


@cache
def _crds() -> Mapping[str, Schema]:
    found = {}
    for path in crd_dir().glob("*.yaml"):
        spec = yaml.load(path.read_text(), _LOADER)["spec"]  # noqa: S506 - a safe one
        version = next(one for one in spec["versions"] if one["storage"])
        found[spec["names"]["plural"]] = schema_of(version["schema"]["openAPIV3Schema"])
    return found
