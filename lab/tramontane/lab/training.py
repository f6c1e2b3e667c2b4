"""Training as it looks from outside: a gang steps, saves, stands still, resumes.

One pure function, `advance`, moves a job's training by what its pods look like at a moment. It
behaves like a data-parallel job of fixed size: it steps only while every rank is there and all
are of one epoch; when one is lost, all stand still; once whole again, the ranks take a while to
meet and go on from the last checkpoint, so that the steps since then are done twice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

ENV_STEP_TIME = "TRAMONTANE_LAB_STEP_TIME"
ENV_START_TIME = "TRAMONTANE_LAB_START_TIME"
ENV_SAVE_EVERY = "TRAMONTANE_LAB_SAVE_EVERY"
ENV_STEPS = "TRAMONTANE_LAB_STEPS"
ENV_EXIT = "TRAMONTANE_LAB_EXIT"

_CATCH_UP_STEPS = 20  # printed at once at most, when we were kept from printing them in time


@dataclass(frozen=True, slots=True)
class Pace:
    """How one job trains; from its pods' environment."""

    step_s: float = 0.5
    start_s: float = 2.0  # processes up, ranks met, checkpoint loaded
    save_every: int = 20
    steps: int | None = None  # after so many it ends
    exit_code: int = 0  # with this

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "Pace":
        """Read the pace from a container's environment."""
        normal = cls()
        return cls(
            step_s=float(env.get(ENV_STEP_TIME, normal.step_s)),
            start_s=float(env.get(ENV_START_TIME, normal.start_s)),
            save_every=max(1, int(env.get(ENV_SAVE_EVERY, normal.save_every))),
            steps=int(env[ENV_STEPS]) if ENV_STEPS in env else None,
            exit_code=int(env.get(ENV_EXIT, normal.exit_code)),
        )


@dataclass(frozen=True, slots=True)
class Rank:
    """One pod of a job, as far as training cares."""

    seat: int
    life: str  # differs when the rank's process is another one: pod uid and restarts
    epoch: str
    up: bool  # its pod runs, on a blade that has power and whose GPUs work
    trouble: str = ""  # what its process would say when it is not up


class Phase(StrEnum):
    """What a job's ranks are doing."""

    STANDING = "Standing"  # not all there
    STARTING = "Starting"  # all there, meeting each other
    STEPPING = "Stepping"
    ENDED = "Ended"


@dataclass(frozen=True, slots=True)
class Training:
    """Where a job's training stands; the checkpoint is what outlives its processes."""

    phase: Phase = Phase.STANDING
    step: int = 0
    saved: int = 0
    lives: tuple[tuple[int, str, str], ...] = field(default=(), repr=False)
    due: float = math.inf  # when the next thing happens by itself


def loss_at(step: int) -> float:
    """Return a loss that falls as losses do, the same each time a step is done."""
    noise = math.sin(step * 12.9898) * 0.02
    return 1.7 + 9.1 / math.sqrt(1 + step / 12) + noise


def advance(
    training: Training, ranks: Sequence[Rank], size: int, pace: Pace, now: float
) -> tuple[Training, tuple[str, ...]]:
    """Return the training at `now` and the lines that rank 0 has printed up to then.

    | ranks                                   | then                                         |
    |-----------------------------------------|----------------------------------------------|
    | not `size` of them up, or epochs differ | standing; says once who is missing           |
    | whole, but other processes than before  | starting for `start_s`, then from the save   |
    | whole and the same                      | a step each `step_s`, a save each `save_every` |
    """
    if training.phase is Phase.ENDED:
        return training, ()
    lives = tuple(sorted((rank.seat, rank.life, rank.epoch) for rank in ranks if rank.up))
    if not _whole(ranks, size):
        if training.phase is Phase.STANDING:
            return training, ()
        standing = replace(training, phase=Phase.STANDING, lives=(), due=math.inf)
        return standing, (_why_standing(training, ranks, size),)
    if lives != training.lives:
        starting = replace(training, phase=Phase.STARTING, lives=lives, due=now + pace.start_s)
        return starting, (f"{size} ranks are meeting, epoch {lives[0][2]}",)

    lines: list[str] = []
    if training.phase is Phase.STARTING and now >= training.due:
        lines.append(
            f"resuming from checkpoint step={training.saved}"
            if training.saved
            else "starting from step 0"
        )
        training = replace(
            training, phase=Phase.STEPPING, step=training.saved, due=training.due + pace.step_s
        )
    if training.phase is Phase.STEPPING and now - training.due > _CATCH_UP_STEPS * pace.step_s:
        training = replace(training, due=now)
    while training.phase is Phase.STEPPING and now >= training.due:
        training = _step(training, pace, lines)
    return training, tuple(lines)


def _step(training: Training, pace: Pace, lines: list[str]) -> Training:
    """Do one step, save where it is time, end where it was the last."""
    step = training.step + 1
    lines.append(f"step {step} loss {loss_at(step):.4f}")
    last = pace.steps is not None and step >= pace.steps
    saved = training.saved
    if step % pace.save_every == 0 or (last and not pace.exit_code):
        saved = step
        lines.append(f"saved checkpoint step={step}")
    if last:
        lines.append("done" if not pace.exit_code else f"error: exiting with {pace.exit_code}")
    return replace(
        training,
        phase=Phase.ENDED if last else Phase.STEPPING,
        step=step,
        saved=saved,
        due=math.inf if last else training.due + pace.step_s,
    )


def after_exit(training: Training) -> Training:
    """Return the training after its processes have ended and may be started again."""
    return Training(step=training.step, saved=training.saved)


def _whole(ranks: Sequence[Rank], size: int) -> bool:
    """Tell whether all seats have one process each, all of one epoch."""
    up = [rank for rank in ranks if rank.up]
    return (
        size > 0
        and {rank.seat for rank in up} == set(range(size))
        and len(up) == size
        and len({rank.epoch for rank in up}) == 1
    )


def _why_standing(training: Training, ranks: Sequence[Rank], size: int) -> str:
    """Say why rank 0 cannot go on, as a collective library would."""
    up = {rank.seat for rank in ranks if rank.up}
    gone = [seat for seat in range(size) if seat not in up]
    if not gone:
        return f"rank epochs differ after step {training.step}; waiting for all to restart"
    troubles = {rank.seat: rank.trouble for rank in ranks if rank.trouble and not rank.up}
    first = gone[0]
    more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
    said = troubles.get(first, "connection closed by peer")
    return f"rank {first}{more} lost after step {training.step}: {said}"
