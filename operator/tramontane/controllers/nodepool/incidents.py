"""Keep the record of what happened to a blade, in Blade.status.incidents.

An incident is open until it has an outcome. The open one is also the state machine's memory: a
fault that left the report, with its blade rebooting or its agent silent in between, has not
cleared before its incident is closed. So it is kept in the API, not in a process.

| now                                          | record                                          |
|----------------------------------------------|-------------------------------------------------|
| Degraded or Fatal fault, none open           | one more, from the state before to the one after|
| the same, one open, blade now quarantined    | the open one goes to Quarantined                |
| the same, one open that took nothing out,    | the open one takes what this one is             |
| and milder than this one                     |                                                 |
| the same, as bad as this one                 | the open one asks for the stronger action       |
| the same, one open, a person released since  | that one `released by anna: new fan`; one more  |
| another, the open one repaired and gone      | that one `reset, then xid-119`; one more        |
| fault gone, window running                   | as it is, with the time at which that began     |
| fault gone, blade now quarantined for it     | the open one goes to Quarantined                |
| fault gone, window over, blade works again   | outcome `clean for 10m`, `reboot, back in 14m`  |
| fault gone, blade in repair or qualification | as it is                                        |
| fault gone, a person released the blade since| outcome `released by anna: new fan`             |
| held                                         | one more, without a code                        |
| hold ended                                   | outcome `hold ended`                            |
| Lost, and work is on it                      | one more, `node-lost`                           |
| not Lost any more                            | outcome of that one `back in 14m`               |
| blade unreachable, or no report              | otherwise as it is                              |

A fault that takes a blade out takes it to Quarantined, whatever follows from that at once. What
happens in a silence is `from` where the blade was on its way: Qualifying, Requalifying, Repairing.
Only of one that worked until then it is from Unknown or Lost.

A node that is lost is no fault that must clear: its incident counts, and is no memory. At most 20
incidents are kept. The newest are last.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

from tramontane.api import clock
from tramontane.api.blade import (
    MAX_INCIDENTS,
    Action,
    BladeQualification,
    BladeRepair,
    BladeState,
    Incident,
    Release,
    Severity,
)
from tramontane.api.quantity import format_duration
from tramontane.controllers.nodepool.history import NODE_LOST, has_worked
from tramontane.controllers.nodepool.state import Decision, Signs, severity_of
from tramontane.controllers.nodepool.verdict import milder, stronger

Record = tuple[Incident, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What an incident tells besides the decision.

    Attributes:
        before: state of the blade until now.
        jobs: gangs that have a seat on the blade, `namespace/name`.
        release: the release that is in force, or None.
        clear_after: the pool's `health.clearAfter`, for the outcome.
        repair: what was done about it, or None.
        qualification: how far that had come until now, or None.
    """

    before: BladeState | None
    jobs: tuple[str, ...]
    release: Release | None
    clear_after_s: float
    repair: BladeRepair | None = None
    qualification: BladeQualification | None = None


def open_fault(record: Record) -> Incident | None:
    """Return the incident of a fault that has not cleared, or None."""
    codes = {None, "", NODE_LOST}
    return next((o for o in reversed(record) if o.outcome is None and o.code not in codes), None)


def open_hold(record: Record) -> Incident | None:
    """Return the incident of a hold that has not ended, or None."""
    return next((one for one in reversed(record) if one.outcome is None and not one.code), None)


def lost_memory(code: str, now: float) -> Incident:
    """Return the open incident of a blade that was made anew while its Node says Quarantined."""
    return Incident(
        at=clock.utc(now),
        code=code or "unknown",
        from_=BladeState.QUARANTINED,
        to=BladeState.QUARANTINED,
    )


def superseded(record: Record, fault: Incident, repair: BladeRepair, code: str) -> Record:
    """Return the record where the open fault was repaired, and another one follows it."""
    return _replaced(record, fault, {"outcome": f"{_done(repair)}, then {code}"})


def follow(record: Record, signs: Signs, decision: Decision, context: Context) -> Record:
    """Return the record after a decision. The same decision again gives the same record."""
    record = _holds(record, signs, decision, context)
    record = _losses(record, signs, decision, context)
    record = _timed(record, signs, decision)
    # Only a blade that speaks tells anything of its faults.
    if not signs.reported or decision.severity is Severity.UNKNOWN:
        return record
    current = open_fault(record)
    finding = signs.finding
    if milder(finding.severity, Severity.DEGRADED):
        return record if current is None else _gone(record, current, signs, decision, context)
    if current is not None and _is_released(current, signs):
        # The word ended that one; what is wrong still must clear by itself.
        record = _replaced(record, current, {"outcome": _outcome(current, context, signs.now)})
        current = None
    if current is None:
        opened = Incident(
            at=clock.utc(signs.now),
            code=finding.code,
            gpu=finding.gpu,
            from_=_begun_in(record, context),
            to=_taken_to(decision),
            severity=finding.severity,
            action=finding.action,
            jobs=context.jobs,
            detected_after=_detected_after(signs),
            boot_id=signs.boot_id or None,
        )
        return (*record, opened)[-MAX_INCIDENTS:]
    if current.to is BladeState.QUARANTINED:
        return record
    known = severity_of(current)
    update: dict[str, object] = {"to": _taken_to(decision)} if decision.by_fault else {}
    if milder(known, finding.severity) or (decision.by_fault and finding.severity is known):
        update |= {
            "code": finding.code,
            "gpu": finding.gpu,
            "severity": finding.severity,
            "action": finding.action,
        }
    elif finding.severity is known:
        update["action"] = stronger(current.action or Action.NONE, finding.action)
    return _replaced(record, current, update)


def _gone(
    record: Record, fault: Incident, signs: Signs, decision: Decision, context: Context
) -> Record:
    """Follow an open fault that is not there now: it is over, or takes the blade out only now."""
    if not decision.clearing:
        return _replaced(record, fault, {"outcome": _outcome(fault, context, signs.now)})
    taken = decision.by_fault and fault.to is not BladeState.QUARANTINED
    return _replaced(record, fault, {"to": _taken_to(decision)}) if taken else record


def _taken_to(decision: Decision) -> BladeState:
    return BladeState.QUARANTINED if decision.by_fault else decision.state


def _begun_in(record: Record, context: Context) -> BladeState | None:
    """Return the state in which a fault found the blade; of a silent one, where it was before."""
    if context.before not in {BladeState.UNKNOWN, BladeState.LOST}:
        return context.before
    if context.repair is not None:
        return BladeState.REPAIRING
    if (asked := context.qualification) is None or asked.step is None:
        return context.before
    return BladeState.REQUALIFYING if has_worked(asked, record) else BladeState.QUALIFYING


def _timed(record: Record, signs: Signs, decision: Decision) -> Record:
    """Have the open fault say since when it is gone, or in which boot it was seen last."""
    fault = open_fault(record)
    if fault is None or not signs.reported:
        return record
    gone = None if decision.gone_since is None else clock.utc(decision.gone_since)
    seen = not milder(signs.finding.severity, severity_of(fault))
    boot_id = (
        (signs.boot_id or fault.boot_id) if seen or gone != fault.gone_since else fault.boot_id
    )
    return _replaced(record, fault, {"gone_since": gone, "boot_id": boot_id})


def _is_released(fault: Incident, signs: Signs) -> bool:
    """Return whether a person released the blade after the fault began; in whole seconds."""
    at = signs.released_at
    return (
        at is not None
        and at <= signs.now
        and bool(fault.at)
        and clock.parse(fault.at or "") < floor(at)
    )


def _holds(record: Record, signs: Signs, decision: Decision, context: Context) -> Record:
    held = open_hold(record)
    if signs.hold is None and held is not None:
        return _replaced(record, held, {"outcome": "hold ended"})
    if signs.hold is not None and held is None and decision.state is BladeState.QUARANTINED:
        opened = Incident(
            at=clock.utc(signs.now),
            from_=_begun_in(record, context),
            to=decision.state,
            jobs=context.jobs,
        )
        return (*record, opened)[-MAX_INCIDENTS:]
    return record


def _losses(record: Record, signs: Signs, decision: Decision, context: Context) -> Record:
    lost = next((o for o in reversed(record) if o.outcome is None and o.code == NODE_LOST), None)
    is_lost = decision.state is BladeState.LOST
    if lost is not None and not is_lost:
        lasted = format_duration(max(0.0, signs.now - clock.parse(lost.at or "")))
        return _replaced(record, lost, {"outcome": f"back in {lasted}"})
    if lost is None and is_lost and signs.busy and context.before is not BladeState.LOST:
        opened = Incident(
            at=clock.utc(signs.now),
            code=NODE_LOST,
            from_=_begun_in(record, context),
            to=decision.state,
            jobs=context.jobs,
        )
        return (*record, opened)[-MAX_INCIDENTS:]
    return record


def _replaced(record: Record, old: Incident, update: Mapping[str, object]) -> Record:
    return tuple(one.model_copy(update=update) if one is old else one for one in record)


def _outcome(fault: Incident, context: Context, now: float) -> str:
    release = context.release
    if release is None or not release.at or not fault.at:
        by_person = False
    else:
        by_person = clock.parse(fault.at) < clock.parse(release.at)
    if release is not None and by_person:
        return f"released by {release.by}: {release.reason}"[:1024]
    repair = context.repair
    if repair is not None and repair.attempts and fault.at:
        return f"{_done(repair)}, back in {format_duration(now - clock.parse(fault.at))}"
    return f"clean for {format_duration(context.clear_after_s)}"


def _done(repair: BladeRepair) -> str:
    times = f" x{repair.attempts}" if repair.attempts > 1 else ""
    return f"{repair.doing.value.lower()}{times}"


def _detected_after(signs: Signs) -> str | None:
    if signs.finding.first_seen is None or signs.reported_at is None:
        return None
    return format_duration(max(0.0, signs.reported_at - signs.finding.first_seen))
