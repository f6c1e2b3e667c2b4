"""Give each moment of a job's life its cause, from what is known when the status is written.

What the job has been doing since the last write is known from its phase, its incidents and its
log. Some of it is known late: that training stood still before an incident was recorded, that the
first step began before the restart was seen to be over, that steps were done twice. Such time is
moved when it is known, in the same status that tells what it is known by: a write that is lost
loses both, and the next look finds both again.

    last write                                   now
        ├── idle: queue, start, replace, resume ──┤ begins: the first step ──► productive
        ├── productive ──┤ last step: detect, hang or preempted ──┤ incident recorded

Pure: a World, the log's marks and the incidents to be written go in, a ledger comes out.
"""

from collections.abc import Sequence

from tramontane.api import clock
from tramontane.api.trainingjob import (
    HandshakeWhy,
    IncidentCause,
    JobIncident,
    JobPhase,
    TrainingJobStatus,
)
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.evidence import Evidence
from tramontane.controllers.trainingjob.goodput import Cause, Ledger, cause_of, is_closed
from tramontane.controllers.trainingjob.groups import Groups
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.progress import KEPT_SAVES, Marks

# What was moved once may differ so much from what is computed of it again.
_ROUNDED_MS = 2


def account(
    world: World,
    marks: Marks,
    *,
    begins: bool,
    incidents: Sequence[JobIncident],
    whole_groups: tuple[int, int] = (1, 1),
) -> tuple[Ledger, int | None]:
    """Return the ledger at now, and the steps that must be done again since training began anew.

    Args:
        world: its job has the status as it was last written.
        marks: what the log has said; empty where there is none.
        begins: whether the job runs from now on, and did not before.
        incidents: as they will be in the status, those that training's return ends still open.
        whole_groups: replica groups that are whole, of how many.
    """
    old = world.job.status
    before = Ledger.of(old.goodput)
    if is_closed(old.phase):
        return before, None
    known = Evidence.of(world, marks, before, incidents)
    if old.phase is JobPhase.CHECKPOINTING:
        ledger = _saved(known, before)
    else:
        runs_from = _runs_from(known, begins=begins)
        ledger = _idled(known, before, runs_from)
        if runs_from < known.end:
            ledger = _ran(known, ledger, runs_from, whole_groups)
    if not begins or old.step is None or marks.first_step is None or not known.steps_anew:
        return ledger, None
    again = max(0, old.step - marks.first_step + 1)
    step_s = seconds(old.step_time) if old.step_time else marks.step_time_s or 0.0
    return ledger.move(Cause.PRODUCTIVE, Cause.REWORK, again * step_s), again


def cause_now(status: TrainingJobStatus) -> Cause:
    """Return what time goes into from now on, as far as the status tells."""
    still = [one for one in status.incidents if one.running_after is None]
    if status.phase is JobPhase.RECOVERING and any(one.replaced_after is None for one in still):
        return Cause.REPLACE
    return cause_of(status.phase, preempted=_gives_way(status))


def _gives_way(status: TrainingJobStatus) -> bool:
    """Return whether the job has been told to give way to others, and has not come back."""
    if status.handshake is not None and status.handshake.why is HandshakeWhy.PREEMPT:
        return True
    return any(
        one.cause is IncidentCause.PREEMPTED and one.running_after is None
        for one in status.incidents
    )


def _runs_from(known: Evidence, *, begins: bool) -> float:
    """Return from when on it was training, as far as it has not stood: now, where it was not.

    May lie before the last write: that training had begun was not known then.
    """
    first = known.marks.first_step_at
    if known.old.phase is JobPhase.RUNNING and not known.awaits_step:
        return known.since
    if not (begins or known.awaits_step) or first is None or not known.steps_anew:
        return known.end
    begun = first - (known.marks.step_time_s or 0.0)
    return min(max(begun, known.life_since), known.end)


def _idled(known: Evidence, ledger: Ledger, until: float) -> Ledger:
    """Account for the time without steps up to `until`; from there on all is productive."""
    old, created = known.old, known.created
    cause = Cause.START if known.awaits_step else cause_of(old.phase, preempted=_gives_way(old))
    if old.phase is JobPhase.RECOVERING:
        replaced = min(max(known.replaced_at, known.since), until)
        ledger = ledger.advance(created, replaced, Cause.REPLACE)
    ledger = ledger.advance(created, until, cause).advance(created, known.end, Cause.PRODUCTIVE)
    return ledger.move(cause, Cause.PRODUCTIVE, known.since - until)


def _held_up(known: Evidence, ledger: Ledger, since: float) -> Ledger:
    """Take from productive time what saving checkpoints has held up since then.

    Where more of them were made than the marks keep, the earlier ones were like those.
    """
    seen = [one for one in known.marks.saves if since < one.at <= known.end]
    cost_s = sum(one.cost_s for one in seen)
    if len(seen) == KEPT_SAVES and (between_s := (seen[-1].at - seen[0].at) / (len(seen) - 1)):
        missed = max(0.0, (seen[0].at - since) / between_s - 1)
        cost_s *= 1 + missed / len(seen)
    return ledger.move(Cause.PRODUCTIVE, Cause.CHECKPOINT, cost_s)


def _saved(known: Evidence, ledger: Ledger) -> Ledger:
    """Account for a planned disruption: steps until the last one count, then nothing does.

    What is not in a checkpoint after all turns out to be rework.
    """
    handshake, marks, created = known.old.handshake, known.marks, known.created
    cause = cause_of(known.old.phase, preempted=_gives_way(known.old))
    if handshake is not None and marks.step_at is not None and marks.step_at > known.since:
        stepped = min(marks.step_at, known.end)
        begun = max(clock.parse(handshake.since), stepped - (marks.step_time_s or 0.0))
        ledger = ledger.advance(created, stepped, Cause.PRODUCTIVE)
        # The last write could not know that this step would be done.
        ledger = ledger.move(cause, Cause.PRODUCTIVE, known.since - begun)
    return ledger.advance(created, known.end, cause)


def _ran(known: Evidence, ledger: Ledger, since: float, whole_groups: tuple[int, int]) -> Ledger:
    """Account for the time with steps since then, all of which is productive in `ledger`.

    | of that time | goes into |
    |---|---|
    | what saving checkpoints held up | checkpoint |
    | replica groups that open incidents name, in proportion | replace or resume |
    | from the last step until the incident that is recorded now | see `_stood` |
    """
    ledger = _held_up(known, ledger, since)
    spec = known.world.job.spec
    groups = Groups.of(spec, known.old.size or spec.nodes)
    out = 0
    if groups.count > 1 and known.old.phase is JobPhase.RUNNING:
        out = len({groups.of_seat(seat) for one in known.told for seat in one.seats})
    whole, count = whole_groups
    steps_on = groups.least <= whole < count
    stood = known.end if steps_on else _stood_since(known)
    ledger = _share(known, ledger, min(out / groups.count, 1.0), stood)
    if steps_on:
        lost = max(0, count - whole - out) / count
        return ledger.move(Cause.PRODUCTIVE, Cause.DETECT, (known.end - known.fault_s) * lost)
    return _stood(known, ledger, stood)


def _share(known: Evidence, ledger: Ledger, lost: float, until: float) -> Ledger:
    """Move the part of the time until then in which some groups did not step."""
    replaced = min(max(known.replaced_at, known.since), until)
    ledger = ledger.move(Cause.PRODUCTIVE, Cause.REPLACE, (replaced - known.since) * lost)
    return ledger.move(Cause.PRODUCTIVE, Cause.RESUME, (until - replaced) * lost)


def _stood_since(known: Evidence) -> float:
    """Return since when nothing has stepped, where it has stood or ended; else now.

    | it is known | since |
    |---|---|
    | that it stands still for longer than a job may | the last step |
    | of a fault, the last step not long before it | the last step |
    | of a fault, the log had not been read before | the fault |
    | of no fault, and all pods went: told to, by a write that was lost | the last step |
    | only that it gives way: ranks step on until they have saved | now |
    """
    last = known.marks.step_at
    went = not known.fresh and not known.world.own_pods
    if last is not None and (known.stands or went):
        return _within(known, last)
    causes = {one.cause for one in known.fresh}
    if not causes or causes == {IncidentCause.PREEMPTED}:
        return known.end
    at = known.fault_s
    return _within(known, at if last is None or known.hangs_at < at else last)


def _within(known: Evidence, at: float) -> float:
    return min(max(at, known.phase_since), known.end)


def _stood(known: Evidence, ledger: Ledger, since: float) -> Ledger:
    """Move the time in which nothing stepped, from the last step until now.

    | of that time | goes into |
    |---|---|
    | with a Hang, or once it has lasted longer than a job may stand: up to the fault | hang |
    | else, up to the fault, while a checkpoint was being written | checkpoint |
    | the rest | detect; checkpoint where there was no fault |

    What has gone into hang with the last write is not moved again.
    """
    fault = known.end if known.is_hung else _within(known, known.fault_s)
    until = max(since, fault)
    saving_s = known.marks.saving_since
    if known.stands:
        hung_ms = round((known.since - since) * 1000)
        was_told = known.since >= known.hangs_at and ledger.hang + _ROUNDED_MS >= hung_ms
        begun = max(since, known.since) if was_told else since
        ledger = ledger.move(Cause.PRODUCTIVE, Cause.HANG, until - begun)
    elif saving_s is not None and saving_s >= since:
        ledger = ledger.move(Cause.PRODUCTIVE, Cause.CHECKPOINT, until - since)
    else:
        until = since
    rest = Cause.DETECT if known.fresh else Cause.CHECKPOINT
    return ledger.move(Cause.PRODUCTIVE, rest, known.end - until)
