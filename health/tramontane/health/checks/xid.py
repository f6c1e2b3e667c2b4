"""xid: events reach the agent, and each code means what the catalogue says.

The only check with two halves: `CHECK` says whether events can be had at all (unknown, if neither
NVML nor the kernel log tells them), `judge` turns one event into a finding. How findings of events
stay and end is in events.py. (sxid.py is the same for NVSwitches.)
"""

from functools import lru_cache

from tramontane.api.blade import Action, Severity
from tramontane.health import catalogue
from tramontane.health.catalogue import Xid
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Event, Reading

NAME = "xid"
RECOVERY_ACTION = 154

# Codes whose severity only the kernel log's line knows.
# Source: health.md 1.5: registers of 74, sub-codes of 144-150.
TOLD_BY_LINE = frozenset({74, *range(144, 151)})


def code(xid: int) -> str:
    """Return the fault code of an XID."""
    return f"xid-{xid}"


def judge(event: Event, *, asked: bool = True) -> Finding | None:
    """Return the finding of an XID event; of severity None where the catalogue ignores it.

    None for an XID 154 that says nothing new. `asked`: the driver tells its recovery action (NVML
    field 230); otherwise the line of XID 154 that carries it is all there is.
    """
    if event.xid is None:
        return None
    row = _row(event.xid, event.fatal, event.wanted)
    if event.xid == RECOVERY_ACTION:
        row = _recovery(event, row, asked=asked)
        if row.severity is Severity.NONE:
            return None
    return Finding(
        code(event.xid),
        row.severity,
        row.action,
        event.line or f"XID {event.xid}: {row.description}",
        gpu=None if event.gpu < 0 else event.gpu,
        uuid=event.uuid,
    )


@lru_cache(maxsize=1024)
def _row(xid: int, fatal: bool | None, wanted: str) -> Xid:
    row = catalogue.look_up(xid)
    if xid == RECOVERY_ACTION:
        return row
    return catalogue.decoded(row, fatal, Action(wanted) if wanted else None)


def _recovery(event: Event, row: Xid, *, asked: bool) -> Xid:
    if asked or not event.wanted:
        return row
    wanted = Action(event.wanted)
    if wanted is Action.NONE:
        return row
    # "Drain and Reset" lets what runs come to its end.
    drain = wanted is Action.DRAIN or "drain" in event.subcode.lower()
    severity = Severity.DEGRADED if drain or wanted is Action.INSPECT else Severity.FATAL
    return Xid(row.code, row.description, severity, wanted)


def kernel_log_readable(reading: Reading) -> bool:
    """Return whether the kernel log tells what NVML does not."""
    return reading.host is not None and not reading.host.kernel_log


def _judge(reading: Reading, _past: Past) -> Outcome:
    return Outcome(unknown=bool(reading.events_error) and not kernel_log_readable(reading))


CHECK = Check(NAME, "xid.csv; NVML event type 0x8; kernel log", _judge)
