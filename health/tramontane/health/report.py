"""Fold what was seen into the report: pure, and the only memory the agent has.

The previous report is the last one written, or the one read back from the API after a restart;
that is how nothing is forgotten. Faults are of two sorts:

* **states** (every check but `xid`) are listed while they last. `lastSeen` is when their evidence
  last changed, not when somebody last looked: looking is no reason to write. Where a check is
  blind (value unsupported, GPU lost, NVML silent), an open fault stays: unknown clears nothing;
* **events** (`xid`, `sxid`) begin and do not end; events.py has the rules.

Of more than 32 faults the worst are kept; of those that are only noted (severity None, ledger.py)
two per GPU.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from tramontane.api import clock
from tramontane.api.blade import (
    MAX_FAULTS,
    Action,
    BladeRepair,
    Checks,
    Fault,
    Report,
    Severity,
)
from tramontane.health import checks, events, ledger, shown
from tramontane.health.checks import count, recovery_action, session, window, xid
from tramontane.health.checks.base import Finding, Outcome, Past
from tramontane.health.device import (
    Event,
    GpuReading,
    Reading,
    Sample,
    Unresponsive,
    Unsupported,
)

MAX_EVIDENCE = 160
# How long ago the fold may be by which it is asked what settles next.
_LATE_S = 1.0
MAX_NOTED = 2
# Why there is no session while the library does not answer.
_SILENT = "Unresponsive"
# States that last until the GPU's reset, and not longer.
# Source: NVML: rows and pages are pending, volatile errors counted, until the GPU is reset.
_ENDED_BY_RESET = frozenset(
    {
        "bank-remap-pending",
        "channel-repair-pending",
        "ecc-uncorrected",
        "retired-pages-pending",
        "row-remap-pending",
        "tpc-repair-pending",
    }
)

_WORST_FIRST = (
    Severity.FATAL,
    Severity.UNKNOWN,
    Severity.DEGRADED,
    Severity.INFO,
    Severity.NONE,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the agent knows now.

    Attributes:
        events: those since the previous report.
        previous: readings before this one, oldest first (window.py); none after the agent's start.
        released_at: when a person released the blade.
        repair: what the operator did about a fault, from Blade.status.
    """

    reading: Reading | None = None
    unresponsive: Unresponsive | None = None
    events: tuple[Event, ...] = ()
    released_at: float | None = None
    disabled: frozenset[str] = frozenset()
    previous: tuple[Sample, ...] = ()
    repair: BladeRepair | None = None


class Urgency(Enum):
    """Whether a report must be written."""

    NONE = "none"
    LATER = "later"
    NOW = "now"


def fold(previous: Report | None, seen: Seen, now: float, version: str) -> Report:
    """Return the report after what was seen.

    O(GPUs · checks). The report's time is `now`; whether it is worth a write says `urgency`.
    """
    old = previous or Report()
    boot_id = _boot_id(seen) or old.agent.boot_id or ""
    no_session = _no_session(old, boot_id)
    outcomes = _outcomes(old, seen, now, no_session)
    uuids = _uuids(old, seen.reading)

    # 1. States: what the checks find, with the times that the previous report knows.
    open_before = {events.key_of(fault): fault for fault in old.faults}
    states: dict[events.Key, Fault] = {}
    for name, outcome in outcomes.items():
        for finding in outcome.findings:
            uuid = finding.uuid or uuids.get(-1 if finding.gpu is None else finding.gpu, "")
            key = events.key(finding.code, uuid, finding.gpu)
            before = open_before.get(key)
            if name == session.NAME and session.is_no_session(finding):
                before = no_session  # its time goes on when the reason changes
            states[key] = _fault(name, finding, uuid, before, boot_id=boot_id, now=now)
    # 2. What a blind check cannot see stays.
    incomplete = any(f.code == count.CODE for f in outcomes.get("gpu-count", Outcome()).findings)
    present = _present(seen.reading, uuids)
    for fault in old.faults:
        if events.key_of(fault) not in states and _held(fault, outcomes, present, incomplete):
            states[events.key_of(fault)] = fault
    # 3. Events: the earlier ones that nothing has ended, and the new ones.
    repair = seen.repair if seen.repair is not None and seen.repair.action is Action.RESET else None
    repaired_at = repair.repaired_at if repair is not None else None
    ending = events.Ending(
        now=now,
        rebooted=bool(old.agent.boot_id) and boot_id != old.agent.boot_id,
        reset=_reset(old, seen.reading) | _proven_reset(old, outcomes, states),
        repaired=repair.gpu if repair is not None else None,
        repaired_at=clock.parse(repaired_at) if repaired_at else None,
        released_at=seen.released_at,
        present=None if incomplete else present,
    )
    watched = events.NAMES - seen.disabled
    earlier = [fault for fault in old.faults if fault.check in watched]
    new = [event for event in seen.events if events.check_of(event) in watched]
    scene = _scene(seen.reading, uuids, now)
    happened = events.with_events(events.surviving(earlier, ending), new, boot_id, uuids, scene)

    faults = _ordered((*states.values(), *happened))
    return Report(
        agent=shown.agent(old, seen.reading, boot_id, version, now),
        gpus=shown.gpus(old, seen.reading, faults),
        faults=faults,
        network=shown.network(old, seen.reading),
        checks=Checks(
            run=sum(not outcome.unknown for outcome in outcomes.values()),
            unknown=tuple(sorted(name for name, outcome in outcomes.items() if outcome.unknown)),
        ),
    )


def urgency(published: Report | None, wanted: Report) -> Urgency:
    """Return whether `wanted` must be written over what was published.

    Later is when the last write is old enough: a flood of one XID is no news.

    | differs in                                        | write          |
    |---------------------------------------------------|----------------|
    | nothing, or only the report's time                | no             |
    | only counts, lastSeen, evidence of known faults,  | later          |
    | or what is only noted                             |                |
    | anything else                                     | now            |
    """
    if published is None:
        return Urgency.NOW
    if _timeless(published) == _timeless(wanted):
        return Urgency.NONE
    return Urgency.LATER if _essence(published) == _essence(wanted) else Urgency.NOW


def settles_in(report: Report, now: float) -> float | None:
    """Return after how many seconds to fold again without news, or None.

    A fault whose line does not come is taken for what it may be at worst (ledger.py), and so is a
    driver that does not come back (session.py). One that is long due is held, by a check that is
    blind: no look at it settles anything.
    """
    waits = [
        clock.parse(fault.last_seen or clock.utc(now)) + ledger.AWAIT_S + 1 - now
        for fault in report.faults
        if ledger.is_awaiting(fault)
    ]
    waits += [
        clock.parse(fault.first_seen or clock.utc(now)) + session.RELOAD_S - now
        for fault in report.faults
        if session.is_reloading(fault)
    ]
    waits = [wait for wait in waits if wait > -_LATE_S]
    return max(0.0, min(waits)) if waits else None


def _timeless(report: Report) -> Report:
    return report.model_copy(update={"agent": report.agent.model_copy(update={"time": None})})


def _essence(report: Report) -> Report:
    faults = sorted(
        (
            f.model_copy(update={"count": 1, "last_seen": None, "evidence": None})
            for f in report.faults
            if not ledger.is_noted(f)
        ),
        key=events.key_of,
    )
    return _timeless(report).model_copy(update={"faults": tuple(faults)})


def _boot_id(seen: Seen) -> str:
    if seen.unresponsive is not None:
        return seen.unresponsive.boot_id
    return "" if seen.reading is None else seen.reading.boot_id


def _no_session(old: Report, boot_id: str) -> Fault | None:
    """Return the fault that says that NVML could not be used, if it is of this boot."""
    told = (fault for fault in old.faults if session.tells_no_session(fault))
    return next((fault for fault in told if fault.boot_id == boot_id), None)


def _outcomes(
    old: Report, seen: Seen, now: float, no_session: Fault | None
) -> Mapping[str, Outcome]:
    """Return what the checks say; while NVML is silent those that need no session still do."""
    if seen.reading is None:
        outcomes = {check.name: checks.BLIND for check in checks.CHECKS}
    else:
        missing = sum(fault.count for fault in old.faults if fault.code == count.CODE)
        since = no_session.first_seen if no_session is not None else None
        no_session_s = now - clock.parse(since) if since else 0.0
        released_at = seen.released_at or 0.0
        past = Past(
            gpus=len(old.gpus) + missing,
            at=now,
            previous=window.dated(seen.previous, now),
            no_session_s=no_session_s,
            faults=tuple(f for f in old.faults if events.seen_at(f, now) > released_at),
            released_at=released_at,
        )
        reading = seen.reading
        if seen.unresponsive is not None:
            reading = replace(reading, session_error=_SILENT, events_error=_SILENT)
        outcomes = dict(checks.run(reading, past, seen.disabled))
    if seen.unresponsive is not None:
        outcomes[session.NAME] = Outcome((session.unresponsive(seen.unresponsive),))
    return {name: outcome for name, outcome in outcomes.items() if name not in seen.disabled}


def _scene(reading: Reading | None, uuids: Mapping[int, str], now: float) -> events.Scene:
    """Return what is to be known for new events."""
    if reading is None or reading.session_error:
        unasked = frozenset(uuids)
    else:
        unasked = frozenset(
            gpu.index for gpu in reading.gpus if isinstance(gpu.recovery_action, Unsupported)
        )
    readable = reading is not None and xid.kernel_log_readable(reading)
    return events.Scene(now=now, log_readable=readable, unasked=unasked)


def _uuids(old: Report, reading: Reading | None) -> dict[int, str]:
    known = {gpu.index: gpu.uuid for gpu in old.gpus if gpu.uuid}
    if reading is not None:
        known |= {gpu.index: gpu.facts.uuid for gpu in reading.gpus if gpu.facts.uuid}
    return known


def _present(reading: Reading | None, uuids: Mapping[int, str]) -> frozenset[str] | None:
    """Return the UUIDs in the blade, or None where they cannot be told."""
    if reading is None or reading.session_error:
        return None
    return frozenset(uuids[gpu.index] for gpu in reading.gpus if gpu.index in uuids)


def _held(
    fault: Fault,
    outcomes: Mapping[str, Outcome],
    present: frozenset[str] | None,
    incomplete: bool,
) -> bool:
    outcome = outcomes.get(fault.check or "")
    if fault.check in events.NAMES or outcome is None:
        return False
    if None in outcome.blind:
        return True
    if fault.uuid and present is not None and fault.uuid not in present:
        return incomplete  # gone while GPUs are missing: lost; gone from a full blade: replaced
    return fault.gpu in outcome.blind


def _reset(old: Report, reading: Reading | None) -> frozenset[int]:
    """Return the GPUs of which the driver wanted a recovery and, asked again, wants none.

    A driver that does not tell its recovery action still tells a GPU that it refuses to use until
    its reset: where it uses it again, it was reset.
    """
    if reading is None:
        return frozenset()
    asked = {fault.gpu for fault in old.faults if fault.check == recovery_action.NAME}
    refused = {fault.gpu for fault in old.faults if fault.code == "gpu-reset-required"}
    return frozenset(
        gpu.index
        for gpu in reading.gpus
        if gpu.index in asked | refused
        and not gpu.reset_required
        and not gpu.lost
        and (gpu.recovery_action == 0 or (gpu.index in refused and _never_told(gpu)))
    )


def _never_told(gpu: GpuReading) -> bool:
    told = gpu.recovery_action
    return isinstance(told, Unsupported) and told.error in {"NotSupported", "FunctionNotFound"}


def _proven_reset(
    old: Report, outcomes: Mapping[str, Outcome], states: Mapping[events.Key, Fault]
) -> frozenset[int]:
    """Return the GPUs of which a state is over that only a reset ends."""
    return frozenset(
        fault.gpu
        for fault in old.faults
        if fault.code in _ENDED_BY_RESET
        and fault.gpu is not None
        and fault.check in outcomes
        and events.key_of(fault) not in states
    )


def _fault(
    check: str, finding: Finding, uuid: str, old: Fault | None, *, boot_id: str, now: float
) -> Fault:
    evidence = finding.evidence[:MAX_EVIDENCE]
    at = clock.utc(now)
    first_seen = last_seen = at
    if old is not None:
        # Nothing is of the future: after the clock was set back, time begins anew.
        first_seen = min(old.first_seen or at, at)
        unchanged = (old.evidence, old.count, old.boot_id) == (evidence, finding.count, boot_id)
        last_seen = min(old.last_seen or at, at) if unchanged else at
    return Fault(
        code=finding.code,
        check=check,
        gpu=finding.gpu,
        uuid=uuid or None,
        severity=finding.severity,
        action=finding.action,
        count=finding.count,
        first_seen=first_seen,
        last_seen=last_seen,
        boot_id=boot_id or None,
        evidence=evidence,
    )


def _ordered(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return the faults in the report's order; of too many the worst, among equals the latest."""

    def place(fault: Fault) -> tuple[int, int, str]:
        return (
            _WORST_FIRST.index(fault.severity),
            -1 if fault.gpu is None else fault.gpu,
            fault.code,
        )

    ordered = sorted(faults, key=place)
    ordered.sort(key=lambda fault: fault.last_seen or "", reverse=True)
    noted: Counter[int | None] = Counter()
    kept = []
    for fault in ordered:
        if ledger.is_noted(fault):
            noted[fault.gpu] += 1
        if not ledger.is_noted(fault) or noted[fault.gpu] <= MAX_NOTED:
            kept.append(fault)
    kept.sort(key=lambda fault: _WORST_FIRST.index(fault.severity))
    return tuple(sorted(kept[:MAX_FAULTS], key=place))
