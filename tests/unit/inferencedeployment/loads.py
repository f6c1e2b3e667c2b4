"""Histograms and loads as engines make them, for the tests of what decides upon them."""

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from random import Random

from tramontane.controllers.inferencedeployment.load import Histogram, Load, Peak

NOW = 1_800_000_000.0
# vLLM's own, in seconds.
TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0, math.inf,
)  # fmt: skip
ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0, math.inf,
)  # fmt: skip
NONE = Histogram()


def a_histogram(values: Iterable[float], bounds: tuple[float, ...] = TTFT_S) -> Histogram:
    counts, total = [0] * len(bounds), 0.0
    for value in values:
        counts[bisect_left(bounds, value)] += 1
        total += value
    return Histogram(bounds, tuple(float(count) for count in accumulate(counts)), total)


def drawn(random: Random, median_s: float, sigma: float, count: int) -> Histogram:
    """Return that many observations of a log-normal distribution."""
    mu = math.log(median_s)
    return a_histogram(random.lognormvariate(mu, sigma) for _ in range(count))


def a_load(
    ttft: Histogram = NONE,
    *,
    itl: Histogram = NONE,
    requests: float | None = None,
    errors: float = 0.0,
    at: float = NOW,
    window_s: float = 60.0,
    running: float = 1.0,
    waiting: float = 0.0,
    kv_use: float | None = 0.1,
    idle_since: float | None = None,
    peaks: tuple[Peak, ...] = (),
) -> Load:
    ended = ttft.count if requests is None else requests
    return Load(
        at, running, waiting, kv_use, window_s, ended, errors, ttft, itl, idle_since, peaks
    )  # fmt: skip


def alike(value_s: float, count: int, bounds: tuple[float, ...] = TTFT_S) -> Histogram:
    return a_histogram([value_s] * count, bounds)
