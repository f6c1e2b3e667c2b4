"""Say what a run did to its jobs: waits by size, promises kept, estimates against what came."""

import bisect
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tramontane.lab.queueing.lives import FOREVER, Life, Promise, Run

TOLERANCE_S: Final = 1.0  # a start is decided in whole seconds
WAITED_S: Final = 60.0  # who waited less was told nothing worth a judgement


@dataclass(frozen=True, slots=True)
class Waits:
    """Hold the waits of the jobs of one size, in seconds."""

    jobs: int
    mean_s: float
    p50_s: float
    p99_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Estimates:
    """Hold how good estimates were: see `estimates`."""

    judged: int
    median_error: float
    within_p50: float
    within_p90: float


def waits_by_size(lives: Sequence[Life]) -> dict[int, Waits]:
    """Return the waits per number of seats, ascending."""
    by_size: dict[int, list[float]] = defaultdict(list)
    for life in lives:
        by_size[life.job.seats].append(life.wait_s)
    return {
        size: Waits(
            len(waits),
            statistics.fmean(waits),
            quantile(waits, 0.5),
            quantile(waits, 0.99),
            max(waits),
        )
        for size, waits in sorted(by_size.items())
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def late(run: Run) -> list[tuple[Life, Promise]]:
    """Return the starts that came after a promise without an excuse, and the first such promise.

    The arrival of a job of higher priority and a fault are excuses: promises made before are
    void, what is said from then on counts. A job that never started is late for ever.
    """
    arrivals: dict[int, list[float]] = defaultdict(list)
    for life in run.lives:
        arrivals[life.job.gang.priority].append(life.job.gang.created_s)
    excuses = {
        priority: sorted(
            [at for other, times in arrivals.items() if other > priority for at in times]
            + [fault.at_s for fault in run.faults]
        )
        for priority in arrivals
    }
    found = []
    for life in run.lives:
        start_s = FOREVER if life.start_s is None else life.start_s
        times = excuses[life.job.gang.priority]
        at = bisect.bisect_right(times, start_s)
        for promise in _said_since(life, times[at - 1] if at else -FOREVER):
            if promise.made_s < start_s and start_s > promise.start_s + TOLERANCE_S:
                found.append((life, promise))
                break
    return found


def _said_since(life: Life, since_s: float) -> Iterator[Promise]:
    """Yield the promises in force at a time or later; one made before was made again then."""
    ends = [*(promise.made_s for promise in life.promises[1:]), FOREVER]
    for promise, end_s in zip(life.promises, ends, strict=False):
        if end_s > since_s:
            yield Promise(max(promise.made_s, since_s), promise.start_s)


def estimates(lives: Sequence[Life], at: float = 0.0) -> Estimates | None:
    """Return how the estimates of the jobs that waited compare with their starts.

    Of each job one estimate is judged: the last one said before this share of its wait had gone
    by; 0 is the first of all. The error is |start - p50|, relative to the wait that was left.
    """
    errors, below_p50, below_p90 = [], 0, 0
    for life in lives:
        if life.start_s is None or life.wait_s < WAITED_S or not life.estimates:
            continue
        moment = life.job.gang.created_s + at * life.wait_s
        said = [(when, e) for when, e in life.estimates if when <= moment] or life.estimates[:1]
        when, estimate = said[-1]
        if life.start_s - when < WAITED_S:
            continue
        errors.append(abs(life.start_s - estimate.p50_s) / (life.start_s - when))
        below_p50 += life.start_s <= estimate.p50_s + TOLERANCE_S
        below_p90 += life.start_s <= estimate.p90_s + TOLERANCE_S
    if not errors:
        return None
    count = len(errors)
    return Estimates(count, statistics.median(errors), below_p50 / count, below_p90 / count)
