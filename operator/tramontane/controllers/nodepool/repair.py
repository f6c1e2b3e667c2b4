"""Climb the repair ladder, one rung at a time: reset, reboot, and then it is a case for RMA.

Memory is Blade.status.repair: what the fault asks for (`action`), the rung of the last attempt, how
many there were, since when one runs, and the boot in which the fault was. The table, for a blade
that nobody uses:

| asked for | what is                                            | what follows                   |
|-----------|----------------------------------------------------|--------------------------------|
| Replace   | the pool's breaker is open                         | Quarantined until it is closed |
|           | otherwise                                          | RMA                            |
| Inspect   | any; it ends with its sign (see below)             | Quarantined; a person must look|
| Drain, …  | any                                                | Quarantined until it clears    |
| Reset, Reboot | done, and the fault is gone                    | Repairing until it clears      |
|           | done a moment ago, or booted and the agent silent  | Repairing: the agent looks anew|
|           | a repair runs, or its pod broke a moment ago       | Repairing, its pod wanted      |
|           | the pool's breaker is open                         | Quarantined until it is closed |
|           | `attempts` repairs did not help                    | RMA, RepairFailed              |
|           | no pod for this rung                               | Repairing; a person must do it |
|           | otherwise                                          | Repairing, one more attempt    |

The first rung is what the fault asks for; with `resetBy: Reboot` it is a reboot. Where resets
failed, or broke three times, a reboot follows if the pool has a pod for it. Only a reset that
succeeded, or another boot, proves a reset; only another boot proves a reboot, and with `resetBy:
Reboot` a reset as well: a fault that is gone by itself is not repaired.

What is asked for is remembered until it is done: what only a repair ends (Reset, Reboot, Replace)
is not forgotten because a fault beside it, or after it, asks for a person (Inspect). That one is
obeyed while it is there; when it is gone, the other is still owed.

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
from tramontane.controllers.nodepool.qualify import SAYS_NOTHING
from tramontane.controllers.nodepool.state import Decision
from tramontane.controllers.nodepool.verdict import Finding
from tramontane.controllers.nodepool.works import Outcome, Want, name_of
from tramontane.kube.waiting import NO_CONTAINER, NO_IMAGE

# An agent starts, reads its GPUs and reports within this time after a repair.
_LOOK_ANEW_S = 30.0
# A pod that broke is followed by another, later each time; after some a higher rung is tried.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 900.0
_MOST_DOUBLINGS = 4
_MOST_BROKEN = 3
_PODS = {Action.RESET: Work.RESET, Action.REBOOT: Work.REBOOT}
# Of two actions the later one is remembered: an Inspect ends with its sign, a Reset does not.
_LASTS = (
    Action.NONE,
    Action.RESTART_APP,
    Action.DRAIN,
    Action.INSPECT,
    Action.RESET,
    Action.REBOOT,
    Action.REPLACE,
)
#: What people are told of by an event, in whatever state the blade is.
FOR_A_PERSON, MUST_LOOK = "waits for a person", "a person must look"
_UNHEARD = "it has booted, and its agent has not spoken since"
_RELEASE = 'tramontane release BLADE --reason "…"'


@dataclass(frozen=True, slots=True)
class Step:
    """Where the repair is."""

    decision: Decision
    repair: BladeRepair
    want: Want | None = None


def begin(around: Around, decision: Decision) -> BladeRepair:
    """Return the memory of a repair that has not begun."""
    return BladeRepair(
        action=_remembered(around, decision.action, Action.NONE),
        since=clock.utc(around.now),
        boot_id=around.boot_id or None,
        node_boot_id=around.node_boot_id or None,
    )


def of_another(repair: BladeRepair, finding: Finding, boot_id: str) -> BladeRepair:
    """Return the memory of the repair of another fault, on a blade that is out since the last."""
    return BladeRepair(
        code=finding.code,
        gpu=finding.gpu,
        action=finding.action,
        since=repair.since,
        boot_id=boot_id or None,
    )


def named(repair: BladeRepair, incidents: Iterable[Incident]) -> BladeRepair:
    """Return the repair with the fault it is for, as soon as the record has that."""
    fault = open_fault(tuple(incidents))
    if repair.code is not None or fault is None:
        return repair
    return repair.model_copy(update={"code": fault.code, "gpu": fault.gpu})


def is_proven(repair: BladeRepair, boot_id: str, care: Care) -> bool:
    """Return whether the blade was repaired as its fault asked for, and as the pool wants it."""
    if repair.action not in _PODS or not repair.boot_id:
        return repair.action is not Action.REPLACE
    if boot_id and boot_id != repair.boot_id:
        return True
    by_reset = repair.action is Action.RESET and care.reset_by is ResetBy.RESET
    return by_reset and repair.repaired_at is not None


def advance(around: Around, repair: BladeRepair, care: Care, decision: Decision) -> Step:
    """Return the next step of the module's table, for a repair as it `looked`."""
    if repair.started_at is not None:
        return _running(around, repair, decision)
    asked = repair.action
    if not decision.clearing:
        asked = _remembered(around, decision.action, repair.action)
        repair = repair.model_copy(update={"action": asked})
        if decision.action is Action.INSPECT and asked in _PODS:
            asked = Action.INSPECT
    match asked:
        case Action.REPLACE if not around.breaker_open:
            return _give_up(repair, decision)
        case Action.REPLACE:
            return _halted(repair, decision)
        case Action.RESET | Action.REBOOT:
            return _climb(around, repair, care, decision)
        case Action.INSPECT:
            text = f"{decision.message}; {MUST_LOOK}, then: {_RELEASE}"
            return Step(_at(decision, BladeState.QUARANTINED, text), repair)
        case _:
            return Step(_at(decision, BladeState.QUARANTINED, decision.message), repair)


def end(around: Around, repair: BladeRepair, decision: Decision) -> Step | None:
    """Return the repair that runs and that none may follow; None when none runs any more."""
    repair = looked(around, repair)
    return _running(around, repair, decision) if repair.started_at is not None else None


def _remembered(around: Around, asked: Action, known: Action) -> Action:
    """Return what is to be remembered of what is asked for now and of what was until now."""
    beside = around.owed if asked is Action.INSPECT else Action.NONE
    return max(asked, beside, known, key=_LASTS.index)


def _climb(around: Around, repair: BladeRepair, care: Care, decision: Decision) -> Step:
    """No repair runs: wait for what the last one brought, or begin the next."""
    proven = is_proven(repair, around.boot_id, care)
    if decision.clearing and proven:
        return Step(_at(decision, BladeState.REPAIRING, f"repaired; {decision.message}"), repair)
    if proven and repair.repaired_at is None:
        # Somebody rebooted it, or the fault has come back after a reboot: that was an attempt.
        now = clock.utc(around.now)
        repair = repair.model_copy(update={"repaired_at": now, "attempts": repair.attempts + 1})
    if (waiting := _agent_first(around, repair, decision)) is not None:
        return waiting
    if around.breaker_open:
        return _halted(repair, decision)
    if repair.attempts >= care.attempts:
        return _give_up(repair, decision)
    return _begin(around, repair, care, decision)


def _agent_first(around: Around, repair: BladeRepair, decision: Decision) -> Step | None:
    """Return the wait for what the agent sees after a repair or a boot; None: it has spoken."""
    text, left_s = "", None
    if repair.repaired_at is not None:
        left_s = clock.parse(repair.repaired_at) + _LOOK_ANEW_S - around.now
        text = "repaired, the agent looks anew" if left_s > 0 else ""
    if _is_unheard(around, repair):
        text, left_s = _UNHEARD, None
    if not text:
        return None
    waits = _at(decision, BladeState.REPAIRING, f"{text}; {decision.message}", left_s)
    return Step(waits, repair)


def _begin(around: Around, repair: BladeRepair, care: Care, decision: Decision) -> Step:
    """Begin the next attempt, or wait for a person where the pool has no pod for it."""
    rung = _rung(repair, care)
    if (care.reset if rung is Action.RESET else care.reboot) is None:
        word = rung.value.lower()
        text = (
            f"{decision.message}; {FOR_A_PERSON} to {word} it: "
            f"NodePool spec.remediation.{word} gives no pod that does"
        )
        return Step(_at(decision, BladeState.REPAIRING, text), repair)
    repair = repair.model_copy(
        update={
            "rung": rung,
            "gpu": _gpu(around, repair),
            "attempts": repair.attempts + 1,
            "started_at": clock.utc(around.now),
            "repaired_at": None,
            "boot_id": around.boot_id or repair.boot_id,
            "node_boot_id": around.node_boot_id or repair.node_boot_id,
        }
    )
    return _running(around, repair, decision)


def _rung(repair: BladeRepair, care: Care) -> Action:
    """Return the rung of the next attempt: a reboot where resets failed or are not to be had."""
    if repair.action is Action.REBOOT or care.reset_by is ResetBy.REBOOT:
        return Action.REBOOT
    higher = repair.attempts > 0 or repair.broken >= _MOST_BROKEN or care.reset is None
    return Action.REBOOT if higher and care.reboot is not None else Action.RESET


def _gpu(around: Around, repair: BladeRepair) -> int | None:
    """Return which GPU is to be reset: the one that asks for it now; None: all of them."""
    if not around.resets:
        return repair.gpu
    return next(iter(around.resets)) if len(around.resets) == 1 else None


def _want(around: Around, repair: BladeRepair) -> Want:
    assert repair.started_at is not None
    kind = _PODS[repair.doing]
    token = f"{repair.attempts}-{int(clock.parse(repair.started_at)):x}"
    return Want(kind, name_of(kind, around.name, token), repair.gpu)


def looked(around: Around, repair: BladeRepair) -> BladeRepair:
    """Return the repair after a look at its pod: as it was while it runs.

    How the pod of a reboot ended counts only once its time is over: the shutdown that it ordered
    ends it, too. Not so where the API server took no such pod. A pod that broke uses no attempt;
    the next one follows after a pause.
    """
    if repair.started_at is None:
        return repair
    if around.boot_id and around.boot_id != repair.boot_id:
        # Whoever rebooted it, that resets the GPUs as well.
        return _ended(repair, clock.utc(around.now))
    if _is_unheard(around, repair):
        return repair
    late = around.now - clock.parse(repair.started_at) > REPAIR_TIMEOUT_S
    pod = around.work(_want(around, repair))
    if repair.doing is Action.REBOOT and not late and (pod is None or not pod.refused):
        return repair
    outcome = pod.outcome_at(around.now, REPAIR_TIMEOUT_S) if pod is not None else Outcome.BROKEN
    if outcome in {Outcome.PASSED, Outcome.FAILED}:
        done = outcome is Outcome.PASSED and repair.doing is Action.RESET
        return _ended(repair, clock.utc(around.now) if done else None)
    broke = outcome is Outcome.BROKEN and (pod is not None or late)
    return _broke(repair) if broke and _pause_left_s(around, repair) <= 0 else repair


def _is_unheard(around: Around, repair: BladeRepair) -> bool:
    """Return whether the machine has booted since, and its agent has not spoken there yet."""
    known, now = repair.node_boot_id or repair.boot_id, around.node_boot_id
    return bool(known and now) and known != now and around.boot_id in {"", repair.boot_id}


def has_begun(around: Around, repair: BladeRepair) -> bool:
    """Return whether a repair, as it `looked`, is under way on the machine by now.

    A reset while its pod runs; a reboot also when that has ended, until the machine has booted.
    """
    pod = around.work(_want(around, repair)) if repair.started_at is not None else None
    if pod is None or pod.refused:
        return False
    if pod.outcome is Outcome.RUNNING:
        return pod.started_at is not None
    never = pod.evidence in NO_IMAGE | NO_CONTAINER  # broken, and its kubelet may try again
    return repair.doing is Action.REBOOT and not never


def _ended(repair: BladeRepair, repaired_at: str | None = None) -> BladeRepair:
    return repair.model_copy(update={"started_at": None, "repaired_at": repaired_at, "broken": 0})


def _broke(repair: BladeRepair) -> BladeRepair:
    attempts, broken = max(0, repair.attempts - 1), repair.broken + 1
    return repair.model_copy(update={"started_at": None, "attempts": attempts, "broken": broken})


def _pause_left_s(around: Around, repair: BladeRepair) -> float:
    """Return for how long no other pod follows the one that broke."""
    assert repair.started_at is not None
    doublings = min(repair.broken, _MOST_DOUBLINGS)  # it may break for weeks
    pause_s: float = min(_FIRST_PAUSE_S * 2**doublings, _LONGEST_PAUSE_S)
    return clock.parse(repair.started_at) + pause_s - around.now


def _running(around: Around, repair: BladeRepair, decision: Decision) -> Step:
    assert repair.started_at is not None
    want = _want(around, repair)
    pod = around.work(want)
    text = f"{repair.doing.value.lower()}, attempt {repair.attempts}"
    left_s = clock.parse(repair.started_at) + REPAIR_TIMEOUT_S - around.now
    if _is_unheard(around, repair):
        text += f": {_UNHEARD}"
    elif (
        pod is not None
        and pod.outcome is Outcome.BROKEN
        and (repair.doing is Action.RESET or pod.refused)
    ):
        text += f", again soon: its pod broke, which {SAYS_NOTHING} ({pod.evidence})"
        left_s = _pause_left_s(around, repair)
    after_s = max(1.0, left_s + 1)
    running = _at(decision, BladeState.REPAIRING, f"{text}; {decision.message}", after_s)
    return Step(running, repair, want)


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
