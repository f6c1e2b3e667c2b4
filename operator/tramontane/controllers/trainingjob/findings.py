"""Say how a placed job stands: phase, reason, message, and what is worth an event."""

from tramontane.api import clock
from tramontane.api.reasons import JobReason, PendingReason
from tramontane.api.trainingjob import JobPhase
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.actions import Said
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.seats import There, start_problem
from tramontane.controllers.trainingjob.status import Findings, steps_again
from tramontane.controllers.trainingjob.validate import agent_note

_SEATS_SHOWN = 8


def findings(case: Case) -> tuple[Findings, tuple[Said, ...]]:
    """Return phase, reason and counts, and what is worth an event."""
    world, old = case.world, case.world.job.status
    ready = sum(
        1
        for seat in case.seats
        if seat.there is There.READY and seat.epoch >= case.attempt and seat.loss is None
    )
    done = sum(1 for seat in case.seats if seat.there is There.DONE)
    recovers = any(told.is_open(one) for one in case.incidents)
    whole = ready + done == len(case.seats) and done < len(case.seats)
    ran_on = old.phase is JobPhase.RUNNING and not recovers
    if whole and (ran_on or steps_again(world, case.attempt, case.incidents)):
        phase = JobPhase.RUNNING
    elif recovers:
        phase = JobPhase.RECOVERING
    else:
        # A pod that is not ready for a moment has not begun a new life.
        phase = JobPhase.RUNNING if ran_on else JobPhase.STARTING
    reason, message, stalled = _why(case, phase, ready)
    found = Findings(
        phase=phase,
        reason=reason,
        message=message,
        ready=ready,
        size=len(case.seats),
        gpus=len(case.seats) * case.gpus,
        attempt=case.attempt,
        incidents=case.incidents,
        restarts=case.restarts,
        placed=True,
        stalled=stalled,
    )
    said: list[Said] = []
    for one in case.incidents:
        if one not in old.incidents and told.is_open(one) and one.replaced_after is None:
            note = f"seats {_listed(one.seats)} on {one.blade}: {one.code}"
            said.append(Said("Warning", one.cause, note))
    if phase is JobPhase.RUNNING and old.phase is not JobPhase.RUNNING:
        said.append(Said("Normal", "Running", f"attempt {case.attempt}: {ready} ranks run"))
    if stalled and message and old.message != message:
        said.append(Said("Warning", str(reason), message))
    return found, tuple(said)


def _why(
    case: Case, phase: JobPhase, ready: int
) -> tuple[PendingReason | JobReason | None, str | None, bool]:
    """Return reason and message, and whether only people can help; the gravest first."""
    if (blocked := _blocked(case)) is not None:
        return *blocked, True
    gang = case.world.gang
    if gang is not None and gang.status.reason is not None:
        # It is placed: what the scheduler says is of a seat that it cannot move.
        reason = gang.status.reason
        return reason, gang.status.message, reason is PendingReason.MISCONFIGURED
    note = _note(case)
    if phase is JobPhase.RUNNING:
        return None, note, False
    counted = f"{ready} of {len(case.seats)} ranks are ready"
    if phase is JobPhase.STARTING:
        return None, "; ".join(filter(None, (counted, note))), False
    last = next(one for one in reversed(case.incidents) if told.is_open(one))
    text = f"seats {_listed(last.seats)} on {last.blade}: {last.code}; {counted}"
    if case.is_held:
        text += f"; the restart waits until {clock.utc(case.held_until)}"
    return JobReason(last.cause), text, False


def _note(case: Case) -> str | None:
    """Return what the user should know though nothing is wrong, or None."""
    spec, size = case.world.job.spec, len(case.seats)
    if size not in {spec.nodes, *(spec.elastic.sizes if spec.elastic else ())}:
        return (
            f"spec.nodes is {spec.nodes}, and {size} run; suspend and resume the job to change that"
        )
    return agent_note(spec)


def _blocked(case: Case) -> tuple[PendingReason | JobReason, str] | None:
    """Return reason and message where only people can help, or None."""
    world = case.world
    key = f"TrainingJob {world.job.key}"
    if world.refusal is not None:
        return PendingReason.MISCONFIGURED, f"{key}: {world.refusal}"
    taken = next((seat.pod for seat in case.seats if seat.there is There.TAKEN), None)
    if taken is not None:
        return PendingReason.MISCONFIGURED, (
            f"{key}: pod {taken.name} must belong to this job {world.job.metadata.uid} (got owner "
            f"{taken.owner_uid or 'none'}); delete that pod, or use another name"
        )
    for seat in case.seats:
        if (problem := start_problem(seat)) is not None:
            is_image, text = problem
            reason = JobReason.IMAGE_ERROR if is_image else PendingReason.MISCONFIGURED
            return reason, f"{key}: {text}"
    return None


def _listed(seats: tuple[int, ...]) -> str:
    """Return the first few seats, for people."""
    more = ", ..." if len(seats) > _SEATS_SHOWN else ""
    return ", ".join(map(str, seats[:_SEATS_SHOWN])) + more
