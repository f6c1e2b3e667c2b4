"""Read a training run's progress out of its lines: step, step time, checkpoints.

Pure and bounded: a line goes in, a few numbers are kept. Time is the line's own where the log has
time stamps, so that reading a log twice gives the same marks.

A *life* is one run of the rank's process. A new one begins with another pod, with the rank agent's
line that it started the rank, or when the step number goes back.
"""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

KEPT_STEPS = 64
KEPT_SAVES = 8
MAX_LINE = 512  # characters that a pattern gets to see

# What rankagent.py prints when it starts the rank.
AGENT_STARTED = re.compile(r"tramontane-agent event=started attempt=(\d+)")
AGENT_EXITED = re.compile(r"tramontane-agent event=exited attempt=(\d+) code=(\d+)")


@dataclass(frozen=True, slots=True)
class Saved:
    """Say that a checkpoint of `step` was safe at `at` (Unix s); `cost_s` is what it held up."""

    step: int
    at: float
    cost_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Exited:
    """Say how a rank's process ended: in which attempt, with what code, when (Unix s)."""

    attempt: int
    code: int
    at: float


@dataclass(frozen=True, slots=True)
class Marks:
    """Show what the log has said so far.

    Attributes:
        step: the newest step of this life, and `step_at` when its line was printed (Unix s).
        first_step: the first step of this life, and `first_step_at` when.
        step_time_s: median time of a step in this life, or of the last one that had any;
            `step_p99_s` its 99th percentile.
        loss: the newest one, where a pattern asks for it.
        saved: the newest checkpoint.
        saves: the last few checkpoints, oldest first.
        saving_since: when the checkpoint that is being written was begun; None: none is.
        agent_attempt: the attempt that the rank agent said it started; None without its lines.
        exited: how this life's process ended, as its agent said; None while it runs.
        unmatched: lines of this life, while none of them has matched the step pattern.
    """

    step: int | None = None
    step_at: float | None = None
    first_step: int | None = None
    first_step_at: float | None = None
    step_time_s: float | None = None
    saved: Saved | None = None
    saves: tuple[Saved, ...] = ()
    agent_attempt: int | None = None
    step_p99_s: float | None = None
    loss: float | None = None
    saving_since: float | None = None
    exited: Exited | None = None
    unmatched: int = 0


@dataclass(slots=True)
class Progress:
    """Gather marks from lines; see `feed`."""

    step_pattern: re.Pattern[str] | None
    saved_pattern: re.Pattern[str] | None
    saved: Saved | None = None
    _life: str = ""
    _step: int | None = None
    _step_at: float | None = None
    _first: tuple[int, float] | None = None
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))
    _step_time_s: float | None = None
    _saves: deque[Saved] = field(default_factory=lambda: deque(maxlen=KEPT_SAVES))
    _unsettled: Saved | None = None  # what it cost is known at the next step
    _agent_attempt: int | None = None

    def begin_life(self, life: str) -> None:
        """Say whose lines come next: a pod's uid. Another one than before is a new life."""
        if life != self._life:
            self._life = life
            self._agent_attempt = None
            self._reset()

    def feed(self, line: str, at: float) -> None:
        """Take one line, printed at `at` (Unix s)."""
        line = line[:MAX_LINE]
        if started := AGENT_STARTED.search(line):
            attempt = int(started.group(1))
            if attempt != self._agent_attempt:
                self._agent_attempt = attempt
                self._reset()
            return
        if (saved := _group(self.saved_pattern, line)) is not None:
            self._on_saved(saved, at)
            return
        if (step := _group(self.step_pattern, line)) is not None:
            self._on_step(step, at)

    def feed_all(self, lines: Iterable[tuple[str, float]]) -> None:
        """Take many lines."""
        for line, at in lines:
            self.feed(line, at)

    @property
    def marks_of_life(self) -> tuple[int | None, int | None, int | None]:
        """Return what changes rarely: the life's first step, its attempt, the newest checkpoint."""
        first = self._first[0] if self._first else None
        return first, self._agent_attempt, self.saved.step if self.saved else None

    def marks(self) -> Marks:
        """Return what is known now."""
        return Marks(
            step=self._step,
            step_at=self._step_at,
            first_step=self._first[0] if self._first else None,
            first_step_at=self._first[1] if self._first else None,
            step_time_s=self._step_time_s,
            saved=self.saved,
            saves=tuple(self._saves),
            agent_attempt=self._agent_attempt,
        )

    def _reset(self) -> None:
        self._step = self._step_at = self._first = self._unsettled = None
        self._times.clear()

    def _on_saved(self, step: int, at: float) -> None:
        if self.saved is None or at > self.saved.at:
            self.saved = self._unsettled = Saved(step, at)

    def _on_step(self, step: int, at: float) -> None:
        if self._step is not None and step < self._step:
            self._reset()
        if self._first is None:
            # "resuming from step 40" is no step: it says where the checkpoint was.
            if step == (self.saved.step if self.saved else 0):
                return
            self._first = (step, at)
        elif self._step is not None and self._step_at is not None and step > self._step:
            self._note_time(step - self._step, at - self._step_at, at)
        elif step == self._step:
            return
        self._step, self._step_at = step, at

    def _note_time(self, steps: int, seconds: float, at: float) -> None:
        typical = self._step_time_s
        if self._unsettled is not None:
            cost_s = max(0.0, seconds - steps * typical) if typical is not None else 0.0
            self._saves.append(Saved(self._unsettled.step, at, cost_s))
            self._unsettled = None
            if typical is not None:
                return
        self._times.append(max(0.0, seconds) / steps)
        self._step_time_s = median(self._times)


def _group(pattern: re.Pattern[str] | None, line: str) -> int | None:
    match = pattern.search(line) if pattern is not None else None
    text = match.group("step") if match is not None else None
    return int(text) if text and text.isdecimal() else None
