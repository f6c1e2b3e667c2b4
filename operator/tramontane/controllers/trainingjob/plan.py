"""Decide what is to be done for a training job: one pure function from a World to a Plan.

Read from top to bottom; the first line that holds decides.

| the job is | then |
|---|---|
| being deleted | nothing: owner references take the rest away |
| finished | the gang gives its blades up, what still runs is deleted; after its ttl the job goes |
| done: every rank ended with 0 | Succeeded |
| suspended | the gang gives its blades up, all pods go with their grace |
| invalid | Stalled, Misconfigured; nothing that exists is touched, but it gives way if it must |
| without a pool | NoMatchingPool |
| refused by the API server, without its Gang or pods | Stalled, Misconfigured |
| without its Gang, or with another spec in it | the Gang is applied |
| changing its size, its pods gone | `resize`: the gang is placed anew |
| not placed | Queued with the scheduler's reason; pods of an earlier placement go |
| placed | `placed.plan_placed`: losses, fencing, creation, recovery, end |

Whatever happens to the operator, the next plan is made from what is there. Two rules make that
safe: an incident is in the status before anything is done about it (`record_first`), and a pod's
epoch says which attempt it belongs to, so that the attempt is never lost:
`max(status.attempt, epochs of pods)`.
"""

from dataclasses import replace

from tramontane.api import clock
from tramontane.api.gang import Gang, GangPhase, GangSpec
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import PendingReason
from tramontane.api.trainingjob import HandshakeWhy, JobPhase
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.trainingjob import ending, gangs, handshake, podwork, resize
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.observe import World, epoch_of, seat_of
from tramontane.controllers.trainingjob.placed import plan_placed
from tramontane.controllers.trainingjob.status import FINISHED, Findings, follow
from tramontane.controllers.trainingjob.unplaced import (
    ANSWER_S,
    CHECK_S,
    HOLDS_NOTHING,
    SOON_S,
    plan_unplaced,
)
from tramontane.controllers.trainingjob.validate import problem_of, spares_problem

# How soon to look again at what no event announces.
LATER_S = 30.0
_HELD = frozenset({JobPhase.SUSPENDED, JobPhase.CHECKPOINTING})


def plan(world: World) -> Plan:
    """Return what is to be done now; see the module's table. O(seats)."""
    job, status = world.job, world.job.status
    if job.metadata.deletion_timestamp is not None:
        return Plan(status)
    if status.phase in FINISHED:
        return _plan_finished(world)
    if ending.is_done(world):
        return _plan_done(world)
    return _plan_unfinished(world)


def _plan_unfinished(world: World) -> Plan:
    job, gang = world.job, world.gang
    # Whoever is to give way need not be right.
    if job.spec.suspend:
        return _plan_suspended(world)
    if (problem := _problem(world)) is not None:
        if gang is not None and not world.gang_is_foreign and gang.status.preempt is not None:
            return plan_unplaced(world, None, _next_attempt(world))
        return _plan_stalled(world, PendingReason.MISCONFIGURED, problem)
    pool = gangs.pool_for(job, world.gang, world.pools)
    if pool is None:
        message = gangs.no_pool_message(job, world.pools)
        return _plan_stalled(world, PendingReason.NO_MATCHING_POOL, message)
    return _plan_gang(world, pool)


def _plan_done(world: World) -> Plan:
    old = world.job.status
    size = sum(1 for pod in world.own_pods if seat_of(pod) >= 0)
    return ending.ended(
        world,
        None,
        f"all {size} ranks ended with 0",
        size=size,
        attempt=_attempt(world),
        incidents=old.incidents,
        restarts=old.restarts,
    )


def _problem(world: World) -> str | None:
    """Return what is wrong with the job, by itself or with what it names."""
    if world.priority is None:
        return (
            f"TrainingJob {world.job.key}: spec.priorityClassName must name a PriorityClass that "
            f'exists (got "{world.job.spec.priority_class_name}"); create it, or correct the name'
        )
    return problem_of(world.job)


def _plan_finished(world: World) -> Plan:
    """Give the blades up, keep ended pods for their logs, delete the job after its ttl."""
    job, status = world.job, world.job.status
    running = replace(world, pods=tuple(pod for pod in world.own_pods if not pod.finished))
    left = podwork.all_of(running, "the job has finished")
    delete_job, after = False, None
    if job.spec.ttl_after_finished is not None and status.finished_at is not None:
        ttl_s = seconds(job.spec.ttl_after_finished)
        after = clock.parse(status.finished_at) + ttl_s - world.now
        delete_job, after = after <= 0, max(after, 0.0)
    return Plan(
        status,
        gang=_inactive(world),
        deletes=left,
        delete_job=delete_job,
        after=None if delete_job else after,
    )


def _plan_stalled(world: World, reason: PendingReason, message: str) -> Plan:
    """Say what only people can put right; what runs, runs on."""
    old = world.job.status
    phase = JobPhase.QUEUED if old.phase in HOLDS_NOTHING else old.phase
    ready = sum(1 for pod in world.own_pods if pod.ready and not pod.deleting and seat_of(pod) >= 0)
    status = follow(
        world,
        Findings(
            phase=phase or JobPhase.QUEUED,
            reason=reason,
            message=message,
            ready=ready,
            size=old.size or world.job.spec.nodes,
            gpus=old.gpus or 0,
            attempt=old.attempt,
            incidents=old.incidents,
            placed=phase is not JobPhase.QUEUED,
            stalled=True,
            handshake=old.handshake,
            growth=old.growth,
        ),
    )
    said = () if old.message == message else (Said("Warning", reason, message),)
    # A missing pool or class may appear without an event that is ours.
    return Plan(status, events=said, after=LATER_S if old.message == message else SOON_S)


def _plan_suspended(world: World) -> Plan:
    """Give the blades up and let the pods go with their grace, for a last checkpoint."""
    old, pods = world.job.status, world.own_pods
    deletes = podwork.all_of(world, "the job is suspended")
    status = follow(
        world,
        Findings(
            phase=JobPhase.CHECKPOINTING if pods else JobPhase.SUSPENDED,
            reason=PendingReason.SUSPENDED,
            message=f"spec.suspend is true ({len(pods)} pods are ending)"
            if pods
            else "spec.suspend is true; set it to false to go on",
            size=world.job.spec.nodes,
            attempt=_attempt(world),
            incidents=old.incidents,
            handshake=handshake.begun(world, HandshakeWhy.SUSPEND) if pods else None,
        ),
    )
    said = (
        ()
        if old.reason is PendingReason.SUSPENDED
        else (Said("Normal", PendingReason.SUSPENDED, "gives its blades up"),)
    )
    return Plan(
        status,
        gang=_inactive(world),
        deletes=deletes,
        events=said,
        follow=podwork.log_to_the_end(world),
        after=CHECK_S if pods else None,
    )


def _plan_gang(world: World, pool: NodePool) -> Plan:
    """Keep the Gang as it should be; go on where it has its seats."""
    job, gang, attempt = world.job, world.gang, _next_attempt(world)
    if gang is not None and world.gang_is_foreign:
        return _plan_blocked(
            world, f"Gang {gang.key} must belong to this TrainingJob (got another owner)"
        )
    if gang is not None and gang.spec.pool != pool.metadata.name:
        return _plan_stalled(
            world,
            PendingReason.MISCONFIGURED,
            f"TrainingJob {job.key}: spec.nodePool must stay {gang.spec.pool} (got "
            f"{pool.metadata.name}); make a new job for another pool",
        )
    if gang is not None and resize.is_due(world):
        return resize.plan_resize(world, pool, gang, _attempt(world))
    if gang is None or gang.status.placement is None or not _is_placed(world):
        return _plan_unseated(world, pool, attempt)
    return plan_placed(
        world, pool, gang.status.placement, attempt, begins=attempt > _attempt(world)
    )


def _plan_unseated(world: World, pool: NodePool, attempt: int) -> Plan:
    """Have the Gang say what the job wants; wait for a place, or until it is confirmed."""
    job, gang = world.job, world.gang
    assert world.priority is not None
    blades = pool.status.blades.total if pool.status.blades is not None else 0
    if (problem := spares_problem(job, pool.metadata.name, blades)) is not None:
        return _plan_stalled(world, PendingReason.MISCONFIGURED, problem)
    if world.refusal is not None and (gang is None or not world.own_pods):
        message = f"TrainingJob {job.key}: {world.refusal}"
        return _plan_stalled(world, PendingReason.MISCONFIGURED, message)
    if gang is None:
        return plan_unplaced(world, gangs.gang_spec(job, pool, world.priority), attempt)
    if _is_to_be_seen(world, gang):
        return Plan(job.status, after=ANSWER_S)
    wanted = gangs.gang_spec(job, pool, world.priority, cost=gang.spec.cost)
    return plan_unplaced(world, None if gang.spec == wanted else wanted, attempt)


def _is_placed(world: World) -> bool:
    """Return whether the gang's placement may be used.

    Before the first pod the scheduler must have seen the spec as it is: a status that is older
    than a resumption may speak of blades that have been given to others.
    """
    gang = world.gang
    if gang is None or gang.status.phase is not GangPhase.PLACED:
        return False
    if gang.status.preempt is not None or not gang.spec.active:
        return False
    seen, written = gang.status.observed_generation, gang.metadata.generation
    return not (_begins(world) and seen is not None and written is not None and seen < written)


def _is_to_be_seen(world: World, gang: Gang) -> bool:
    """Return whether a life begins on a placement that the scheduler is just confirming."""
    starts = world.job.status.phase is JobPhase.STARTING and not world.own_pods
    placed = gang.status.phase is GangPhase.PLACED and gang.status.preempt is None
    return starts and placed and gang.spec.active


def _begins(world: World) -> bool:
    """Return whether the job holds no blades by what it knows, or is about to give them up."""
    old = world.job.status
    if old.phase is JobPhase.CHECKPOINTING:
        return handshake.going_on(world) is None
    return old.phase in HOLDS_NOTHING or (old.phase is JobPhase.STARTING and not world.own_pods)


def _plan_blocked(world: World, message: str) -> Plan:
    """Wait for somebody else's object of our name to go."""
    old = world.job.status
    status = follow(
        world,
        Findings(
            phase=JobPhase.QUEUED if old.phase in HOLDS_NOTHING else old.phase or JobPhase.QUEUED,
            reason=PendingReason.MISCONFIGURED,
            message=f"TrainingJob {world.job.key}: {message}; delete it, or use another name",
            size=world.job.spec.nodes,
            attempt=old.attempt,
            incidents=old.incidents,
        ),
    )
    return Plan(status, after=SOON_S)


def _inactive(world: World) -> GangSpec | None:
    """Return the Gang's spec with its seats given up, or None where it holds none."""
    gang = world.gang
    if gang is None or world.gang_is_foreign or not gang.spec.active:
        return None
    return gang.spec.model_copy(update={"active": False, "lost": ()})


def _attempt(world: World) -> int:
    """Return the present attempt: what the status says, unless pods know better."""
    return max((world.job.status.attempt, *(epoch_of(pod) for pod in world.own_pods)))


def _next_attempt(world: World) -> int:
    """Return the attempt to go on with: after a suspension a new one, if there ever was one.

    The suspension's status has the attempt that it ended. Its pods may be there before the cache
    shows that the job goes on: those of a newer epoch are of the new attempt.
    """
    attempt, old = _attempt(world), world.job.status
    resumes = old.phase in _HELD and old.reason is PendingReason.SUSPENDED
    return max(attempt, old.attempt + 1) if attempt and resumes else attempt
