"""Draw seeded traces of training jobs, as a busy hall of GPUs sees them over some weeks.

| what | how it is drawn |
|---|---|
| seats, whole blades  | powers of two from `smallest` to `largest`, P(size) ~ size**-tail; with a |
|                      | tail of 1 half the jobs are the smallest, and each size has the same work |
| limit, `maxRuntime`  | log-normal around `median_s`, whole minutes, at most `longest_s` |
| runtime              | limit * U(0.85, 1.0) where limits are honest, limit * Beta(1.2, 1.2) |
|                      | where people pad them; never beyond the limit |
| arrivals             | Poisson; the rate follows the day: most at 15:00, least at 3:00 |
| priority             | few levels, most jobs in the lowest, whatever their size |

Jobs are drawn until their work is `load` of what the hall can do in `days`; then the period is
stretched to what they are, so that the offered load is exact. Given their number, the arrivals
of a Poisson process are independent draws from its rate: that is how they are made.

The shape follows what public traces agree on: sizes in powers of two, most jobs small, most
GPU-hours in few large ones, runtimes over decades, a day and night.
Source: Jeon et al., Analysis of Large-Scale Multi-Tenant GPU Clusters (ATC 2019); Hu et al.,
Characterization of Large Language Model Development in the Datacenter (NSDI 2024).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tramontane.lab.queueing.hall import POOL, WHOLE
from tramontane.scheduler.gangs import GangRecord, Slot

DAY_S: Final = 86_400
BEGIN_S: Final = 1_767_571_200.0  # a Monday, midnight UTC
PEAK_S: Final = 15 * 3600
HONEST: Final = (0.85, 1.0)
PADDED: Final = (1.2, 1.2)
SHORTEST_S: Final = 300


@dataclass(frozen=True, slots=True)
class Job:
    """Hold a gang as it arrives, at its `created_s`, and how long it will run once it starts."""

    gang: GangRecord
    runtime_s: float

    @property
    def seats(self) -> int:
        """Return how many blades the job takes at its best size."""
        return sum(self.gang.counts(self.gang.wanted_sizes()[0]))


@dataclass(frozen=True, slots=True)
class Shape:
    """Hold what a trace is like; the module's table says how each figure is used."""

    blades: int = 1024
    days: float = 14
    load: float = 0.9
    smallest: int = 1
    largest: int = 512
    tail: float = 1.0
    median_s: float = 3 * 3600
    sigma: float = 1.0
    longest_s: float = 12 * 3600
    rhythm: float = 0.6
    priorities: tuple[tuple[int, float], ...] = ((0, 0.85), (10, 0.12), (100, 0.03))
    honest: bool = True


def job(name: str, at_s: float, seats: int, runtime_s: float, **more: Any) -> Job:
    """Return a job of one slot of whole blades; `more` are fields of its gang.

    Without a `max_runtime_s` its limit is its runtime; preemption is for those who ask.
    """
    more.setdefault("max_runtime_s", runtime_s)
    more.setdefault("preemptible", False)
    gang = GangRecord(
        key=f"trace/{name}",
        uid=name,
        created_s=at_s,
        pool=POOL,
        slots=(Slot("worker", seats, WHOLE),),
        **more,
    )
    return Job(gang, runtime_s)


def draw(shape: Shape, seed: int) -> tuple[Job, ...]:
    """Return the jobs of one trace in the order of their arrival."""
    rng = random.Random(seed)
    goal = shape.load * shape.blades * shape.days * DAY_S
    drawn: list[tuple[int, int, int, int]] = []
    work = 0.0
    while work < goal:
        seats, limit_s, runtime_s = _seats(shape, rng), _limit_s(shape, rng), 0
        runtime_s = max(1, round(limit_s * _share(shape, rng)))
        drawn.append((seats, limit_s, runtime_s, _priority(shape, rng)))
        work += seats * runtime_s
    period_s = work / (shape.load * shape.blades)
    arrivals = _arrivals(shape, rng, len(drawn), period_s)
    return tuple(
        job(f"j{i:05d}", BEGIN_S + at, seats, run, max_runtime_s=float(limit), priority=priority)
        for i, (at, (seats, limit, run, priority)) in enumerate(zip(arrivals, drawn, strict=True))
    )


def period_s(jobs: Sequence[Job]) -> float:
    """Return the time from the beginning to the last arrival."""
    return max(job.gang.created_s for job in jobs) - BEGIN_S


def _seats(shape: Shape, rng: random.Random) -> int:
    powers = range((shape.largest // shape.smallest).bit_length())
    sizes = [shape.smallest << power for power in powers]
    return rng.choices(sizes, [size**-shape.tail for size in sizes])[0]


def _limit_s(shape: Shape, rng: random.Random) -> int:
    drawn = rng.lognormvariate(math.log(shape.median_s), shape.sigma)
    return 60 * math.ceil(min(max(drawn, SHORTEST_S), shape.longest_s) / 60)


def _share(shape: Shape, rng: random.Random) -> float:
    return rng.uniform(*HONEST) if shape.honest else rng.betavariate(*PADDED)


def _priority(shape: Shape, rng: random.Random) -> int:
    levels, weights = zip(*shape.priorities, strict=True)
    return int(rng.choices(levels, weights)[0])


def _arrivals(shape: Shape, rng: random.Random, count: int, period: float) -> list[int]:
    """Return whole seconds, ascending, as dense as the hour of the day is busy."""
    times: list[int] = []
    while len(times) < count:
        at = rng.uniform(0, period)
        busy = 1 + shape.rhythm * math.cos(2 * math.pi * (at - PEAK_S) / DAY_S)
        if rng.uniform(0, 1 + shape.rhythm) < busy:
            times.append(int(at))
    return sorted(times)
