"""Train by arithmetic: where a job's steps and checkpoints are at a moment, without taking them.

One life of a gang goes like this:

    whole ──reload──▶ step step … step save step step … step save ┄┄ lost
                      └─── interval ──┘ └cost┘          └─ what came since the save is done again

So everything at a time `t` follows from when the life began to step and from which checkpoint:
no task runs, no line is printed, and a quiet month costs nothing.

Source of the model: Young's (training.md, section 4): saves hold all ranks up for their whole cost.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.progress import Marks, Saved
from tramontane.controllers.trainingjob.words import LastWords, Slow
from tramontane.kube.views import PodView

# Saves that the marks remember: a controller that looks more seldom would lose their cost.
REMEMBERED_S = 8 * 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How one job trains. Times in seconds.

    Attributes:
        step_s: what a step takes.
        steps: between two saves.
        save_s: what a save holds all ranks up.
        reload_s: from the last rank's start to the first step: processes, rendezvous, checkpoint.
    """

    step_s: float = 5.0
    steps: int = 100
    save_s: float = 30.0
    reload_s: float = 60.0

    @classmethod
    def saving_every(
        cls, interval_s: float, *, step_s: float, save_s: float, reload_s: float
    ) -> "Pace":
        """Return the pace whose saves are `interval_s` of work apart, to the nearest step."""
        return cls(step_s, max(1, round(interval_s / step_s)), save_s, reload_s)

    @property
    def cycle_s(self) -> float:
        """Return the time from one save's end to the next one's."""
        return self.steps * self.step_s + self.save_s


@dataclass(frozen=True, slots=True)
class Stretch:
    """One life: stepping `since` (Unix s), from step `first` on, as attempt number `attempt`."""

    since: float
    first: int
    attempt: int


@dataclass(slots=True)
class Course:
    """One job's training: the checkpoint that outlives the ranks, and the life at present.

    Attributes:
        saved: the newest checkpoint.
        reached: the last step of the last life.
        reworked: steps that were done more than once, all lives together.
        lives: how often it began to step.
    """

    pace: Pace
    saved: Saved | None = None
    reached: int = 0
    reworked: int = 0
    lives: int = 0
    _last: Marks | None = None
    _life: Stretch | None = None
    _saves: list[Saved] = field(default_factory=list)

    @property
    def attempt(self) -> int:
        """Return the attempt of the present life; 0 while there is none."""
        return self._life.attempt if self._life else 0

    def begin(self, now: float, attempt: int) -> float:
        """Let all ranks be there; return when the first step begins."""
        first = self.saved.step if self.saved else 0
        self._life = Stretch(now + self.pace.reload_s, first, attempt)
        self.lives += 1
        return self._life.since

    def stop(self, now: float) -> None:
        """Let a rank be lost: what was done since the last save will be done again."""
        life = self._life
        if life is None:
            return
        # The log of a rank that died ends where it ended.
        self._last = self.marks(now)
        self.reached = self._step_at(life, now)
        self._note_saves(life, now)
        self.reworked += self.reached - (self.saved.step if self.saved else 0)
        self._life = None

    def retained_s(self, now: float) -> float:
        """Return the time of all steps that count: done, and not to be done again."""
        life = self._life
        steps = self._step_at(life, now) if life else (self.saved.step if self.saved else 0)
        return steps * self.pace.step_s

    def marks(self, now: float) -> Marks:
        """Return what rank 0's log would have said by now."""
        life = self._life
        if life is None:
            return self._last or Marks()
        self._note_saves(life, now)
        step, pace = self._step_at(life, now), self.pace
        done = step - life.first
        if done <= 0:
            return Marks(saved=self.saved, saves=tuple(self._saves), agent_attempt=life.attempt)
        # The last step's line: steps of whole cycles, their saves, and those of this one.
        cycles, rest = divmod(done - 1, pace.steps)
        step_at = life.since + cycles * pace.cycle_s + (rest + 1) * pace.step_s
        return Marks(
            step=step,
            step_at=step_at,
            first_step=life.first + 1,
            first_step_at=life.since + pace.step_s,
            step_time_s=pace.step_s,
            saved=self.saved,
            saves=tuple(self._saves),
            agent_attempt=life.attempt,
        )

    def _step_at(self, life: Stretch, now: float) -> int:
        passed, pace = now - life.since, self.pace
        if passed <= 0:
            return life.first
        cycles = math.floor(passed / pace.cycle_s)
        rest = math.floor((passed - cycles * pace.cycle_s) / pace.step_s + 1e-9)
        return life.first + cycles * pace.steps + min(pace.steps, rest)

    def _note_saves(self, life: Stretch, now: float) -> None:
        """Bring the newest checkpoint, and those that are remembered, up to now."""
        pace = self.pace
        cycles = math.floor(max(0.0, now - life.since) / pace.cycle_s)
        if cycles == 0:
            return
        known = self.saved.at if self.saved else -math.inf
        oldest = max(1, cycles - math.ceil(REMEMBERED_S / pace.cycle_s))
        for cycle in range(oldest, cycles + 1):
            at = life.since + cycle * pace.cycle_s
            if at > known:
                self._saves.append(Saved(life.first + cycle * pace.steps, at, pace.save_s))
        self.saved = Saved(
            life.first + cycles * pace.steps, life.since + cycles * pace.cycle_s, pace.save_s
        )
        while self._saves and self._saves[0].at < now - REMEMBERED_S:
            self._saves.pop(0)


class SimFollowers:
    """Give the TrainingJob controller its marks by arithmetic, in the place of logs.

    It has the methods of `controllers.trainingjob.reconcile.Logs`.
    """

    def __init__(self, course: Callable[[str], Course | None], now: Callable[[], float]) -> None:
        self._course, self._now = course, now
        self._asked: dict[str, Mapping[str, LastWords]] = {}

    def marks(self, key: str) -> Marks | None:
        """Return what the job's log would have said by now; None before it has begun."""
        course = self._course(key)
        return course.marks(self._now()) if course is not None and course.lives else None

    def is_alive(self, key: str) -> bool:
        """Return whether the job's log could be read."""
        course = self._course(key)
        return course is not None and course.lives > 0

    def follow(self, job: TrainingJob, pod: PodView | None) -> None:
        """Read no log."""

    def sample(self, job: TrainingJob, pods: Sequence[PodView]) -> None:
        """Sample no rank: all of them take the same time."""

    def ask(self, job: TrainingJob, pods: Sequence[PodView]) -> None:
        """Have these pods answer that their ranks have not ended by themselves."""
        self._asked[job.key] = {pod.uid: LastWords(answered=True) for pod in pods}

    def words(self, key: str) -> Mapping[str, LastWords]:
        """Return what was asked for."""
        return self._asked.get(key, {})

    def slow(self, key: str) -> Slow | None:
        """Return that no rank is slow."""
        del key
        return None

    def forget(self, key: str) -> None:
        """Drop what was asked; all else follows from the model."""
        self._asked.pop(key, None)

    async def close(self) -> None:
        """Have nothing to close."""
