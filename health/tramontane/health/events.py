"""Keep the faults that events opened: pure rules over earlier faults and new events.

A state ends by itself and the next reading shows it; an event only ever begins. So an event's
fault stays in the report until one of these is true:

| what happened                                        | ends faults whose action is       |
|------------------------------------------------------|-----------------------------------|
| the boot ID changed                                  | all but Inspect and Replace       |
| the driver asked for a GPU's reset and does no more  | Reset, on that GPU                |
| the operator had the GPU reset after it              | Reset, on that GPU                |
| 24 hours passed without the event                    | None, RestartApp and Drain        |
| a person released the blade after it                 | all                               |
| the GPU is no longer in the blade                    | all                               |
| an event came that cancels it (162 cancels 163)      | all                               |

A reboot inspects nothing, and time resets nothing: a repair may have to wait for a job's end or an
open breaker longer than a day. `lastSeen` and `count` let the controllers judge
by `clearAfter` and by rules with a window, which is why faults outlive both here. How new events
become faults is in ledger.py, what they mean beside each other in escalation.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.blade import Action, Fault
from tramontane.health.checks import sxid, xid
from tramontane.health.device import Event
from tramontane.health.escalation import DAY_S
from tramontane.health.ledger import STAYS, Key, Ledger, Scene, key, key_of

__all__ = [
    "NAMES",
    "Ending",
    "Key",
    "Scene",
    "key",
    "key_of",
    "seen_at",
    "surviving",
    "with_events",
]

# The checks whose faults begin with events.
NAMES = frozenset({xid.NAME, sxid.NAME})

KEEP_S = DAY_S
# What time ends.
_PASSES = frozenset({Action.NONE, Action.RESTART_APP, Action.DRAIN})


@dataclass(frozen=True, slots=True)
class Ending:
    """What has happened that ends faults.

    `reset` are GPUs that the driver wants reset no more, `repaired_at` when the operator had
    which of them reset (None: all).
    """

    now: float
    rebooted: bool = False
    reset: frozenset[int] = frozenset()
    repaired: int | None = None
    repaired_at: float | None = None
    released_at: float | None = None
    present: frozenset[str] | None = None  # UUIDs in the blade; None: not known


def check_of(event: Event) -> str:
    """Return the name of the check that judges an event; empty for events that none does."""
    if event.xid is not None:
        return xid.NAME
    return "" if event.sxid is None else sxid.NAME


def surviving(faults: Iterable[Fault], ending: Ending) -> list[Fault]:
    """Return the event faults that are still open."""
    return [fault for fault in faults if not _ended(fault, ending)]


def _ended(fault: Fault, ending: Ending) -> bool:
    last_seen = seen_at(fault, ending.now)
    if ending.released_at is not None and last_seen <= ending.released_at:
        return True
    if ending.present is not None and fault.uuid and fault.uuid not in ending.present:
        return True
    if fault.action is Action.RESET and (fault.gpu in ending.reset or _repaired(fault, ending)):
        return True
    if fault.action in _PASSES and ending.now - last_seen > KEEP_S:
        return True
    return ending.rebooted and fault.action not in STAYS


def _repaired(fault: Fault, ending: Ending) -> bool:
    if ending.repaired_at is None or seen_at(fault, ending.now) > ending.repaired_at:
        return False
    return ending.repaired is None or ending.repaired == fault.gpu


def seen_at(fault: Fault, otherwise: float) -> float:
    """Return when a fault was last seen; `otherwise` where it does not say."""
    return otherwise if fault.last_seen is None else clock.parse(fault.last_seen)


def with_events(
    faults: Iterable[Fault],
    events: Iterable[Event],
    boot_id: str,
    uuids: Mapping[int, str],
    scene: Scene | None = None,
) -> list[Fault]:
    """Return the faults after `events`, in order of their coming. O(events · open faults).

    `uuids` names GPUs by index where an event does not: those that are lost cannot be asked.
    """
    ledger = Ledger(boot_id, uuids, scene or Scene())
    for fault in faults:
        ledger.keep(fault)
    for event in events:
        ledger.take(event)
    return ledger.faults()
