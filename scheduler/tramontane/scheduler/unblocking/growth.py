"""Say how many blades more a pool needs for a gang, and what they have to be like."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tramontane.scheduler.explain import counted
from tramontane.scheduler.fit import groups_of
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.place import Plan, misconfigured
from tramontane.scheduler.records import Requests
from tramontane.scheduler.shortage import needs_of, rooms_of
from tramontane.scheduler.unblocking.whatif import Added, Case, Change, Kind, WayOut
from tramontane.scheduler.unblocking.wording import amount_in_words, least


def more_blades(case: Case, pool: Pool) -> Iterator[WayOut]:
    """Yield the fewest new blades, beside those of the domain that has most for the gang already.

    One way for slots that ask for the same without slices, the exact number; else the first
    number, found by bisection, that is enough there.
    """
    gang = case.gang
    if misconfigured(case.snapshot, gang) is not None:
        return
    need = needs_of(pool, gang, case.now_s)[-1]
    usable = np.maximum.reduce(rooms_of(case.snapshot, pool, gang, need)) > 0
    beside: dict[str, str] = {}
    where = "a domain of their own"
    if need.topology.rows:
        domain = int(need.topology.count(need.top, usable).argmax())
        row = int(need.topology.bounds[need.top][domain])
        labels = case.fleet.labels[pool.first + row]
        beside = {key: labels[key] for _, key in pool.record.levels if key in labels}
        lowest = need.topology.blade_level - 1
        place = need.topology.domain_name(lowest, int(need.topology.ids[lowest][row]))
        where = place if lowest else "the pool"
    wanted, capacity = _selected(gang), _largest_ask(gang)
    kind = Added(pool.name, need.seats, tuple(sorted({**beside, **wanted}.items())), capacity)

    def enough(count: int) -> bool:
        change = Change(added=replace(kind, count=count))
        return isinstance(change.apply(case).answer(), Plan)

    count = least(need.seats, enough)
    if count is not None:
        what = ", ".join(amount_in_words(resource, amount) for resource, amount in capacity)
        labels_ = ", ".join(f"{key}={value}" for key, value in sorted(wanted.items()))
        words = f"{counted(count, 'blade')} more in {where} of at least {what}"
        words += f" and with {labels_}" if labels_ else ""
        yield WayOut(Kind.ADD, words, count, Change(added=replace(kind, count=count)))


def _selected(gang: GangRecord) -> dict[str, str]:
    return {key: value for slot in gang.slots for key, value in slot.ask.selector}


def _largest_ask(gang: GangRecord) -> Requests:
    """Return the most that any pod of the gang asks for, per resource."""
    most: dict[str, int] = {}
    for ask in groups_of(gang).asks:
        for resource, amount in ask.requests:
            most[resource] = max(most.get(resource, 0), amount)
    return tuple(sorted(most.items()))
