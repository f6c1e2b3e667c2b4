"""Change the size of a placed gang: say which one serves it better, and give it that when asked.

| a gang of several `sizes` | is advised |
|---|---|
| is whole, nobody before it waits for room, there is room for more | the largest that fits |
| has lost seats for which no blade is free, and that is not to change within the time that a \
restart costs | the largest smaller one that fits, without the lost blades |

Its owner saves, ends the pods and asks for the size by `spec.resize`. What was kept for others
before is kept from it (`timetable`), but for the blades that it sits on: it leaves them no later
than before. In the same step its old seats become the new ones; so nobody comes in between.

What it leaves others may have at once where nobody of higher rank waits for room, and else from
the next pass on, in which those are asked first.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tramontane.api import clock
from tramontane.api.reasons import PendingReason
from tramontane.scheduler.explain import Refusal, counted
from tramontane.scheduler.gangs import Estimate, GangRecord, Placement
from tramontane.scheduler.leaving import leaving, without
from tramontane.scheduler.outcome import Kept
from tramontane.scheduler.place import find, misconfigured, why_not
from tramontane.scheduler.records import GPU, Requests
from tramontane.scheduler.recover import recover
from tramontane.scheduler.releases import NEVER, ends_s, placed_since_s
from tramontane.scheduler.resize import anew, wish
from tramontane.scheduler.sharing import gpus_of
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.waiting import Queue

# What shrinking costs: all processes end, start again and load the checkpoint.
# Source: the recovery budget of 15 s, and the load of a large checkpoint, 100 s and more.
RESTART_S: Final = 120.0
PODS_FIRST: Final = "its pods must be gone"


@dataclass(frozen=True, slots=True)
class Resized:
    """Hold the new placement; `left` says that others may have more in another pass."""

    placement: Placement
    left: bool


def resize(queue: Queue, gang: GangRecord) -> Resized | Kept | None:
    """Return the placement at the size that is asked for, counted as taken, or why it stays.

    | first match | then |
    |---|---|
    | nothing is asked, or what the gang has               | None |
    | the status says already that it stays                | Kept, as it was said |
    | the status speaks of this generation otherwise       | None: it was placed since |
    | the size is none of the gang's                       | Kept, Misconfigured |
    | pods of its seats are there and not on their way out | Kept until they are gone |
    | the tenant may not use so much                       | Kept, WaitingForQuota |
    | there is no place                                    | Kept, with the reason |
    | else                                                 | Resized |

    A request is tried once: when it is answered, its owner may be making pods. Who asks for the
    same again takes the request back before.
    """
    if not gang.resize or gang.resize == _size(gang) or not gang.slots or gang.shares_blades:
        return None
    stays = f"stays at {_size(gang)} and not {gang.resize} as spec.resize asks"
    _, said, why = gang.told.message.partition(stays)
    if said and PODS_FIRST not in why:
        return Kept(_reason(gang.told.reason), f"{stays}{why}")
    if 0 < gang.generation <= gang.told.observed:
        return None
    answer = _try(queue, gang)
    return (
        answer if isinstance(answer, Resized) else replace(answer, text=f"{stays}: {answer.text}")
    )


def _try(queue: Queue, gang: GangRecord) -> Resized | Kept:
    """Return what becomes of a request that is new: the lower half of the table in `resize`."""
    if gang.resize not in gang.sizes_to_resize_to():
        allowed = ", ".join(map(str, sorted(gang.sizes_to_resize_to(), reverse=True)))
        text = f"spec.resize must be one of {allowed} (got {gang.resize}); correct it"
        return Kept(PendingReason.MISCONFIGURED, text)
    if alive := queue.snapshot.pods.live_seats(gang.key):
        text = f"{PODS_FIRST} (got {counted(len(alive), 'pod')}); it is resized when they are"
        return Kept(None, text, later=True)
    more = gpus_of(gang, gang.resize) - gpus_of(gang, _size(gang))
    if not queue.may_use(gang, more):
        left = queue.shares.room(gang) or 0
        text = f"needs {more} GPUs more of its tenant's maximum (got {left}, or others wait for it)"
        return Kept(PendingReason.WAITING_FOR_QUOTA, text)
    refusal = misconfigured(queue.snapshot, gang)
    if refusal is None:
        seats = anew(_room(queue, gang), gang, gang.resize, queue.now_s)
        if seats is not None and _takes_more(queue, gang, seats):
            room = _room(queue, gang, but_its_own=False)
            seats = anew(room, gang, gang.resize, queue.now_s)
        if seats is not None:
            return _carry_out(queue, gang, seats, more)
        refusal = _why(queue, gang)
    return Kept(refusal.reason, refusal.message.removeprefix(f"Gang {gang.key}: "))


def advise(
    queue: Queue, gang: GangRecord, *, broken: bool, replaced: Estimate | None = None
) -> int:
    """Return the size that serves a placed gang better than its own, or 0: see the table above.

    Of a broken one `replaced` is when its seats are likely to be made good.
    """
    if not gang.sizes or gang.placement is None or gang.shares_blades:
        return 0
    size = _size(gang)
    if broken:
        sizes = tuple(other for other in gang.sizes if other < size)
        comes_s = replaced.p50_s if replaced is not None else NEVER
        if not sizes or comes_s - queue.now_s <= RESTART_S:
            return 0
    else:
        grown = [other for other in gang.sizes if other > size and not queue.refused]
        now = gpus_of(gang, size)
        sizes = tuple(other for other in grown if queue.may_use(gang, gpus_of(gang, other) - now))
        if not sizes:
            return 0
    if misconfigured(queue.snapshot, gang) is not None:
        return 0
    room = _room(queue, gang)
    plan = find(room, wish(room, gang, sizes), queue.now_s)
    return 0 if plan is None else gang.size_of(len(plan.placement.seats))


def replacement(queue: Queue, gang: GangRecord) -> Estimate | None:
    """Return when blades for all lost seats are likely to be free; None where nobody knows."""
    table, ends = queue.table, queue.table.ends()
    claims = gang.key in queue.protected

    def serves(at_s: float) -> bool:
        then = table.at(gang, at_s, promises=not claims)
        return not recover(without(then, ()), gang, queue.now_s).waiting

    at = bisect.bisect_left(ends, True, key=serves)
    return None if at == len(ends) else queue.forecast.estimate(queue.now_s, ends[at])


def _size(gang: GangRecord) -> int:
    return gang.size_of(len(gang.placement.seats)) if gang.placement else 0


def _reason(said: str) -> PendingReason | None:
    """Return a reason that a status gives, unless it is of a lost seat."""
    known = said in {*PendingReason} and said != PendingReason.WAITING_FOR_SPARE
    return PendingReason(said) if known else None


def _room(queue: Queue, gang: GangRecord, *, but_its_own: bool = True) -> Snapshot:
    """Return the snapshot as the gang may use it: its own freed, what is kept for others held.

    What it has itself is promised from its end on, so it may keep it all the same.
    """
    snapshot = without(queue.snapshot, [leaving(queue.snapshot, gang, queue.now_s)])
    row_of, kept = snapshot.fleet.row_of, _promised(queue, gang)
    own = _names(gang) if but_its_own else ()
    snapshot.held[list(kept - {row_of.get(name, -1) for name in own})] = True
    return snapshot


def _promised(queue: Queue, gang: GangRecord) -> set[int]:
    """Return the rows of which a promise begins before the gang is sure to have ended."""
    limit_s = gang.max_runtime_s
    end_s = NEVER if limit_s is None else placed_since_s(gang) + limit_s
    if end_s <= queue.now_s:
        end_s = NEVER
    begun = (one for one in queue.table.reservations if one.start_s < end_s)
    return {row for one in begun for row in one.rows.tolist()}


def _takes_more(queue: Queue, gang: GangRecord, seats: tuple[str, ...]) -> bool:
    """Return whether a seat takes more of a promised blade of the gang's own than was taken.

    It can where slots ask for different amounts, and a part of a blade serves who it is promised
    to.
    """
    assert gang.placement is not None
    old = _amounts(queue.snapshot, gang, gang.placement.seats)
    new, promised = _amounts(queue.snapshot, gang, seats), _promised(queue, gang)
    return any(new[row] != old[row] for row in promised & new.keys() & old.keys())


def _names(gang: GangRecord) -> tuple[str, ...]:
    return (*gang.placement.seats, *gang.placement.spares) if gang.placement else ()


def _why(queue: Queue, gang: GangRecord) -> Refusal:
    """Return why the size does not fit: promises to others, or what a gang that waits is told."""
    free = without(queue.snapshot, [leaving(queue.snapshot, gang, queue.now_s)])
    wanted = wish(free, gang, (gang.resize,))
    if not queue.table.reservations or find(free, wanted, queue.now_s) is None:
        return why_not(free, wanted, queue.now_s)
    first = queue.table.reservations[0]
    return Refusal(
        PendingReason.RESERVED_FOR_OTHER,
        f"there is room for {gang.resize}, but blades of it are promised to Gang {first.gang} "
        f"from {clock.utc(first.start_s)} on, or to others; ask again when these have started",
    )


def _carry_out(queue: Queue, gang: GangRecord, seats: tuple[str, ...], more: int) -> Resized:
    """Count the new seats, and of the old ones what others may not have yet."""
    snapshot, placement = queue.snapshot, gang.placement
    assert placement is not None
    old, new = _amounts(snapshot, gang, placement.seats), _amounts(snapshot, gang, seats)
    for row, requests in new.items():
        if snapshot.spare_of.get(row) == gang.key:
            snapshot.let_go(row)
        if row not in old or old[row] != requests:
            snapshot.take([row], requests)
            if row in old:
                _free(snapshot, {row: old[row]})
    # Where a pod is on its way out, or may be, the blade is free when it is gone.
    pods = {pod.node for pod in snapshot.pods.of_gang.get(gang.key, {}).values()}
    busy = pods | {blade for _, blade in gang.lost}
    left = {row: requests for row, requests in old.items() if row not in new}
    if not queue.refused:
        names = snapshot.fleet.names
        _free(snapshot, {r: asks for r, asks in left.items() if names[r] not in busy})
    spares = tuple(name for name in placement.spares if name not in set(seats))
    after = Placement(seats, spares)
    queue.table.settle(gang, after, ends_s(gang, queue.now_s))
    queue.shares.grew(gang, max(0, more))
    return Resized(after, left=queue.refused and bool(left))


def _amounts(snapshot: Snapshot, gang: GangRecord, seats: tuple[str, ...]) -> dict[int, Requests]:
    """Return what each seat takes, by the row of its blade."""
    row_of = snapshot.fleet.row_of
    return {
        row_of[name]: gang.slots[owner].ask.requests
        for owner, name in zip(gang.slot_of_seats(len(seats)), seats, strict=True)
        if name in row_of
    }


def _free(snapshot: Snapshot, seats: Mapping[int, Requests]) -> None:
    """Give back what seats take; a blade is busy while another gang has any of it, or its GPUs."""
    plain = snapshot.pods.plain_on(snapshot.fleet)
    for row, requests in seats.items():
        snapshot.take([row], tuple((resource, -amount) for resource, amount in requests))
        snapshot.busy[row] = any(
            free[row] + (0 if resource == GPU else plain[resource][row])
            < snapshot.fleet.capacity[resource][row]
            for resource, free in snapshot.free.items()
        )
