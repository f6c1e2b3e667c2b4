"""Take a blade through the steps of its pool's qualification: soak, burnIn, collective.

Memory is Blade.status.qualification. A step ends with a result; the first that failed ends the
qualification, and is from then on a fault of the blade (life.own_finding).

| step       | passes                                          | fails                          |
|------------|-------------------------------------------------|--------------------------------|
| soak       | clean for `soak` without a break                | never: a fault starts it anew  |
| burnIn     | its pod says so (works.py)                      | its pod says so                |
| collective | its groups show that it is good (groups.py)     | they show that it is bad       |

A pod that broke says nothing of the blade: it is tried three times at once, then every 10 minutes
with a message that tells what is wrong with it. A pod is not made while work is on the blade.

A blade that failed is Quarantined by that. Where it is not, because the pool only watches, it is
tested no further: no test is remediation, and what has not passed does not work. Where a rule of
the pool makes light of the failure, the next step follows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tramontane.api import clock
from tramontane.api.blade import BladeQualification, BladeState, Severity, StepResult
from tramontane.api.names import Work
from tramontane.api.quantity import format_duration
from tramontane.controllers.nodepool.around import Around, GroupResult
from tramontane.controllers.nodepool.care import BURN_IN, COLLECTIVE, SOAK, Care, Test
from tramontane.controllers.nodepool.state import Decision
from tramontane.controllers.nodepool.verdict import milder
from tramontane.controllers.nodepool.works import Outcome, Want, WorkPod, name_of

#: In the message of a test or repair that broke: its checker did, not the blade.
SAYS_NOTHING = "says nothing of the blade"
_MOST_TRIES = 3
_TRY_AGAIN_S = 600.0
# Enough for a few rounds of bisection and the steps around them.
_MOST_RESULTS = 16


@dataclass(frozen=True, slots=True)
class Way:
    """What a step is decided upon; `state` is Qualifying or Requalifying."""

    around: Around
    care: Care
    decision: Decision
    state: BladeState


@dataclass(frozen=True, slots=True)
class OnWay:
    """Where the qualification is. After its last step the state is what the decision says."""

    decision: Decision
    asked: BladeQualification
    want: Want | None = None
    keep: bool = False


def failure(asked: BladeQualification | None) -> StepResult | None:
    """Return the result that condemned the blade; a failed group condemns nobody alone."""
    last = asked.results[-1] if asked is not None and asked.results else None
    return last if last is not None and not last.passed and not last.group else None


def doubts(results: Iterable[StepResult]) -> tuple[StepResult, ...]:
    """Return the groups that failed since the blade last passed the step, in a group or at all."""
    failed: list[StepResult] = []
    for one in results:
        if one.step == COLLECTIVE and one.passed:
            failed.clear()
        elif one.group:
            failed.append(one)
    return tuple(failed)


def with_result(asked: BladeQualification, result: StepResult) -> BladeQualification:
    """Return the qualification with one more result."""
    results = (*asked.results, result)[-_MOST_RESULTS:]
    return asked.model_copy(update={"results": results})


def advance(way: Way, asked: BladeQualification) -> OnWay:
    """Return the next step of the module's table, at most one result further."""
    if failure(asked) is not None:
        if milder(way.decision.severity, Severity.DEGRADED):
            return _next(way, asked)
        return OnWay(replace(way.decision, state=way.state), asked)
    step = asked.step
    if step not in way.care.steps:  # the pool has changed its mind
        return _next(way, asked)
    if asked.step_since is None:
        asked = asked.model_copy(update={"step_since": clock.utc(way.around.now)})
    match step:
        case "soak":
            return _soak(way, asked)
        case "burnIn":
            return _burn_in(way, asked)
        case _:
            return _collective(way, asked)


def _soak(way: Way, asked: BladeQualification) -> OnWay:
    # A pool that only watches has a blade Healthy with its fault.
    clean = milder(way.decision.severity, Severity.DEGRADED)
    if way.decision.state is not BladeState.HEALTHY or not clean:
        again = asked.model_copy(update={"step_since": None})
        return _still(way, again, f"soak begins anew: {way.decision.message}")
    assert asked.step_since is not None
    left_s = clock.parse(asked.step_since) + way.care.soak_s - way.around.now
    if left_s > 0:
        text = f"soak: clean until now, {format_duration(way.care.soak_s)} in all"
        return _still(way, asked, text, after_s=left_s)
    return _next(way, asked, _result(way.around, SOAK, passed=True))


def _burn_in(way: Way, asked: BladeQualification) -> OnWay:
    test, now = way.care.burn_in, way.around.now
    assert test is not None
    assert asked.step_since is not None
    want = _want(way, asked)
    pod = way.around.work(want)
    if asked.tries >= _MOST_TRIES:
        left_s = clock.parse(asked.step_since) + _TRY_AGAIN_S - now
        if left_s > 0:
            why = _last_words(way, test)
            text = f"burnIn broke {asked.tries} times, which {SAYS_NOTHING}; {why}"
            return _still(way, asked, text, after_s=left_s, keep=True)
        anew = asked.model_copy(update={"tries": 0, "step_since": clock.utc(now)})
        return _still(way, anew, "burnIn is tried again", after_s=0.1)
    if pod is None and way.around.busy:
        return _still(way, asked, f"burnIn waits until {way.around.leaving} has left")
    outcome = Outcome.RUNNING if pod is None else pod.outcome_at(now, test.timeout_s)
    if pod is None or outcome is Outcome.RUNNING:
        return _still(way, asked, _where(pod), want, after_s=test.timeout_s + 1)
    if outcome is Outcome.BROKEN:
        tries = asked.tries + 1
        # A try may have taken as long as the pause after the last of them.
        since = clock.utc(now) if tries >= _MOST_TRIES else asked.step_since
        more = asked.model_copy(update={"tries": tries, "step_since": since})
        return _still(way, more, f"burnIn broke: {why_broken(pod, test)}", after_s=0.1, keep=True)
    return _burnt_in(way, asked, pod, test, passed=outcome is Outcome.PASSED)


def _want(way: Way, asked: BladeQualification) -> Want:
    """Return the pod of a burn-in, so often tried before."""
    assert asked.step_since is not None
    token = f"{int(clock.parse(asked.step_since)):x}-{asked.tries}"
    return Want(Work.BURN_IN, name_of(Work.BURN_IN, way.around.name, token))


def _where(pod: WorkPod | None) -> str:
    """Return how far a burn-in is that has not ended."""
    if pod is not None and pod.started_at is not None:
        return "burnIn runs"
    if pod is not None and pod.evidence:
        return f"burnIn waits for its container: {pod.evidence}"
    return "burnIn starts"


def _last_words(way: Way, test: Test) -> str:
    """Return why the last try broke; its pod is kept until the next."""
    pod = next((one for one in way.around.works if one.kind is Work.BURN_IN), None)
    return why_broken(pod, test) if pod is not None else "see its pod"


def why_broken(pod: WorkPod, test: Test) -> str:
    """Return why a pod told nothing of its blade, for people."""
    if pod.outcome is Outcome.BROKEN:
        return pod.evidence or "see its pod"
    limit = f"within {format_duration(test.timeout_s)}"
    if pod.outcome is Outcome.RUNNING and pod.started_at is None:
        return f"not started {limit}: {pod.evidence or 'no kubelet has taken it'}"
    return f"no end {limit}; `timeout` must be 10m longer than the --duration of a burn-in"


def _burnt_in(
    way: Way, asked: BladeQualification, pod: WorkPod, test: Test, *, passed: bool
) -> OnWay:
    late = not passed and pod.outcome is Outcome.RUNNING
    limit = format_duration(test.timeout_s)
    evidence = f"no end after {limit} (`timeout` of burnIn)" if late else pod.evidence
    result = _result(way.around, BURN_IN, passed=passed, pod=pod, evidence=evidence)
    if passed:
        return _next(way, asked, result)
    return _still(way, with_result(asked, result), evidence, after_s=0.1)


def _collective(way: Way, asked: BladeQualification) -> OnWay:
    seen = way.around.collective
    known = {one.group for one in asked.results}
    if seen.result is not None and seen.result.group not in known:
        asked = with_result(asked, _of_group(way.around, seen.result))
        return _still(way, asked, "collective: its group has ended", keep=True)
    if seen.good is not None:
        result = _result(way.around, COLLECTIVE, passed=seen.good, evidence=seen.evidence)
        if seen.good:
            return _next(way, asked, result)
        return _still(way, with_result(asked, result), seen.evidence, after_s=0.1)
    where = f"runs in group {seen.group}" if seen.group else f"waits for {seen.waits_for}"
    if way.around.busy and not seen.group:
        where = f"waits until {way.around.leaving} has left"
    return _still(way, asked, f"collective: {where}", keep=True)


def _of_group(around: Around, seen: GroupResult) -> StepResult:
    return StepResult(
        step=COLLECTIVE,
        passed=seen.passed,
        value=_decimal(seen.value),
        unit="GB/s" if seen.value is not None else None,
        at=clock.utc(around.now),
        evidence=seen.evidence or None,
        group=seen.group,
    )


def record_group(around: Around, asked: BladeQualification | None) -> BladeQualification | None:
    """Return the record of a Healthy blade that lent itself to a group, with what that showed.

    Where the groups leave no other one that could be bad, it is condemned as those who wait are.
    """
    seen = around.collective
    known = {one.group for one in asked.results} if asked is not None else set()
    if seen.result is not None and seen.result.group not in known:
        return with_result(asked or BladeQualification(), _of_group(around, seen.result))
    if seen.good is False and failure(asked) is None:
        bad = _result(around, COLLECTIVE, passed=False, evidence=seen.evidence)
        return with_result(asked or BladeQualification(), bad)
    return asked


def _next(way: Way, asked: BladeQualification, result: StepResult | None = None) -> OnWay:
    """Return the qualification at its next step, or at its end."""
    assert asked.step is not None
    if result is not None:
        asked = with_result(asked, result)
    step = way.care.after(asked.step)
    since = clock.utc(way.around.now) if step is not None else None
    asked = asked.model_copy(update={"step": step, "step_since": since, "tries": 0})
    if step is None:
        return OnWay(way.decision, asked)
    return _still(way, asked, f"{step} is next", after_s=0.1)


def _still(
    way: Way,
    asked: BladeQualification,
    message: str,
    want: Want | None = None,
    *,
    after_s: float | None = None,
    keep: bool = False,
) -> OnWay:
    times = [one for one in (way.decision.after_s, after_s) if one is not None]
    on_way = replace(
        way.decision,
        state=way.state,
        reason=None,
        message=message,
        clearing=True,  # an incident that brought the blade here ends when it works again
        after_s=min(times, default=None),
    )
    return OnWay(on_way, asked, want, keep)


def _result(
    around: Around,
    step: str,
    *,
    passed: bool,
    pod: WorkPod | None = None,
    evidence: str = "",
) -> StepResult:
    return StepResult(
        step=step,
        passed=passed,
        value=_decimal(pod.value) if pod is not None else None,
        unit=(pod.unit or None) if pod is not None else None,
        at=clock.utc(around.now),
        evidence=evidence or None,
    )


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
