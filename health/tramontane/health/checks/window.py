"""Judge by time: how fast a count grows, and for how long something holds.

The agent keeps earlier readings with `remember`: ten minutes, at most one in ten seconds. Between
two of them the earlier one holds, because the child says nothing while nothing changes. Beyond
`MAX_HOLD_S` it does not: then nobody looked.

What looks back must not outlive its cause: a Degraded fault that lasts for a pool's `clearAfter`
takes the blade out. So what happened once, or has stopped, is over after `CALM_S`; what came again
lasts for as long as it is remembered.

All of this is pure; times are Unix seconds. Cost: O(samples) per question.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tramontane.health.checks.base import Past
from tramontane.health.device import GpuReading, Sample, Unsupported

# Source: gpud's window for clock events, the longest that any rule needs.
WINDOW_S = 600.0
GAP_S = 10.0
# Our choice: what has been calm for so long is over; much shorter than clearAfter (10 min).
CALM_S = 60.0
# The agent folds at least once a minute (Timing.refresh_s), twice that is a lost reading.
MAX_HOLD_S = 120.0


def remember(previous: tuple[Sample, ...], sample: Sample) -> tuple[Sample, ...]:
    """Return the samples to keep after `sample`; at most WINDOW_S / GAP_S and two more.

    Those of another boot are dropped, since all counts began anew with it. The last one may lie
    closer to its predecessor than `GAP_S`; the next one takes its place then.
    """
    kept = [
        old for old in dated(previous, sample.at) if old.reading.boot_id == sample.reading.boot_id
    ]
    if len(kept) > 1 and kept[-1].at - kept[-2].at < GAP_S:
        kept.pop()
    start = sample.at - WINDOW_S
    # The last one from before the window says what was true when it began.
    while len(kept) > 1 and kept[1].at <= start:
        kept.pop(0)
    return (*kept, sample)


def dated(previous: tuple[Sample, ...], at: float) -> tuple[Sample, ...]:
    """Return the samples of which it is known how long ago they were.

    None where one is of the future: the clock was set back since, by nobody knows how much.
    """
    return () if previous and previous[-1].at > at else previous


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much a count grew, in how many seconds."""

    by: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Return the rate."""
        return self.by / self.seconds if self.seconds > 0 else 0.0


def growth(
    past: Past, gpu: GpuReading, count: Callable[[GpuReading], int | Unsupported], over_s: float
) -> Growth | None:
    """Return a count's growth since the latest sample that is at least `over_s` old.

    None where no sample reaches back so far. A count that fell began anew (reset): what it shows
    now is the growth.
    """
    now = count(gpu)
    if isinstance(now, Unsupported):
        return None
    for sample, earlier in _backwards(past, gpu):
        seconds = past.at - sample.at
        if seconds < over_s:
            continue
        before = count(earlier)
        if isinstance(before, Unsupported):
            return None
        return Growth(now - before if now >= before else now, seconds)
    return None


def rises(
    past: Past, gpu: GpuReading, count: Callable[[GpuReading], int | Unsupported]
) -> list[float]:
    """Return when a count has grown, latest first, as far as the readings tell.

    A count that fell began anew (reset): what was before it is over. So is what was before a
    person released the blade.
    """
    grown: list[float] = []
    at, later = past.at, count(gpu)
    for sample, earlier in _backwards(past, gpu):
        before = count(earlier)
        if isinstance(later, Unsupported) or isinstance(before, Unsupported):
            break
        if at <= past.released_at:
            break
        if before > later:
            return [*grown, at] if later else grown
        if before < later:
            grown.append(at)
        at, later = sample.at, before
    return grown


def seconds_held(
    past: Past, gpu: GpuReading, holds: Callable[[GpuReading], bool], over_s: float = WINDOW_S
) -> float:
    """Return for how long of the last `over_s` something was true of a GPU."""
    start = past.at - over_s
    until = past.at
    held = 0.0
    for sample, earlier in _backwards(past, gpu):
        if until <= start:
            break
        if holds(earlier):
            held += max(0.0, min(until, sample.at + MAX_HOLD_S) - max(start, sample.at))
        until = sample.at
    return held


def _backwards(past: Past, gpu: GpuReading) -> Iterator[tuple[Sample, GpuReading]]:
    """Yield what this GPU was before, latest first, for as long as it was this GPU."""
    for sample in reversed(past.previous):
        gpus = sample.reading.gpus
        if gpu.index >= len(gpus) or gpus[gpu.index].facts.uuid != gpu.facts.uuid:
            return
        yield sample, gpus[gpu.index]
