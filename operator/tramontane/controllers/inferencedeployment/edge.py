"""Plan the profile Edge: one pod on one node, as an apps/v1 Deployment, without a gang.

Kubernetes' own controllers keep it going, so that it serves on while the operator is away, and
restarts in place: there is no other node to go to. A new revision comes beside the old one where
twice its memory fits a node, else after it. It has one step, no canary, and no judge.

| the spec | the Deployment | phase |
|---|---|---|
| is refused | none | Failed; Waiting for a TrainingJob that is not Complete |
| is refused | serves | Serving what it served, with the reason |
| holds | is of this revision, and ready | Serving |
| holds | an older pod is ready | RollingOut |
| holds | none is ready | Loading; Degraded once Kubernetes has given up waiting |

A digest is enforced where the spec gives one; none is recorded here, because it would make another
pod template of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.conditions import set_conditions
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.inferencestatus import (
    InferenceDeploymentStatus,
    InferencePhase,
    RevisionVerdict,
)
from tramontane.api.inferencestatus import Revision as RevisionStatus
from tramontane.api.names import LABEL_INFERENCE, LABEL_REVISION
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import InferenceReason, PendingReason
from tramontane.controllers.inferencedeployment import checks, objects
from tramontane.controllers.inferencedeployment.checks import Planned
from tramontane.controllers.inferencedeployment.conditions import Holds, conditions
from tramontane.controllers.inferencedeployment.gangspec import pool_for
from tramontane.controllers.inferencedeployment.layout import Layout, Refusal, Sizing
from tramontane.controllers.inferencedeployment.overlay import overlaid
from tramontane.controllers.inferencedeployment.pods import PodStamp
from tramontane.controllers.inferencedeployment.revisions import wanted_hash
from tramontane.controllers.inferencedeployment.sizing.ask import Ask, ask_of
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout
from tramontane.controllers.inferencedeployment.world import World

Raw = dict[str, Any]

# Loading from a slow disk may take an hour; after that people should look.
_PROGRESS_S: Final = 3600
_LOOK_AGAIN_S: Final = 5.0
_LOOK_LATER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """Hold what is to be done: the Deployment to apply, or None; the status; when to look again."""

    status: InferenceDeploymentStatus
    body: Raw | None
    after: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold what Kubernetes says of the Deployment; `revision` is that of its newest pod."""

    there: bool = False
    revision: str = ""
    ready: bool = False
    updated: bool = False
    stuck: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any] | None) -> "Seen":
        """Return what is seen; None is no Deployment."""
        if raw is None:
            return cls()
        status, meta = raw.get("status") or {}, raw["metadata"]
        known = status.get("observedGeneration", 0) >= meta.get("generation", 0)
        late = (
            one.get("message") or str(one.get("reason"))
            for one in status.get("conditions") or ()
            if one["type"] == "Progressing" and one["status"] == "False"
        )
        return cls(
            there=True,
            revision=raw["spec"]["template"]["metadata"]["labels"].get(LABEL_REVISION, ""),
            ready=status.get("readyReplicas", 0) > 0,
            # An old pod beside it, or one that is not ready, and it is not over yet.
            updated=known
            and status.get("updatedReplicas", 0) == status.get("replicas", 0) == 1
            and not status.get("unavailableReplicas"),
            stuck=next(late, ""),
        )


def plan(world: World, raw: Mapping[str, Any] | None) -> EdgePlan:
    """Return what is to be done for a deployment with the profile Edge.

    `raw` is the Deployment, None where there is none; the world has neither gangs nor pods.
    """
    seen = Seen.of(raw if raw is not None and _is_ours(world, raw) else None)
    # A box at the edge needs no pool; one that is named says which nodes it may be.
    named = world.deployment.spec.node_pool is not None
    pool = pool_for(world.deployment, world.pools) if named else None
    planned, ask = _planned(world, pool)
    body = None
    if ask is not None and isinstance(planned, Planned):
        surge = _twice(world, pool, ask, planned.revision.layout)
        stamp = PodStamp.of(world.deployment, planned.revision, world.templates)
        body = deployment(world.deployment, stamp, pool, surge=surge)
    status = _status(world, seen, planned)
    settled = status.phase is InferencePhase.SERVING
    return EdgePlan(status, body, _LOOK_LATER_S if settled else _LOOK_AGAIN_S)


def _is_ours(world: World, raw: Mapping[str, Any]) -> bool:
    """Return whether a Deployment of our name is not somebody else's."""
    uid = world.deployment.metadata.uid
    return any(one.get("uid") == uid for one in raw["metadata"].get("ownerReferences") or ())


def deployment(
    owner: InferenceDeployment, stamp: PodStamp, pool: NodePool | None, *, surge: bool
) -> Raw:
    """Return the Deployment; `surge`: the new pod may run beside the old one."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    template = stamp.edge_template()
    if pool is not None:
        template = {**template, "spec": overlaid(_where(pool), template["spec"])}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": objects.metadata(owner, owner.metadata.name),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": _PROGRESS_S,
            "selector": {"matchLabels": {LABEL_INFERENCE: owner.metadata.name}},
            "strategy": rolling if surge else {"type": "Recreate"},
            "template": template,
        },
    }


def _where(pool: NodePool) -> Raw:
    """Return the fields of a pod's spec that keep it on the pool's nodes."""
    selector = pool.spec.node_selector.to_dict()
    where: Raw = {"nodeSelector": selector.get("matchLabels") or {}}
    if expressions := selector.get("matchExpressions"):
        terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        where["affinity"] = {"nodeAffinity": required}
    return where


def _planned(world: World, pool: NodePool | None) -> tuple[Planned | Refusal, Ask | None]:
    """Return the revision, laid out for the smallest node that it may get, and for what."""
    spec = world.deployment.spec
    refusal = checks.always(world, pool)
    needs_none = spec.node_pool is None
    if refusal is not None and not (
        needs_none and refusal.reason == PendingReason.NO_MATCHING_POOL
    ):
        return refusal, None
    ask = ask_of(spec, pool, 1, ram_b=_ram_b(world, pool) or None)
    sizing = ask if isinstance(ask, Refusal) else plan_layout(ask)
    planned = checks.planned(world, pool, wanted_hash(world), sizing)
    return planned, None if isinstance(ask, Refusal) else ask


def _ram_b(world: World, pool: NodePool | None) -> int:
    """Return the memory of the smallest node that the pod may get; 0 where there is none."""
    nodes = world.nodes
    if pool is None:
        return min((node.memory_b for node in nodes.values()), default=0)
    blades = (one for one in world.blades.values() if one.spec.pool == pool.metadata.name)
    return min((nodes[one.key].memory_b for one in blades if one.key in nodes), default=0)


def _twice(world: World, pool: NodePool | None, ask: Ask, layout: Layout) -> bool:
    """Return whether two pods fit a node side by side; what is not known does not."""
    if layout.gpus:
        return 2 * layout.gpus <= ask.gpus_per_blade
    ram_b = _ram_b(world, pool)
    if not ask.ram_b or ask.model is None:
        return False
    if ask.ram_b != ram_b:  # the template gives it so much
        return 2 * ask.ram_b <= ram_b
    return isinstance(plan_layout(replace(ask, ram_b=ram_b // 2)), Sizing)


def _status(world: World, seen: Seen, planned: Planned | Refusal) -> InferenceDeploymentStatus:
    """Return the whole status."""
    deployment, now = world.deployment, clock.utc(world.now)
    meta = deployment.metadata
    refusal = planned if isinstance(planned, Refusal) else None
    wanted = "" if isinstance(planned, Refusal) else planned.revision.hash
    phase = _phase(seen, refusal, wanted)
    reason, message = _reason(world, seen, refusal, phase)
    holds = Holds(
        phase=phase,
        reason=reason,
        message=message,
        refusal=refusal,
        serving=int(seen.ready),
        wanted=1,
        planned=refusal is None,
        verified=None if not seen.ready or deployment.spec.model.digest is None else True,
        scheduled=seen.ready or None,
        waits="",
        slo=None,
        slo_text="",
        moving=phase is not InferencePhase.SERVING,
        stalled=phase in {InferencePhase.FAILED, InferencePhase.DEGRADED},
    )
    return InferenceDeploymentStatus(
        observed_generation=meta.generation,
        phase=phase,
        reason=reason,
        message=message or None,
        ready=f"{int(seen.ready)}/1",
        endpoint=f"http://{meta.name}.{meta.namespace}.svc:{objects.API_PORT}/v1",
        plan=deployment.status.plan if isinstance(planned, Refusal) else planned.status,
        revisions=_revisions(seen),
        replicas_wanted=1,
        conditions=set_conditions(
            deployment.status.conditions, conditions(holds, meta.generation), now
        ),
    )


def _phase(seen: Seen, refusal: Refusal | None, wanted: str) -> InferencePhase:
    """Return the phase; see the module's table."""
    if not seen.there and refusal is not None:
        waits = refusal.reason == InferenceReason.SOURCE_MISSING
        return InferencePhase.WAITING if waits else InferencePhase.FAILED
    if seen.ready and (refusal is not None or (seen.updated and seen.revision == wanted)):
        return InferencePhase.SERVING
    if seen.ready:
        return InferencePhase.ROLLING_OUT
    return InferencePhase.DEGRADED if seen.stuck else InferencePhase.LOADING


def _reason(
    world: World, seen: Seen, refusal: Refusal | None, phase: InferencePhase
) -> tuple[InferenceReason | PendingReason | None, str]:
    if refusal is not None:
        every = (*InferenceReason, *PendingReason)
        return next(one for one in every if one == refusal.reason), refusal.message
    if world.refusal is not None:
        return InferenceReason.MISCONFIGURED, world.refusal
    if phase is InferencePhase.DEGRADED:
        return InferenceReason.ENGINE_FAILED, f"pod must become ready (got: {seen.stuck})"
    return None, ""


def _revisions(seen: Seen) -> tuple[RevisionStatus, ...]:
    """Return the Deployment's revision; the one before it is Kubernetes' to remember."""
    if not seen.revision:
        return ()
    new = seen.ready and seen.updated
    verdict = RevisionVerdict.ACCEPTED if new else RevisionVerdict.OBSERVING
    return (RevisionStatus(hash=seen.revision, weight=100, ready=int(new), verdict=verdict),)
