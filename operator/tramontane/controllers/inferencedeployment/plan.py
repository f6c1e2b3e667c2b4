"""Decide what is to be done for a deployment: one pure function from a World to a Plan.

1. validate; what is refused leaves the revision that there is as it was
2. the revision that the spec asks for is stored before anything is made from it
3. observe the replicas
4. recover: what ended, whose blade is faulty, who must give way
5. scale: how many replicas the load calls for
6. roll: how many of each revision, and what part of the requests each gets
7. converge: who leaves, who comes
8. claims, pods, labels: what follows from the states
9. the status

Whatever happens to the operator, the next plan is made from what is there. Two rules make that
safe: a replica's state is in the status before anything is done about it (`record_first`), and
everything that is done follows from the states and from what there is (`acts`).
"""

from collections.abc import Mapping
from dataclasses import replace

from tramontane.api import clock
from tramontane.api.inferencestatus import (
    InferenceDeploymentStatus,
    RevisionVerdict,
)
from tramontane.api.inferencestatus import Revision as RevisionStatus
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.inferencedeployment import acts, adapters, provenance
from tramontane.controllers.inferencedeployment.actions import Plan
from tramontane.controllers.inferencedeployment.case import Case
from tramontane.controllers.inferencedeployment.converge import (
    WAITS_S,
    Aim,
    converge,
    waits_for_capacity,
)
from tramontane.controllers.inferencedeployment.ends import CANNOT_START_S, problem_of
from tramontane.controllers.inferencedeployment.fates import patience_s
from tramontane.controllers.inferencedeployment.gangspec import pool_for
from tramontane.controllers.inferencedeployment.moments import in_time
from tramontane.controllers.inferencedeployment.recovered import recovered
from tramontane.controllers.inferencedeployment.recovery import STUCK_S, waits_s
from tramontane.controllers.inferencedeployment.replicas import HEARD_OF_S, Replica, State, observe
from tramontane.controllers.inferencedeployment.rollout import Rolled, Standing, roll
from tramontane.controllers.inferencedeployment.rotation import in_rotation
from tramontane.controllers.inferencedeployment.scale import Scaled, scale
from tramontane.controllers.inferencedeployment.status import (
    Findings,
    follow,
    memory_of,
    reason_of,
)
from tramontane.controllers.inferencedeployment.wish import Wish, wish_of
from tramontane.controllers.inferencedeployment.world import World

# How soon to look again at what no event announces.
LATER_S = 30.0
_REFUSED_S = 10.0
_SOON_S = 0.05
# Failed starts after which a revision counts as one that cannot start.
_ENOUGH_FAILURES = 2
# Failures that say nothing of the revision.
_BY_OTHERS = frozenset(
    {InferenceReason.PREEMPTED, InferenceReason.NODE_LOST, InferenceReason.BLADE_FAULT}
)


def plan(world: World) -> Plan:
    """Return what is to be done now; see the module's list. O(replicas · ranks)."""
    old, world = world.deployment.status, in_time(world)
    if world.deployment.metadata.deletion_timestamp is not None:
        return Plan(old)  # owner references take the rest away

    # 1, 2. What is asked for.
    present = next((gang.spec.pool for gang in world.gangs.values()), None)
    pool = pool_for(world.deployment, world.pools, present)
    wish = wish_of(world, pool)

    # 3, 4. What there is, and what has happened to it.
    case = _without_gone(Case.of(world, pool, observe(world)))
    verified = provenance.found(case.replicas)
    known = provenance.known(world, verified)
    case = recovered(case, known)

    # 5, 6, 7. What there is to be.
    scaled = _scaled(case, wish)
    rolled = _rolled(case, wish, scaled.wanted)
    if wish.served is not None:
        case = converge(case, _aim(rolled, scaled.wanted))
    turn, turns_s = _turn(case, rolled.weights)

    # 8, 9. What follows.
    case = _with_decisions(case, wish, scaled, rolled)
    revisions = provenance.recorded(world, rolled.revisions, case.replicas, verified, known)
    findings = Findings(
        hash=wish.hash,
        served=wish.served,
        refusal=wish.refusal,
        wanted=scaled.wanted,
        revisions=revisions,
        rollout=rolled.rollout,
        known=known,
        plan=wish.plan or old.plan,
        adapters=adapters.statuses(world, case.replicas, verified),
    )
    status = follow(case, findings)
    return Plan(
        status,
        record_first=memory_of(status) != memory_of(old),
        store=wish.store,
        drop_revisions=_unneeded(case, wish, status),
        claims=acts.claims(case),
        drops=acts.drops(case),
        creates=acts.creates(case),
        deletes=acts.deletes(case),
        marks=acts.marks(case, turn, adapters.wanted(world)),
        events=case.events,
        after=_after(case, wish, [scaled.after, rolled.after, turns_s]),
    )


def _without_gone(case: Case) -> Case:
    """Return the case without replicas that are gone for good.

    Who waits for a place waits anew from here on: what has become free may be meant for them.
    """
    left = [one for one in case.replicas if not one.leaves or one.pods or one.gang is not None]
    if len(left) == len(case.by_name):
        return case
    since = clock.micro(case.now)
    waiting = [one.noted(since=since) for one in left if one.state is State.WAITING]
    return Case.of(case.world, case.pool, left).put(*waiting)


def _scaled(case: Case, wish: Wish) -> Scaled:
    old, spec, now = case.world.deployment.status, case.spec, case.now
    current = old.replicas_wanted
    serving = [one for one in case.live if one.state is State.SERVING]
    return scale(
        now,
        spec.capacity,
        spec.autoscaling,
        max(1, spec.capacity.min_replicas) if current is None else current,
        clock.parse(old.scaled_at) if old.scaled_at else None,
        [one.load for one in serving if one.load is not None],
        len(serving),
        any(waits_for_capacity(one, now) for one in case.live),
        case.world.demand_at,
        # No number of replicas makes up for one that no replica can keep.
        None if wish.unkept else spec.slo,
    )


def _rolled(case: Case, wish: Wish, wanted: int) -> Rolled:
    status = case.world.deployment.status
    if wish.served is None:
        return Rolled({}, {}, False, status.revisions, status.rollout)
    hashes = {one.revision for one in case.replicas} | {wish.served}
    standings = {hash_: _standing(case, hash_) for hash_ in sorted(hashes)}
    return roll(
        case.now,
        wish.served,
        wanted,
        case.spec.rollout,
        case.spec.slo,
        status.revisions,
        status.rollout,
        standings,
        case.world.watched_since,
    )


def _standing(case: Case, hash_: str) -> Standing:
    live = [one for one in case.live if one.revision == hash_]
    counted = case.counted(hash_)
    serving = [one for one in live if one.state is State.SERVING]
    return Standing(
        hash=hash_,
        live=len(counted),
        serving=min(len(counted), len(serving)),
        waiting_for_capacity=any(waits_for_capacity(one, case.now) for one in counted),
        failed=_failed(live, serving),
        load=tuple(one.load for one in serving if one.load is not None),
        leaving=sum(one.revision == hash_ and one.leaves for one in case.replicas),
    )


def _failed(live: list[Replica], serving: list[Replica]) -> str:
    """Return why replicas of a revision cannot start; empty where they can, or nobody knows."""
    for one in live:
        given_up = one.state is State.FAILED
        fails = one.entry.restarts >= _ENOUGH_FAILURES and one.entry.reason not in _BY_OTHERS
        if given_up or (fails and not serving):
            return f"{one.entry.reason or 'EngineFailed'}: {one.entry.why or one.state}"
    return ""


def _aim(rolled: Rolled, wanted: int) -> Aim:
    verdicts = {one.hash: one.verdict for one in rolled.revisions}
    accepted = [hash_ for hash_, verdict in verdicts.items() if verdict is RevisionVerdict.ACCEPTED]
    return Aim(
        wanted=wanted,
        targets=rolled.targets,
        serial=rolled.serial,
        rejected=frozenset(
            hash_ for hash_, verdict in verdicts.items() if verdict is RevisionVerdict.REJECTED
        ),
        stable=accepted[-1] if accepted else None,
    )


def _turn(case: Case, parts: Mapping[str, int]) -> tuple[frozenset[str], float | None]:
    serving: dict[str, list[str]] = {}
    for one in case.live:
        if one.state is State.SERVING:
            serving.setdefault(one.revision, []).append(one.name)
    return in_rotation(case.now, parts, serving)


def _with_decisions(case: Case, wish: Wish, scaled: Scaled, rolled: Rolled) -> Case:
    """Return the case with what was decided about the whole, and what people are told of it."""
    old = case.world.deployment.status
    if old.replicas_wanted is not None and old.replicas_wanted != scaled.wanted:
        case = case.decided(f"scale {old.replicas_wanted} to {scaled.wanted}", scaled.why)
    for what, why in rolled.decisions:
        case = case.decided(what, why, Said("Normal", "Rollout", f"{what}: {why}"))
    refusal = wish.refusal
    if refusal is not None and old.message != refusal.message:
        said = Said("Warning", str(reason_of(refusal.reason)), refusal.message)
        case = replace(case, events=(*case.events, said))
    return case


def _unneeded(case: Case, wish: Wish, status: InferenceDeploymentStatus) -> tuple[str, ...]:
    """Return the stored revisions that nothing is made from, and nothing goes back to."""
    needed = {one.revision for one in case.replicas} | {wish.hash, wish.served}
    if status.rollout is not None:
        needed |= {status.rollout.from_, status.rollout.to}
    accepted: list[RevisionStatus] = [
        one for one in status.revisions if one.verdict is RevisionVerdict.ACCEPTED
    ]
    needed |= {one.hash for one in accepted[-1:]}
    return tuple(sorted(case.world.revisions.keys() - needed))


def _after(case: Case, wish: Wish, given: list[float | None]) -> float:
    """Return when to look again although nothing changes."""
    waits = [LATER_S, *(one for one in given if one is not None)]
    if wish.store is not None:
        waits.append(_SOON_S)
    if case.world.refusal is not None:
        waits.append(_REFUSED_S)
    for one in case.replicas:
        waits.extend(_waits_of(case, one))
    return max(_SOON_S, min(wait_s for wait_s in waits if wait_s > 0))


def _waits_of(case: Case, replica: Replica) -> list[float]:
    waits = [
        left_s for blade in replica.blades if (left_s := patience_s(case.world, blade)) is not None
    ]
    if replica.state is State.STOPPING:
        waits.append(waits_s(replica, case.spec.recovery, case.now))
        waits.append(STUCK_S - replica.since_s(case.now))
    if (settles_s := acts.settles_s(case, replica)) is not None:
        waits.append(settles_s)
    if replica.state is State.SERVING:
        waits.append(HEARD_OF_S - replica.since_s(case.now))
    if replica.state is State.WAITING and replica.since_s(case.now) < WAITS_S:
        waits.append(WAITS_S - replica.since_s(case.now))
    if replica.pods and problem_of(replica) is not None:
        youngest = max(pod.created_at for pod in replica.pods)
        waits.append(youngest + CANNOT_START_S - case.now)
    return waits
