"""Hold what happens in a simulation: faults, and of each job what it was told and what it got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tramontane.lab.queueing.trace import Job
from tramontane.scheduler.gangs import Estimate

FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Fault:
    """Hold when a blade fails, and when it is back in service."""

    blade: str
    at_s: float
    back_s: float


@dataclass(frozen=True, slots=True)
class Promise:
    """Hold the start that a gang was promised, and when that was said."""

    made_s: float
    start_s: float


@dataclass(slots=True)
class Life:
    """Hold what became of a job. `start_s` is its first start; `promises` are those that differ."""

    job: Job
    start_s: float | None = None
    end_s: float | None = None
    preempted: int = 0
    promises: list[Promise] = field(default_factory=list)
    estimates: list[tuple[float, Estimate]] = field(default_factory=list)

    @property
    def wait_s(self) -> float:
        """Return how long the job waited; for ever if it never started."""
        return FOREVER if self.start_s is None else self.start_s - self.job.gang.created_s


@dataclass(slots=True)
class Run:
    """Hold what became of all jobs, in the order of the trace.

    `used_s` are the blade-seconds taken by gangs until the last arrival, of `offered_s`: what
    comes after is the end of the trace, not of a policy's making.
    """

    lives: list[Life]
    used_s: float
    offered_s: float
    passes: int
    faults: Sequence[Fault] = ()

    @property
    def utilisation(self) -> float:
        """Return the share of the hall's time that gangs held, until the last arrival."""
        return self.used_s / self.offered_s if self.offered_s else 0.0
