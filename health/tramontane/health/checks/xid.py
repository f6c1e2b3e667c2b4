"""xid: events reach the agent, and each code means what the catalogue says.

The only check with two halves: `CHECK` says whether events can be had at all (unknown, if not),
`judge` turns one event into a finding. How findings of events stay and end is in report.py.
"""

from tramontane.api.blade import Severity
from tramontane.health import catalogue
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Event, Reading

NAME = "xid"


def code(xid: int) -> str:
    """Return the fault code of an XID."""
    return f"xid-{xid}"


def judge(event: Event) -> Finding | None:
    """Return the finding of an XID event, or None where the catalogue ignores it."""
    if event.xid is None:
        return None
    row = catalogue.look_up(event.xid)
    if row.severity is Severity.NONE:
        return None
    return Finding(
        code(event.xid),
        row.severity,
        row.action,
        f"XID {event.xid}: {row.description}",
        gpu=None if event.gpu < 0 else event.gpu,
        uuid=event.uuid,
    )


def _judge(reading: Reading, _past: Past) -> Outcome:
    return Outcome(unknown=bool(reading.events_error))


CHECK = Check(NAME, "xid.csv; NVML event type 0x8", _judge)
