"""Say what Gang a job wants: which pool, what each pod needs, what is lost, what to avoid."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tramontane.api.gang import (
    Cost,
    Gang,
    GangSpec,
    GangTopology,
    LostSeat,
    NodeTerm,
    Slice,
    Slot,
    Toleration,
    TopologyMode,
)
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import IncidentCause, JobIncident, TrainingJob, TrainingJobSpec
from tramontane.controllers.trainingjob.budgets import is_report
from tramontane.controllers.trainingjob.template import gpus_of, pod_requests

SLOT = "worker"
_MOST_AVOIDED = 1000
_BLADES_OWN = frozenset(
    {IncidentCause.BLADE_FAULT, IncidentCause.NODE_LOST, IncidentCause.STRAGGLER}
)


def pool_for(job: TrainingJob, gang: Gang | None, pools: Mapping[str, NodePool]) -> NodePool | None:
    """Return the job's pool, or None where there is no such, or none open to its namespace.

    A job that names none stays in the pool of its gang; else it gets the first by name whose
    blades have as many GPUs as it asks for.
    """
    if job.spec.node_pool is not None:
        named = pools.get(job.spec.node_pool)
        return named if named is not None and _is_open(named, job) else None
    if gang is not None and gang.spec.pool in pools:
        return pools[gang.spec.pool]
    asked = job.spec.gpus_per_node or gpus_of(job.spec.template) or 0
    return next(
        (
            pool
            for _, pool in sorted(pools.items())
            if _is_open(pool, job) and pool.spec.gpu.count >= asked
        ),
        None,
    )


def no_pool_message(job: TrainingJob, pools: Mapping[str, NodePool]) -> str:
    """Say what `pool_for` looked for and what there is."""
    there = ", ".join(sorted(pools)) or "none"
    name = job.spec.node_pool
    if name is None:
        return (
            f"TrainingJob {job.key}: a NodePool must be open to namespace "
            f"{job.metadata.namespace} (got {there}); create one, or name one in spec.nodePool"
        )
    if name in pools:
        return (
            f"TrainingJob {job.key}: NodePool {name} must have a tenant with namespace "
            f"{job.metadata.namespace} (got none); add it, or choose another pool"
        )
    return (
        f'TrainingJob {job.key}: spec.nodePool must name a NodePool that exists (got "{name}"; '
        f"there are {there}); create it, or correct the name"
    )


def gpus_per_node(job: TrainingJob, pool: NodePool) -> int:
    """Return the GPUs of each pod: as the job says, else its template, else all of a blade's."""
    return job.spec.gpus_per_node or gpus_of(job.spec.template) or pool.spec.gpu.count


def gang_spec(
    job: TrainingJob,
    pool: NodePool,
    priority: int,
    lost: Iterable[tuple[int, str]] = (),
    *,
    active: bool = True,
    running: int | None = None,
    resize: int | None = None,
    cost: Cost | None = None,
) -> GangSpec:
    """Return the whole spec of the job's gang; what anybody else wrote there is put back.

    `running` is the size of a placement whose pods exist: their environment holds that size, so
    that a job that runs keeps it until it has been suspended and resumed. `resize` says that its
    pods are gone and it is ready for another size.
    """
    spec = job.spec
    sizes = spec.elastic.sizes if spec.elastic else ()
    keeps = running is not None and running not in {spec.nodes, *sizes}
    pod = spec.template["spec"]
    slot = Slot(
        name=SLOT,
        count=running if keeps and running is not None else spec.nodes,
        requests=pod_requests(spec.template, gpus_per_node(job, pool)),
        node_selector=pod.get("nodeSelector") or {},
        node_affinity=tuple(NodeTerm.model_validate(term) for term in node_terms(pod)),
        tolerations=tuple(Toleration.model_validate(one) for one in pod.get("tolerations") or ()),
    )
    return GangSpec(
        pool=pool.metadata.name,
        slots=(slot,),
        sizes=() if keeps else sizes,
        spares=spec.spares,
        topology=_topology(spec),
        priority=priority,
        preemptible=spec.preemptible,
        max_runtime=spec.max_runtime,
        grace=spec.checkpoint.grace,
        tenant=_tenant_of(pool, job),
        lost=tuple(LostSeat(seat=seat, blade=blade) for seat, blade in sorted(lost)),
        avoid=avoided(job),
        active=active,
        resize=resize,
        cost=cost,
    )


def _topology(spec: TrainingJobSpec) -> GangTopology:
    """Return what the job asks for; a replica group shares a domain where packing is required.

    Only there: slices are hard, and a preferred pack may hold groups larger than a domain.
    """
    groups, asked = spec.launcher.replica_groups, spec.topology
    each = spec.nodes // groups
    sizes = spec.elastic.sizes if spec.elastic else ()
    required = asked.mode is TopologyMode.REQUIRED and asked.pack and not asked.slice
    if groups == 1 or not required or any(size % each for size in sizes):
        return asked
    piece = Slice(size=each, level=asked.pack)
    return asked.model_copy(update={"pack": None, "slice": piece})


def node_terms(pod: Mapping[str, Any]) -> Sequence[Any]:
    """Return the terms of a pod's required node affinity."""
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return required.get("nodeSelectorTerms") or ()


def with_incidents(job: TrainingJob, incidents: tuple[JobIncident, ...]) -> TrainingJob:
    """Return the job as it is once its incidents have been written."""
    status = job.status.model_copy(update={"incidents": incidents})
    return job.model_copy(update={"status": status})


def avoided(job: TrainingJob) -> tuple[str, ...]:
    """Return the blades that broke this job `avoidAfter` times or more, sorted."""
    limit = job.spec.recovery.avoid_after
    if limit == 0:
        return ()
    times = Counter(
        incident.blade
        for incident in job.status.incidents
        if incident.blade is not None and incident.cause in _BLADES_OWN and not is_report(incident)
    )
    return tuple(sorted(blade for blade, count in times.items() if count >= limit))[:_MOST_AVOIDED]


def _is_open(pool: NodePool, job: TrainingJob) -> bool:
    return not pool.spec.tenants or _tenant_of(pool, job) is not None


def _tenant_of(pool: NodePool, job: TrainingJob) -> str | None:
    namespace = job.metadata.namespace
    return next((one.name for one in pool.spec.tenants if namespace in one.namespaces), None)
