"""Record what interrupted a job, once, and follow each incident until training goes on.

An incident is open until all ranks run again, or those of its replica group. Recording one begins
a new attempt, unless nobody has begun the present one: losses in a row are one attempt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.quantity import format_duration
from tramontane.api.trainingjob import MAX_INCIDENTS, IncidentCause, JobIncident
from tramontane.controllers.trainingjob.groups import Groups
from tramontane.controllers.trainingjob.seats import ALIVE, Seat, There

MAX_SEATS_NAMED = 256
MAX_CODE = 128
# More incidents than this at one moment are told by cause: the list has room for 20.
_MOST_AT_ONCE = 8
_LATE_S = 5.0
_MOVED = frozenset({IncidentCause.BLADE_FAULT, IncidentCause.NODE_LOST, IncidentCause.STRAGGLER})
_BY_BLADE = frozenset({IncidentCause.BLADE_FAULT, IncidentCause.NODE_LOST})


@dataclass(frozen=True, slots=True)
class News:
    """Hold one seat's interruption that no incident tells of yet.

    `blade` is the one at fault, which need not be the seat's own: ranks die of a peer's blade.
    """

    cause: IncidentCause
    code: str
    blade: str
    seat: int
    since: float
    is_own: bool = True


def is_open(incident: JobIncident) -> bool:
    """Return whether training has not gone on since the incident."""
    return incident.running_after is None


def victims(
    incidents: Sequence[JobIncident], seats: Sequence[Seat], due: Sequence[int]
) -> list[int]:
    """Return the seats that failed with an attempt that is already over, and are not named yet.

    Ranks die of their peer's death: these are no failures of their own.
    """
    named = {seat for one in incidents if is_open(one) for seat in one.seats}
    return [
        seat.number
        for seat in seats
        if seat.there is There.FAILED and seat.epoch < due[seat.number] and seat.number not in named
    ]


def with_victims(incidents: Sequence[JobIncident], more: Sequence[int]) -> tuple[JobIncident, ...]:
    """Return the incidents with further seats named in the newest open one."""
    result = list(incidents)
    for index in range(len(result) - 1, -1, -1):
        if more and is_open(result[index]):
            seats = (*result[index].seats, *more)[:MAX_SEATS_NAMED]
            result[index] = result[index].model_copy(update={"seats": seats})
            break
    return tuple(result)


def recorded(
    incidents: Sequence[JobIncident], found: Iterable[News], now: float
) -> tuple[JobIncident, ...]:
    """Return the incidents with the news, the last 20 of them.

    Crashes and evictions are told by cause, lost blades one by one; too many at once by cause too.
    """
    groups: dict[tuple[str, ...], list[News]] = {}
    found = list(found)
    blades = {one.blade for one in found if one.cause in _BY_BLADE}
    for one in found:
        single = one.cause in _BY_BLADE and len(blades) <= _MOST_AT_ONCE
        groups.setdefault((one.cause, one.blade if single else ""), []).append(one)
    fresh = []
    for group in groups.values():
        group.sort(key=lambda one: (not one.is_own, one.seat))
        first = min(group, key=lambda one: (not one.is_own, one.since, one.seat))
        numbers = [one.seat for one in group]
        for begin in range(0, len(numbers), MAX_SEATS_NAMED):
            seats = tuple(numbers[begin : begin + MAX_SEATS_NAMED])
            fresh.append(_incident(first, seats, now))
    return appended(incidents, fresh)


def appended(
    incidents: Sequence[JobIncident], fresh: Sequence[JobIncident]
) -> tuple[JobIncident, ...]:
    """Return the incidents with further ones, the last 20 of them."""
    return (*incidents, *fresh)[-MAX_INCIDENTS:]


def _incident(first: News, seats: tuple[int, ...], now: float) -> JobIncident:
    return JobIncident(
        at=clock.micro(first.since),
        cause=first.cause,
        code=first.code[:MAX_CODE],
        blade=first.blade or None,
        seats=seats,
        detected_after=format_duration(max(0.0, now - first.since)),
    )


def with_replacements(
    incidents: Sequence[JobIncident], seats: Sequence[Seat], due: Sequence[int], now: float
) -> tuple[JobIncident, ...]:
    """Return the open incidents with what replaced their seats, once all of these have a pod."""
    by_number = {seat.number: seat for seat in seats}

    def seen(incident: JobIncident) -> JobIncident:
        if not is_open(incident) or incident.replaced_after is not None:
            return incident
        # Of seats that are no more, because the gang is smaller now, all others stand in.
        there = [by_number[n] for n in incident.seats if n in by_number] or list(seats)
        if not all(s.there in ALIVE and s.epoch >= due[s.number] for s in there):
            return incident
        at = clock.parse(incident.at)
        passed = format_duration(max(0.0, _replaced_at(there, at, now) - at))
        moved = there[0].blade != incident.blade
        by = there[0].blade if moved and incident.cause in _MOVED else None
        return incident.model_copy(update={"replaced_by": by, "replaced_after": passed})

    return tuple(map(seen, incidents))


def _replaced_at(seats: Sequence[Seat], since: float, now: float) -> float:
    """Return when the seats had their pods: now, unless nobody has looked for a while.

    Creation times are whole seconds.
    """
    made = [seat.pod.created_at for seat in seats if seat.pod is not None]
    if made and min(made) >= since and now - max(made) > _LATE_S:
        return max(made) + 1.0
    return now


def closed(
    incidents: Sequence[JobIncident], now: float, rework_steps: int | None
) -> tuple[JobIncident, ...]:
    """Return the incidents with all open ones ended: the ranks run again."""

    def end(incident: JobIncident) -> JobIncident:
        if not is_open(incident):
            return incident
        passed = format_duration(max(0.0, now - clock.parse(incident.at)))
        return incident.model_copy(update={"running_after": passed, "rework_steps": rework_steps})

    return tuple(map(end, incidents))


def closed_by_group(
    incidents: Sequence[JobIncident],
    seats: Sequence[Seat],
    groups: Groups,
    due: Sequence[int],
    now: float,
) -> tuple[JobIncident, ...]:
    """Return the incidents with those ended whose replica groups are whole again.

    A job of several groups runs on meanwhile, so that its phase does not tell.
    """
    broken = {
        groups.of_seat(seat.number)
        for seat in seats
        if seat.there is not There.READY or seat.epoch < due[seat.number]
    }
    return tuple(
        one
        if not is_open(one) or broken.intersection(map(groups.of_seat, one.seats))
        else closed((one,), now, None)[0]
        for one in incidents
    )
