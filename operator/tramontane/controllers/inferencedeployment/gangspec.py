"""Say what Gang a replica wants: which pool, what each rank needs, what to avoid."""

from collections.abc import Mapping
from typing import Any, Final

from tramontane.api.gang import GangSpec, GangTopology, NodeTerm, Slot, Toleration
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.api.nodepool import NodePool
from tramontane.controllers.inferencedeployment.world import Revision
from tramontane.controllers.trainingjob.gangs import node_terms
from tramontane.controllers.trainingjob.template import pod_requests

SLOT: Final = "rank"


def pool_for(
    deployment: InferenceDeployment, pools: Mapping[str, NodePool], present: str | None = None
) -> NodePool | None:
    """Return the deployment's pool, or None where there is no such, or none open to its namespace.

    One that names none stays in the pool of its Gangs (`present`); else it gets the first by name.
    """
    namespace = deployment.metadata.namespace
    if (name := deployment.spec.node_pool or present) is not None:
        named = pools.get(name)
        return named if named is not None and _is_open(named, namespace) else None
    return next((pool for _, pool in sorted(pools.items()) if _is_open(pool, namespace)), None)


def gang_spec(
    deployment: InferenceDeployment,
    revision: Revision,
    pool: NodePool,
    priority: int,
    entry: ReplicaStatus,
    *,
    preemptible: bool,
    active: bool = True,
) -> GangSpec:
    """Return the whole spec of a replica's Gang; what anybody else wrote there is put back."""
    template = _template(revision)
    pod, layout = template["spec"], revision.layout
    slot = Slot(
        name=SLOT,
        count=layout.nodes,
        requests=pod_requests(template, layout.gpus_per_node),
        node_selector=pod.get("nodeSelector") or {},
        node_affinity=tuple(NodeTerm.model_validate(term) for term in node_terms(pod)),
        tolerations=tuple(Toleration.model_validate(one) for one in pod.get("tolerations") or ()),
    )
    return GangSpec(
        pool=pool.metadata.name,
        slots=(slot,),
        topology=_topology(revision, pool),
        priority=priority,
        preemptible=preemptible,
        grace=deployment.spec.rollout.drain_timeout,
        tenant=_tenant_of(pool, deployment.metadata.namespace),
        avoid=entry.avoid,
        active=active,
    )


def _topology(revision: Revision, pool: NodePool) -> GangTopology:
    """Return how near the ranks must be: as the spec says, else as near as there is room.

    The scheduler looks for one domain from the narrowest level upwards, and where none holds the
    whole gang it takes the fewest domains of each level. That is all that a preferred packing
    asks for; at the narrowest level it also says so to whoever reads the Gang.
    """
    asked = revision.spec.topology
    if asked is not None:
        return asked
    levels = pool.spec.topology.levels
    if revision.layout.nodes == 1 or not levels:
        return GangTopology()
    return GangTopology(pack=levels[-1].name)


def _template(revision: Revision) -> dict[str, Any]:
    """Return the overrides as a template that can be read: they may lack a spec or containers."""
    given = revision.spec.template or {}
    pod = given.get("spec") or {}
    return {"spec": {**pod, "containers": pod.get("containers") or []}}


def _is_open(pool: NodePool, namespace: str | None) -> bool:
    return not pool.spec.tenants or _tenant_of(pool, namespace) is not None


def _tenant_of(pool: NodePool, namespace: str | None) -> str | None:
    return next((one.name for one in pool.spec.tenants if namespace in one.namespaces), None)
