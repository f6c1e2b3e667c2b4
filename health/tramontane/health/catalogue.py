"""Say what an XID means: severity and action per code, from xid.csv beside this file.

The csv is data for people who run the hardware: NVIDIA's catalogue, what the peers do, and a
proposal. This module maps its words to the API's:

| proposed_action                  | action     | severity                                        |
|----------------------------------|------------|-------------------------------------------------|
| IGNORE                           | None       | None: counted in the metrics, never a fault     |
| IGNORE_TICKET                    | Inspect    | Info                                            |
| IGNORE_IF_PAIRED_ELSE_RESTART_FM | RestartApp | Info; no fault where another XID is near        |
| RESTART_APP                      | RestartApp | Info: a job did it, or a job alone pays for it  |
| RESET_GPU_WHEN_IDLE              | Reset      | Degraded: running work stays, no new work comes |
| RESET_GPU                        | Reset      | Fatal                                           |
| REBOOT                           | Reboot     | Fatal                                           |
| DRAIN_INSPECT, DRAIN_UPDATE_SWFW | Inspect    | Fatal                                           |
| DECODE_NVLINK5                   | Drain      | Fatal: the sub-code is in the kernel log        |
| READ_RECOVERY_ACTION             | None       | None: the check of that name reads it           |

A code that the csv does not know is Degraded and to be inspected: a newer driver's harmless code
must not end jobs, and a harmful one must not get new ones.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from tramontane.api.blade import Action, Severity

CSV = Path(__file__).with_name("xid.csv")

# An XID that ends another: power smoothing active again. Source: NVSentinel#1252.
CANCELS: Mapping[int, frozenset[int]] = MappingProxyType({162: frozenset({163})})
# XIDs that follow any crash and mean something only when alone. Source: NVSentinel#1710.
FOLLOWERS = frozenset({45})

_MEANING: Mapping[str, tuple[Severity, Action]] = MappingProxyType(
    {
        "IGNORE": (Severity.NONE, Action.NONE),
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


@dataclass(frozen=True, slots=True)
class Xid:
    """One row: what a code is called and what it asks for."""

    code: int
    description: str
    severity: Severity
    action: Action


@lru_cache(maxsize=1)
def table() -> Mapping[int, Xid]:
    """Return the catalogue by code; read once."""
    with CSV.open(encoding="utf-8", newline="") as file:
        rows = [_row(row) for row in csv.DictReader(file)]
    return MappingProxyType({row.code: row for row in rows})


def _row(row: Mapping[str, str]) -> Xid:
    severity, action = _MEANING[row["proposed_action"]]
    return Xid(int(row["xid"]), row["description"], severity, action)


def look_up(code: int) -> Xid:
    """Return what `code` means, also where the catalogue does not know it."""
    known = table().get(code)
    if known is not None:
        return known
    return Xid(code, "not in the catalogue", Severity.DEGRADED, Action.INSPECT)
