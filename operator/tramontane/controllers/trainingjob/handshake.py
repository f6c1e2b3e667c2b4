"""Decide on planned disruptions: ranks save a checkpoint and end before anything is taken away.

    SIGTERM to every rank ─► rank 0 has ended, or saved and stepped no more ─► act
                          └► checkpoint.grace is over ───────────────────────► act

| what is planned | how the ranks are told | then |
|---|---|---|
| Drain, Straggler: a seat has a new blade | annotation; the agents stay | the seat's pod moves |
| Resize: another size serves better | annotation; the agents stay | all pods anew, once placed |
| Suspend, Preempt: all blades are given up | pods deleted with their grace | they are gone |

A handshake is in the status while it lasts, so that another operator goes on with it. The new
blade comes first: a job does not stop for a move that there is no place for. A job that does not
step has nothing to save; one without rank agents is told by deleting what moves, with its grace.
Of several replica groups only those are told that seats leave: the others hold the same state.
"""

from tramontane.api import clock
from tramontane.api.trainingjob import (
    Growth,
    Handshake,
    HandshakeWhy,
    IncidentCause,
    JobPhase,
)
from tramontane.controllers.trainingjob.actions import Drain
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.incidents import News
from tramontane.controllers.trainingjob.observe import World, drained_of
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.controllers.trainingjob.seats import ALIVE, Seat, There
from tramontane.controllers.trainingjob.validate import uses_agent

# Ranks that have saved are about to end; one that goes on to wait for its end is not waited for.
SETTLED_S = 2.0
# So long has a replica group whose log is not read, to end in order.
GROUP_LEAVES_S = 10.0
IN_PLACE = frozenset({HandshakeWhy.DRAIN, HandshakeWhy.STRAGGLER, HandshakeWhy.RESIZE})


def begun(world: World, why: HandshakeWhy) -> Handshake:
    """Return the handshake that has been going on for this reason, or one that begins now."""
    old = world.job.status.handshake
    if old is not None and old.why is why:
        return old
    until = world.now + seconds(world.job.spec.checkpoint.grace)
    return Handshake(why=why, since=clock.micro(world.now), deadline=clock.micro(until))


def going_on(world: World) -> Handshake | None:
    """Return the handshake of a placed job that is going on, or None."""
    present = world.job.status.handshake
    return present if present is not None and present.why in IN_PLACE else None


def wanted(case: Case) -> HandshakeWhy | None:
    """Return what a handshake is needed for now, or None."""
    causes = {seat.planned.cause for seat in _moving(case) if seat.planned is not None}
    if causes:
        only_slow = causes == {IncidentCause.STRAGGLER}
        return HandshakeWhy.STRAGGLER if only_slow else HandshakeWhy.DRAIN
    return HandshakeWhy.RESIZE if is_ripe(case) else None


def can_save(case: Case) -> bool:
    """Return whether the ranks have something to save, and can be told to without being deleted."""
    return case.world.job.status.phase in {JobPhase.RUNNING, JobPhase.CHECKPOINTING} and uses_agent(
        case.world.job.spec
    )


def is_done(case: Case, handshake: Handshake) -> bool:
    """Return whether what was planned may be done: saved, ended, gone, or out of patience."""
    since = clock.parse(handshake.since)
    if case.now >= clock.parse(handshake.deadline):
        return True
    resizes, moving = handshake.why is HandshakeWhy.RESIZE, _groups_that_move(case)
    if any(
        seat.there not in ALIVE | {There.LEAVING, There.DONE}
        for seat in case.seats
        if resizes or case.groups.of_seat(seat.number) in moving
    ):
        return True
    if not resizes and moving and 0 not in moving:
        # Rank 0's log says nothing of other groups; they hold all that the one that leaves has.
        return case.now >= since + GROUP_LEAVES_S
    return _has_saved(case.world.marks, since, case.now)


def _has_saved(marks: Marks | None, since: float, now: float) -> bool:
    """Return whether rank 0 has ended since, or saved and stepped no more."""
    if marks is None:
        return False
    if marks.exited is not None and marks.exited.at >= since:
        return True
    saved = marks.saved
    if saved is None or saved.at < since or (marks.step is not None and marks.step > saved.step):
        return False  # a checkpoint that was due anyway is not the one that was asked for
    return now >= saved.at + SETTLED_S


def drains(case: Case) -> tuple[Drain, ...]:
    """Return the ranks that have not been told yet: of the replica groups that seats leave."""
    resizes = case.handshake is not None and case.handshake.why is HandshakeWhy.RESIZE
    told = _groups_that_move(case)
    return tuple(
        Drain(seat.pod.name, seat.pod.uid, seat.epoch)
        for seat in case.seats
        if seat.pod is not None
        and (resizes or case.groups.of_seat(seat.number) in told)
        and (seat.there in ALIVE or seat.there is There.LEAVING)
        and drained_of(seat.pod) < seat.epoch
    )


def _moving(case: Case) -> list[Seat]:
    """Return the seats that can move now: their new blades are not lost meanwhile."""
    return [seat for seat in case.seats if seat.there is There.LEAVING and seat.loss is None]


def _groups_that_move(case: Case) -> set[int]:
    return {case.groups.of_seat(seat.number) for seat in _moving(case)}


def moves(case: Case, since: float) -> list[News]:
    """Return as news the seats that leave their blades now."""
    return [
        News(seat.planned.cause, seat.planned.code, seat.pod.node or "", seat.number, since)
        for seat in _moving(case)
        if seat.planned is not None and seat.pod is not None
    ]


def growth(case: Case) -> Growth | None:
    """Return the other size that the scheduler advises, and since when; None: none, or no need.

    | advised | taken up |
    |---|---|
    | larger | once it has been so for elastic.growAfter |
    | smaller | at once, only while a seat is lost and nothing steps; refused: as a larger one |
    """
    world, size = case.world, len(case.seats)
    elastic, gang = world.job.spec.elastic, world.gang
    advised = gang.status.advised_size if gang is not None else None
    if elastic is None or advised is None or advised == size or advised not in elastic.sizes:
        return None
    stands = world.job.status.phase is not JobPhase.RUNNING
    if advised < size and not (stands and any(_is_out(seat) for seat in case.seats)):
        return None
    old = world.job.status.growth
    if old is not None and old.size == advised:
        return old
    return Growth(size=advised, since=clock.micro(world.now))


def is_ripe(case: Case) -> bool:
    """Return whether the job should change its size now."""
    grows, elastic = case.growth, case.world.job.spec.elastic
    if grows is None or elastic is None:
        return False
    if grows.size < len(case.seats) and case.world.job.status.growth is None:
        return True  # at once, unless it has been refused
    return case.now - clock.parse(grows.since) >= seconds(elastic.grow_after)


def _is_out(seat: Seat) -> bool:
    return seat.loss is not None and seat.there is not There.DONE
