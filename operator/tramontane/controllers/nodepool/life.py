"""Lead a blade through its life: what follows from being new, or from having been quarantined.

state.py says what the moment asks for; this says where the blade is on its way. Pure; the memory
is Blade.status: `qualification`, `repair`, `incidents`. Rows are tried from the top.

| what state.py says            | memory                        | state                            |
|-------------------------------|-------------------------------|----------------------------------|
| no report yet                 | new, pool qualifies           | Delivered, until unknownAfter    |
| Lost, Unknown, held           | any                           | as it says; memory is kept       |
| any                           | given up                      | RMA, until a person releases it  |
| Quarantined                   | worked until now              | Quarantined                      |
| Quarantined                   | a gang holds the blade        | Draining                         |
| Quarantined, Reset or Reboot  | free                          | Repairing (repair.py)            |
| Quarantined, anything else    | free                          | Quarantined: clears, or a person |
| Healthy, Suspect              | not repaired as asked         | Repairing: gone is not repaired  |
| Healthy, Suspect              | steps to pass, new            | Qualifying (qualify.py)          |
| Healthy, Suspect              | steps to pass, was quarantined| Requalifying                     |
| Healthy, Suspect              | none                          | as it says                       |

A release by a person ends a repair, an RMA and a failed test that are older than it; then the
blade qualifies anew, or with `skipBurnIn` works at once.
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
from tramontane.controllers.nodepool import history, qualify, repair
from tramontane.controllers.nodepool.around import Around
from tramontane.controllers.nodepool.care import BURN_IN, COLLECTIVE, Care
from tramontane.controllers.nodepool.qualify import Way
from tramontane.controllers.nodepool.state import Decision
from tramontane.controllers.nodepool.verdict import Finding, milder
from tramontane.controllers.nodepool.works import Outcome, Want, name_of

# States of a blade that a fault has taken out.
OUT = frozenset(
    {
        BladeState.QUARANTINED,
        BladeState.DRAINING,
        BladeState.REPAIRING,
        BladeState.RMA,
    }
)
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
    """

    decision: Decision
    qualification: BladeQualification | None
    repair: BladeRepair | None
    want: Want | None = None
    keep: bool = False


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


def released(memory: Memory, care: Care, release: Release | None, now: float) -> Memory:
    """Return the memory after a person's word that the blade may work again."""
    if release is None or not release.at:
        return memory
    at = clock.parse(release.at)
    begun = _begun(memory, release)
    if begun is None or at < begun:
        return memory
    again = None if release.skip_burn_in else fresh(care, now)
    state = BladeState.REQUALIFYING if memory.state is BladeState.RMA else memory.state
    return replace(memory, state=state, qualification=again, repair=None)


def _begun(memory: Memory, release: Release) -> float | None:
    """Return when what the release may end has begun; None where there is nothing."""
    asked = memory.qualification
    failed = qualify.failure(asked)
    times = [memory.repair.since if memory.repair else None, failed.at if failed else None]
    if release.skip_burn_in and asked is not None and asked.step is not None:
        times.append(asked.started_at)
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
    if memory.state not in OUT:
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
    keep = Life(decision, memory.qualification, memory.repair, keep=True)
    given_up = memory.repair is not None and memory.repair.action is Action.REPLACE
    if decision.reason is BladeReason.HELD_BY_PERSON:
        return replace(keep, keep=False)
    if decision.state is BladeState.LOST:
        return keep
    if decision.state is BladeState.UNKNOWN and not (given_up and around.reported):
        return _delivered(around, memory, keep)
    if given_up or (decision.by_fault and decision.state is BladeState.QUARANTINED):
        return _out(around, memory, care, decision)
    return _works(around, memory, care, decision)


def _delivered(around: Around, memory: Memory, keep: Life) -> Life:
    """Tell a blade that has just come from one that is silent."""
    new = memory.qualification is not None and memory.state in {None, BladeState.DELIVERED}
    left_s = around.born_at + around.unknown_after_s - around.now
    if not new or around.reported or left_s <= 0:
        return keep
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
    known = memory.repair or repair.begin(decision, around.boot_id, around.now)
    if memory.state not in OUT and memory.state is not BladeState.REQUALIFYING:
        return Life(decision, memory.qualification, known)
    if known.action is not Action.REPLACE and around.busy:
        jobs = ", ".join(around.jobs) or "pods of a gang"
        draining = replace(
            decision,
            state=BladeState.DRAINING,
            message=f"{decision.message}; until {jobs} has left",
        )
        return Life(draining, memory.qualification, known)
    step = repair.advance(around, known, care, decision)
    return Life(step.decision, memory.qualification, step.repair, step.want)


def _works(around: Around, memory: Memory, care: Care, decision: Decision) -> Life:
    """Nothing is wrong now that takes the blade out."""
    known, asked = memory.repair, memory.qualification
    if known is not None:
        if not repair.is_proven(known, around.boot_id):
            gone = replace(decision, clearing=True)
            step = repair.advance(around, known, care, gone)
            return Life(step.decision, asked, step.repair, step.want)
        if memory.state in OUT:
            asked = fresh(care, around.now)
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
