"""Decide for a job whose gang has no place: it waits, and pods of a placement it had go first.

Whoever loses blades has that recorded before anything is deleted: that it gave way to another gang,
or that its place was taken away. Pods that went while no operator looked count alike.
"""

from tramontane.api.gang import Gang, GangPhase, GangSpec
from tramontane.api.reasons import PendingReason
from tramontane.api.trainingjob import Handshake, HandshakeWhy, IncidentCause, JobPhase
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.trainingjob import budgets, handshake, podwork
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.incidents import News
from tramontane.controllers.trainingjob.observe import World, epoch_of, seat_of
from tramontane.controllers.trainingjob.seats import Ranks
from tramontane.controllers.trainingjob.status import Findings, follow

# How soon to look again at what no event announces.
SOON_S = 2.0
ANSWER_S = 2.0
CHECK_S = 5.0
HOLDS_NOTHING = frozenset({None, JobPhase.QUEUED, JobPhase.SUSPENDED})


def plan_unplaced(world: World, wanted: GangSpec | None, attempt: int) -> Plan:
    """Wait for a place; pods of a placement that was taken away go first."""
    job, old, gang = world.job, world.job.status, world.gang
    pods = world.own_pods
    reason = gang.status.reason if gang is not None else None
    if reason is PendingReason.SUSPENDED:
        reason = None  # it was; the scheduler has not looked yet
    undecided = gang is None or gang.status.phase is None
    if pods and undecided:
        # The Gang was made anew: where its seats will be is not known yet.
        return Plan(old, gang=wanted, after=SOON_S)
    if old.phase is None and undecided and _is_young(world):
        # The scheduler answers in milliseconds: what it says is worth a write, that it is asked
        # is not.
        return Plan(old, gang=wanted, after=ANSWER_S)
    phase = JobPhase.QUEUED
    if pods and old.phase not in HOLDS_NOTHING:
        phase = JobPhase.CHECKPOINTING
    found, restarts = old.incidents, old.restarts
    gone = _gone(world, gang, attempt) if gang is not None else []
    if gone:
        found = told.recorded(found, gone, world.now)
        restarts = budgets.counted(restarts, [gone[0].cause])
        attempt += 1
    message = gang.status.message if gang is not None else None
    status = follow(
        world,
        Findings(
            phase=phase,
            reason=reason or PendingReason.PENDING_EVALUATION,
            message=message or _waiting_message(gang),
            size=job.spec.nodes,
            attempt=attempt,
            incidents=found,
            restarts=restarts,
            handshake=_giving_way(world, gives_way=bool(gone)) if pods else None,
            stalled=reason in {PendingReason.EXCEEDS_POOL, PendingReason.NO_MATCHING_POOL},
        ),
    )
    said: tuple[Said, ...] = ()
    if gone:
        said = (Said("Warning", found[-1].cause, f"{len(gone)} seats leave their blades"),)
    elif reason is not None and reason is not old.reason:
        said = (Said("Normal", reason, status.message or ""),)
    return Plan(
        status,
        record_first=found != old.incidents,
        gang=wanted,
        deletes=podwork.all_of(world, "its placement was taken away"),
        events=said,
        follow=podwork.log_to_the_end(world),
        after=CHECK_S if pods else None,
    )


def _gone(world: World, gang: Gang, attempt: int) -> list[News]:
    """Return the seats that lose their place, or have lost their pods while nobody looked."""
    old, ranks = world.job.status, Ranks.of(world.job)
    seats = [
        (seat_of(pod), pod.node or "")
        for pod in world.own_pods
        if seat_of(pod) >= 0 and epoch_of(pod) >= attempt and ranks.exit_code(pod) != 0
    ]
    if not world.own_pods and old.phase in {JobPhase.RUNNING, JobPhase.RECOVERING}:
        seats = [(number, "") for number in range(old.size or 0)]
    given_way = gang.status.preempt is not None or gang.status.phase is GangPhase.PREEMPTING
    cause = IncidentCause.PREEMPTED if given_way else IncidentCause.EVICTED
    by = gang.status.preempt.by if gang.status.preempt else "placement-withdrawn"
    return [News(cause, by, node, seat, world.now) for seat, node in seats]


def _giving_way(world: World, *, gives_way: bool) -> Handshake | None:
    """Return the handshake of pods that go because their placement was taken away."""
    old, gang = world.job.status.handshake, world.gang
    preempted = gang is not None and gang.status.preempt is not None
    if gives_way or preempted or (old is not None and old.why is HandshakeWhy.PREEMPT):
        return handshake.begun(world, HandshakeWhy.PREEMPT)
    return old


def _is_young(world: World) -> bool:
    """Return whether the job was made so lately that its gang may have no answer yet."""
    return world.now - world.created_s < ANSWER_S


def _waiting_message(gang: Gang | None) -> str:
    if gang is None:
        return "asks the scheduler for a place"
    return "waits for the scheduler to look at it; if this lasts, see whether one is running"
