"""Say what an XID or SXID means: severity and action per code, from the csv files beside this one.

They are data for people who run the hardware: NVIDIA's catalogues, what the peers do, and a
proposal. This module maps their words to the API's:

| proposed_action                  | action     | severity                                        |
|----------------------------------|------------|-------------------------------------------------|
| IGNORE                           | None       | None: noted for the pool's rules, no harm       |
| NOTE                             | None       | Info                                            |
| IGNORE_TICKET                    | Inspect    | Info                                            |
| IGNORE_IF_PAIRED_ELSE_RESTART_FM | RestartApp | Info; no fault where another XID is near        |
| RESTART_APP                      | RestartApp | Info: a job did it, or a job alone pays for it  |
| RESET_GPU_WHEN_IDLE              | Reset      | Degraded: running work stays, no new work comes |
| RESET_GPU                        | Reset      | Fatal                                           |
| REBOOT                           | Reboot     | Fatal                                           |
| DRAIN_INSPECT, DRAIN_UPDATE_SWFW | Inspect    | Fatal                                           |
| DECODE_NVLINK5                   | Drain      | Fatal: the sub-code is in the kernel log        |
| READ_RECOVERY_ACTION             | None       | None: the check of that name reads it; no fault |

A code that they do not know is Degraded and to be inspected: a newer driver's harmless code must
not end jobs, and a harmful one must not get new ones. Where the kernel log's line says how bad it
was, the line counts (`decoded`):

| line says           | wants               | severity                         | action           |
|---------------------|---------------------|----------------------------------|------------------|
| nothing             | nothing             | the code's                       | the code's       |
| fatal               | anything            | Fatal                            | wanted or code's |
| not fatal           | Drain and more      | Degraded                         | wanted           |
| not fatal           | less, or nothing    | Info, or the code's if milder    | wanted or code's |
| nothing             | Drain and more      | Degraded, or the code's if worse | the stronger     |
| nothing             | less                | as for not fatal                 |                  |
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from tramontane.api.blade import Action, Severity

CSV = Path(__file__).with_name("xid.csv")
SWITCH_CSV = Path(__file__).with_name("sxid.csv")

_MEANING: Mapping[str, tuple[Severity, Action]] = MappingProxyType(
    {
        "IGNORE": (Severity.NONE, Action.NONE),
        "NOTE": (Severity.INFO, Action.NONE),
        "IGNORE_TICKET": (Severity.INFO, Action.INSPECT),
        "IGNORE_IF_PAIRED_ELSE_RESTART_FM": (Severity.INFO, Action.RESTART_APP),
        "RESTART_APP": (Severity.INFO, Action.RESTART_APP),
        "RESET_GPU_WHEN_IDLE": (Severity.DEGRADED, Action.RESET),
        "RESET_GPU": (Severity.FATAL, Action.RESET),
        "REBOOT": (Severity.FATAL, Action.REBOOT),
        "DRAIN_INSPECT": (Severity.FATAL, Action.INSPECT),
        "DRAIN_UPDATE_SWFW": (Severity.FATAL, Action.INSPECT),
        "DECODE_NVLINK5": (Severity.FATAL, Action.DRAIN),
        "READ_RECOVERY_ACTION": (Severity.NONE, Action.NONE),
    }
)
_MILD = frozenset({Action.NONE, Action.RESTART_APP})
_RANK = {
    severity: rank
    for rank, severity in enumerate(
        (Severity.NONE, Severity.INFO, Severity.DEGRADED, Severity.UNKNOWN, Severity.FATAL)
    )
}
_STRENGTH = {action: strength for strength, action in enumerate(Action)}


@dataclass(frozen=True, slots=True)
class Xid:
    """One row: what a code is called and what it asks for."""

    code: int
    description: str
    severity: Severity
    action: Action


def rank(severity: Severity, action: Action) -> tuple[int, int]:
    """Return a key that sorts what faults ask for, mildest first."""
    return _RANK[severity], _STRENGTH[action]


@lru_cache(maxsize=1)
def table() -> Mapping[int, Xid]:
    """Return the XIDs by code; read once."""
    return _read(CSV, "xid")


@lru_cache(maxsize=1)
def switch_table() -> Mapping[int, Xid]:
    """Return the SXIDs of NVSwitches by code; read once."""
    return _read(SWITCH_CSV, "sxid")


def _read(path: Path, key: str) -> Mapping[int, Xid]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [_row(row, key) for row in csv.DictReader(file)]
    return MappingProxyType({row.code: row for row in rows})


def _row(row: Mapping[str, str], key: str) -> Xid:
    severity, action = _MEANING[row["proposed_action"]]
    return Xid(int(row[key]), row["description"], severity, action)


def look_up(code: int) -> Xid:
    """Return what an XID means, also where the catalogue does not know it."""
    return table().get(code) or _unknown(code)


def look_up_switch(code: int) -> Xid:
    """Return what an SXID means, also where the catalogue does not know it."""
    return switch_table().get(code) or _unknown(code)


def _unknown(code: int) -> Xid:
    return Xid(code, "not in the catalogue", Severity.DEGRADED, Action.INSPECT)


def decoded(row: Xid, fatal: bool | None, wanted: Action | None) -> Xid:
    """Return the row as the kernel log's line wants it; see the module's second table."""
    if fatal is None and wanted is None:
        return row
    if fatal:
        own = row.action if row.severity is Severity.FATAL else Action.RESET
        action = own if wanted is None or wanted in _MILD else wanted
        return replace(row, severity=Severity.FATAL, action=action)
    if wanted is None or wanted in _MILD:
        if _RANK[row.severity] <= _RANK[Severity.INFO]:
            return row
        return replace(row, severity=Severity.INFO, action=wanted or Action.NONE)
    if fatal is None:
        severity = max(row.severity, Severity.DEGRADED, key=_RANK.__getitem__)
        stronger = max(row.action, wanted, key=_STRENGTH.__getitem__)
        return replace(row, severity=severity, action=stronger)
    return replace(row, severity=Severity.DEGRADED, action=wanted)
