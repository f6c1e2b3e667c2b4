"""Find placements that no scheduler can have written, and put back what is known to be true.

Only the scheduler writes placements. If one reads otherwise than it was written, a person edited
it, and the pods are still where they were: acting on the edit would kill them. Two memories say
what was true, in this order:

    1. this process's own: what it last wrote, or found when it began (`put_back`)
    2. the gang's living pods: seat → node, after a restart (`mend`)

Where neither helps, the placement is kept as it is, takes part in the count of what is in use,
and is explained; nothing is moved and nothing is lost.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.snapshot import Pods

PUT_BACK: Final = "put back as it was"
AS_ITS_PODS_ARE: Final = "put back as its pods are"


@dataclass(frozen=True, slots=True)
class Remembered:
    """Hold what a gang's placement was, last time this process knew."""

    uid: str
    epoch: int
    placement: Placement | None


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold what is wrong with a placement, in words, and how it was put right, if it was."""

    text: str
    mended: bool


def put_back(gang: GangRecord, remembered: Remembered | None) -> tuple[GangRecord, Finding | None]:
    """Return the gang with the placement that this process knows of.

    Where the placement was edited, the epoch rises above both, since somebody may have acted on
    the edit; it never falls.
    """
    if remembered is None or remembered.uid != gang.uid:
        return gang, None
    edited = remembered.placement != gang.placement
    epoch = max(remembered.epoch, gang.told.epoch) + edited
    if epoch != gang.told.epoch:
        gang = replace(gang, told=replace(gang.told, epoch=epoch))
    if not edited:
        return gang, None
    finding = Finding(f"status.placement was edited, and is {PUT_BACK}", mended=True)
    return replace(gang, placement=remembered.placement), finding


def mend(
    gangs: Mapping[str, GangRecord], fleet: Fleet, pods: Pods
) -> tuple[dict[str, GangRecord], dict[str, Finding]]:
    """Return the gangs after what their living pods say of broken placements, and the findings.

    | placement | the living pods say | then |
    |---|---|---|
    | none, though the gang is active    | an own blade for every seat | it is that |
    | not as many seats as the spec asks | the same                    | it is that |
    | one blade twice; an unknown blade; another gang's | another blade for the seat | it is there |
    | any of these                       | nothing better              | kept and explained |

    A blade with more seats on it than it holds belongs to the gang whose pod runs there, else to
    the oldest one.
    """
    mended = dict(gangs)
    findings: dict[str, Finding] = {}
    crowded = _crowded(gangs, fleet)
    for key, gang in gangs.items():
        # Where seats share blades, what would be wrong elsewhere is as it should be.
        if gang.deleting or not gang.slots or gang.shares_blades:
            continue
        fault = _fault(gang, gangs, fleet, crowded, pods)
        if fault is None:
            continue
        text, seats = fault
        placement = _from_pods(gang, seats, pods)
        if placement is not None:
            told = replace(gang.told, epoch=gang.told.epoch + 1)
            mended[key] = replace(gang, placement=placement, told=told)
            text = text or "status.placement was lost"
            findings[key] = Finding(f"{text}; {AS_ITS_PODS_ARE}", mended=True)
        elif text:
            findings[key] = Finding(text, mended=False)
    return mended, findings


def _crowded(gangs: Mapping[str, GangRecord], fleet: Fleet) -> Mapping[str, list[str]]:
    """Return the gangs on each blade that has more seats than it holds."""
    names = [name for gang in gangs.values() if gang.placement for name in gang.placement.seats]
    twice = {name for name, count in Counter(names).items() if count > 1}
    if not twice:
        return {}
    on: dict[str, list[str]] = {}
    for key, gang in gangs.items():
        for name in twice.intersection(gang.placement.seats if gang.placement else ()):
            on.setdefault(name, []).append(key)
    crowded: dict[str, list[str]] = {}
    for name, keys in on.items():
        row = fleet.row_of.get(name)
        if row is None:
            continue
        total: Counter[str] = Counter()
        for gang in (gangs[key] for key in keys):
            seats = gang.placement.seats if gang.placement else ()
            owners = gang.slot_of_seats(len(seats))
            for owner, seat in zip(owners, seats, strict=False):
                if seat == name:
                    total.update(dict(gang.slots[owner].ask.requests))
        if any(r not in fleet.capacity or n > fleet.capacity[r][row] for r, n in total.items()):
            crowded[name] = keys
    return crowded


def _fault(
    gang: GangRecord,
    gangs: Mapping[str, GangRecord],
    fleet: Fleet,
    crowded: Mapping[str, list[str]],
    pods: Pods,
) -> tuple[str, tuple[int, ...]] | None:
    """Return what is wrong with a placement and the seats concerned, or None.

    The words are empty where a placement is missing: the pods say whether there ever was one.
    """
    placement = gang.placement
    if placement is None:
        return ("", ()) if gang.active and pods.live_seats(gang.key) else None
    seats = placement.seats
    rest = sum(slot.count for slot in gang.slots[1:])
    if len(seats) - rest not in gang.sizes_to_resize_to():
        asked = " or ".join(str(size + rest) for size in gang.wanted_sizes())
        return f"the placement must have {asked} seats as the spec asks (got {len(seats)})", ()
    names = {*seats}
    if len(names) < len(seats):
        twice = next(name for name, n in Counter(seats).items() if n > 1)
        both = tuple(i for i, name in enumerate(seats) if name == twice)
        shown = " and ".join(map(str, both))
        return f"each seat must have a blade of its own (got {twice} for seats {shown})", both
    # A seat that its owner has declared lost may well be on a blade that is gone: it moves.
    lost = {seats[seat] for seat in gang.lost_seats()}
    for name in sorted(name for name in names - lost if name not in fleet.row_of):
        seat = seats.index(name)
        return f"seat {seat} must be on a blade of a pool (got {name}, which is none)", (seat,)
    for name in sorted(name for name in names if name in crowded):
        owner = _owner(name, [gangs[key] for key in crowded[name]], pods)
        if owner != gang.key:
            seat = seats.index(name)
            return (
                f"seat {seat} must be on a blade with room for it "
                f"(got {name}, where Gang {owner} sits)"
            ), (seat,)
    return None


def _owner(name: str, claimants: list[GangRecord], pods: Pods) -> str:
    """Return whose a blade is: of the gang whose pod runs there, else of the oldest one."""
    runs = [gang for gang in claimants if name in pods.live_seats(gang.key).values()]
    return min(runs or claimants, key=lambda gang: (gang.created_s, gang.key)).key


def _from_pods(gang: GangRecord, faulty: tuple[int, ...], pods: Pods) -> Placement | None:
    """Return the placement that the living pods show, or None where they do not settle it."""
    live = pods.live_seats(gang.key)
    placement = gang.placement
    if placement is not None and faulty:
        seats = tuple(
            live.get(i, name) if i in faulty else name for i, name in enumerate(placement.seats)
        )
    else:
        rest = sum(slot.count for slot in gang.slots[1:])
        whole = set(live) == set(range(len(live))) and len(live) - rest in gang.wanted_sizes()
        seats = tuple(live[i] for i in sorted(live)) if whole else ()
    if not seats or len({*seats}) < len(seats) or (placement and seats == placement.seats):
        return None
    spares = placement.spares if placement else ()
    return Placement(seats, tuple(dict.fromkeys(name for name in spares if name not in seats)))
