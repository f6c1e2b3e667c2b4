"""Find what interrupted a job, record it once, and follow each incident until training goes on.

What is news is read from the pods' epochs, so that a killed operator finds the same when it comes
back. `attempt` counts lives of the gang; a pod carries the attempt it belongs to.

| seat | pod's epoch = attempt | pod's epoch < attempt | no pod |
|---|---|---|---|
| its blade is lost | news | news, unless an open incident names the seat | the same |
| pod being deleted | news: somebody else did it | ours: known | - |
| pod on another blade | news | news, unless an open incident names the seat | - |
| pod failed | news | known, or another victim of the open incident | - |
| no pod | - | - | news, if it was there: the job was running, or we saw it go |

An incident is open until all ranks run again. Recording one begins a new attempt, unless nobody has
begun the present one: losses in a row are one attempt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.quantity import format_duration
from tramontane.api.trainingjob import (
    MAX_INCIDENTS,
    IncidentCause,
    JobIncident,
    JobPhase,
)
from tramontane.controllers.trainingjob.groups import Groups
from tramontane.controllers.trainingjob.losses import is_sound
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.seats import (
    ALIVE,
    OOM_KILLED,
    Ranks,
    Seat,
    There,
    failure_of,
)
from tramontane.kube.views import PodView

MAX_SEATS_NAMED = 256
MAX_CODE = 128
# More incidents than this at one moment are told by cause: the list has room for 20.
_MOST_AT_ONCE = 8
_AGAIN_S = 600.0
# A kubelet has restarted a rank so often within its back-off: it will not come up by itself.
_CRASH_LOOP = 3
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


def news(world: World, seats: Sequence[Seat], due: Sequence[int]) -> list[News]:
    """Return what happened to the seats that is not recorded yet; see the module's table.

    `due` is the epoch that each seat's pod ought to have.
    """
    still = [one for one in world.job.status.incidents if is_open(one)]
    named = {seat for one in still for seat in one.seats}
    # Whose blade is to blame is only asked where a rank has failed.
    suspects = _suspects(world, seats) if any(s.there is There.FAILED for s in seats) else []
    ranks = Ranks.of(world.job)
    if not still:
        loops = _crash_loops(world, seats, ranks)
        if loops:
            return loops
    if (alike := _all_alike(world, seats, ranks, due)) is not None:
        return [alike]
    told = (
        _told(world, seat, due[seat.number], ranks, suspects, is_named=seat.number in named)
        for seat in seats
    )
    return [one for one in told if one is not None]


def _crash_loops(world: World, seats: Sequence[Seat], ranks: Ranks) -> list[News]:
    """Return the first rank that its kubelet restarts in vain: without an agent nothing else tells.

    Survivors of a loss crash, too, until their peer is back; so this is asked only while no
    incident is open.
    """
    if ranks.agent or not ranks.kubelet_restarts:
        return []
    for seat in seats:
        rank = ranks.view(seat.pod) if seat.pod is not None and seat.there in ALIVE else None
        if rank is None or rank.reason != "CrashLoopBackOff" or rank.restart_count < _CRASH_LOOP:
            continue
        sound = is_sound(world, seat.blade)
        cause = IncidentCause.USER_ERROR if sound else IncidentCause.BLADE_FAULT
        code = f"exit-{rank.last_exit_code}"
        return [News(cause, code, seat.blade, seat.number, world.now)]
    return []


def _suspects(world: World, seats: Sequence[Seat]) -> list[str]:
    """Return the blades against which something speaks."""
    return [
        seat.blade
        for seat in seats
        if seat.there not in {There.DONE, There.TAKEN}
        and (seat.loss is not None or not is_sound(world, seat.blade))
    ]


def _told(
    world: World,
    seat: Seat,
    attempt: int,
    ranks: Ranks,
    suspects: Sequence[str],
    *,
    is_named: bool,
) -> News | None:
    """Return the news of one seat, if there is any."""
    pod, told = seat.pod, None
    is_news = not is_named or (pod is not None and seat.epoch >= attempt)
    if seat.there in {There.DONE, There.TAKEN}:
        return None
    if seat.loss is not None and seat.there is not There.LEAVING:
        since = min(seat.loss.since, world.now)
        told = News(seat.loss.cause, seat.loss.code, seat.blade, seat.number, since)
    elif pod is None:
        is_news = _went(world, seat, attempt, is_named=is_named)
        told = _evicted(world, seat, seat.blade, "pod-deleted")
    elif seat.there is There.MISPLACED and not (pod.finished and seat.epoch >= attempt):
        told = _misplaced(world, seat, pod)
    elif seat.epoch >= attempt and seat.there is There.GOING:
        told = _evicted(world, seat, seat.blade, "pod-deleted")
    elif seat.epoch >= attempt and seat.there in {There.FAILED, There.MISPLACED}:
        told = _failed(world, seat, pod, ranks, suspects)
    return told if is_news else None


def _misplaced(world: World, seat: Seat, pod: PodView) -> News:
    """Return the news of a pod whose seat is elsewhere by now, maybe by our own order."""
    if (why := seat.planned) is not None:
        return News(why.cause, why.code, pod.node or "", seat.number, min(why.since, world.now))
    return _evicted(world, seat, pod.node or "", "placement-changed")


def _went(world: World, seat: Seat, attempt: int, *, is_named: bool) -> bool:
    """Return whether the seat had a pod that somebody else deleted."""
    if world.vanished.get(seat.number, -1) >= attempt:
        return True
    if world.job.spec.launcher.replica_groups > 1:
        return False  # it may run with pods that have never been made
    return world.job.status.phase is JobPhase.RUNNING and not is_named


def _evicted(world: World, seat: Seat, blade: str, code: str) -> News:
    return News(IncidentCause.EVICTED, code, blade, seat.number, world.now)


def _failed(world: World, seat: Seat, pod: PodView, ranks: Ranks, suspects: Sequence[str]) -> News:
    """Return the news of a failed pod; a suspect blade anywhere in the gang takes the blame."""
    cause, code = failure_of(pod, ranks, sound=not suspects)
    if code == OOM_KILLED and _failed_lately(world, seat.number, code):
        cause = IncidentCause.USER_ERROR  # the machine is not to blame for it twice
    is_own = not suspects or seat.blade in suspects or cause is not IncidentCause.BLADE_FAULT
    blade = seat.blade if is_own else suspects[0]
    return News(cause, code, blade, seat.number, world.now, is_own)


def _failed_lately(world: World, seat: int, code: str) -> bool:
    """Return whether the same rank has failed in the same way a moment ago."""
    return any(
        one.code == code and seat in one.seats and world.now - clock.parse(one.at) < _AGAIN_S
        for one in world.job.status.incidents
    )


def _all_alike(
    world: World, seats: Sequence[Seat], ranks: Ranks, due: Sequence[int]
) -> News | None:
    """Return that all ranks have failed alike before any step: the mistake is in what they run.

    No blade is to blame then, whatever is known of one of them.
    """
    if world.job.status.step is not None or (world.marks is not None and world.marks.step):
        return None
    failed = [seat for seat in seats if seat.there is There.FAILED and seat.pod is not None]
    if len(failed) < len(seats) or any(seat.epoch < due[seat.number] for seat in failed):
        return None
    codes = {ranks.exit_code(seat.pod) for seat in failed if seat.pod is not None}
    if len(codes) > 1 or None in codes or any(seat.loss is not None for seat in seats):
        return None
    first = failed[0]
    return News(IncidentCause.USER_ERROR, f"exit-{codes.pop()}", first.blade, 0, world.now)


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
        passed = format_duration(max(0.0, now - clock.parse(incident.at)))
        moved = there[0].blade != incident.blade
        by = there[0].blade if moved and incident.cause in _MOVED else None
        return incident.model_copy(update={"replaced_by": by, "replaced_after": passed})

    return tuple(map(seen, incidents))


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
