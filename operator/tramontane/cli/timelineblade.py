"""Tell what happened to a blade: its incidents, people's words, tests and changes of state.

An incident holds its own end, but not when that was. So its line tells nothing of what came later,
where the end has a line of its own; where it has none, it is marked as later.

| outcome of an incident                        | told                                       |
|-----------------------------------------------|--------------------------------------------|
| of the release or hold that the spec still has| by the line of the release                 |
| `reboot, back in 14m`                         | in a line of its own, 14 minutes after it  |
| any other: nobody knows when                  | with the incident, as `later clean for 10m`|
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade, BladeSpec, BladeState, Incident
from tramontane.api.errors import InvalidValue
from tramontane.api.quantity import parse_duration
from tramontane.cli import happenings
from tramontane.cli.happenings import Happening, created, span, when

Raw = Mapping[str, Any]

_NEW = "new"
_BACK = re.compile(r"\bback in (\S+)$")
# The operator's note about a change: `Draining to Repairing: waits for a person`.
_CHANGE = re.compile(r"(\w+) to (\w+)(?:: (.*))?", re.DOTALL)
_TENTHS_BELOW_S = 10.0


def of_blade(blade: Blade) -> Iterator[Happening]:
    """Yield what the status of a Blade remembers, and what people said of it."""
    status, spec = blade.status, blade.spec
    yield from created(blade.metadata.creation_timestamp, f"known, in pool {spec.pool}")
    for one in status.incidents:
        yield from _incident(one, spec)
    for result in status.qualification.results if status.qualification is not None else ():
        passed = "passed" if result.passed else "failed"
        value = " ".join(filter(None, (result.value, result.unit)))
        text = f"{result.step} {passed}" + (f": {value}" if value else "")
        yield from when(result.at, text, bad=not result.passed)
    if spec.hold is not None:
        yield from when(spec.hold.at, f"held by {spec.hold.by}: {spec.hold.reason}")
    if spec.release is not None:
        yield from when(spec.release.at, f"released by {spec.release.by}: {spec.release.reason}")
    if status.state is not None:
        reason = str(status.reason or "")
        yield from when(
            status.state_since,
            ", ".join(filter(None, (str(status.state), reason))),
            reason=reason,
            message=status.message or "",
            after=str(status.state),
        )


def of_events(events: Iterable[Raw]) -> Iterator[Happening]:
    """Yield what Events about a blade tell: changes of state in the words of its incidents."""
    for raw in events:
        change = _change(str(raw.get("note") or ""))
        if change is None:
            yield from happenings.of_events((raw,))
            continue
        before, after, message = change
        reason = str(raw.get("reason") or "")
        why = "" if reason == after else reason
        yield from when(
            happenings.event_time(raw),
            ", ".join(filter(None, (f"{before} → {after}", why))),
            reason=reason,
            bad=raw.get("type") == "Warning",
            source="event",
            message=message,
            before=before,
            after=after,
        )


def _change(note: str) -> tuple[str, str, str] | None:
    """Return states before and after, and why, if that is what an Event's note tells."""
    found = _CHANGE.fullmatch(note.replace("\n", " "))
    if found is None:
        return None
    before, after = found[1].replace("New", _NEW), found[2]
    known = {_NEW, *BladeState}
    is_change = before in known and after in known and before != after
    return (before, after, found[3] or "") if is_change else None


def _incident(one: Incident, spec: BladeSpec) -> Iterator[Happening]:
    gpu = f" GPU {one.gpu}" if one.gpu is not None else ""
    name = f"{one.code or 'hold'}{gpu}"
    back_s = _back_s(one)
    known = back_s is not None or _is_of_release(one, spec)
    before, after = str(one.from_ or _NEW), str(one.to or "?")
    parts = [
        f"{name}: {before} → {after}",
        _reported(one.detected_after),
        f"with {', '.join(one.jobs)}" if one.jobs else "",
        f"later {one.outcome}" if one.outcome and not known else "",
    ]
    what = ", ".join(filter(None, parts))
    change = {"before": before, "after": after} if before != after else {}
    for told in when(one.at, what, bad=True, **change):
        yield told
        if back_s is not None:
            yield Happening(told.at + back_s, f"{name} over: {one.outcome}")


def _reported(after: str | None) -> str:
    """Return how long after a fault its report came, which is known in whole seconds.

    A TrainingJob's `detected` is another span: until the job knew of it.
    """
    if after is None:
        return ""
    seconds = parse_duration(after)
    if seconds < 1:
        return "reported within 1s"
    return f"reported after {span(seconds) if seconds >= _TENTHS_BELOW_S else f'{seconds:.0f}s'}"


def _back_s(one: Incident) -> float | None:
    """Return how long after its beginning an incident was over, if its outcome says so (s)."""
    outcome = one.outcome or ""
    found = None if outcome.startswith("released by ") else _BACK.search(outcome)
    try:
        return parse_duration(found[1]) if found is not None else None
    except InvalidValue:
        return None


def _is_of_release(one: Incident, spec: BladeSpec) -> bool:
    """Return whether the release in the spec is what ended the incident."""
    release = spec.release
    if release is None or not (release.at and one.at):
        return False
    began, released = clock.parse(one.at), clock.parse(release.at)
    if one.outcome == "hold ended":
        held_at = spec.hold.at if spec.hold is not None else None
        return held_at is not None and clock.parse(held_at) <= began <= released
    said = f"released by {release.by}: {release.reason}"
    return bool(one.outcome) and said.startswith(one.outcome or "") and began <= released
