"""Say how a placed job stands: phase, reason, message, and what is worth an event."""

from tramontane.api import clock
from tramontane.api.reasons import JobReason, PendingReason
from tramontane.api.trainingjob import Handshake, JobPhase
from tramontane.controllers.gangpods.actions import Said
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.case import Case
from tramontane.controllers.trainingjob.evidence import key_of
from tramontane.controllers.trainingjob.seats import Seat, There, start_problem
from tramontane.controllers.trainingjob.status import Findings, steps_again
from tramontane.controllers.trainingjob.validate import note_of

_SEATS_SHOWN = 8
# So many lines without a step are no preamble any more.
_MANY_LINES = 200
UNREAD = "progress is unknown"


def findings(case: Case) -> tuple[Findings, tuple[Said, ...]]:
    """Return phase, reason and counts, and what is worth an event."""
    old = case.world.job.status
    ready = sum(1 for seat in case.seats if _works(case, seat))
    phase = _phase(case)
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
        handshake=case.handshake,
        growth=case.growth,
        by_group=case.groups.count > 1,
        whole_groups=_whole_groups(case) if phase is JobPhase.RUNNING else (1, 1),
    )
    said: list[Said] = []
    known = {key_of(one) for one in old.incidents}
    for one in case.incidents:
        if key_of(one) not in known:
            where = f"seats {_listed(one.seats)} on {one.blade}" if one.blade else "all ranks"
            note = f"{where}: {one.code}"
            said.append(Said("Warning", one.cause, note))
    if case.handshake is not None and old.handshake is None:
        said.append(Said("Normal", "Checkpointing", _saving_note(case.handshake)))
    if phase is JobPhase.RUNNING and old.phase is not JobPhase.RUNNING:
        said.append(Said("Normal", "Running", f"attempt {case.attempt}: {ready} ranks run"))
    if (message or "").startswith(UNREAD) and not (old.message or "").startswith(UNREAD):
        said.append(Said("Warning", "ProgressUnknown", message or ""))
    if stalled and message and old.message != message:
        said.append(Said("Warning", str(reason), message))
    return found, tuple(said)


def _phase(case: Case) -> JobPhase:
    """Return what the job does: it runs while enough replica groups are whole and it steps."""
    world, old = case.world, case.world.job.status
    if case.handshake is not None:
        return JobPhase.CHECKPOINTING
    recovers = any(told.is_open(one) for one in case.incidents)
    whole, count = _whole_groups(case)
    all_done = all(seat.there is There.DONE for seat in case.seats)
    enough = (whole == count or (count > 1 and whole >= case.groups.least)) and not all_done
    ran_on = old.phase is JobPhase.RUNNING and (not recovers or count > 1)
    if enough and (ran_on or steps_again(world, case.due[0], case.incidents)):
        return JobPhase.RUNNING
    if recovers or old.phase is JobPhase.RECOVERING:
        return JobPhase.RECOVERING
    # A pod that is not ready for a moment has not begun a new life.
    if old.phase is JobPhase.RUNNING and not recovers:
        return JobPhase.RUNNING
    return JobPhase.STARTING


def _works(case: Case, seat: Seat) -> bool:
    """Return whether the seat's pod is ready, in its present life and on a blade that is there."""
    if seat.pod is None or not seat.pod.ready or case.is_old(seat):
        return False
    return seat.there is There.LEAVING or (seat.there is There.READY and seat.loss is None)


def _whole_groups(case: Case) -> tuple[int, int]:
    """Return how many replica groups have all their ranks, at work or done, and how many are."""
    broken = {
        case.groups.of_seat(seat.number)
        for seat in case.seats
        if seat.there is not There.DONE and not _works(case, seat)
    }
    return case.groups.count - len(broken), case.groups.count


def _why(
    case: Case, phase: JobPhase, ready: int
) -> tuple[PendingReason | JobReason | None, str | None, bool]:
    """Return reason and message, and whether only people can help; the gravest first."""
    if (blocked := _blocked(case)) is not None:
        return *blocked, True
    gang = case.world.gang
    if gang is not None and gang.status.reason is not None:
        # It is placed: what the scheduler says is of a seat that it cannot move.
        reason, message, likely = gang.status.reason, gang.status.message, ""
        if gang.status.estimated_start is not None:
            likely = f"; a blade is likely to be free by {gang.status.estimated_start.p50}"
        return reason, f"{message or reason}{likely}", reason is PendingReason.MISCONFIGURED
    if case.handshake is not None:
        return None, _saving_note(case.handshake), False
    note = _note(case)
    if phase is JobPhase.RUNNING:
        return None, note, False
    counted = f"{ready} of {len(case.seats)} ranks are ready"
    if phase is JobPhase.STARTING:
        return None, "; ".join(filter(None, (counted, note))), False
    last = next(one for one in reversed(case.incidents) if told.is_open(one))
    where = f"seats {_listed(last.seats)} on {last.blade}" if last.blade else "all ranks"
    text = f"{where}: {last.code}; {counted}"
    if case.is_held:
        text += f"; the restart waits until {clock.utc(case.held_until)}"
    return JobReason(last.cause), text, False


def _saving_note(handshake: Handshake) -> str:
    return (
        f"{handshake.why}: all ranks were told at {handshake.since} to save a checkpoint; it is "
        f"waited for until {handshake.deadline}"
    )


def _note(case: Case) -> str | None:
    """Return what the user should know though nothing is wrong, or None."""
    spec, size = case.world.job.spec, len(case.seats)
    if size not in {spec.nodes, *(spec.elastic.sizes if spec.elastic else ())}:
        return (
            f"spec.nodes is {spec.nodes}, and {size} run; suspend and resume the job to change that"
        )
    return _unmatched_note(case) or note_of(spec)


def _unmatched_note(case: Case) -> str | None:
    """Return that progress cannot be read, which costs the job its hang alarm, or None."""
    marks, progress = case.world.marks, case.world.job.spec.progress
    if marks is None or marks.unmatched < _MANY_LINES or case.world.job.status.step is not None:
        return None
    return (
        f"{UNREAD}: some line of rank 0's log must match progress.stepPattern "
        f"'{progress.effective_step_pattern}' (got none); a hang cannot be told until one does"
    )


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
