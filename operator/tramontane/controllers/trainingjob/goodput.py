"""Keep the ledger of a job's time: every millisecond since creation has one cause.

The ledger lives in `status.goodput` and nowhere else. Its sum *is* the moment up to which time has
been accounted for, so an operator that was away goes on where its predecessor stopped, and nothing
is counted twice. Whole milliseconds inside: sums are exact.

Time is first given to what the job was doing while it passed (`cause_of`), and moved when more is
known (`Ledger.move`): a step that turns out to have been done twice was rework. When, says
`account`.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from tramontane.api import clock
from tramontane.api.quantity import parse_duration
from tramontane.api.trainingjob import Goodput, GoodputLost, JobPhase, RestartStages


class Cause(StrEnum):
    """List what a moment can have gone into; the names are the ledger's attributes.

    Detect, replace and resume are the stages of a restart.
    """

    PRODUCTIVE = "productive"
    QUEUE = "queue"
    START = "start"
    DETECT = "detect"
    REPLACE = "replace"
    RESUME = "resume"
    REWORK = "rework"
    HANG = "hang"
    CHECKPOINT = "checkpoint"
    PREEMPTED = "preempted"
    SUSPENDED = "suspended"


_BY_PHASE = {
    JobPhase.QUEUED: Cause.QUEUE,
    JobPhase.STARTING: Cause.START,
    JobPhase.RUNNING: Cause.PRODUCTIVE,
    JobPhase.RECOVERING: Cause.RESUME,
    JobPhase.CHECKPOINTING: Cause.CHECKPOINT,
    JobPhase.SUSPENDED: Cause.SUSPENDED,
}
_PLAIN = re.compile(r"[0-9]+(\.[0-9]+)?")
_GIVEN_WAY = frozenset({Cause.QUEUE, Cause.CHECKPOINT})


def cause_of(phase: JobPhase | None, *, preempted: bool = False) -> Cause:
    """Return what time in `phase` goes into, as far as the phase tells.

    | phase | cause |
    |---|---|
    | none yet, Queued | queue; preempted after having given way |
    | Starting | start |
    | Running | productive |
    | Recovering | resume; `account` tells replace from it |
    | Checkpointing | checkpoint; preempted where it gives way |
    | Suspended | suspended |

    A finished job's ledger is closed: its time is not asked for.
    """
    cause = _BY_PHASE.get(phase or JobPhase.QUEUED, Cause.QUEUE)
    if preempted and cause in _GIVEN_WAY:
        return Cause.PREEMPTED
    return cause


def is_closed(phase: JobPhase | None) -> bool:
    """Return whether the ledger of a job in `phase` has ended."""
    return phase is not None and phase not in _BY_PHASE


@dataclass(frozen=True, slots=True)
class Ledger:
    """Hold milliseconds by cause; their sum is the accounted time since creation."""

    productive: int = 0
    queue: int = 0
    start: int = 0
    detect: int = 0
    replace: int = 0
    resume: int = 0
    rework: int = 0
    hang: int = 0
    checkpoint: int = 0
    preempted: int = 0
    suspended: int = 0

    @classmethod
    def of(cls, goodput: Goodput | None) -> Self:
        """Read the ledger back from a status.

        The stages add up to `lost.restart`: what no stage claims was `resume`.
        """
        if goodput is None:
            return cls()
        lost = {cause: _ms(getattr(goodput.lost, cause)) for cause in GoodputLost.model_fields}
        restart = lost.pop("restart")
        detect = min(_ms(goodput.restart.detect), restart)
        replaced = min(_ms(goodput.restart.replace), restart - detect)
        return cls(
            productive=_ms(goodput.productive),
            detect=detect,
            replace=replaced,
            resume=restart - detect - replaced,
            **lost,
        )

    @property
    def restart(self) -> int:
        """Return the milliseconds of all stages of restarts."""
        return self.detect + self.replace + self.resume

    @property
    def total_ms(self) -> int:
        """Return the accounted time since creation."""
        return sum(getattr(self, cause) for cause in Cause)

    def advance(self, created_s: float, now_s: float, cause: Cause) -> Self:
        """Return the ledger at `now_s`, with the time since its end given to `cause`.

        A clock that went back leaves the ledger as it is, until it has caught up.
        """
        passed = round((now_s - created_s) * 1000) - self.total_ms
        return self if passed <= 0 else replace(self, **{cause: getattr(self, cause) + passed})

    def move(self, source: Cause, target: Cause, seconds: float) -> Self:
        """Return the ledger with up to `seconds` moved: no more than `source` has."""
        moved = min(max(0, round(seconds * 1000)), getattr(self, source))
        if source is target or not moved:
            return self
        changed = {source: getattr(self, source) - moved, target: getattr(self, target) + moved}
        return replace(self, **changed)

    def accounted_until(self, created_s: float) -> float:
        """Return the Unix time up to which time has a cause."""
        return created_s + self.total_ms / 1000

    def to_status(self, created_s: float) -> Goodput:
        """Return the ledger as the API shows it: seconds, exact to the millisecond."""
        lost = {cause: _seconds(getattr(self, cause)) for cause in GoodputLost.model_fields}
        stages = {stage: _seconds(getattr(self, stage)) for stage in RestartStages.model_fields}
        total = self.total_ms
        return Goodput(
            ratio=f"{self.productive / total:.3f}" if total else None,
            productive=_seconds(self.productive),
            lost=GoodputLost(**lost),
            restart=RestartStages(**stages),
            at=clock.utc(self.accounted_until(created_s)),
        )


def _ms(text: str) -> int:
    # What `_seconds` wrote, eleven at each reconcile; a person's status may say it otherwise.
    number = text.removesuffix("s")
    return round((float(number) if _PLAIN.fullmatch(number) else parse_duration(text)) * 1000)


def _seconds(ms: int) -> str:
    whole, rest = divmod(ms, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".") + "s"
