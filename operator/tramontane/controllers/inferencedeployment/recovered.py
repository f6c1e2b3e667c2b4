"""Apply what recovery says of each replica: states and counts first, into the status."""

from collections.abc import Mapping
from dataclasses import replace

from tramontane.api import clock
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.inferencedeployment.case import Case, Successor
from tramontane.controllers.inferencedeployment.fates import Fate, fate_of
from tramontane.controllers.inferencedeployment.recovery import (
    MAX_AVOIDED,
    Do,
    Known,
    Outcome,
    has_served_long,
    is_spent,
    outcome_of,
    waits_s,
)
from tramontane.controllers.inferencedeployment.replicas import Replica, State

_BY_BLADE = frozenset({InferenceReason.BLADE_FAULT, InferenceReason.NODE_LOST})


def recovered(case: Case, known: Mapping[str, Known]) -> Case:
    """Return the case with every outcome applied; `known` says what is known of the weights.

    A replica that is to follow another one is not made here: whether there is to be one, and
    whether it may come now, is for `converge` to say.
    """
    written = {entry.name: entry for entry in case.world.deployment.status.replicas}
    for replica in case.replicas:
        # As it was before it died: a replica that dies has served, if it has, until now.
        before = written.get(replica.name, replica.entry)
        if has_served_long(before, case.spec.recovery, case.now):
            case = case.put(replica.noted(restarts=0, moves=0))
    for replica in case.replicas:
        case = case.put(_rested(case, replica))
    for replica in case.replicas:
        outcome = outcome_of(case.world, replica, known.get(replica.revision, Known()))
        if outcome is not None:
            case = replace(case, outcomes={**case.outcomes, replica.name: outcome})
            case = _applied(case, replica, outcome)
    return case


def _rested(case: Case, replica: Replica) -> Replica:
    """Return the replica with its back-off over, or what it avoided forgotten."""
    recovery, now = case.spec.recovery, case.now
    if replica.state is State.WAITING and replica.entry.reason in _BY_BLADE:
        # A blade that has been repaired meanwhile may be the only one there is.
        bad = (name for name in replica.entry.avoid if _is_bad(case, name))
        return replica.noted(avoid=tuple(bad))
    over = not replica.pods and waits_s(replica, recovery, now) <= 0
    if replica.state is State.STOPPING and over:
        return replica.become(State.STARTING if replica.placed else State.WAITING, now)
    return replica


def _is_bad(case: Case, blade: str) -> bool:
    return fate_of(case.world, blade).fate is not Fate.FINE


def _applied(case: Case, replica: Replica, outcome: Outcome) -> Case:
    name, why, now = replica.name, outcome.why, case.now
    said = Said("Warning", outcome.reason, f"{name}: {why}")
    match outcome.do:
        case Do.RESTART:
            failed = replica.become(
                State.STOPPING,
                now,
                restarts=replica.entry.restarts + 1,
                failed_at=clock.micro(now),
                reason=outcome.reason,
                why=why,
            )
            spent = is_spent(failed.entry, case.spec.recovery)
            what = f"restart {name}" + (", the last at once" if spent else "")
            return case.put(failed).decided(f"{what} ({failed.entry.restarts})", why, said)
        case Do.REPLACE:
            before = (
                replica.entry.avoid if outcome.reason is InferenceReason.ARTIFACT_MISMATCH else ()
            )
            avoid = tuple(dict.fromkeys((*outcome.avoid, *before)))[:MAX_AVOIDED]
            successor = Successor(replica.revision, avoid, outcome, name)
            case = replace(case, successors=(*case.successors, successor))
            case = case.put(replica.noted(reason=outcome.reason))
            changed = case.named(name)
            assert changed is not None
            case = case.leave(changed, why, at_once=True)
            return replace(case, events=(*case.events, said))
        case Do.LEAVE:
            changed = replica.noted(reason=outcome.reason)
            case = case.put(changed).leave(changed, why)
            return replace(case, events=(*case.events, said))
        case Do.FAIL:
            failed = replica.become(
                State.FAILED,
                now,
                failed_at=clock.micro(now),
                reason=outcome.reason,
                why=why,
                avoid=tuple(dict.fromkeys((*outcome.avoid, *replica.entry.avoid)))[:MAX_AVOIDED],
            )
            return case.put(failed).decided(f"give {name} up", why, said)
        case Do.FOLLOW:
            return case
