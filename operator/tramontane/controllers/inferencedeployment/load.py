"""Hold what an engine's metrics say of one replica: how busy it is now, how quick it was lately.

`scrape.py` reads them, `rollout.py` and `scale.py` decide upon them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final


@dataclass(frozen=True, slots=True)
class Histogram:
    """Hold observations in buckets, as Prometheus does, over some window.

    Attributes:
        bounds_s: upper bounds, growing; the last is infinity.
        counts: observations at or below each bound (cumulative).
        sum_s: sum of all observations.
    """

    bounds_s: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    sum_s: float = 0.0

    @property
    def count(self) -> float:
        """Return how many observations there are."""
        return self.counts[-1] if self.counts else 0.0

    def with_one(self, value_s: float) -> "Histogram":
        """Return the observations and one more."""
        pairs = zip(self.bounds_s, self.counts, strict=True)
        counts = tuple(count + (value_s <= bound) for bound, count in pairs)
        return Histogram(self.bounds_s, counts, self.sum_s + value_s)


#: Before anything is known, bounds included.
NOTHING: Final = Histogram()


def empty(*bounds_s: float) -> Histogram:
    """Return a histogram without observations; infinity is added to its bounds."""
    bounds = (*bounds_s, float("inf"))
    return Histogram(bounds, (0.0,) * len(bounds))


@dataclass(frozen=True, slots=True)
class Peak:
    """Hold how busy a replica was at most within the minute that began at `at` (Unix seconds)."""

    at: float
    running: float = 0.0
    waiting: float = 0.0
    kv_use: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """Hold the load of one replica.

    Attributes:
        at: when its metrics were last read (Unix seconds).
        running, waiting: requests that it works on, and that wait.
        kv_use: part of the KV cache in use, 0 to 1; None where the engine does not say.
        window_s: length of the window that the rest speaks of; 0 until there are two samples.
        requests, errors: requests that ended within the window, and those of them that failed.
        ttft, itl: time to the first token and between tokens, within the window.
        idle_since: since when it has had nothing to do; None while it has.
        peaks: how busy it was in each minute of the last two hours, oldest first.
    """

    at: float
    running: float = 0.0
    waiting: float = 0.0
    kv_use: float | None = None
    window_s: float = 0.0
    requests: float = 0.0
    errors: float = 0.0
    ttft: Histogram = Histogram()
    itl: Histogram = Histogram()
    idle_since: float | None = None
    peaks: tuple[Peak, ...] = ()


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Return all observations together; those with other bounds than the first are left out."""
    first, *others = list(histograms) or [Histogram()]
    for one in others:
        if not first.counts:
            first = one
        elif one.bounds_s == first.bounds_s:
            counts = tuple(a + b for a, b in zip(first.counts, one.counts, strict=True))
            first = Histogram(first.bounds_s, counts, first.sum_s + one.sum_s)
    return first


def quantile(histogram: Histogram, q: float) -> float | None:
    """Return the q-quantile (s), interpolated within its bucket as Prometheus does; None if empty.

    Beyond the last finite bound it is that bound.
    """
    if not histogram.count:
        return None
    wanted = q * histogram.count
    edges = pairwise(((0.0, 0.0), *zip(histogram.bounds_s, histogram.counts, strict=True)))
    for (low, below), (high, upto) in edges:
        if upto >= wanted:
            if high == float("inf"):
                return low
            return low + (high - low) * (wanted - below) / max(upto - below, 1e-12)
    return histogram.bounds_s[-1]
