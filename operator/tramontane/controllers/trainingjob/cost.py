"""Say what a preemption now would waste: the scheduler takes from those whom it costs least.

That is the work since the last checkpoint, or since this life's first step: what came before is
either safe or lost already. A job that is told to save before it ends has nothing to lose from its
save on, so during a handshake the same figure holds.

Each write of a Gang makes the scheduler look again, so a figure that has hardly changed is not
written. When it was written need not be remembered: a cost grows by the job's GPUs in every hour
since some checkpoint, so the figure itself says how long after that checkpoint it was the true one.
"""

from collections.abc import Iterator

from tramontane.api import clock
from tramontane.api.gang import Cost
from tramontane.api.trainingjob import JobPhase
from tramontane.controllers.trainingjob.observe import World

LEAST_APART_S = 30.0
# Less is noise beside what a restart itself costs.
LEAST_CHANGE_H = 1.0
GROWTH = 1.5
_HOUR_S = 3600.0
_STEPS = frozenset({JobPhase.RUNNING, JobPhase.CHECKPOINTING})


def cost_of(world: World, gpus: int) -> Cost | None:
    """Return the GPU-hours that a preemption now would waste; None where nobody can say.

    | the job | cost |
    |---|---|
    | steps, or saves before a planned disruption | all its `gpus`, since the newest of `_begins` |
    | is recovering | 0: what its last life lost is lost already |
    | waits, starts, is suspended, has ended | None |
    """
    phase = world.job.status.phase
    if phase is JobPhase.RECOVERING:
        return Cost(lost_work="0")
    begun = max(_begins(world), default=None) if phase in _STEPS else None
    if begun is None:
        return None
    return Cost(lost_work=_hours(gpus * max(0.0, world.now - begun) / _HOUR_S))


def next_cost(present: Cost | None, world: World, gpus: int) -> Cost | None:
    """Return the cost to have in the Gang: a new one only where that is worth a write.

    | against the present one | written |
    |---|---|
    | grown by half, and by 1 GPU-hour | once the present one is 30 s old |
    | shrunk by a third, and by 1 GPU-hour: a checkpoint, or a new life | the same |
    | otherwise | not |

    `gpus` are all that the job holds.
    """
    wanted = cost_of(world, gpus)
    if wanted is None:
        return None
    before, after = float(present.lost_work) if present else 0.0, float(wanted.lost_work)
    small, large = sorted((before, after))
    if large - small < LEAST_CHANGE_H or large < GROWTH * small:
        return present
    if world.now - _written_s(before, world, gpus) < LEAST_APART_S:
        return present
    return wanted


def _begins(world: World) -> Iterator[float]:
    """Return from when on work may be lost: this life's beginning, and each known checkpoint."""
    status, marks = world.job.status, world.marks
    if marks is not None and marks.first_step_at is not None:
        yield marks.first_step_at - (marks.step_time_s or 0.0)
    # Marks may be of an earlier life, where the log cannot be read.
    since = status.phase_since if status.phase is JobPhase.RUNNING else status.started_at
    if since is not None:
        yield clock.parse(since)
    if status.last_checkpoint is not None and status.last_checkpoint.at is not None:
        yield clock.parse(status.last_checkpoint.at)
    if marks is not None:
        yield from (one.at for one in marks.saves)
        if marks.saved is not None:
            yield marks.saved.at


def _written_s(hours: float, world: World, gpus: int) -> float:
    """Return the latest moment at which a cost of so many GPU-hours can have been written.

    So long after a checkpoint as the GPUs need for it, if that was before the next one; else it is
    from before all that is known.
    """
    took_s = hours * _HOUR_S / gpus if gpus else 0.0
    until = world.now
    for begun in sorted(_begins(world), reverse=True):
        if begun + took_s <= until:
            return begun + took_s
        until = min(until, begun)
    return until


def _hours(hours: float) -> str:
    """Return GPU-hours with two decimals, short."""
    return f"{hours:.2f}".rstrip("0").rstrip(".")
