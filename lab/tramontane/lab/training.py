"""Training as it looks from outside: a gang steps, saves, stands still, resumes.

One pure function, `advance`, moves a job's training by what its pods look like at a moment. It
behaves like a data-parallel job of fixed size: it steps only while every rank's process runs and
all are of one epoch; when one is lost, all stand still (or die of it, as `Pace` says); once whole
again, the ranks take a while to meet and go on from the last checkpoint, so that the steps since
then are done twice. Told to end, all save after the step that they are at, and end with 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from tramontane.lab.pace import Pace
from tramontane.lab.ranks import Process, Rank, ended, live

_CATCH_UP_STEPS: Final = 20  # printed at once at most, when we were kept from printing them in time
_MOMENT_S: Final = 0.2  # after which ranks die of a peer's crash
_PEER_DIED: Final = 1


class Phase(StrEnum):
    """What a job's ranks are doing."""

    STANDING = "Standing"  # not all there
    STARTING = "Starting"  # all there, meeting each other
    STEPPING = "Stepping"
    SAVING = "Saving"
    HANGING = "Hanging"  # all there, and nothing comes of it
    ENDED = "Ended"


_TOGETHER: Final = frozenset({Phase.STARTING, Phase.STEPPING, Phase.SAVING, Phase.HANGING})


@dataclass(frozen=True, slots=True)
class Training:
    """Where a job's training stands; the checkpoint is what outlives its processes.

    Attributes:
        processes: what runs, by seat.
        hung, crashed: lives that have ended so.
        slow: the container whose rank is the straggler: another pod on its seat is not slow.
        stood_at: since when it stands; `dies_at` is when the processes of before die of that.
        next_at: when the gang does the next thing by itself.
    """

    phase: Phase = Phase.STANDING
    step: int = 0
    saved: int = 0
    processes: Mapping[int, Process] = field(default_factory=dict, repr=False)
    hung: int = 0
    crashed: int = 0
    slow: str = ""
    stood_at: float = -math.inf
    dies_at: float = math.inf
    next_at: float = math.inf

    @property
    def due(self) -> float:
        """Return when the next thing happens by itself. O(seats)."""
        waits = min((one.due for one in self.processes.values()), default=math.inf)
        return min(self.next_at, self.dies_at, waits)


class Line(NamedTuple):
    """What the rank on a seat has printed."""

    seat: int
    text: str


class Exit(NamedTuple):
    """The container of a seat's rank has ended with a code."""

    seat: int
    code: int


class Moved(NamedTuple):
    """The training at a moment, what was printed up to then, and whose containers ended."""

    training: Training
    lines: tuple[Line, ...]
    exits: tuple[Exit, ...]


def loss_at(step: int) -> float:
    """Return a loss that falls as losses do, the same each time a step is done."""
    noise = math.sin(step * 12.9898) * 0.02
    return 1.7 + 9.1 / math.sqrt(1 + step / 12) + noise


def advance(training: Training, ranks: Sequence[Rank], size: int, pace: Pace, now: float) -> Moved:
    """Return the training at `now`, with what was printed and who ended up to then. O(seats).

    | processes                                 | then                                           |
    |-------------------------------------------|------------------------------------------------|
    | not one per seat, or of several attempts  | standing; says once who is missing             |
    | whole, but other ones than before         | starting for `start_s`, then from the save     |
    | whole and the same                        | a step each `step_s`, a save each `save_every` |
    | told to end (all drained, or a pod goes)  | a save after the present step, then they end   |
    """
    return _Moment(training, {rank.seat: rank for rank in ranks}, size, pace, now).passed()


@dataclass(slots=True)
class _Moment:
    """One call of `advance` in the middle of its work."""

    at: Training
    ranks: Mapping[int, Rank]
    size: int
    pace: Pace
    now: float
    processes: dict[int, Process] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)

    def passed(self) -> Moved:
        """Return what has come of the moment."""
        before = self.at.processes
        for seat, rank in self.ranks.items():
            process, said = live(before.get(seat), rank, self.now)
            if process is not None:
                self.processes[seat] = process
            self.lines += [Line(seat, text) for text in said]
        if not self._whole():
            self._stand()
        else:
            same = before.keys() == self.processes.keys() and all(
                before[seat].life == one.life and before[seat].attempt == one.attempt
                for seat, one in self.processes.items()
            )
            if not same or self.at.phase not in _TOGETHER:
                self._meet()
            self._go_on()
        if self.now >= self.at.dies_at:
            self._die()
        return self._result(before)

    def _result(self, before: Mapping[int, Process]) -> Moved:
        exits = tuple(
            Exit(seat, process.code)
            for seat, process in self.processes.items()
            if process.over
            and process.code is not None
            and not self.ranks[seat].leaving
            and not ((old := before.get(seat)) and old.life == process.life and old.over)
        )
        lines = tuple(
            line for line in self.lines if (rank := self.ranks.get(line.seat)) and not rank.dark
        )
        return Moved(replace(self.at, processes=self.processes), lines, exits)

    def _alive(self, seat: int) -> bool:
        process, rank = self.processes.get(seat), self.ranks[seat]
        return process is not None and process.code is None and rank.up and not rank.dark

    def _whole(self) -> bool:
        """Tell whether all seats have a process that runs, all of one attempt."""
        attempts = {process.attempt for process in self.processes.values()}
        return (
            self.size > 0
            and len(self.ranks) == self.size
            and len(attempts) == 1
            and all(seat < self.size and self._alive(seat) for seat in self.ranks)
        )

    def _say(self, text: str) -> None:
        self.lines.append(Line(0, text))

    def _stand(self) -> None:
        """Stand still, if that is new."""
        if self.at.phase not in _TOGETHER:
            return
        if self.at.phase is not Phase.HANGING:
            self._say(self._why_standing())
        self._stop(self.pace.abort_s)

    def _stop(self, dies_after_s: float) -> None:
        """Stand from now on; who has been there dies of it after a while."""
        self.at = replace(
            self.at,
            phase=Phase.STANDING,
            next_at=math.inf,
            stood_at=self.now,
            dies_at=self.now + dies_after_s,
        )

    def _why_standing(self) -> str:
        """Say why rank 0 cannot go on, as a collective library would."""
        gone = [
            seat for seat in range(self.size) if seat not in self.ranks or not self._alive(seat)
        ]
        if not gone:
            return f"rank epochs differ after step {self.at.step}; waiting for all to restart"
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        rank = self.ranks.get(gone[0])
        said = (rank.trouble if rank else "") or "connection closed by peer"
        return f"rank {gone[0]}{more} lost after step {self.at.step}: {said}"

    def _die(self) -> None:
        """Let the processes of before die of their peer's death; newer ones have not met it."""
        for seat in sorted(self.ranks):
            if self._alive(seat) and self.processes[seat].started_at <= self.at.stood_at:
                self.lines.append(Line(seat, f"RuntimeError: rank {seat}: a peer is gone"))
                self._end(seat, _PEER_DIED)
        self.at = replace(self.at, dies_at=math.inf)

    def _end(self, seat: int, code: int) -> None:
        process, said = ended(self.processes[seat], self.ranks[seat], code, self.now)
        self.processes[seat] = process
        self.lines += [Line(seat, text) for text in said]

    def _meet(self) -> None:
        """Begin to meet: all processes are there, and not all of them have met before."""
        self._say(f"{self.size} ranks are meeting, epoch {self.processes[0].attempt}")
        slow = self.at.slow
        if self.pace.straggler and not slow and self.pace.straggler.rank in self.ranks:
            slow = self.ranks[self.pace.straggler.rank].life
        self.at = replace(
            self.at,
            phase=Phase.STARTING,
            next_at=self.now + self.pace.start_s,
            dies_at=math.inf,
            slow=slow,
        )

    def _go_on(self) -> None:
        """Do what is due: the first step, steps, saves."""
        pace = self.pace
        if self.at.phase is Phase.STARTING and self.now >= self.at.next_at:
            saved = self.at.saved
            self._say(f"resuming from checkpoint step={saved}" if saved else "starting from step 0")
            self._step_next(self.at.next_at, step=saved)
        stepping = self.at.phase is Phase.STEPPING
        if stepping and self.now - self.at.next_at > _CATCH_UP_STEPS * pace.step_s:
            self.at = replace(self.at, next_at=self.now)
        while self.at.phase in {Phase.STEPPING, Phase.SAVING} and self.now >= self.at.next_at:
            if self.at.phase is Phase.STEPPING:
                self._step()
            else:
                self._saved()

    def _step_next(self, since: float, step: int) -> None:
        self.at = replace(
            self.at, phase=Phase.STEPPING, step=step, next_at=since + self.pace.step_s
        )

    def _step(self) -> None:
        """Do one step; save, hang, crash or end where it is time to."""
        step, at, pace = self.at.step + 1, self.at.next_at, self.pace
        self._tell_step(step)
        self._step_next(at, step)
        is_last = pace.steps is not None and step >= pace.steps
        if pace.hangs(step, self.at.hung):
            self.at = replace(self.at, phase=Phase.HANGING, hung=self.at.hung + 1, next_at=math.inf)
        elif pace.crash is not None and pace.crashes(step, self.at.crashed):
            self._crash(pace.crash.rank, pace.crash.code, _traceback(pace.crash.rank, step))
        elif is_last and pace.exit_code:
            said = (f"error: exiting with {pace.exit_code}",)
            self._crash(0, pace.exit_code, said)
        elif step % pace.save_every == 0 or is_last or self._is_told():
            self._save(at)

    def _tell_step(self, step: int) -> None:
        """Print the step: rank 0, and where one is slow all ranks with their own time for it."""
        text = f"step {step} loss {loss_at(step):.4f}"
        straggler = self.pace.straggler
        if straggler is None:
            self._say(text)
            return
        quick_s = self.pace.step_s / max(straggler.factor, 1.0)
        for seat, rank in self.ranks.items():
            is_slow = seat == straggler.rank and rank.life == self.at.slow
            own_s = self.pace.step_s if is_slow else quick_s
            self.lines.append(Line(seat, f"{text} seconds={own_s:.4f}"))

    def _save(self, since: float) -> None:
        """Begin to save the present step."""
        if self.pace.save_s > 0:
            self._say(f"saving checkpoint step={self.at.step}")
        self.at = replace(self.at, phase=Phase.SAVING, next_at=since + self.pace.save_s)

    def _saved(self) -> None:
        """Have the checkpoint; go on, or end."""
        step, pace = self.at.step, self.pace
        self._say(f"saved checkpoint step={step}")
        self._step_next(self.at.next_at, step)
        self.at = replace(self.at, saved=step)
        if pace.steps is not None and step >= pace.steps:
            self._say("done")
            for seat in sorted(self.ranks):
                self._end(seat, 0)
            self.at = replace(self.at, phase=Phase.ENDED, next_at=math.inf)
        elif self._is_told():
            for seat in sorted(self.ranks):
                if self.processes[seat].told:
                    self._end(seat, 0)
            self.at = replace(self.at, phase=Phase.STANDING, next_at=math.inf)

    def _is_told(self) -> bool:
        """Tell whether the ranks end after this step: all drained, or a pod of theirs goes."""
        if not self.pace.graceful:
            return False
        return any(rank.leaving for rank in self.ranks.values()) or all(
            process.told for process in self.processes.values()
        )

    def _crash(self, rank: int, code: int, last_words: tuple[str, ...]) -> None:
        """Let one rank end by itself; the others die of it a moment later."""
        seat = rank if rank in self.ranks else 0
        self.lines += [Line(seat, text) for text in last_words]
        self._end(seat, code)
        self.at = replace(self.at, crashed=self.at.crashed + 1)
        self._stop(_MOMENT_S)


def _traceback(rank: int, step: int) -> tuple[str, ...]:
    return (
        "Traceback (most recent call last):",
        '  File "/app/train.py", line 212, in <module>',
        f"RuntimeError: rank {rank}: loss is not finite after step {step}",
    )
