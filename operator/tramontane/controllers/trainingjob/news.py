"""Find what happened to a placed job's seats that its incidents do not tell of yet, and by whom.

What is news is read from the pods' epochs, so that a killed operator finds the same when it comes
back. `attempt` counts lives of the gang; a pod carries the attempt it belongs to.

| seat | pod's epoch = attempt | pod's epoch < attempt | no pod |
|---|---|---|---|
| its blade is lost | news | news, unless an open incident names the seat | the same |
| pod being deleted | news: somebody else did it | ours: known | - |
| pod on another blade | news | news, unless an open incident names the seat | - |
| pod failed | news | known, or another victim of the open incident | - |
| no pod | - | - | news, if it was there: the job was running, or we saw it go |

Lives that end with all their pods there are looked into by `inquest`.
"""

from collections.abc import Sequence

from tramontane.api import clock
from tramontane.api.trainingjob import IncidentCause, JobPhase
from tramontane.controllers.trainingjob.incidents import News, is_open
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

# The same failure of the same rank within this time is no accident.
_AGAIN_S = 600.0
# A kubelet has restarted a rank so often within its back-off: it will not come up by itself.
_CRASH_LOOP = 3


def news_of(world: World, seats: Sequence[Seat], due: Sequence[int]) -> list[News]:
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


def _suspects(world: World, seats: Sequence[Seat]) -> list[str]:
    """Return the blades against which something speaks."""
    return [
        seat.blade
        for seat in seats
        if seat.there not in {There.DONE, There.TAKEN}
        and (seat.loss is not None or not is_sound(world, seat.blade))
    ]


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
