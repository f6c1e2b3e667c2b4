"""Tell whether a job's training stands still: the pure reading of its marks.

| what is known | it hangs after |
|---|---|
| stallAfter given | so long without a step or a checkpoint |
| auto | 10 median steps, at least 2 minutes, at least 3 times what a checkpoint took |
| a checkpoint is being written (savingPattern) | checkpoint.grace since then, if that is longer |
| no step yet in this life, but in an earlier one | 3 times the above, at least 10 minutes |
| rank 0 has ended with 0 and others have not | the same |
| no step in any life; the pattern matches nothing; the log is not read | never: nothing is known |

Two minutes and ten steps follow the field: products wait for minutes to tens of minutes
(ByteRobust: 10 min without traffic; reference training.md, section 2), and a checkpoint that blocks
must not look like a hang. Starting takes longer than stepping: images, rendezvous, loading.
"""

from tramontane.api import clock
from tramontane.api.trainingjob import JobPhase
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.progress import Marks

STALL_STEPS = 10
STALL_LEAST_S = 120.0
STALL_SAVES = 3
START_TIMES = 3
START_LEAST_S = 600.0
# A log that has just been opened has its backlog still to tell.
SETTLED_S = 5.0


def limit_s(world: World, marks: Marks) -> float:
    """Return how long training may stand without a step, once it has stepped (s)."""
    given = world.job.spec.progress.stall_after
    if given != "auto":
        return seconds(given)
    save_s = max((one.cost_s for one in marks.saves), default=0.0)
    step_s = marks.step_time_s or 0.0
    return max(STALL_LEAST_S, STALL_STEPS * step_s, STALL_SAVES * save_s)


def stands_until(world: World, marks: Marks, step_at: float) -> float:
    """Return until when training may stand after its last step, at `step_at` (Unix s)."""
    # The step after a checkpoint takes as long as any other.
    until = max(step_at, marks.saved.at if marks.saved is not None else 0.0) + limit_s(world, marks)
    if marks.saving_since is None:
        return until
    return max(until, marks.saving_since + seconds(world.job.spec.checkpoint.grace))


def hangs_at(world: World, marks: Marks, attempt: int) -> float | None:
    """Return when the job will be found to hang unless a step comes (Unix s); None: never."""
    status = world.job.status
    if marks.exited is not None and marks.exited.code == 0 and marks.exited.attempt >= attempt:
        # Rank 0 has done its work: the others ought to end soon, too.
        return marks.exited.at + max(START_LEAST_S, START_TIMES * limit_s(world, marks))
    if not world.log_alive or marks.exited is not None:
        return None
    of_life = marks.agent_attempt is None or marks.agent_attempt >= attempt
    if status.phase is JobPhase.RUNNING and marks.step_at is not None and of_life:
        until = stands_until(world, marks, marks.step_at)
        return max(until, world.log_since + SETTLED_S)
    begun = _started_at(world)
    if begun is None or status.step is None:
        return None
    if of_life and marks.step_at is not None:
        begun = max(begun, marks.step_at)  # it steps: that has not been written yet
    until = begun + max(START_LEAST_S, START_TIMES * limit_s(world, marks))
    return max(until, world.log_since + SETTLED_S)


def is_stalled(world: World, marks: Marks, attempt: int) -> bool:
    """Return whether the job hangs."""
    at = hangs_at(world, marks, attempt)
    return at is not None and world.now >= at


def _started_at(world: World) -> float | None:
    """Return since when a life that is not the first has had all its pods (Unix s), or None."""
    status = world.job.status
    if status.phase is JobPhase.STARTING and status.phase_since is not None:
        return clock.parse(status.phase_since)
    if status.phase is not JobPhase.RECOVERING:
        return None
    ends = [
        clock.parse(one.at) + seconds(one.replaced_after)
        for one in status.incidents
        if one.running_after is None and one.replaced_after is not None
    ]
    is_whole = all(one.running_after or one.replaced_after for one in status.incidents)
    return max(ends) if ends and is_whole else None
