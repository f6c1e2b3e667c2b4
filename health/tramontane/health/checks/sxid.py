"""sxid: errors of the NVSwitches, which only the kernel log tells, mean what sxid.csv says.

`CHECK` says whether the log can be read; `judge` turns one event into a finding of the blade. As
with XIDs, events.py says how findings stay and end.
"""

from functools import lru_cache

from tramontane.api.blade import Action
from tramontane.health import catalogue
from tramontane.health.catalogue import Xid
from tramontane.health.checks import xid
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Event, Reading

NAME = "sxid"


def code(sxid: int) -> str:
    """Return the fault code of an SXID."""
    return f"sxid-{sxid}"


def judge(event: Event) -> Finding | None:
    """Return the finding of an SXID event; of severity None where the catalogue ignores it."""
    if event.sxid is None:
        return None
    row = _row(event.sxid, event.fatal, event.wanted)
    return Finding(
        code(event.sxid),
        row.severity,
        row.action,
        event.line or f"SXID {event.sxid}: {row.description}",
    )


@lru_cache(maxsize=1024)
def _row(sxid: int, fatal: bool | None, wanted: str) -> Xid:
    row = catalogue.look_up_switch(sxid)
    return catalogue.decoded(row, fatal, Action(wanted) if wanted else None)


def _judge(reading: Reading, _past: Past) -> Outcome:
    return Outcome(unknown=not xid.kernel_log_readable(reading))


CHECK = Check(NAME, "sxid.csv; NVIDIA Fabric Manager User Guide; kernel log", _judge)
