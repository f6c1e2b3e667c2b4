"""Say whether the revision that is asked for can be served, and make what is stored of it.

What is refused starts nothing: what serves goes on serving, and the refusal says why.
"""

from dataclasses import dataclass

from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.inferencestatus import PlanStatus
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import InferenceReason, PendingReason
from tramontane.controllers.inferencedeployment.engines.catalogue import engine_of
from tramontane.controllers.inferencedeployment.engines.extraargs import check
from tramontane.controllers.inferencedeployment.layout import Refusal, Sizing
from tramontane.controllers.inferencedeployment.pods import PodStamp
from tramontane.controllers.inferencedeployment.revisions import job_is_missing
from tramontane.controllers.inferencedeployment.sizing.ask import ask_of
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout, too_slow
from tramontane.controllers.inferencedeployment.world import Revision, World


@dataclass(frozen=True, slots=True)
class Planned:
    """Hold a revision that can be served, and how it is laid out, for people."""

    revision: Revision
    status: PlanStatus


def always(world: World, pool: NodePool | None) -> Refusal | None:
    """Return what is wrong whatever has been stored: what may change at any time."""
    spec = world.deployment.spec
    if world.priority is None:
        return _misconfigured(
            world,
            "spec.priorityClassName must name a PriorityClass that exists (got "
            f'"{spec.priority_class_name}"); create it, or correct the name',
        )
    least, most = spec.capacity.min_replicas, spec.capacity.max_replicas
    if most is not None and least > most:
        return _misconfigured(world, f"minReplicas must not exceed maxReplicas ({least} > {most})")
    if world.trusted is False:
        why = world.distrust or "its signature was not made with a trusted key"
        return _refused(
            world, InferenceReason.ARTIFACT_MISMATCH, f"model.verify must hold (got: {why})"
        )
    return _no_pool(world) if pool is None else None


def planned(
    world: World, pool: NodePool | None, hash_: str | None, given: Sizing | Refusal | None = None
) -> Planned | Refusal:
    """Return the revision of the present spec with its layout, or why there is none.

    `hash_` None says that the weights do not exist yet; `given` is how it is laid out, where that
    is not the pool's to say.
    """
    if hash_ is None:
        return _no_source(world)
    spec, job = world.deployment.spec, world.job
    engine = engine_of(spec.engine)
    if isinstance(engine, Refusal):
        return _named(world, engine)
    if (problem := check(engine, spec.engine.extra_args)) is not None:
        return _misconfigured(world, problem)
    sizing = sized(world, pool) if given is None else given
    if isinstance(sizing, Refusal):
        return _named(world, sizing)
    revision = Revision(
        hash=hash_,
        spec=spec,
        layout=sizing.layout,
        digest=spec.model.digest,
        weights_b=sizing.total_weights_b,
        job_uid=(job.metadata.uid or "") if job is not None else "",
        job_template=job.spec.template if job is not None else {},
    )
    if problem := PodStamp.of(world.deployment, revision).problem:
        return _misconfigured(world, problem)
    return Planned(revision, plan_status(sizing))


def sized(world: World, pool: NodePool | None) -> Sizing | Refusal:
    """Return how the present spec is laid out in the pool."""
    name = None if pool is None else pool.metadata.name
    blades = sum(blade.spec.pool == name for blade in world.blades.values())
    ask = ask_of(world.deployment.spec, pool, blades)
    return ask if isinstance(ask, Refusal) else plan_layout(ask)


def unkept(world: World, pool: NodePool | None, revision: Revision) -> Refusal | None:
    """Return why a stored revision, as it is laid out, can never keep the present SLO, or None."""
    spec = world.deployment.spec
    ask = ask_of(spec, pool, 1) if spec.slo is not None else None
    if ask is None or isinstance(ask, Refusal):
        return None
    found = too_slow(ask, revision.layout)
    return None if found is None else _named(world, found)


def plan_status(sizing: Sizing) -> PlanStatus:
    """Return a layout as the status shows it."""
    return PlanStatus(
        gpus_per_replica=sizing.layout.gpus,
        nodes_per_replica=sizing.layout.nodes,
        layout=str(sizing.layout),
        weights_per_gpu=str(sizing.weights_b),
        kv_tokens=sizing.kv_tokens,
        concurrent_requests=sizing.requests,
        fits=sizing.fits,
        why=sizing.why,
    )


def _no_source(world: World) -> Refusal:
    assert job_is_missing(world)
    source = world.deployment.spec.model.source.training_job
    assert source is not None
    got = f"phase {world.job.status.phase or 'unknown'}" if world.job is not None else "no such job"
    return _refused(
        world,
        InferenceReason.SOURCE_MISSING,
        f"TrainingJob {source.name} must be Complete (got {got}); it is served once it is",
    )


def _no_pool(world: World) -> Refusal:
    name, there = world.deployment.spec.node_pool, ", ".join(sorted(world.pools)) or "none"
    asked = f'must name one that exists and is open to its namespace (got "{name}"; there are '
    if name is None:
        asked = "may only be left out where a NodePool is open to the namespace (got "
    return _refused(world, PendingReason.NO_MATCHING_POOL, f"spec.nodePool {asked}{there})")


def _misconfigured(world: World, text: str) -> Refusal:
    return _refused(world, InferenceReason.MISCONFIGURED, text)


def _refused(world: World, reason: str, text: str) -> Refusal:
    return Refusal(reason, _with_name(world.deployment, text))


def _named(world: World, refusal: Refusal) -> Refusal:
    return Refusal(refusal.reason, _with_name(world.deployment, refusal.message), refusal.nearest)


def _with_name(deployment: InferenceDeployment, text: str) -> str:
    return f"{deployment.kind} {deployment.key}: {text}"
