"""Put in order what happened to an object: pure, from its status and its Events to lines.

A status remembers what mattered (incidents, decisions, results of tests), Events the rest for an
hour or so. An Event that only repeats what the status tells better is left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.conditions import Condition, ConditionStatus, ConditionType
from tramontane.api.errors import InvalidValue
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.nodepool import NodePool
from tramontane.api.quantity import parse_duration
from tramontane.api.trainingjob import JobIncident, TrainingJob
from tramontane.cli.tables import age, counted

Raw = dict[str, Any]

# An Event and the status tell of one happening within this time: the write comes in between.
_SAME_S = 60.0
_MINUTE_S = 60.0
_HOUR_S = 3600.0
_DAY_S = 86_400.0
# Conditions that are news when they come to hold; the others flip with what is told anyway.
_NEWS = {
    ConditionType.ADMITTED: "admitted",
    ConditionType.GANG_READY: "gang ready",
    ConditionType.COMPLETE: "complete",
    ConditionType.FAILED: "failed",
    ConditionType.PLANNED: "planned",
    ConditionType.ARTIFACT_VERIFIED: "weights verified",
    ConditionType.SCHEDULED: "scheduled",
    ConditionType.BREAKER_OPEN: "breaker open",
    ConditionType.BUDGET_EXHAUSTED: "budget exhausted",
    ConditionType.TOO_FEW_SPARES: "too few spares",
    ConditionType.STALLED: "stalled: only people can help",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """Hold what happened, and when (Unix seconds).

    Attributes:
        reason: of the closed lists, or an Event's; empty where there is none.
        bad: whether it is something that went wrong.
        source: status, condition or event.
    """

    at: float
    what: str
    reason: str = ""
    bad: bool = False
    source: str = "status"

    def to_dict(self) -> Raw:
        """Return it for programs."""
        whole: Raw = {"at": clock.micro(self.at), "what": self.what, "source": self.source}
        if self.reason:
            whole["reason"] = self.reason
        return whole | {"bad": self.bad}


def of_job(job: TrainingJob) -> Iterator[Happening]:
    """Yield what the status of a TrainingJob remembers."""
    status = job.status
    yield from _created(job.metadata.creation_timestamp, "submitted")
    yield from _conditions(status.conditions)
    yield from _when(status.started_at, "first ran")
    for one in status.incidents:
        yield Happening(clock.parse(one.at), _incident(one), str(one.cause), bad=True)
    saved = status.last_checkpoint
    if saved is not None:
        step = f"checkpoint of step {saved.step:,}" if saved.step is not None else "checkpoint"
        yield from _when(saved.at, f"last {step}")
    if (asked := status.handshake) is not None:
        text = f"told to save: {asked.why}, until {_clock(clock.parse(asked.deadline))}"
        yield from _when(asked.since, text)
    if status.finished_at:
        why = f": {status.message}" if status.message else ""
        yield from _when(status.finished_at, f"ended {status.phase}{why}")
    elif status.phase is not None:
        yield from _when(status.phase_since, str(status.phase), reason=str(status.phase))


def _incident(one: JobIncident) -> str:
    """Return an interruption as a line: what, where, and each part of the recovery."""
    where = f"{one.blade} " if one.blade else ""
    seats = f"(seat{'s' * (len(one.seats) > 1)} {_some(one.seats)})" if one.seats else ""
    head = " ".join(filter(None, (f"{one.code or one.cause}", f"{where}{seats}".strip())))
    parts = [
        f"detected {_after(one.detected_after)}" if one.detected_after else "",
        f"replaced by {one.replaced_by} {_after(one.replaced_after)}"
        if one.replaced_by
        else f"replaced {_after(one.replaced_after)}"
        if one.replaced_after
        else "",
        f"steps again {_after(one.running_after)}" if one.running_after else "not over yet",
    ]
    again = f" ({counted(one.rework_steps, 'step')} done again)" if one.rework_steps else ""
    return f"{head}: {' → '.join(filter(None, parts))}{again}"


def of_blade(blade: Blade) -> Iterator[Happening]:
    """Yield what the status of a Blade remembers."""
    status, spec = blade.status, blade.spec
    yield from _created(blade.metadata.creation_timestamp, f"known, in pool {spec.pool}")
    for one in status.incidents:
        gpu = f" GPU {one.gpu}" if one.gpu is not None else ""
        parts = [
            f"{one.code or 'hold'}{gpu}: {one.from_ or 'new'} → {one.to or '?'}",
            f"detected {_after(one.detected_after)}" if one.detected_after else "",
            f"with {', '.join(one.jobs)}" if one.jobs else "",
            one.outcome or "",
        ]
        yield from _when(one.at, ", ".join(filter(None, parts)), bad=True)
    for result in status.qualification.results if status.qualification is not None else ():
        passed = "passed" if result.passed else "failed"
        value = " ".join(filter(None, (result.value, result.unit)))
        text = f"{result.step} {passed}" + (f": {value}" if value else "")
        yield from _when(result.at, text, bad=not result.passed)
    if spec.hold is not None:
        yield from _when(spec.hold.at, f"held by {spec.hold.by}: {spec.hold.reason}")
    if spec.release is not None:
        yield from _when(spec.release.at, f"released by {spec.release.by}: {spec.release.reason}")
    if status.state is not None:
        why = ": ".join(filter(None, (status.reason, status.message)))
        text = str(status.state) + (f", {why}" if why else "")
        yield from _when(status.state_since, text, reason=str(status.reason or ""))


def of_deployment(deployment: InferenceDeployment) -> Iterator[Happening]:
    """Yield what the status of an InferenceDeployment remembers."""
    status = deployment.status
    yield from _created(deployment.metadata.creation_timestamp, "submitted")
    yield from _conditions(status.conditions)
    for one in status.decisions:
        yield from _when(one.at, f"{one.what}: {one.why}" if one.why else one.what)
    for replica in status.replicas:
        yield from _when(
            replica.failed_at,
            f"replica {replica.name} failed: {replica.why or replica.reason or 'no reason given'}",
            reason=str(replica.reason or ""),
            bad=True,
        )
        on = f" on {_some(replica.blades)}" if replica.blades else ""
        state = f"replica {replica.name} {replica.state or 'is there'}{on}"
        yield from _when(replica.since, state)


def of_gang(gang: Gang) -> Iterator[Happening]:
    """Yield what the status of a Gang remembers."""
    status = gang.status
    yield from _created(gang.metadata.creation_timestamp, "asked for")
    if status.placement is not None:
        seats = len(status.placement.seats)
        spares = len(status.placement.spares)
        held = f", {counted(spares, 'spare')}" if spares else ""
        yield from _when(status.placed_at, f"placed: {counted(seats, 'seat')}{held}")
    if status.preempt is not None:
        yield from _when(
            status.preempt.deadline,
            f"must have given way to {status.preempt.by}: {status.preempt.reason or ''}".rstrip(
                ": "
            ),
            reason="Preempted",
            bad=True,
        )


def of_pool(pool: NodePool) -> Iterator[Happening]:
    """Yield what the status of a NodePool remembers."""
    yield from _created(pool.metadata.creation_timestamp, "made")
    yield from _conditions(pool.status.conditions)
    breaker = pool.status.breaker
    if breaker is not None:
        why = f": {breaker.reason}" if breaker.reason else ""
        yield from _when(breaker.since, f"breaker {breaker.state}{why}")


def of_events(events: Iterable[Mapping[str, Any]]) -> Iterator[Happening]:
    """Yield what Events tell; a series is told once, at its first time."""
    for raw in events:
        at = raw.get("eventTime") or raw.get("deprecatedFirstTimestamp")
        at = at or raw["metadata"].get("creationTimestamp")
        count = (raw.get("series") or {}).get("count") or raw.get("deprecatedCount") or 1
        reason = str(raw.get("reason") or "")
        note = str(raw.get("note") or "").replace("\n", " ")
        times = f" ({count} times)" if count > 1 else ""
        text = ": ".join(filter(None, (reason, note)))
        bad = raw.get("type") == "Warning"
        yield from _when(at, f"{text}{times}", reason=reason, bad=bad, source="event")


def in_order(told: Iterable[Happening]) -> list[Happening]:
    """Return all in the order of time, without Events that repeat what the status says."""
    # Times of a status are whole seconds: within one, what was told first comes first.
    every = sorted(dict.fromkeys(told), key=lambda one: one.at)
    known = [one for one in every if one.source != "event" and one.reason]
    return [
        one
        for one in every
        if one.source != "event"
        or not any(
            other.reason == one.reason and abs(other.at - one.at) <= _SAME_S for other in known
        )
    ]


def lines(happened: Sequence[Happening]) -> list[str]:
    """Return a line for each: when, how long after the one before, what; days are headings."""
    found = []
    day = ""
    last: float | None = None
    for one in happened:
        stamp = clock.utc(one.at)
        if stamp[:10] != day:
            day = stamp[:10]
            found.append(click.style(day, bold=True))
        after = "" if last is None else f"+{_span(one.at - last)}"
        last = one.at
        what = click.style(one.what, fg="red") if one.bad else one.what
        found.append(f"  {stamp[11:19]}Z  {after:>8}  {what}")
    return found


def now(job: TrainingJob, at: float) -> str:
    """Return what the job does now: `now Running for 5m, step 118,400: seat 17 moved`."""
    status = job.status
    if status.phase is None or status.finished_at:
        return ""
    since = f" for {age(at - clock.parse(status.phase_since))}" if status.phase_since else ""
    step = f", step {status.step:,}" if status.step is not None else ""
    why = plain(status.message, job.metadata.key)
    return f"now {status.phase}{since}{step}{f': {why}' if why else ''}"


def plain(message: str | None, key: str) -> str:
    """Return a message without the name of the object that it is shown with."""
    return (message or "").removeprefix(f"Gang {key}: ").removeprefix(f"TrainingJob {key}: ")


def goodput(job: TrainingJob) -> str:
    """Return what the job's time went into: `goodput 97.4%  lost: restart 115s, queue 3s`."""
    told = job.status.goodput
    if told is None or told.ratio is None:
        return ""
    lost = {name: parse_duration(text) for name, text in told.lost.model_dump().items() if text}
    worst = sorted(((s, name) for name, s in lost.items() if s > 0), reverse=True)
    causes = ", ".join(f"{name} {_span(s)}" for s, name in worst) or "nothing"
    return f"goodput {float(told.ratio):.1%}  lost: {causes}"


def _conditions(conditions: Iterable[Condition]) -> Iterator[Happening]:
    for one in conditions:
        try:
            news = _NEWS.get(ConditionType(one.type))
        except ValueError:
            continue
        if news is None or one.status is not ConditionStatus.TRUE:
            continue
        bad = one.type not in {"Admitted", "GangReady", "Complete", "Planned", "Scheduled",
                               "ArtifactVerified"}  # fmt: skip
        text = f"{news}: {one.message}" if one.message and bad else news
        yield from _when(
            one.last_transition_time, text, reason=one.reason, bad=bad, source="condition"
        )


def _created(at: str | None, what: str) -> Iterator[Happening]:
    yield from _when(at, what)


def _when(
    at: str | None, what: str, *, reason: str = "", bad: bool = False, source: str = "status"
) -> Iterator[Happening]:
    """Yield it if it is known when it was."""
    if not at:
        return
    try:
        yield Happening(clock.parse(at), what, reason, bad, source)
    except InvalidValue:
        return


def _after(duration: str | None) -> str:
    return f"+{_span(parse_duration(duration))}" if duration else ""


def _span(seconds: float) -> str:
    """Return a time for people: 0.8s, 42s, 3m12s, 2h5m, 4d."""
    if seconds < 10:  # noqa: PLR2004 - tenths matter up to here
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _MINUTE_S * 2:
        return f"{whole}s"
    if whole < _HOUR_S:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < _DAY_S:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return age(seconds)


def _clock(at: float) -> str:
    return f"{clock.utc(at)[11:19]}Z"


def _some(items: Sequence[object]) -> str:
    shown = ", ".join(map(str, items[:4]))
    return f"{shown} and {len(items) - 4} more" if len(items) > 4 else shown  # noqa: PLR2004 - few
