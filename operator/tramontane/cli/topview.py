"""Say what goes on in a hall now, trouble first: pure, from what was seen to lines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tramontane.api import clock
from tramontane.api.nodepool import BladeCounts
from tramontane.cli import happenings, looks, tables
from tramontane.cli.tables import Table, age

Raw = dict[str, Any]

_BAR = 48
_LEAST_ROWS = 3
_EVENTS = 6
# Jobs in trouble before those that run, and those before what has ended.
_ORDER = (
    "Recovering", "Checkpointing", "Starting", "Running", "Queued", "", "Suspended", "Failed",
    "Succeeded",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pool:
    """Hold what is shown of a NodePool."""

    name: str
    counts: BladeCounts
    gpus: str = ""
    spares: str = ""
    breaker: str = "Closed"


@dataclass(frozen=True, slots=True)
class Job:
    """Hold what is shown of a TrainingJob, or of an InferenceDeployment: its ready replicas."""

    kind: str
    key: str
    phase: str
    ready: str = ""
    gpus: str = ""
    goodput: str = ""
    step: str = ""
    step_time: str = ""
    loss: str = ""
    reason: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Hold what is shown of a gang; only those that wait are."""

    key: str
    pool: str
    position: int
    reason: str
    message: str
    asked: str
    estimate: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Hold what is shown of an Event."""

    at: str
    about: str
    text: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold all that is shown; `lacking` names the kinds that could not be read yet."""

    pools: Sequence[Pool] = ()
    jobs: Sequence[Job] = ()
    gangs: Sequence[Waiting] = ()
    events: Sequence[Event] = ()
    lacking: Sequence[str] = ()


def pool(raw: Raw) -> Pool:
    """Return what is shown of a NodePool."""
    status = raw.get("status") or {}
    gpus, spares = status.get("gpus") or {}, status.get("spares") or {}
    return Pool(
        raw["metadata"]["name"],
        BladeCounts.model_validate(status.get("blades") or {}),
        f"{gpus.get('allocated', 0):,} of {gpus.get('allocatable', 0):,} GPUs" if gpus else "",
        f"{spares.get('ready', 0)} of {spares['target']}" if spares.get("target") else "",
        (status.get("breaker") or {}).get("state", "Closed"),
    )


def job(raw: Raw) -> Job:
    """Return what is shown of a TrainingJob."""
    status = raw.get("status") or {}
    ratio = (status.get("goodput") or {}).get("ratio")
    return Job(
        "tj",
        _key(raw),
        status.get("phase", ""),
        status.get("ready", ""),
        str(status.get("gpus") or ""),
        f"{float(ratio):.1%}" if ratio else "",
        f"{status['step']:,}" if status.get("step") is not None else "",
        status.get("stepTime", ""),
        status.get("loss", ""),
        status.get("reason", ""),
        status.get("phaseSince", ""),
    )


def deployment(raw: Raw) -> Job:
    """Return what is shown of an InferenceDeployment."""
    status = raw.get("status") or {}
    return Job(
        "inf",
        _key(raw),
        status.get("phase", ""),
        status.get("ready", ""),
        reason=status.get("reason", ""),
    )


def gang(raw: Raw) -> Waiting:
    """Return what is shown of a Gang."""
    status, spec = raw.get("status") or {}, raw.get("spec") or {}
    asked = status.get("estimatedStart") or {}
    return Waiting(
        _key(raw),
        spec.get("pool", ""),
        status.get("position") or 0,
        status.get("reason", ""),
        happenings.plain(status.get("message"), _key(raw)),
        raw["metadata"].get("creationTimestamp", ""),
        asked.get("p50", ""),
        spec.get("active", True) and not status.get("placement"),
    )


def event(raw: Raw) -> Event:
    """Return what is shown of an Event: at its last time, where it is a series."""
    series, about = raw.get("series") or {}, raw.get("regarding") or {}
    at = series.get("lastObservedTime") or raw.get("eventTime") or ""
    count = f" ({series['count']} times)" if series.get("count", 1) > 1 else ""
    name = "/".join(filter(None, (about.get("namespace"), about.get("name"))))
    note = happenings.plain(str(raw.get("note") or ""), name).replace("\n", " ")
    return Event(
        at or raw["metadata"].get("creationTimestamp", ""),
        " ".join(filter(None, (about.get("kind", "?"), name))),
        f"{raw.get('reason', '')}: {note}{count}",
        raw.get("type") == "Warning",
    )


def lines(seen: Seen, now: float, height: int | None = None) -> list[str]:
    """Return the view; no longer than `height`, or all of it where that is None."""
    found = [click.style(f"Tramontane at {clock.utc(now)}", bold=True)]
    if seen.lacking:
        found.append(f"not read yet: {', '.join(seen.lacking)}")
    found.append("")
    width = max((len(one.name) for one in seen.pools), default=0)
    found += [_pool(one, width) for one in seen.pools]
    waiting = sorted(
        (one for one in seen.gangs if one.waits), key=lambda one: (one.pool, one.position, one.key)
    )
    jobs = sorted(seen.jobs, key=lambda one: (_order(one.phase), one.key))
    events = sorted(seen.events, key=lambda one: one.at, reverse=True)
    shares = _shares(len(found), len(jobs), len(waiting), height)
    found += _section(
        f"Jobs ({len(jobs)})",
        ("JOB", "PHASE", "FOR", "READY", "GPUS", "GOODPUT", "STEP", "STEP TIME", "LOSS", "REASON"),
        [_job(one, now) for one in jobs[: shares[0]]],
    )
    found += _section(
        f"Queue ({len(waiting)})",
        ("GANG", "POOL", "POSITION", "FOR", "ESTIMATE", "REASON", "MESSAGE"),
        [_waiting(one, now) for one in waiting[: shares[1]]],
    )
    found += _section(
        "Last events",
        ("AGO", "ABOUT", "WHAT"),
        [(_ago(one.at, now), one.about, one.text) for one in events[:_EVENTS]],
    )
    return found if height is None else found[:height]


def content(seen: Seen) -> dict[str, Any]:
    """Return it for programs."""
    return {
        "pools": [
            {"name": one.name, "blades": one.counts.to_dict(), "breaker": one.breaker}
            for one in seen.pools
        ],
        "jobs": [_named(one) for one in seen.jobs],
        "queue": [_named(one) for one in seen.gangs if one.waits],
        "events": [_named(one) for one in seen.events],
    }


def _named(one: Any) -> Raw:
    return {
        name: value for name in one.__slots__ if (value := getattr(one, name)) not in {"", None}
    }


def _pool(one: Pool, width: int) -> str:
    counts = looks.of_counts(one.counts)
    drawn = looks.bar(counts, _BAR)
    pad = " " * (_BAR - len(click.unstyle(drawn)))
    breaker = click.style("breaker Open", fg="red") if one.breaker == "Open" else ""
    spares = f"spares {one.spares}" if one.spares else ""
    said = "  ".join(filter(None, (one.gpus, spares, breaker)))
    return f"{one.name:<{width}}  {drawn}{pad}  {said}".rstrip()


def _job(one: Job, now: float) -> tuple[str, ...]:
    return (
        f"{one.kind}/{one.key}",
        one.phase,
        _ago(one.since, now),
        one.ready,
        one.gpus,
        one.goodput,
        one.step,
        one.step_time,
        one.loss,
        one.reason,
    )


def _waiting(one: Waiting, now: float) -> tuple[str, ...]:
    return (
        one.key,
        one.pool,
        str(one.position or ""),
        _ago(one.asked, now),
        one.estimate,
        one.reason,
        one.message,
    )


def _shares(taken: int, jobs: int, waiting: int, height: int | None) -> tuple[int, int]:
    """Return how many rows jobs and the queue may have: headings and events are always there."""
    if height is None:
        return jobs, waiting
    room = max(2 * _LEAST_ROWS, height - taken - _EVENTS - 9)
    of_queue = min(waiting, max(_LEAST_ROWS, room // 3))
    of_jobs = min(jobs, room - of_queue)
    return of_jobs, min(waiting, room - of_jobs)


def _section(title: str, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    shown = list(rows)
    head = ["", click.style(title, bold=True)]
    return [*head, *tables.styled(Table(headings, shown))] if shown else [*head, "none"]


def _order(phase: str) -> int:
    return _ORDER.index(phase) if phase in _ORDER else _ORDER.index("Running")


def _key(raw: Raw) -> str:
    return f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _ago(time: str, now: float) -> str:
    return age(now - clock.parse(time)) if time else ""
