"""Read a training run's progress out of its lines: steps, their time, the loss, checkpoints, ends.

Pure and bounded: a line goes in, a few numbers are kept. Time is the line's own where the log has
time stamps, so that reading a log twice gives the same marks.

A *life* is one run of the rank's process. A new one begins with another pod, with the rank agent's
line that it started the rank, or when the step number goes back. What the agent's lines mean:
`started` begins a life; `exited` ends it, unless a signal from outside had ordered that; one that
was asked to save and end (`draining`) is told of. `restarting` ends a process without a line.
"""

import math
import re
from collections import deque
from dataclasses import dataclass, field, replace
from statistics import median

KEPT_STEPS = 256
KEPT_SAVES = 8
MAX_LINE = 512  # characters that a pattern gets to see
AGENT = "tramontane-agent event="

_MAX_DIGITS = 18  # what fits into the API's integers
_LARGEST_LOSS = 1e20  # what fits into the API's decimals; neither NaN nor infinity does
_ENDING = frozenset({"2", "15"})  # SIGINT, SIGTERM
# A save that steps go on beside holds nothing up. The first step may have been on its way.
_STEPS_BESIDE_SAVING = 2
_P99 = 0.99


@dataclass(frozen=True, slots=True)
class Saved:
    """Say that a checkpoint of `step` was safe at `at` (Unix s).

    `cost_s` is what it held training up, `took_s` what it took since it was begun, as far as the
    log says so.
    """

    step: int
    at: float
    cost_s: float = 0.0
    took_s: float = 0.0


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
        saving_since: when the checkpoint that is being written was begun; None: none is, or steps
            go on beside it.
        agent_attempt: the attempt that the rank agent said it started; None without its lines.
        exited: how this life's process ended by itself, as its agent said; None while it runs.
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
class AgentLines:
    """Follow what the rank agent says; `exited` is how the newest process ended by itself."""

    attempt: int | None = None
    exited: Exited | None = None
    _ordered: bool = False

    def take(self, line: str, at: float) -> bool:
        """Take one of the agent's lines; return whether it begins another attempt."""
        said = dict(word.split("=", 1) for word in line.split() if "=" in word)
        event, attempt = said.get("event"), _integer(said.get("attempt"))
        if event == "started" and attempt is not None:
            if attempt == self.attempt:
                return False
            self.attempt, self.exited, self._ordered = attempt, None, False
            return True
        if event == "signal" and said.get("number") in _ENDING:
            self._ordered = True
        elif event == "draining":
            self._ordered = False
        elif event == "exited" and attempt is not None and not self._ordered:
            code = _integer(said.get("code"))
            self.exited = None if code is None else Exited(attempt, code, at)
        return False


@dataclass(slots=True)
class Progress:
    """Gather marks from lines; see `feed`.

    `news` grows with what somebody may be waiting for: a life, its first step, its end, a save.
    """

    step_pattern: re.Pattern[str] | None
    saved_pattern: re.Pattern[str] | None
    saved: Saved | None = None
    loss_pattern: re.Pattern[str] | None = None
    saving_pattern: re.Pattern[str] | None = None
    news: int = 0
    _life: str = ""
    _step: int | None = None
    _step_at: float | None = None
    _first: tuple[int, float] | None = None
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))
    _known_times: tuple[float | None, float | None] = (None, None)  # of the last life with any
    _saves: deque[Saved] = field(default_factory=lambda: deque(maxlen=KEPT_SAVES))
    _unsettled: Saved | None = None  # what it cost is known at the next step
    _saving_since: float | None = None
    _beside: int = 0  # steps since then
    _loss: float | None = None
    _agent: AgentLines = field(default_factory=AgentLines)
    _unmatched: int = 0
    _matched: bool = False

    def begin_life(self, life: str) -> None:
        """Say whose lines come next: a pod's uid. Another one than before is a new life."""
        if life != self._life:
            self._life = life
            self._agent = AgentLines()
            self._reset()

    @property
    def is_fresh(self) -> bool:
        """Return whether this life has not shown a step yet."""
        return self._first is None

    def feed(self, line: str, at: float) -> None:
        """Take one line, printed at `at` (Unix s)."""
        line = line[:MAX_LINE]
        if AGENT in line:
            self._on_agent(line, at)
        elif (saved := _number(self.saved_pattern, line)) is not None:
            self._on_saved(saved, at)
        elif self.saving_pattern is not None and self.saving_pattern.search(line):
            self._saving_since, self._beside = at, 0
        else:
            self.feed_loss(_loss(self.loss_pattern, line))
            step = _number(self.step_pattern, line)
            if step is not None:
                self.feed_step(step, at)
            elif self.step_pattern is not None and not self._matched:
                self._unmatched += 1

    def feed_step(self, step: int, at: float) -> None:
        """Take a step that was done at `at` (Unix s)."""
        self._matched, self._unmatched = True, 0
        if self._step is not None and step < self._step:
            self._reset()
            self._matched = True
        if self._first is None:
            # "resuming from step 40" is no step: it says where the checkpoint was.
            if step == (self.saved.step if self.saved else 0):
                return
            self._first = (step, at)
            self.news += 1
        elif self._step is not None and self._step_at is not None and step > self._step:
            self._note_time(step - self._step, at - self._step_at, at)
        elif step == self._step:
            return
        self._step, self._step_at = step, at
        self._beside += 1
        if self._beside >= _STEPS_BESIDE_SAVING:
            self._saving_since = None

    def feed_loss(self, loss: float | None) -> None:
        """Take a loss, if there is one that can be shown."""
        if loss is not None and abs(loss) < _LARGEST_LOSS:
            self._loss = loss

    def shift(self, seconds: float) -> None:
        """Move this life's times: the clock that stamped them turned out to be off by so much."""
        if self._step_at is not None:
            self._step_at += seconds
        if self._first is not None:
            self._first = (self._first[0], self._first[1] + seconds)
        if self._saving_since is not None:
            self._saving_since += seconds
        if (exited := self._agent.exited) is not None:
            self._agent.exited = replace(exited, at=exited.at + seconds)

    def marks(self) -> Marks:
        """Return what is known now. O(kept steps)."""
        step_time_s, step_p99_s = self._step_times()
        return Marks(
            step=self._step,
            step_at=self._step_at,
            first_step=self._first[0] if self._first else None,
            first_step_at=self._first[1] if self._first else None,
            step_time_s=step_time_s,
            saved=self.saved,
            saves=tuple(self._saves),
            agent_attempt=self._agent.attempt,
            step_p99_s=step_p99_s,
            loss=self._loss,
            saving_since=self._saving_since,
            exited=self._agent.exited,
            unmatched=self._unmatched,
        )

    def _reset(self) -> None:
        self._known_times = self._step_times()
        self._step = self._step_at = self._first = self._unsettled = self._saving_since = None
        self._times.clear()
        self._unmatched, self._matched = 0, False
        self.news += 1

    def _on_agent(self, line: str, at: float) -> None:
        before = self._agent.exited
        if self._agent.take(line, at):
            self._reset()
        elif self._agent.exited != before:
            self._saving_since = None
            self.news += 1

    def _on_saved(self, step: int, at: float) -> None:
        begun, self._saving_since = self._saving_since, None
        # A later step is a newer checkpoint, whatever the clock of a node that has moved in says.
        if self.saved is None or at > self.saved.at or step > self.saved.step:
            took_s = max(0.0, at - begun) if begun is not None else 0.0
            self.saved = self._unsettled = Saved(step, at, took_s=took_s)
            self.news += 1

    def _note_time(self, steps: int, seconds: float, at: float) -> None:
        if (saved := self._unsettled) is not None:
            self._unsettled = None
            typical, _ = self._step_times()
            cost_s = max(0.0, seconds - steps * typical) if typical is not None else 0.0
            self._saves.append(Saved(saved.step, at, cost_s, saved.took_s))
            if typical is not None:
                return
        self._times.append(max(0.0, seconds) / steps)

    def _step_times(self) -> tuple[float | None, float | None]:
        """Return the median and the 99th percentile."""
        if not self._times:
            return self._known_times
        ordered = sorted(self._times)
        return median(ordered), ordered[math.ceil(_P99 * len(ordered)) - 1]


def _number(pattern: re.Pattern[str] | None, line: str) -> int | None:
    match = pattern.search(line) if pattern is not None else None
    return _integer(match.group("step")) if match is not None else None


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _loss(pattern: re.Pattern[str] | None, line: str) -> float | None:
    """Return the loss of a line; None where there is none, or one that is no number."""
    match = pattern.search(line) if pattern is not None else None
    try:
        return float(match.group("loss")) if match is not None and match.group("loss") else None
    except ValueError:
        return None
