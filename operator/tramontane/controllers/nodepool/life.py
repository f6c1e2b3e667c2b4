"""Lead a blade through its life: what follows from being new, or from having been quarantined.

state.py says what the moment asks for; this says where the blade is on its way. Pure; the memory
is Blade.status: `qualification`, `repair`, `incidents`. Rows are tried from the top.

| what state.py says            | memory                        | state                            |
|-------------------------------|-------------------------------|----------------------------------|
| no report yet                 | new, pool qualifies           | Delivered, until unknownAfter    |
| Lost, Unknown                 | any                           | as it says; memory is kept       |
| held                          | a repair has begun to be done | as it says; it ends, none follows|
| held                          | any                           | as it says; memory is kept       |
| any                           | in RMA                        | RMA, until a person releases it  |
| any, in a pool that watches   | a repair runs                 | Repairing: it ends, none follows |
| any, in a pool that watches   | another repair                | as it says; that one is forgotten|
| Quarantined                   | worked until now              | Quarantined                      |
| Quarantined                   | in use                        | Draining                         |
| Quarantined, the breaker open | free                          | Quarantined: no repair begins    |
| Quarantined, Reset or Reboot  | free                          | Repairing (repair.py)            |
| Quarantined, Replace          | free                          | RMA                              |
| Quarantined, anything else    | free                          | Quarantined: clears, or a person |
| Healthy, Suspect              | not repaired as asked, in use | Draining                         |
| Healthy, Suspect              | not repaired as asked         | Repairing: gone is not repaired  |
| Healthy, Suspect              | steps to pass, new            | Qualifying (qualify.py)          |
| Healthy, Suspect              | steps to pass, was quarantined| Requalifying                     |
| Healthy, Suspect              | none                          | as it says                       |

In use is a blade with a seat of a gang or a pod on it. A repair that has begun is not stopped by
that. A pool watches in mode DryRun or Off.

The state is no memory, for Lost, Unknown and a hold take its place. What is out for a fault has a
`repair`, until it works again. A qualification that a fault breaks off loses its `startedAt`: what
was passed of it proves nothing, and after the repair comes another one. Of what is kept only a soak
begins anew: a silence is not clean.

When a repair is proven and its fault gone, another fault that comes has a repair and an incident
of its own: no attempt was made on it yet.

What a person's release, or the end of a hold, makes of the memory:

| what it ends                                | in use, or `skipBurnIn` | else             |
|---------------------------------------------|-------------------------|------------------|
| an older repair, RMA, failed test or group  | works at once           | qualifies anew   |
| a failed group, of one that works           | works on                | works on         |
| a hold                                      | as it was               | qualifies anew   |

What is still wrong stays wrong (verdict.py): a release is no repair.
"""

from dataclasses import dataclass, replace

from tramontane.api import clock
from tramontane.api.blade import (
    Action,
    BladeQualification,
    BladeRepair,
    BladeState,
    Incident,
    Release,
    Severity,
    StepResult,
)
from tramontane.api.names import Work
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool import history, incidents, qualify, repair
from tramontane.controllers.nodepool.around import Around
from tramontane.controllers.nodepool.care import BURN_IN, COLLECTIVE, SOAK, Care
from tramontane.controllers.nodepool.qualify import Way
from tramontane.controllers.nodepool.state import Decision, Signs, severity_of
from tramontane.controllers.nodepool.verdict import Finding, milder, worse
from tramontane.controllers.nodepool.works import Outcome, Want, name_of

#: In the message of a blade that has been there for longer than `unknownAfter`.
NEVER_SPOKE = "it has not spoken since it came"
# States of a blade that a fault has taken out.
OUT = frozenset(
    {
        BladeState.QUARANTINED,
        BladeState.DRAINING,
        BladeState.REPAIRING,
        BladeState.RMA,
    }
)
# Where a blade may be out for a fault that asks for Replace, and is not given up yet.
_NOT_YET_RMA = frozenset({BladeState.QUARANTINED, BladeState.DRAINING})
# How often those are asked again to leave who should have left.
_ASK_AGAIN_S = 30.0
_BAD = {BURN_IN: BladeReason.BURN_IN_FAILED, COLLECTIVE: BladeReason.COLLECTIVE_FAILED}
_CODES = {BURN_IN: "burn-in-failed", COLLECTIVE: "collective-failed"}


@dataclass(frozen=True, slots=True)
class Memory:
    """What a blade's status remembers of its way."""

    state: BladeState | None = None
    state_since: float | None = None
    qualification: BladeQualification | None = None
    repair: BladeRepair | None = None
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Life:
    """Where the blade is, what to remember, and which work pod it must have.

    Attributes:
        keep: leave work pods as they are; `want` says nothing then.
        overdue: pods that should have left by now, and that nobody else makes leave (drain.py).
    """

    decision: Decision
    qualification: BladeQualification | None
    repair: BladeRepair | None
    want: Want | None = None
    keep: bool = False
    overdue: tuple[str, ...] = ()


def begin(memory: Memory, care: Care, now: float) -> Memory:
    """Return the memory of a blade that is seen for the first time, with its steps before it."""
    if memory.state is not None or memory.qualification is not None or not care.steps:
        return memory
    return replace(memory, qualification=fresh(care, now))


def fresh(care: Care, now: float) -> BladeQualification | None:
    """Return a qualification at its beginning; None where the pool has no steps."""
    if not care.steps:
        return None
    return BladeQualification(step=care.steps[0], started_at=clock.utc(now))


def released(memory: Memory, care: Care, release: Release | None, signs: Signs) -> Memory:
    """Return the memory of the module's second table.

    Under work nothing is tested: the work proves more than a test, and would be moved for it.
    """
    at = clock.parse(release.at) if release is not None and release.at else None
    begun = _begun(memory, release) if release is not None else None
    if release is not None and at is not None and begun is not None and begun <= at:
        works = memory.state is BladeState.HEALTHY and memory.repair is None
        only_doubted = works and qualify.failure(memory.qualification) is None
        at_once = signs.busy or release.skip_burn_in or only_doubted
        again = None if at_once else fresh(care, signs.now)
        state = BladeState.REQUALIFYING if memory.state is BladeState.RMA else memory.state
        return replace(memory, state=state, qualification=again, repair=None)
    held = incidents.open_hold(memory.incidents)
    if held is None or signs.hold is not None or signs.busy:
        return memory
    skips = release is not None and release.skip_burn_in
    if skips and (at is None or not held.at or clock.parse(held.at) <= at):
        return memory
    return replace(memory, qualification=fresh(care, signs.now) or memory.qualification)


def superseded(memory: Memory, care: Care, signs: Signs) -> Memory:
    """Return the memory where a fault is repaired and gone, and another one has come.

    Only after repairs that were done: what comes and goes by itself is one fault until it clears.
    """
    known, found = memory.repair, signs.finding
    last = incidents.open_fault(memory.incidents)
    if known is None or last is None or not last.gone_since:
        return memory
    done = known.attempts and known.started_at is None
    if not done or not repair.is_proven(known, signs.boot_id, care):
        return memory
    as_bad = found.severity is Severity.FATAL or found.severity is severity_of(last)
    if not as_bad or (found.code, found.gpu) == (last.code, last.gpu):
        return memory
    record = incidents.superseded(memory.incidents, last, known, found.code)
    anew = repair.of_another(known, found, signs.boot_id)
    return replace(memory, repair=anew, incidents=record)


def _begun(memory: Memory, release: Release) -> float | None:
    """Return when what the release may end has begun; None where there is nothing."""
    asked = memory.qualification
    failed = qualify.failure(asked)
    times = [memory.repair.since if memory.repair else None, failed.at if failed else None]
    if release.skip_burn_in and asked is not None and asked.step is not None:
        times.append(asked.started_at)
    elif doubts := qualify.doubts(asked.results if asked is not None else ()):
        times.append(doubts[-1].at)
    known = [clock.parse(time) for time in times if time]
    return max(known, default=None)


def own_finding(memory: Memory, release: Release | None, now: float) -> Finding | None:
    """Return what is wrong with a blade by its record, not by its report.

    A test that it failed; or, while it is out, that it comes and goes or has done so for weeks:
    then time and repairs prove nothing, and a person must look.
    """
    failed = qualify.failure(memory.qualification)
    if failed is not None:
        step = failed.step
        return Finding(
            Severity.FATAL,
            Action.INSPECT,
            _BAD[step],
            f"blade: {step} failed: {failed.evidence or 'no evidence given'}",
            _CODES[step],
            first_seen=clock.parse(failed.at) if failed.at else None,
        )
    if memory.state not in OUT and memory.repair is None:
        return None
    since = clock.parse(release.at) if release is not None and release.at else 0.0
    record = tuple(one for one in memory.incidents if one.at and clock.parse(one.at) > since)
    if history.is_flapping(record, now):
        text = "blade: was quarantined again and again within a day; find out why, then release it"
        return Finding(Severity.FATAL, Action.INSPECT, BladeReason.FLAPPING, text, "flapping")
    sums = history.of(record, now)
    if history.is_lemon(sums):
        text = f"blade: lemon score {sums.lemon_score} of 28 days; replace it, or release it"
        return Finding(Severity.FATAL, Action.INSPECT, BladeReason.LEMON, text, "lemon")
    return None


def both(seen: Finding, own: Finding) -> Finding:
    """Return the worse of what the report shows and what the record says, with both told."""
    worst, other = (own, seen) if milder(seen.severity, own.severity) else (seen, own)
    if other.severity is Severity.NONE:
        return worst
    return replace(worst, message=f"{worst.message}; {other.message}")


def live(around: Around, memory: Memory, care: Care, decision: Decision) -> Life:
    """Return the state of the module's table, the memory after it, and the work pod wanted."""
    keep = _kept(memory, decision)
    given_up = memory.repair is not None and memory.repair.action is Action.REPLACE
    if around.watches and memory.state in _NOT_YET_RMA:
        given_up = False
    if decision.reason is BladeReason.HELD_BY_PERSON:
        return _held(around, keep)
    if decision.state is BladeState.LOST:
        return keep
    if decision.state is BladeState.UNKNOWN and not (given_up and around.reported):
        return _delivered(around, memory, keep)
    if given_up or (decision.by_fault and decision.state is BladeState.QUARANTINED):
        return _out(around, _broken_off(memory), care, decision)
    if around.watches and memory.repair is not None:
        running = repair.end(around, memory.repair, decision)
        if running is not None:
            return Life(running.decision, memory.qualification, running.repair, running.want)
        memory = replace(memory, repair=None)
    return _works(around, memory, care, decision)


def _kept(memory: Memory, decision: Decision) -> Life:
    """What was under way waits."""
    asked = memory.qualification
    if asked is not None and asked.step == SOAK:
        asked = asked.model_copy(update={"step_since": None})
    return Life(decision, asked, memory.repair, keep=True)


def _held(around: Around, keep: Life) -> Life:
    """A person wants it out: nothing begins. A GPU whose reset is cut short may hang for good."""
    known = repair.looked(around, keep.repair) if keep.repair is not None else None
    if known is None or not repair.has_begun(around, known):
        return replace(keep, repair=known, keep=False)
    text = f"{keep.decision.message}; the {known.doing.value.lower()} that runs will end first"
    return replace(keep, repair=known, decision=replace(keep.decision, message=text))


def _broken_off(memory: Memory) -> Memory:
    """A fault takes the blade out, maybe while it qualifies."""
    asked = memory.qualification
    if asked is None or asked.step is None:
        return memory
    return replace(memory, qualification=asked.model_copy(update={"started_at": None}))


def _delivered(around: Around, memory: Memory, keep: Life) -> Life:
    """Tell a blade that has just come from one that is silent, and that from one that never was."""
    if around.reported:
        return keep
    left_s = around.born_at + around.unknown_after_s - around.now
    if left_s <= 0:
        if keep.decision.reason is not BladeReason.AGENT_SILENT:
            return keep
        text = f"{NEVER_SPOKE}: look at its agent's pod; {keep.decision.message}"
        return replace(keep, decision=replace(keep.decision, message=text))
    if memory.qualification is None or memory.state not in {None, BladeState.DELIVERED}:
        return replace(keep, decision=replace(keep.decision, after_s=left_s))
    state = replace(
        keep.decision,
        state=BladeState.DELIVERED,
        reason=None,
        message="delivered; its agent has not reported yet",
        after_s=left_s,
    )
    return replace(keep, decision=state)


def _out(around: Around, memory: Memory, care: Care, decision: Decision) -> Life:
    """A fault has taken the blade out."""
    known = repair.looked(around, memory.repair or repair.begin(around, decision))
    was_out = memory.state in OUT or memory.state is BladeState.REQUALIFYING
    if memory.repair is None and not was_out:
        return Life(decision, memory.qualification, known)
    if memory.state is BladeState.RMA:  # given up before the breaker opened, or before a pod came
        around = replace(around, busy=False, breaker_open=False)
    if around.busy and known.started_at is None:
        return _draining(around, memory, known, care, decision)
    step = repair.advance(around, known, care, decision)
    return Life(step.decision, memory.qualification, step.repair, step.want)


def _draining(
    around: Around, memory: Memory, known: BladeRepair, care: Care, decision: Decision
) -> Life:
    """Work is on the blade: whatever is to be done waits until it has left.

    The verdict stays the fault's, also when that is gone meanwhile: it says when running work
    leaves (drain.onFatal, drain.onDegraded), and the repair is still to come.
    """
    fault = incidents.open_fault(memory.incidents)
    severity = worse(decision.severity, severity_of(fault) if fault is not None else Severity.NONE)
    since = memory.state_since if memory.state is BladeState.DRAINING else around.now
    left_s = (since or around.now) + care.drain_timeout_s - around.now
    what = decision.message or f"{known.code or 'the fault'} is gone, but not repaired"
    again_s = left_s if left_s > 0 else _ASK_AGAIN_S
    draining = replace(
        decision,
        state=BladeState.DRAINING,
        reason=decision.reason or BladeReason.HARDWARE_FAULT,
        message=f"{what}; until {around.leaving} has left",
        severity=severity,
        action=decision.action if decision.action is not Action.NONE else known.action,
        by_fault=True,
        clearing=decision.clearing or not decision.by_fault,
        after_s=again_s if decision.after_s is None else min(again_s, decision.after_s),
    )
    overdue = around.strangers if left_s <= 0 else ()
    return Life(draining, memory.qualification, known, overdue=overdue)


def _works(around: Around, memory: Memory, care: Care, decision: Decision) -> Life:
    """Nothing is wrong now that takes the blade out."""
    known, asked = memory.repair, memory.qualification
    if known is not None:
        known = repair.looked(around, known)
        if not repair.is_proven(known, around.boot_id, care):
            memory = _broken_off(memory)
            gone = replace(decision, clearing=True)
            if around.busy and known.started_at is None:
                return _draining(around, memory, known, care, gone)
            step = repair.advance(around, known, care, gone)
            return Life(step.decision, memory.qualification, step.repair, step.want)
        if asked is None or asked.step is None:
            asked = fresh(care, around.now)
    if asked is not None and asked.step is not None and asked.started_at is None:
        asked = fresh(care, around.now)  # broken off
    if asked is not None and asked.step is not None:
        again = known is not None or any(one.to in OUT for one in memory.incidents)
        state = BladeState.REQUALIFYING if again else BladeState.QUALIFYING
        on_way = qualify.advance(Way(around, care, decision, state), asked)
        if on_way.decision.state is state:
            return Life(on_way.decision, on_way.asked, known, on_way.want, on_way.keep)
        asked = on_way.asked
    asked = qualify.record_group(around, asked)
    want, asked = _again_while_idle(around, memory, asked, care, decision)
    lent = bool(around.collective.group) and not around.busy
    return Life(decision, asked, None, want, keep=lent)


def _again_while_idle(
    around: Around,
    memory: Memory,
    asked: BladeQualification | None,
    care: Care,
    decision: Decision,
) -> tuple[Want | None, BladeQualification | None]:
    """Let an idle Healthy blade run its burn-in again from time to time; any work goes first."""
    idle = decision.state is BladeState.HEALTHY and not around.busy
    if not idle or care.burn_in is None or not care.repeat_idle_s:
        return None, asked
    asked = asked or BladeQualification()
    done = (one.at for one in reversed(asked.results) if one.step == BURN_IN and one.at)
    last = next(done, None)
    base = clock.parse(last) if last else memory.state_since or around.now
    if asked.step_since:
        base = max(base, clock.parse(asked.step_since))
    if around.now - base < care.repeat_idle_s:
        return None, asked
    want = Want(Work.BURN_IN, name_of(Work.BURN_IN, around.name, f"i{int(base):x}"))
    pod = around.work(want)
    if pod is None:
        return (want if around.idle_slot else None), asked
    outcome = pod.outcome_at(around.now, care.burn_in.timeout_s)
    if outcome is Outcome.RUNNING:
        return want, asked
    if outcome is Outcome.BROKEN:
        return None, asked.model_copy(update={"step_since": clock.utc(around.now)})
    result = StepResult(
        step=BURN_IN,
        passed=outcome is Outcome.PASSED,
        at=clock.utc(around.now),
        evidence=pod.evidence or None,
    )
    return None, qualify.with_result(asked, result)
