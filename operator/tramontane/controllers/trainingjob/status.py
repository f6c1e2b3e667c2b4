"""Put a job's status together: phase, progress, ledger, conditions; and say when to write it.

The planner decides phase, reason and counts (`Findings`); here they become the status that follows
the old one. Nothing else of the status is lost: a field that is not found anew keeps its value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from tramontane.api import clock
from tramontane.api.conditions import Condition, ConditionType, condition, set_conditions
from tramontane.api.quantity import format_duration
from tramontane.api.reasons import JobReason, PendingReason
from tramontane.api.trainingjob import (
    Growth,
    Handshake,
    JobIncident,
    JobPhase,
    LastCheckpoint,
    RestartCounts,
    TrainingJobStatus,
)
from tramontane.controllers.trainingjob import incidents as told
from tramontane.controllers.trainingjob.account import account
from tramontane.controllers.trainingjob.advice import advice_s
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.evidence import LOG_PATIENCE_S
from tramontane.controllers.trainingjob.goodput import Ledger
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.controllers.trainingjob.stall import SETTLED_S

FINISHED = frozenset({JobPhase.SUCCEEDED, JobPhase.FAILED})
# How old the first status may make a job wait, and how old numbers in it may be: of starting
# pods (each write counts against the 1.1 writes per pod), of progress, of the ledger.
FIRST_AFTER_S = 1.0
READY_EVERY_S = 5.0
PROGRESS_EVERY_S = 10.0
REFRESH_EVERY_S = 30.0


_PROGRESS_FIELDS = frozenset(
    {"step", "step_time", "step_time_p99", "loss", "last_checkpoint", "checkpoint_advice"}
)
_SLOW_FIELDS = _PROGRESS_FIELDS | {"ready", "message", "goodput"}


@dataclass(frozen=True, slots=True)
class Findings:
    """Hold what the planner found out about the job now.

    `placed` says whether the gang has its seats; `stalled` that only people can help;
    `whole_groups` how many replica groups step on, of how many; `by_group` that incidents end with
    their groups, and not with the job's return.
    """

    phase: JobPhase
    reason: PendingReason | JobReason | None = None
    message: str | None = None
    ready: int = 0
    size: int = 0
    gpus: int = 0
    attempt: int = 0
    incidents: tuple[JobIncident, ...] = ()
    restarts: RestartCounts | None = None
    placed: bool = False
    stalled: bool = False
    handshake: Handshake | None = None
    growth: Growth | None = None
    whole_groups: tuple[int, int] = (1, 1)
    by_group: bool = False


def follow(world: World, found: Findings) -> TrainingJobStatus:
    """Return the status that follows the job's present one."""
    old, now = world.job.status, world.now
    marks = world.marks or Marks()
    begins = found.phase is JobPhase.RUNNING and old.phase is not JobPhase.RUNNING
    ledger, rework_steps = account(
        world, marks, begins=begins, incidents=found.incidents, whole_groups=found.whole_groups
    )
    incidents = found.incidents
    if begins and not found.by_group:
        incidents = told.closed(incidents, now, rework_steps)
    over = found.phase in FINISHED
    return old.model_copy(
        update={
            "observed_generation": world.job.metadata.generation,
            "phase": found.phase,
            "phase_since": old.phase_since if old.phase is found.phase else clock.utc(now),
            "reason": found.reason,
            "message": found.message,
            "ready": f"{found.ready}/{found.size}",
            "gpus": found.gpus,
            "size": found.size,
            "attempt": found.attempt,
            "started_at": old.started_at
            or (clock.utc(now) if found.phase is JobPhase.RUNNING else None),
            "finished_at": (old.finished_at or clock.utc(now)) if over else None,
            **_progress(old, marks, found.phase),
            **_advice(world, marks, found.size),
            "goodput": ledger.to_status(world.created_s),
            "restarts": found.restarts or old.restarts or RestartCounts(),
            "handshake": found.handshake,
            "growth": found.growth,
            "incidents": incidents,
            "conditions": set_conditions(old.conditions, _conditions(world, found), clock.utc(now)),
        }
    )


def steps_again(world: World, attempt: int, incidents: Sequence[JobIncident]) -> bool:
    """Return whether training steps in this life, or cannot be asked.

    A job whose log has shown steps before is not Running until it shows one of the new life: by
    the agent's line where there is an agent, else by having come after the replacements. A log
    that cannot be read is not waited for longer than a minute.
    """
    marks = world.marks
    if world.job.spec.progress.effective_step_pattern is None:
        return True
    if world.job.status.step is None and (marks is None or marks.step is None):
        return True
    begun = [
        clock.parse(one.at) + seconds(one.replaced_after or "0s")
        for one in incidents
        if told.is_open(one)
    ]
    old = world.job.status
    since = max(begun, default=clock.parse(old.phase_since) if old.phase_since else 0.0)
    if not world.log_alive and world.now > max(since, world.log_since) + LOG_PATIENCE_S:
        return True
    if marks is None or marks.first_step_at is None or marks.step_at is None:
        return False
    if marks.agent_attempt is not None:
        return marks.agent_attempt >= attempt
    return marks.step_at > since


def is_read(world: World) -> bool:
    """Return whether the log has told what there was to tell, or will not in time."""
    patience_s = SETTLED_S if world.log_alive else LOG_PATIENCE_S
    return world.now >= world.log_since + patience_s


def is_worth_writing(
    old: TrainingJobStatus, new: TrainingJobStatus, now: float, *, read: bool = True
) -> float | None:
    """Return in how many seconds `new` should be written: 0 now, None never (it says the same).

    | what differs | written |
    |---|---|
    | a new job waits for the scheduler's first look | a second after its creation |
    | phase, reason, attempt, incidents, conditions, size, … | now |
    | ready, message | 5 s after the last write |
    | step, step time, loss, checkpoint | 10 s after it |
    | the ledger alone | 30 s after it, once the log is `read`: what it tells belongs in there |

    The time of the last write is the ledger's end, `goodput.at`.
    """
    if old == new:
        return None
    written = clock.parse(old.goodput.at) if old.goodput and old.goodput.at else 0.0
    fields = {name for name in type(old).model_fields if getattr(old, name) != getattr(new, name)}
    if old.phase is None and new.reason is PendingReason.PENDING_EVALUATION:
        # Most are placed by then: one write, and one wait for it, less.
        return max(0.0, FIRST_AFTER_S - Ledger.of(new.goodput).total_ms / 1000)
    if fields - _SLOW_FIELDS:
        return 0.0
    if fields & {"ready", "message"}:
        wait_s = READY_EVERY_S
    elif fields - {"goodput"}:
        wait_s = PROGRESS_EVERY_S
    elif new.phase is JobPhase.RUNNING:
        wait_s = REFRESH_EVERY_S if read else now - written + SETTLED_S
    else:
        return None
    return max(0.0, written + wait_s - now)


def _progress(old: TrainingJobStatus, marks: Marks, phase: JobPhase) -> dict[str, object]:
    """Return step, step time and checkpoint; while not running, the last life's step stays.

    What that life had reached is what a later one must do again.
    """
    update: dict[str, object] = {}
    was_running = old.phase is JobPhase.RUNNING
    if marks.step is not None and (was_running or phase is JobPhase.RUNNING):
        update["step"] = marks.step
        if marks.step_time_s is not None:
            update["step_time"] = format_duration(_rounded(marks.step_time_s))
        if marks.step_p99_s is not None:
            update["step_time_p99"] = format_duration(_rounded(marks.step_p99_s))
        if marks.loss is not None:
            update["loss"] = format(Decimal(f"{marks.loss:.5g}"), "f")[:32]
    saved = marks.saved
    if saved is not None:
        last = old.last_checkpoint
        if last is None or last.at is None or saved.at >= clock.parse(last.at):
            update["last_checkpoint"] = LastCheckpoint(step=saved.step, at=clock.utc(saved.at))
    return update


def _advice(world: World, marks: Marks, blades: int) -> dict[str, object]:
    """Return how often the job should save, by what its saves cost and its pool's failures."""
    pool = world.pools.get(world.gang.spec.pool) if world.gang is not None else None
    advised_s = advice_s(marks.saves, pool.status.failure_rate if pool else None, blades)
    if advised_s is None:
        return {}
    return {"checkpoint_advice": format_duration(max(1, round(_rounded(advised_s))))}


def _rounded(seconds: float) -> float:
    """Round to two digits, so that noise does not make a new status."""
    return float(f"{seconds:.2g}")


def _conditions(world: World, found: Findings) -> list[Condition]:
    """Return all conditions; messages carry no number that changes by itself."""
    phase, generation = found.phase, world.job.metadata.generation
    reason = str(found.reason or phase)
    all_ready = found.size > 0 and found.ready == found.size
    running, over = phase is JobPhase.RUNNING, phase in FINISHED
    message = (found.message or "") if found.reason or found.stalled else ""
    moving = not (over or running or found.stalled or phase is JobPhase.SUSPENDED)

    def made(type_: ConditionType, holds: bool, why: str, text: str = "") -> Condition:
        return condition(type_, holds, why, text, generation)

    return [
        made(ConditionType.READY, running and all_ready, reason if not over else str(phase)),
        made(ConditionType.ADMITTED, found.placed, "Placed" if found.placed else reason),
        made(
            ConditionType.GANG_READY,
            all_ready and not over,
            "AllReady" if all_ready else "NotReady",
        ),
        made(ConditionType.COMPLETE, phase is JobPhase.SUCCEEDED, str(phase)),
        made(
            ConditionType.FAILED,
            phase is JobPhase.FAILED,
            reason if phase is JobPhase.FAILED else str(phase),
            message if phase is JobPhase.FAILED else "",
        ),
        made(ConditionType.RECONCILING, moving, reason),
        made(
            ConditionType.STALLED,
            found.stalled,
            reason if found.stalled else "Progressing",
            message if found.stalled else "",
        ),
    ]
