"""Find out what ended a life of which all pods are still there: a crash, or a hang.

A rank that ends by itself costs no pod: its agent stays and waits for a new epoch, and so do those
of its peers, which die of its death. What the operator sees is the end of rank 0, in its log, or
that no step comes. Then all ranks are asked for their last words, and these decide:

| last words | cause |
|---|---|
| some not there yet | asked; nothing is decided before |
| a blade under a rank is not sound | BladeFault there |
| a kubelet does not answer, or its node is not ready | NodeLost there, unless known before |
| a rank has ended by itself | UserError, of the first to end; the others died of it |
| none has, and no step comes | Hang |

Who cannot be asked is waited for as long as it takes to know its node for lost: a loss explains
all the rest, and must not be charged to the user.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tramontane.api.trainingjob import IncidentCause
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.incidents import News
from tramontane.controllers.trainingjob.losses import is_sound
from tramontane.controllers.trainingjob.progress import Exited, Marks
from tramontane.controllers.trainingjob.seats import ALIVE, Seat, There
from tramontane.controllers.trainingjob.stall import is_stalled
from tramontane.kube.views import PodView

# The node life-cycle needs a moment beyond nodeLostAfter to say that a node is gone.
_LOSS_KNOWN_S = 10.0


@dataclass(frozen=True, slots=True)
class Inquest:
    """Hold what was found: news, or pods to ask and wait for."""

    news: tuple[News, ...] = ()
    ask: tuple[PodView, ...] = ()


def inquest(case: Case) -> Inquest:
    """Return what ended the present life, or whom to ask; nothing while it lives. O(seats)."""
    world, marks = case.world, case.world.marks
    group = case.groups.of_seat(0)
    # A rank that has done its work has nothing to tell, and is no proof that the others live.
    ranks = [
        seat
        for seat in case.seats
        if case.groups.of_seat(seat.number) == group and seat.there is not There.DONE
    ]
    if marks is None or case.handshake is not None or not ranks:
        return Inquest()
    if any(seat.loss is not None or not _lives(case, seat) for seat in ranks):
        return Inquest()
    own = _own_end(marks.exited, case.due[0])
    if own is None and not is_stalled(world, marks, case.due[0]):
        return Inquest()
    asked = tuple(seat.pod for seat in ranks if seat.pod is not None)
    if any(pod.uid not in world.words for pod in asked):
        return Inquest(ask=asked)
    ended_s = own.at if own is not None else world.now
    return _verdict(case, ranks, marks, ended_s, asked)


def _verdict(
    case: Case, ranks: Sequence[Seat], marks: Marks, ended_s: float, asked: tuple[PodView, ...]
) -> Inquest:
    """Return who is to blame, with all last words there."""
    world = case.world
    for seat in ranks:
        node = world.nodes.get(seat.blade)
        if node is not None and node.ready is True and not is_sound(world, seat.blade):
            return _blamed(IncidentCause.BLADE_FAULT, "rank-ended", seat, ended_s)
    silent = [seat for seat in ranks if _is_silent(case, seat)]
    if silent:
        patience_s = seconds(world.job.spec.recovery.node_lost_after) + _LOSS_KNOWN_S
        if world.now < ended_s + patience_s:
            return Inquest(ask=asked)
        return _blamed(IncidentCause.NODE_LOST, "kubelet-silent", silent[0], ended_s)
    ends = [(seat, end) for seat in ranks if (end := _end_of(case, seat, marks)) is not None]
    if ends:
        seat, end = min(ends, key=lambda one: (one[1].at, one[0].number))
        return _blamed(IncidentCause.USER_ERROR, f"exit-{end.code}", seat, end.at)
    since = marks.step_at if marks.step_at is not None else ended_s
    hang = News(IncidentCause.HANG, "no-step", "", 0, min(since, world.now))
    return Inquest((hang,))


def _blamed(cause: IncidentCause, code: str, seat: Seat, since: float) -> Inquest:
    return Inquest((News(cause, code, seat.blade, seat.number, since),))


def _lives(case: Case, seat: Seat) -> bool:
    """Return whether the seat's pod is there and belongs to the present life."""
    return (seat.there in ALIVE or seat.there is There.LEAVING) and not case.is_old(seat)


def _own_end(exited: Exited | None, due: int) -> Exited | None:
    """Return how rank 0 ended in this life; an end with 0 is the end of its work."""
    if exited is None or exited.attempt < due or exited.code == 0:
        return None
    return exited


def _is_silent(case: Case, seat: Seat) -> bool:
    node = case.world.nodes.get(seat.blade)
    if node is None or node.ready is not True or seat.pod is None:
        return True
    return not case.world.words[seat.pod.uid].answered


def _end_of(case: Case, seat: Seat, marks: Marks) -> Exited | None:
    """Return how the rank ended by itself in this life, by its log."""
    if seat.pod is None:
        return None
    said = case.world.words[seat.pod.uid].exited
    if said is None and seat.number == 0:
        said = marks.exited
    return _own_end(said, case.due[seat.number])
