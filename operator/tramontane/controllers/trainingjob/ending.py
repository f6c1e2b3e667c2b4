"""End a job: all its ranks have done their work, or it has failed."""

from tramontane.api.reasons import JobReason
from tramontane.api.trainingjob import JobIncident, JobPhase, RestartCounts
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.observe import World, seat_of
from tramontane.controllers.trainingjob.seats import Ranks
from tramontane.controllers.trainingjob.status import Findings, follow


def is_done(world: World) -> bool:
    """Return whether every rank has ended with 0: then nothing else matters any more.

    Neither a suspension nor a preemption that came a moment later may have the work done again.
    """
    gang, ranks = world.gang, Ranks.of(world.job)
    placement = gang.status.placement if gang is not None else None
    size = len(placement.seats) if placement is not None else world.job.status.size or 0
    done = {
        seat_of(pod) for pod in world.own_pods if not pod.deleting and ranks.exit_code(pod) == 0
    }
    return size > 0 and done >= set(range(size))


def ended(
    world: World,
    reason: JobReason | None,
    message: str,
    *,
    size: int,
    attempt: int,
    incidents: tuple[JobIncident, ...],
    restarts: RestartCounts | None,
) -> Plan:
    """Finish the job; what still runs is deleted at the next look, after this has been written.

    Without a reason it has succeeded.
    """
    phase = JobPhase.SUCCEEDED if reason is None else JobPhase.FAILED
    text = message if reason is None else f"TrainingJob {world.job.key}: {message}"
    found = Findings(
        phase=phase,
        reason=reason,
        message=text,
        size=size,
        attempt=attempt,
        incidents=incidents,
        restarts=restarts,
        placed=True,
    )
    kind = "Normal" if reason is None else "Warning"
    said = Said(kind, reason or phase, message)
    return Plan(follow(world, found), record_first=True, events=(said,), after=0.0)
