"""Fold what was seen into the report: pure, and the only memory the agent has.

The previous report is the last one written, or the one read back from the API after a restart;
that is how nothing is forgotten. Faults are of two sorts:

* **states** (every check but `xid`) are listed while they last. `lastSeen` is when their evidence
  last changed, not when somebody last looked: looking is no reason to write. Where a check is
  blind (value unsupported, GPU lost, NVML silent), an open fault stays: unknown clears nothing;
* **events** (`xid`) begin and do not end; events.py has the rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from tramontane.api import clock
from tramontane.api.blade import (
    MAX_FAULTS,
    AgentInfo,
    Checks,
    Fault,
    GpuInventory,
    Report,
    Severity,
)
from tramontane.health import checks, events
from tramontane.health.checks import count, recovery_action, session, xid
from tramontane.health.checks.base import Finding, Outcome, Past
from tramontane.health.device import Event, GpuFacts, Reading, Unresponsive, Unsupported

MAX_EVIDENCE = 160

_WORST_FIRST = (
    Severity.FATAL,
    Severity.UNKNOWN,
    Severity.DEGRADED,
    Severity.INFO,
    Severity.NONE,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the agent knows now. `events` are those since the previous report."""

    reading: Reading | None = None
    unresponsive: Unresponsive | None = None
    events: tuple[Event, ...] = ()
    released_at: float | None = None
    disabled: frozenset[str] = frozenset()


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
    outcomes = _outcomes(old, seen)
    uuids = _uuids(old, seen.reading)

    # 1. States: what the checks find, with the times that the previous report knows.
    open_before = {events.key_of(fault): fault for fault in old.faults}
    states: dict[events.Key, Fault] = {}
    for name, outcome in outcomes.items():
        for finding in outcome.findings:
            uuid = finding.uuid or uuids.get(-1 if finding.gpu is None else finding.gpu, "")
            key = events.key(finding.code, uuid, finding.gpu)
            states[key] = _fault(
                name, finding, uuid, open_before.get(key), boot_id=boot_id, now=now
            )
    # 2. What a blind check cannot see stays.
    incomplete = any(f.code == count.CODE for f in outcomes.get("gpu-count", Outcome()).findings)
    present = _present(seen.reading, uuids)
    for fault in old.faults:
        if events.key_of(fault) not in states and _held(fault, outcomes, present, incomplete):
            states[events.key_of(fault)] = fault
    # 3. Events: the earlier ones that nothing has ended, and the new ones.
    ending = events.Ending(
        now=now,
        rebooted=bool(old.agent.boot_id) and boot_id != old.agent.boot_id,
        reset=_reset(old, seen.reading),
        released_at=seen.released_at,
        present=None if incomplete else present,
    )
    happened: list[Fault] = []
    if xid.NAME not in seen.disabled:
        earlier = [fault for fault in old.faults if fault.check == xid.NAME]
        happened = events.with_events(
            events.surviving(earlier, ending), seen.events, boot_id, uuids
        )

    faults = _ordered((*states.values(), *happened))
    return Report(
        agent=_agent(old, seen.reading, boot_id, version, now),
        gpus=_inventory(old, seen.reading, faults),
        faults=faults,
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
    | only counts, lastSeen, evidence of known faults   | later          |
    | anything else                                     | now            |
    """
    if published is None:
        return Urgency.NOW
    if _timeless(published) == _timeless(wanted):
        return Urgency.NONE
    return Urgency.LATER if _essence(published) == _essence(wanted) else Urgency.NOW


def _timeless(report: Report) -> Report:
    return report.model_copy(update={"agent": report.agent.model_copy(update={"time": None})})


def _essence(report: Report) -> Report:
    faults = sorted(
        (
            f.model_copy(update={"count": 1, "last_seen": None, "evidence": None})
            for f in report.faults
        ),
        key=events.key_of,
    )
    return _timeless(report).model_copy(update={"faults": tuple(faults)})


def _boot_id(seen: Seen) -> str:
    if seen.unresponsive is not None:
        return seen.unresponsive.boot_id
    return "" if seen.reading is None else seen.reading.boot_id


def _outcomes(old: Report, seen: Seen) -> Mapping[str, Outcome]:
    if seen.reading is not None and seen.unresponsive is None:
        missing = sum(fault.count for fault in old.faults if fault.code == count.CODE)
        return checks.run(seen.reading, Past(len(old.gpus) + missing), seen.disabled)
    outcomes = {check.name: checks.BLIND for check in checks.CHECKS}
    if seen.unresponsive is not None:
        outcomes[session.NAME] = Outcome((session.unresponsive(seen.unresponsive),))
    return {name: outcome for name, outcome in outcomes.items() if name not in seen.disabled}


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
    if fault.check == xid.NAME or outcome is None:
        return False
    if None in outcome.blind:
        return True
    if fault.uuid and present is not None and fault.uuid not in present:
        return incomplete  # gone while GPUs are missing: lost; gone from a full blade: replaced
    return fault.gpu in outcome.blind


def _reset(old: Report, reading: Reading | None) -> frozenset[int]:
    """Return the GPUs of which the driver wanted a recovery and, asked again, wants none."""
    if reading is None:
        return frozenset()
    wanted = {
        fault.gpu
        for fault in old.faults
        if fault.check == recovery_action.NAME or fault.code == "gpu-reset-required"
    }
    return frozenset(
        gpu.index
        for gpu in reading.gpus
        if gpu.index in wanted
        and not gpu.reset_required
        and (not isinstance(gpu.recovery_action, Unsupported) and gpu.recovery_action == 0)
    )


def _fault(
    check: str, finding: Finding, uuid: str, old: Fault | None, *, boot_id: str, now: float
) -> Fault:
    evidence = finding.evidence[:MAX_EVIDENCE]
    at = clock.utc(now)
    first_seen = last_seen = at
    if old is not None:
        first_seen = old.first_seen or at
        unchanged = (old.evidence, old.count, old.boot_id) == (evidence, finding.count, boot_id)
        last_seen = (old.last_seen or at) if unchanged else at
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
    def rank(fault: Fault) -> tuple[int, int, str]:
        gpu = -1 if fault.gpu is None else fault.gpu
        return _WORST_FIRST.index(fault.severity), gpu, fault.code

    return tuple(sorted(faults, key=rank)[:MAX_FAULTS])


def _agent(
    old: Report, reading: Reading | None, boot_id: str, version: str, now: float
) -> AgentInfo:
    driver = reading.driver if reading is not None else ""
    cuda = reading.cuda if reading is not None else ""
    return AgentInfo(
        version=version,
        boot_id=boot_id or None,
        driver=driver or old.agent.driver,
        cuda=cuda or old.agent.cuda,
        time=clock.utc(now),
    )


def _inventory(
    old: Report, reading: Reading | None, faults: Iterable[Fault]
) -> tuple[GpuInventory, ...]:
    """Return the GPUs: as read, and where that is not possible as last known."""
    known = {gpu.index: gpu for gpu in old.gpus}
    if reading is None or reading.session_error:
        gpus = list(old.gpus)
    else:
        gpus = [
            _gpu(gpu.index, gpu.facts)
            if gpu.facts.uuid
            else known.get(gpu.index, GpuInventory(index=gpu.index))
            for gpu in reading.gpus
        ]
    open_on: dict[int, int] = {}
    for fault in faults:
        if fault.gpu is not None:
            open_on[fault.gpu] = open_on.get(fault.gpu, 0) + 1
    return tuple(gpu.model_copy(update={"faults": open_on.get(gpu.index, 0)}) for gpu in gpus)


def _gpu(index: int, facts: GpuFacts) -> GpuInventory:
    return GpuInventory(
        index=index,
        uuid=facts.uuid,
        serial=facts.serial or None,
        pci_bus_id=facts.pci_bus_id or None,
        product=facts.product.replace(" ", "-") or None,
        memory=_quantity(facts.memory_bytes) if facts.memory_bytes else None,
        vbios=facts.vbios or None,
    )


def _quantity(size: int) -> str:
    """Return bytes in the largest binary unit that divides them: `144384Mi`."""
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
