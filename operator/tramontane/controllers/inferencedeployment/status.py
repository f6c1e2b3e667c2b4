"""Put a deployment's status together: it is what people read, and what the planner remembers.

| seen, the first that holds | phase |
|---|---|
| no replica is wanted, and none is there | ScaledToZero |
| nothing serves, and nothing can: refused without a revision before it, or all gave up | Failed |
| nothing serves, no revision has a layout yet | Planning |
| nothing serves, no Gang has a place | Waiting |
| nothing serves, nothing has failed | Loading |
| one revision replaces another, and at most one replica is missing | RollingOut |
| the spec's revision was rejected, and at most one replica is missing | RolledBack |
| fewer serve than are wanted, or one keeps failing | Degraded |
| anything else | Serving |
"""

from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.conditions import set_conditions
from tramontane.api.inferencestatus import (
    MAX_DECISIONS,
    MAX_REVISIONS,
    AdapterStatus,
    Decision,
    InferenceDeploymentStatus,
    InferencePhase,
    PlanStatus,
    Revision,
    RevisionVerdict,
    RolloutStatus,
)
from tramontane.api.reasons import InferenceReason, PendingReason
from tramontane.controllers.inferencedeployment.case import Case
from tramontane.controllers.inferencedeployment.conditions import Holds, conditions, slo_met
from tramontane.controllers.inferencedeployment.ends import problem_of
from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.recovery import Known, is_hopeless
from tramontane.controllers.inferencedeployment.replicas import Replica, State

_LINE = 1024
_TEXT = 32768
_PORT = 8000
# What keeps a gang waiting that more, or other, blades would end.
_NO_CAPACITY = frozenset(
    {
        PendingReason.WAITING_FOR_CAPACITY,
        PendingReason.TOPOLOGY_PLACEMENT_FAILED,
        PendingReason.WAITING_FOR_SPARE,
        PendingReason.RESERVED_FOR_OTHER,
        PendingReason.WAITING_FOR_PREEMPTED,
    }
)


_CALM = frozenset({InferencePhase.SERVING, InferencePhase.SCALED_TO_ZERO})


@dataclass(frozen=True, slots=True)
class Findings:
    """Hold what the planner found out and decided, besides the replicas themselves.

    Attributes:
        hash: the revision of the present spec; None where its weights do not exist.
        served: the revision to go for; None where there is none.
        wanted: replicas that the load calls for.
        revisions, rollout: as they are to be remembered.
        known: what is known of the weights, by revision.
        plan: how a replica is laid out.
    """

    hash: str | None
    served: str | None
    refusal: Refusal | None
    wanted: int
    revisions: tuple[Revision, ...]
    rollout: RolloutStatus | None
    known: dict[str, Known]
    plan: PlanStatus | None
    adapters: tuple[AdapterStatus, ...] = ()


def follow(case: Case, found: Findings) -> InferenceDeploymentStatus:
    """Return the status that follows the deployment's present one."""
    deployment, now = case.world.deployment, case.now
    old, meta = deployment.status, deployment.metadata
    live = case.live
    serving = sum(one.state is State.SERVING for one in live)
    phase = _phase(case, found, serving)
    reason, message = _reason(case, found, phase, serving)
    holds = _holds(case, found, phase, (reason, message))
    decided = tuple(
        Decision(at=clock.utc(now), what=what[:_LINE], why=why[:_LINE] or None)
        for what, why in case.decisions
    )
    changed = old.replicas_wanted != found.wanted
    return old.model_copy(
        update={
            "observed_generation": meta.generation,
            "phase": phase,
            "reason": reason,
            "message": message[:_TEXT] or None,
            "ready": f"{serving}/{found.wanted}",
            "endpoint": f"http://{meta.name}.{meta.namespace}.svc:{_PORT}/v1",
            "plan": found.plan,
            "revisions": found.revisions[-MAX_REVISIONS:],
            "replicas": tuple(_entry(one).entry for one in case.replicas),
            "decisions": (*old.decisions, *decided)[-MAX_DECISIONS:],
            "rollout": found.rollout,
            "replicas_wanted": found.wanted,
            "scaled_at": clock.utc(now) if changed else old.scaled_at,
            "adapters": found.adapters,
            "conditions": set_conditions(
                old.conditions, conditions(holds, meta.generation), clock.utc(now)
            ),
        }
    )


def memory_of(status: InferenceDeploymentStatus) -> object:
    """Return the part of the status that decisions are made from: it is written before they act."""
    replicas = [one.model_dump(exclude={"ranks", "blades"}) for one in status.replicas]
    revisions = [one.model_dump(exclude={"ready"}) for one in status.revisions]
    return replicas, revisions, status.rollout, status.replicas_wanted, status.scaled_at


def _entry(replica: Replica) -> Replica:
    seats = len(replica.seats)
    ranks = f"{replica.ready_ranks}/{seats}" if seats else None
    return replica.noted(ranks=ranks, blades=replica.seats)


def _phase(case: Case, found: Findings, serving: int) -> InferencePhase:
    live = case.live
    if not serving:
        return _unserved_phase(case, found)
    enough = serving >= max(1, found.wanted - 1)
    rejected = _verdict(found) is RevisionVerdict.REJECTED
    if found.rollout is not None and found.rollout.from_ and enough:
        return InferencePhase.ROLLING_OUT
    if rejected and enough:
        return InferencePhase.ROLLED_BACK
    if (
        serving < found.wanted
        or _is_hopeless(case)
        or any(one.state is State.FAILED for one in live)
    ):
        return InferencePhase.DEGRADED
    return InferencePhase.SERVING


def _is_hopeless(case: Case) -> bool:
    """Return whether a replica keeps failing; one that serves by now has not."""
    recovery = case.spec.recovery
    return any(
        is_hopeless(one.entry, recovery) and one.state is not State.SERVING for one in case.live
    )


def _unserved_phase(case: Case, found: Findings) -> InferencePhase:
    live = case.live
    if not live:
        if found.served is not None and not found.wanted:
            return InferencePhase.SCALED_TO_ZERO
        if found.refusal is not None and not _waits_for_source(found.refusal):
            return InferencePhase.FAILED
        return InferencePhase.PLANNING
    if all(one.state is State.FAILED for one in live):
        return InferencePhase.FAILED
    if any(one.entry.restarts for one in live):
        return InferencePhase.DEGRADED
    placed = any(one.placed for one in live)
    return InferencePhase.LOADING if placed else InferencePhase.WAITING


def _waits_for_source(refusal: Refusal) -> bool:
    return refusal.reason == InferenceReason.SOURCE_MISSING


def _verdict(found: Findings) -> RevisionVerdict | None:
    return next((one.verdict for one in found.revisions if one.hash == found.hash), None)


def _reason(
    case: Case, found: Findings, phase: InferencePhase, serving: int
) -> tuple[PendingReason | InferenceReason | None, str]:
    """Return why it is not as it should be, worst first, with a message for people."""
    if found.refusal is not None:
        return reason_of(found.refusal.reason), found.refusal.message
    if case.world.refusal is not None:
        return InferenceReason.MISCONFIGURED, case.world.refusal
    given_up = next((one for one in case.live if one.state is State.FAILED), None)
    if given_up is not None:
        return given_up.entry.reason, f"replica {given_up.name}: {given_up.entry.why}"
    if phase is InferencePhase.ROLLED_BACK:
        why = next((one.why for one in found.revisions if one.hash == found.hash), None) or ""
        return rejected_for(why), f"revision {found.hash} was rejected: {why}"
    if serving >= found.wanted and phase in _CALM:
        return None, ""
    return _failing(case) or _waiting(case) or (None, "")


def _failing(case: Case) -> tuple[InferenceReason | None, str] | None:
    for one in case.live:
        if (problem := problem_of(one)) is not None:
            return InferenceReason.MISCONFIGURED, problem
        if one.entry.restarts and one.state is not State.SERVING:
            spent = is_hopeless(one.entry, case.spec.recovery)
            reason = InferenceReason.ENGINE_FAILED if spent else one.entry.reason
            times = f"failed {one.entry.restarts} times, last because"
            return reason, f"replica {one.name} {times} {one.entry.why}"
    return None


def _waiting(case: Case) -> tuple[PendingReason | InferenceReason, str] | None:
    for one in case.live:
        told = one.gang.status if one.gang is not None and not one.placed else None
        if told is None or told.reason is None or one.state is not State.WAITING:
            continue
        reason = InferenceReason.NO_CAPACITY if told.reason in _NO_CAPACITY else told.reason
        pool = one.gang.spec.pool if one.gang is not None else ""
        since = clock.utc(clock.parse(one.entry.since)) if one.entry.since else "now"
        where = f"replica {one.name} waits for blades of pool {pool} since {since}"
        return reason, f"{where}: {told.message or told.reason}"
    return None


def rejected_for(why: str) -> InferenceReason:
    """Return the reason of a rejected revision, of which only its words are kept.

    One that could not start names its own (`plan._failed`); any other was judged by its metrics.
    """
    named = (one for one in InferenceReason if f" {one}: " in why)
    return next(named, InferenceReason.SLO_BREACHED)


def reason_of(text: str) -> PendingReason | InferenceReason:
    """Return the reason of the closed lists that a refusal names."""
    try:
        return InferenceReason(text)
    except ValueError:
        return PendingReason(text)


def _holds(
    case: Case,
    found: Findings,
    phase: InferencePhase,
    told: tuple[PendingReason | InferenceReason | None, str],
) -> Holds:
    live, (reason, message) = case.live, told
    serving = sum(one.state is State.SERVING for one in live)
    waiting = _waiting(case)
    unplaced = [one for one in live if not one.placed and one.state is not State.FAILED]
    loads = [one.load for one in live if one.state is State.SERVING and one.load is not None]
    met, late = slo_met(case.spec.slo, loads)
    refused = found.refusal
    moving = (
        found.rollout is not None
        or len(case.replicas) != len(live)
        or any(one.state is not State.SERVING for one in live)
        or serving != found.wanted
        or (refused is not None and _waits_for_source(refused))
    )
    stuck = phase in {InferencePhase.FAILED, InferencePhase.ROLLED_BACK}
    hopeless = _is_hopeless(case)
    refused_for_good = refused is not None and not _waits_for_source(refused)
    why_waits = str(waiting[0]) if waiting is not None else str(PendingReason.PENDING_EVALUATION)
    return Holds(
        phase=phase,
        reason=reason,
        message=message,
        refusal=refused,
        serving=serving,
        wanted=found.wanted,
        planned=False if refused is not None else found.plan is not None or None,
        verified=_is_verified(case, found),
        scheduled=not unplaced if live else None,
        waits=why_waits if unplaced else "",
        slo=met,
        slo_text=late,
        moving=moving,
        stalled=stuck or hopeless or refused_for_good or case.world.refusal is not None,
    )


def _is_verified(case: Case, found: Findings) -> bool | None:
    """Return whether the weights that serve, or are to serve, are those that they must be."""
    if case.world.trusted is False:
        return False
    mismatch = InferenceReason.ARTIFACT_MISMATCH
    if any(one.state is State.FAILED and one.entry.reason is mismatch for one in case.live):
        return False
    mine = next((one for one in found.revisions if one.hash == found.hash), None)
    if mine is not None and mine.verdict is RevisionVerdict.REJECTED:
        # Of itself only its words are left; the weights that serve are others.
        return mismatch not in (mine.why or "")
    fact = found.known.get(found.hash or "")
    return True if fact is not None and fact.verified else None
