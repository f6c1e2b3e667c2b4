"""Keep the faults that events opened: pure rules over earlier faults and new events.

A state ends by itself and the next reading shows it; an event only ever begins. So an event's
fault stays in the report until one of these is true:

| what happened                                        | ends faults whose action is       |
|------------------------------------------------------|-----------------------------------|
| the boot ID changed                                  | all but Inspect and Replace       |
| the driver asked for a GPU's reset and does no more  | Reset, on that GPU                |
| 24 hours passed without the event                    | all but Inspect and Replace       |
| a person released the blade after it                 | all                               |
| the GPU is no longer in the blade                    | all                               |
| an XID came that cancels it (162 cancels 163)        | all                               |

A reboot inspects nothing, and neither does time. `lastSeen` and `count` let the controllers judge
by `clearAfter` and by rules with a window, which is why faults outlive both here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.blade import Action, Fault
from tramontane.health import catalogue
from tramontane.health.checks import xid
from tramontane.health.device import Event

KEEP_S = 24 * 3600.0
# A follower and its cause lie this close together. Source: NVSentinel#1710 (bursts of a crash).
FOLLOW_S = 60.0

_STAYS = frozenset({Action.INSPECT, Action.REPLACE})

Key = tuple[str, str]


def key(code: str, uuid: str | None, gpu: int | None) -> Key:
    """Return what makes two faults the same: the code and the GPU, by UUID where it is known."""
    return code, uuid or ("" if gpu is None else f"#{gpu}")


def key_of(fault: Fault) -> Key:
    """Return the key of a fault."""
    return key(fault.code, fault.uuid, fault.gpu)


@dataclass(frozen=True, slots=True)
class Ending:
    """What has happened that ends faults."""

    now: float
    rebooted: bool = False
    reset: frozenset[int] = frozenset()
    released_at: float | None = None
    present: frozenset[str] | None = None  # UUIDs in the blade; None: not known


def surviving(faults: Iterable[Fault], ending: Ending) -> list[Fault]:
    """Return the event faults that are still open."""
    return [fault for fault in faults if not _ended(fault, ending)]


def _ended(fault: Fault, ending: Ending) -> bool:
    last_seen = _seen_at(fault, ending.now)
    if ending.released_at is not None and last_seen <= ending.released_at:
        return True
    if ending.present is not None and fault.uuid and fault.uuid not in ending.present:
        return True
    if fault.action is Action.RESET and fault.gpu in ending.reset:
        return True
    if fault.action in _STAYS:
        return False
    return ending.rebooted or ending.now - last_seen > KEEP_S


def _seen_at(fault: Fault, otherwise: float) -> float:
    return otherwise if fault.last_seen is None else clock.parse(fault.last_seen)


def with_events(
    faults: Iterable[Fault], events: Iterable[Event], boot_id: str, uuids: Mapping[int, str]
) -> list[Fault]:
    """Return the faults after `events`, in order of their coming.

    `uuids` names GPUs by index where an event does not: those that are lost cannot be asked.
    """
    kept = {key_of(fault): fault for fault in faults}
    for event in events:
        if event.xid is None:
            continue
        uuid = event.uuid or uuids.get(event.gpu, "")
        _cancel(kept, event.xid, uuid, event.gpu)
        finding = xid.judge(event)
        if finding is None or _follows(kept, event, uuid):
            continue
        same = key(finding.code, uuid, finding.gpu)
        old = kept.pop(same, None)
        at = clock.utc(event.at)
        kept[same] = Fault(
            code=finding.code,
            check=xid.NAME,
            gpu=finding.gpu,
            uuid=uuid or None,
            severity=finding.severity,
            action=finding.action,
            count=1 if old is None else old.count + 1,
            first_seen=at if old is None or old.first_seen is None else old.first_seen,
            last_seen=at,
            boot_id=boot_id or None,
            evidence=finding.evidence,
        )
        _drop_followers(kept, event, uuid)
    return list(kept.values())


def _cancel(kept: dict[Key, Fault], code: int, uuid: str, gpu: int) -> None:
    for cancelled in catalogue.CANCELS.get(code, ()):
        kept.pop(key(xid.code(cancelled), uuid, gpu), None)


def _near(fault: Fault, event: Event, uuid: str) -> bool:
    same_gpu = fault.uuid == uuid if fault.uuid and uuid else fault.gpu == event.gpu
    return same_gpu and abs(event.at - _seen_at(fault, event.at)) <= FOLLOW_S


def _is_follower(fault: Fault) -> bool:
    return fault.code in {xid.code(code) for code in catalogue.FOLLOWERS}


def _follows(kept: Mapping[Key, Fault], event: Event, uuid: str) -> bool:
    return event.xid in catalogue.FOLLOWERS and any(
        _near(fault, event, uuid) for fault in kept.values() if not _is_follower(fault)
    )


def _drop_followers(kept: dict[Key, Fault], event: Event, uuid: str) -> None:
    if event.xid in catalogue.FOLLOWERS:
        return
    for same in [k for k, f in kept.items() if _is_follower(f) and _near(f, event, uuid)]:
        del kept[same]
