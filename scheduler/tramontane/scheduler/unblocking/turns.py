"""Name what would give a gang its turn, where there is room for it but others go before.

`unblock` asks whether a gang fits; here the whole queue is asked, with every other gang in it:

| the gang waits, since | the change | smallest |
|---|---|---|
| its blades are kept for others | Limit: a `maxRuntime` that is over before | the longest such |
| the same                       | Priority: above some of those before it   | the lowest such |
| its tenant is at its maximum   | End: gangs of the same tenant             | largest first |
| any of these, or a larger size is worth it | Size: fewer seats, no other size | the most |
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tramontane.api.quantity import format_duration
from tramontane.api.reasons import PendingReason
from tramontane.scheduler.engine import Outcome, Pass, decide
from tramontane.scheduler.explain import MOST_SHOWN, counted
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.leaving import gpu_hours_lost
from tramontane.scheduler.place import Plan
from tramontane.scheduler.sharing import gpus_of_seats
from tramontane.scheduler.unblocking import wording
from tramontane.scheduler.unblocking.whatif import Case, Change, Kind, WayOut

# Whole minutes: nobody plans a run by the second.
MINUTE_S = 60.0
NO_TURN = frozenset(
    {
        PendingReason.RESERVED_FOR_OTHER,
        PendingReason.WAITING_FOR_QUOTA,
        PendingReason.EXCEEDS_MAX_QUOTA,
        PendingReason.WAITING_FOR_CAPACITY,  # an elastic gang for which a larger size is worth it
    }
)


@dataclass(frozen=True, slots=True)
class Decided:
    """Hold a case with what the pass that it belongs to says of every gang."""

    case: Case
    done: Pass

    @property
    def outcome(self) -> Outcome:
        """Return what it says of the gang."""
        return self.done.outcomes[self.case.gang.key]


def decided(case: Case) -> Decided:
    """Return what a pass says of the case."""
    gangs = {**case.gangs, case.gang.key: case.gang}
    return Decided(case, decide(case.fleet, gangs, case.pods, case.now_s))


def turns(now: Decided) -> tuple[WayOut, ...]:
    """Return what would let the gang start in this pass; nothing where room is what it lacks.

    Each was tried by a pass over all gangs: about ten to twenty of them.
    """
    case, reason = now.case, now.outcome.reason
    if reason not in NO_TURN or not isinstance(case.answer(), Plan):
        return ()
    found = [*_shorter(now), *_higher(now)] if reason == PendingReason.RESERVED_FOR_OTHER else []
    if reason == PendingReason.WAITING_FOR_QUOTA:
        found += _tenants_own(now)
    found += _fewer(now)
    return tuple(sorted(found, key=lambda way: (way.things, list(Kind).index(way.kind))))


def _starts(case: Case, change: Change) -> bool:
    return decided(change.apply(case)).outcome.placement is not None


def _shorter(now: Decided) -> Iterator[WayOut]:
    """Yield the longest run that is over before what is kept for others begins."""
    case, gang = now.case, now.case.gang
    runs_s = sorted(
        {
            (start_s - case.now_s) // MINUTE_S * MINUTE_S
            for key, start_s in now.done.promised().items()
            if key != gang.key and case.gangs[key].pool == gang.pool
        }
    )
    runs_s = [s for s in runs_s if s > 0 and (gang.max_runtime_s is None or s < gang.max_runtime_s)]
    changes = [Change(gang=replace(gang, max_runtime_s=s)) for s in runs_s]
    best = _last(changes, case)
    if best is not None and best.gang is not None:
        limit = format_duration(int(best.gang.max_runtime_s or 0))
        yield WayOut(Kind.LIMIT, f"maxRuntime: at most {limit}", 1, best)


def _higher(now: Decided) -> Iterator[WayOut]:
    """Yield the lowest priority with which the gang comes before those that keep it waiting."""
    case, gang = now.case, now.case.gang
    levels = sorted(
        {
            one.priority + 1
            for key, one in case.gangs.items()
            if one.pool == gang.pool and one.priority >= gang.priority
            if key in now.done.outcomes and now.done.outcomes[key].placement is None
        },
        reverse=True,
    )
    best = _last([Change(gang=replace(gang, priority=level)) for level in levels], case)
    if best is not None and best.gang is not None:
        words = f"priority {best.gang.priority} instead of {gang.priority}"
        yield WayOut(Kind.PRIORITY, words, 1, best)


def _tenants_own(now: Decided) -> Iterator[WayOut]:
    """Yield the fewest gangs of the same tenant that leave enough of its maximum."""
    case, gang = now.case, now.case.gang

    def gpus(one: GangRecord) -> int:
        return gpus_of_seats(one, len(one.placement.seats)) if one.placement else 0

    own = [
        one
        for one in case.gangs.values()
        if (one.pool, one.tenant) == (gang.pool, gang.tenant) and gpus(one) and one.active
    ]
    order = [one.key for one in sorted(own, key=lambda one: (-gpus(one), one.key))]
    count = wording.least(len(order), lambda count: _starts(case, Change(ended=(*order[:count],))))
    if count is None:
        return
    keys = tuple(sorted(order[:count]))
    hours = sum(gpu_hours_lost(case.gangs[key], case.now_s) for key in keys)
    shown = ", ".join(keys[:MOST_SHOWN])
    more = f" and {count - MOST_SHOWN} more" if count > MOST_SHOWN else ""
    words = f"{counted(count, 'gang')} of tenant {gang.tenant} ended: {shown}{more}"
    yield WayOut(Kind.END, words, count, Change(ended=keys), gpu_hours=hours)


def _fewer(now: Decided) -> Iterator[WayOut]:
    """Yield the most seats below the largest size that start at once."""
    case, gang = now.case, now.case.gang
    most = max(gang.wanted_sizes())
    size = wording.largest(1, most - 1, _sized(case))
    if size is not None:
        words = f"{size} instead of {most} seats, and no other size"
        yield WayOut(Kind.SIZE, words, most - size, Change(gang=_of_size(gang, size)))


def _sized(case: Case) -> Callable[[int], bool]:
    return lambda size: _starts(case, Change(gang=_of_size(case.gang, size)))


def _of_size(gang: GangRecord, size: int) -> GangRecord:
    return replace(gang, slots=(replace(gang.slots[0], count=size), *gang.slots[1:]), sizes=())


def _last(changes: Sequence[Change], case: Case) -> Change | None:
    """Return the last change that starts the gang, where each is easier than the next one."""
    best = wording.largest(0, len(changes) - 1, lambda i: _starts(case, changes[i]))
    return None if best is None else changes[best]
