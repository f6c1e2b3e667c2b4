"""Put in order what happened to an object: pure, from its status and its Events to lines.

A status remembers what mattered (incidents, decisions, results of tests), Events the rest for an
hour or so. An Event that only repeats what the status tells better is left out. What only a blade
has, `timelineblade` tells.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from tramontane.api import clock
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
# The same for a change of a blade's state, which may soon be followed by the next.
_SAME_CHANGE_S = 5.0
# Times of a status are cut to it.
_SECOND_S = 1.0
_MINUTE_S = 60.0
_HOUR_S = 3600.0
_DAY_S = 86_400.0
# What stands between the parts of a message.
_BETWEEN = "; "
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
        message: more about it, in parts between semicolons; may repeat another's.
        before, after: states of a blade that changed; `before` is empty where it is not known.
    """

    at: float
    what: str
    reason: str = ""
    bad: bool = False
    source: str = "status"
    message: str = ""
    before: str = ""
    after: str = ""

    def to_dict(self) -> Raw:
        """Return it for programs, each whole in itself."""
        what = _with(self.what, self.message)
        whole: Raw = {"at": clock.micro(self.at), "what": what, "source": self.source}
        if self.reason:
            whole["reason"] = self.reason
        return whole | {"bad": self.bad}


def of_job(job: TrainingJob) -> Iterator[Happening]:
    """Yield what the status of a TrainingJob remembers."""
    status = job.status
    yield from created(job.metadata.creation_timestamp, "submitted")
    yield from _conditions(status.conditions)
    yield from when(status.started_at, "first ran")
    for one in status.incidents:
        yield Happening(clock.parse(one.at), _incident(one), str(one.cause), bad=True)
    saved = status.last_checkpoint
    if saved is not None:
        step = f"checkpoint of step {saved.step:,}" if saved.step is not None else "checkpoint"
        yield from when(saved.at, f"last {step}")
    if (asked := status.handshake) is not None:
        text = f"told to save: {asked.why}, until {_clock(clock.parse(asked.deadline))}"
        yield from when(asked.since, text)
    if status.finished_at:
        why = f": {status.message}" if status.message else ""
        yield from when(status.finished_at, f"ended {status.phase}{why}")
    elif status.phase is not None:
        yield from when(status.phase_since, str(status.phase), reason=str(status.phase))


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


def of_deployment(deployment: InferenceDeployment) -> Iterator[Happening]:
    """Yield what the status of an InferenceDeployment remembers."""
    status = deployment.status
    yield from created(deployment.metadata.creation_timestamp, "submitted")
    yield from _conditions(status.conditions)
    for one in status.decisions:
        yield from when(one.at, f"{one.what}: {one.why}" if one.why else one.what)
    for replica in status.replicas:
        yield from when(
            replica.failed_at,
            f"replica {replica.name} failed: {replica.why or replica.reason or 'no reason given'}",
            reason=str(replica.reason or ""),
            bad=True,
        )
        on = f" on {_some(replica.blades)}" if replica.blades else ""
        state = f"replica {replica.name} {replica.state or 'is there'}{on}"
        yield from when(replica.since, state)


def of_gang(gang: Gang) -> Iterator[Happening]:
    """Yield what the status of a Gang remembers."""
    status = gang.status
    yield from created(gang.metadata.creation_timestamp, "asked for")
    if status.placement is not None:
        seats = len(status.placement.seats)
        spares = len(status.placement.spares)
        held = f", {counted(spares, 'spare')}" if spares else ""
        yield from when(status.placed_at, f"placed: {counted(seats, 'seat')}{held}")
    if status.preempt is not None:
        yield from when(
            status.preempt.deadline,
            f"must have given way to {status.preempt.by}: {status.preempt.reason or ''}".rstrip(
                ": "
            ),
            reason="Preempted",
            bad=True,
        )


def of_pool(pool: NodePool) -> Iterator[Happening]:
    """Yield what the status of a NodePool remembers."""
    yield from created(pool.metadata.creation_timestamp, "made")
    yield from _conditions(pool.status.conditions)
    breaker = pool.status.breaker
    if breaker is not None:
        why = f": {breaker.reason}" if breaker.reason else ""
        yield from when(breaker.since, f"breaker {breaker.state}{why}")


def of_events(events: Iterable[Mapping[str, Any]]) -> Iterator[Happening]:
    """Yield what Events tell; a series is told once, at its first time."""
    for raw in events:
        count = (raw.get("series") or {}).get("count") or raw.get("deprecatedCount") or 1
        reason = str(raw.get("reason") or "")
        note = str(raw.get("note") or "").replace("\n", " ")
        times = f" ({count} times)" if count > 1 else ""
        text = ": ".join(filter(None, (reason, note)))
        bad = raw.get("type") == "Warning"
        yield from when(event_time(raw), f"{text}{times}", reason=reason, bad=bad, source="event")


def event_time(raw: Mapping[str, Any]) -> str:
    """Return when an Event happened first; empty where it does not say."""
    at = raw.get("eventTime") or raw.get("deprecatedFirstTimestamp")
    return str(at or raw["metadata"].get("creationTimestamp") or "")


def in_order(told: Iterable[Happening]) -> list[Happening]:
    """Return all in the order of time, without Events that repeat what the status says."""
    # Times of a status are whole seconds: within one, what was told first comes first.
    every = sorted(_changes_once(tuple(dict.fromkeys(told))), key=lambda one: one.at)
    known = [one for one in every if one.source != "event" and one.reason]
    return [
        one
        for one in every
        if one.source != "event"
        or one.after
        or not any(
            other.reason == one.reason and abs(other.at - one.at) <= _SAME_S for other in known
        )
    ]


def _changes_once(told: Sequence[Happening]) -> list[Happening]:
    """Return all, with each change of a blade's state told once, by the first that tells of it.

    | who tells         | what only it knows                         |
    |-------------------|--------------------------------------------|
    | an incident       | the fault, and the jobs that it met        |
    | an Event          | when exactly, and why; for an hour         |
    | the present state | why, for as long as it lasts               |
    """
    changes = [one for one in told if one.after]
    events = [one for one in changes if one.source == "event"]
    incidents = [one for one in changes if one.source != "event" and one.before]
    present = [one for one in changes if one.source != "event" and not one.before]
    whole = _joined(_joined(incidents, events), present)
    return [*(one for one in told if not one.after), *whole]


def _joined(known: Sequence[Happening], more: Sequence[Happening]) -> list[Happening]:
    """Return the known changes with what others tell of the same ones, and then the others."""
    left = list(more)
    whole = []
    for one in known:
        apart_s = {
            other: abs(other.at - one.at)
            for other in left
            if other.after == one.after and abs(other.at - one.at) <= _SAME_CHANGE_S
        }
        nearest = min(apart_s, key=apart_s.__getitem__, default=None)
        if nearest is not None:
            left.remove(nearest)
        whole.append(one if nearest is None else _both(one, nearest))
    return [*whole, *left]


def _both(one: Happening, other: Happening) -> Happening:
    """Return a happening with what another tells of it: reason, message, the exact time."""
    early, late = sorted((one.at, other.at))
    at = late if late - early < _SECOND_S else early  # an Event may be written late
    return replace(
        one, at=at, reason=one.reason or other.reason, message=one.message or other.message
    )


def lines(happened: Sequence[Happening]) -> list[str]:
    """Return a line for each: when, how long after the one before, what; days are headings.

    What the line before has said already is left out of a message.
    """
    found = []
    day = ""
    last: float | None = None
    said: set[str] = set()
    for one in happened:
        stamp = clock.utc(one.at)
        if stamp[:10] != day:
            day = stamp[:10]
            found.append(click.style(day, bold=True))
        after = "" if last is None else f"+{span(one.at - last)}"
        last = one.at
        parts = one.message.split(_BETWEEN)
        what = _with(one.what, _BETWEEN.join(part for part in parts if part not in said))
        said = {one.what, *parts}
        what = click.style(what, fg="red") if one.bad else what
        found.append(f"  {stamp[11:19]}Z  {after:>8}  {what}")
    return found


def _with(what: str, message: str) -> str:
    return f"{what}: {message}" if message else what


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
    causes = ", ".join(f"{name} {span(s)}" for s, name in worst) or "nothing"
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
        yield from when(
            one.last_transition_time, text, reason=one.reason, bad=bad, source="condition"
        )


def created(at: str | None, what: str) -> Iterator[Happening]:
    """Yield how an object began."""
    yield from when(at, what)


def when(at: str | None, what: str, **more: Any) -> Iterator[Happening]:
    """Yield it if it is known when it was; `more` are fields of Happening."""
    if not at:
        return
    try:
        yield Happening(clock.parse(at), what, **more)
    except InvalidValue:
        return


def _after(duration: str | None) -> str:
    return f"+{span(parse_duration(duration))}" if duration else ""


def span(seconds: float) -> str:
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
