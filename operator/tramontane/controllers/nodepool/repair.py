"""Climb the repair ladder, one rung at a time: reset, reboot, and then it is a case for RMA.

Memory is Blade.status.repair: the rung (`action`), how often it was tried, since when a repair
runs, and the boot in which the fault was. The table, for a blade that nobody uses:

| rung      | what is                                            | what follows                   |
|-----------|----------------------------------------------------|--------------------------------|
| Replace   | the pool's breaker is open                         | Quarantined until it is closed |
|           | otherwise                                          | RMA                            |
| Inspect   | any                                                | Quarantined; a person must look|
| Drain, …  | any                                                | Quarantined until it clears    |
| Reset, Reboot | done, and the fault is gone                    | Repairing until it clears      |
|           | done a moment ago                                  | Repairing: the agent looks anew|
|           | a repair runs                                      | Repairing, its pod wanted      |
|           | the pool's breaker is open                         | Quarantined until it is closed |
|           | `attempts` repairs did not help                    | RMA, RepairFailed              |
|           | no pod for this rung                               | Repairing; a person must do it |
|           | otherwise                                          | Repairing, one more attempt    |

A rung that failed is followed by the next one where the pool has a pod for it; with `resetBy:
Reboot` a reboot is the first one. Only a reset that
succeeded, or another boot, proves a reset; only another boot proves a reboot: a fault that is
gone by itself is not repaired.

An open breaker means that it is not the blades: then no repair begins, and nobody is given up.
What runs ends. The same holds of a pool that only watches, but there the ladder is left (life.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tramontane.api import clock
from tramontane.api.blade import Action, BladeRepair, BladeState, Incident, Severity
from tramontane.api.names import Work
from tramontane.api.nodepool import ResetBy
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool.around import Around
from tramontane.controllers.nodepool.care import REPAIR_TIMEOUT_S, Care
from tramontane.controllers.nodepool.incidents import open_fault
from tramontane.controllers.nodepool.state import Decision
from tramontane.controllers.nodepool.works import Outcome, Want, name_of

# An agent starts, reads its GPUs and reports within this time after a repair.
_LOOK_ANEW_S = 30.0
_PODS = {Action.RESET: Work.RESET, Action.REBOOT: Work.REBOOT}
_RELEASE = 'tramontane release BLADE --reason "…"'


@dataclass(frozen=True, slots=True)
class Step:
    """Where the repair is."""

    decision: Decision
    repair: BladeRepair
    want: Want | None = None


def begin(decision: Decision, boot_id: str, now: float) -> BladeRepair:
    """Return the memory of a repair that has not begun."""
    return BladeRepair(action=decision.action, since=clock.utc(now), boot_id=boot_id or None)


def named(repair: BladeRepair, incidents: Iterable[Incident]) -> BladeRepair:
    """Return the repair with the fault it is for, as soon as the record has that."""
    fault = open_fault(tuple(incidents))
    if repair.code is not None or fault is None:
        return repair
    return repair.model_copy(update={"code": fault.code, "gpu": fault.gpu})


def is_proven(repair: BladeRepair, boot_id: str) -> bool:
    """Return whether the blade was repaired as its fault asked for."""
    if repair.action not in _PODS or not repair.boot_id:
        return repair.action is not Action.REPLACE
    if boot_id and boot_id != repair.boot_id:
        return True
    return repair.action is Action.RESET and repair.repaired_at is not None


def advance(around: Around, repair: BladeRepair, care: Care, decision: Decision) -> Step:
    """Return the next step of the module's table."""
    if repair.started_at is not None:
        repair = _look(around, repair)
        if repair.started_at is not None:
            return _running(around, repair, decision)
    worse = _STRENGTH[decision.action] > _STRENGTH[repair.action]
    if worse and not decision.clearing:
        repair = repair.model_copy(update={"action": decision.action})
    match repair.action:
        case Action.REPLACE if not around.breaker_open:
            return _give_up(repair, decision)
        case Action.REPLACE:
            return _halted(repair, decision)
        case Action.RESET | Action.REBOOT:
            return _climb(around, repair, care, decision)
        case Action.INSPECT:
            text = f"{decision.message}; a person must look, then: {_RELEASE}"
            return Step(_at(decision, BladeState.QUARANTINED, text), repair)
        case _:
            return Step(_at(decision, BladeState.QUARANTINED, decision.message), repair)


def end(around: Around, repair: BladeRepair, decision: Decision) -> Step | None:
    """Return the repair that runs and that none may follow; None when none runs any more."""
    if repair.started_at is None:
        return None
    repair = _look(around, repair)
    return _running(around, repair, decision) if repair.started_at is not None else None


_STRENGTH = {action: strength for strength, action in enumerate(Action)}


def _climb(around: Around, repair: BladeRepair, care: Care, decision: Decision) -> Step:
    """No repair runs: wait for what the last one brought, or begin the next."""
    proven = is_proven(repair, around.boot_id)
    if decision.clearing and proven:
        return Step(_at(decision, BladeState.REPAIRING, f"repaired; {decision.message}"), repair)
    if proven and repair.repaired_at is None:
        # Somebody rebooted it, or the fault has come back after a reboot: that was an attempt.
        now = clock.utc(around.now)
        repair = repair.model_copy(update={"repaired_at": now, "attempts": repair.attempts + 1})
    if repair.repaired_at is not None:
        wait_s = clock.parse(repair.repaired_at) + _LOOK_ANEW_S - around.now
        if wait_s > 0:
            text = f"repaired, the agent looks anew; {decision.message}"
            return Step(_at(decision, BladeState.REPAIRING, text, wait_s), repair)
    if around.breaker_open:
        return _halted(repair, decision)
    if repair.attempts >= care.attempts:
        return _give_up(repair, decision)
    repair = _next_rung(repair, care)
    if (care.reset if repair.action is Action.RESET else care.reboot) is None:
        word = repair.action.value.lower()
        text = (
            f"{decision.message}; waits for a person to {word} it: "
            f"NodePool spec.remediation.{word} gives no pod that does"
        )
        return Step(_at(decision, BladeState.REPAIRING, text), repair)
    repair = repair.model_copy(
        update={
            "attempts": repair.attempts + 1,
            "started_at": clock.utc(around.now),
            "repaired_at": None,
            "boot_id": around.boot_id or repair.boot_id,
        }
    )
    return _running(around, repair, decision)


def _next_rung(repair: BladeRepair, care: Care) -> BladeRepair:
    """Return the rung of the next attempt: a reboot where resets failed or are not to be had."""
    higher = (repair.attempts > 0 or care.reset is None) and care.reboot is not None
    if repair.action is Action.RESET and (higher or care.reset_by is ResetBy.REBOOT):
        return repair.model_copy(update={"action": Action.REBOOT})
    return repair


def _want(around: Around, repair: BladeRepair) -> Want:
    assert repair.started_at is not None
    kind = _PODS[repair.action]
    token = f"{repair.attempts}-{int(clock.parse(repair.started_at)):x}"
    return Want(kind, name_of(kind, around.name, token), repair.gpu)


def _look(around: Around, repair: BladeRepair) -> BladeRepair:
    """Return the repair after a look at its pod: as it was while it runs."""
    assert repair.started_at is not None
    now = clock.utc(around.now)
    done = {"started_at": None, "repaired_at": now}
    rebooted = bool(around.boot_id) and around.boot_id != repair.boot_id
    if rebooted:  # whoever did that, it resets the GPUs as well
        return repair.model_copy(update=done)
    pod = around.work(_want(around, repair))
    if pod is None:
        late = around.now - clock.parse(repair.started_at) > REPAIR_TIMEOUT_S
        return repair.model_copy(update={"started_at": None}) if late else repair
    match pod.outcome_at(around.now, REPAIR_TIMEOUT_S):
        case Outcome.RUNNING:
            return repair
        case Outcome.PASSED:
            if repair.action is Action.RESET:
                return repair.model_copy(update=done)
            late = around.now - pod.created_at > REPAIR_TIMEOUT_S
            return repair.model_copy(update={"started_at": None}) if late else repair
        case _:
            return repair.model_copy(update={"started_at": None})


def _running(around: Around, repair: BladeRepair, decision: Decision) -> Step:
    assert repair.started_at is not None
    text = f"{repair.action.value.lower()}, attempt {repair.attempts}; {decision.message}"
    left_s = clock.parse(repair.started_at) + REPAIR_TIMEOUT_S - around.now + 1
    running = _at(decision, BladeState.REPAIRING, text, max(1.0, left_s))
    return Step(running, repair, _want(around, repair))


def _halted(repair: BladeRepair, decision: Decision) -> Step:
    what = decision.message or f"{repair.code or 'the fault'} is gone, but not repaired"
    text = f"{what}; no repair begins while the pool's breaker is open"
    return Step(_at(decision, BladeState.QUARANTINED, text), repair)


def _give_up(repair: BladeRepair, decision: Decision) -> Step:
    failed = repair.attempts > 0
    tried = f"{repair.attempts} repairs did not help" if failed else "not to be repaired"
    # Nothing that comes and goes shows here any more: the blade stays as it is.
    reason = BladeReason.REPAIR_FAILED if failed else BladeReason.HARDWARE_FAULT
    code = repair.code or "fault"
    text = f"{code}: {tried}; replace it, then: {_RELEASE}"
    gone = replace(
        _at(decision, BladeState.RMA, text),
        reason=reason,
        severity=Severity.FATAL,
        action=Action.REPLACE,
    )
    return Step(gone, repair.model_copy(update={"action": Action.REPLACE, "started_at": None}))


def _at(
    decision: Decision, state: BladeState, message: str, after_s: float | None = None
) -> Decision:
    soonest = [one for one in (decision.after_s, after_s) if one is not None]
    return replace(
        decision,
        state=state,
        # A fault that is gone, and not repaired, has no reason of its own any more.
        reason=decision.reason or BladeReason.HARDWARE_FAULT,
        message=message,
        by_fault=True,
        clearing=decision.clearing,
        after_s=min(soonest, default=None),
    )
