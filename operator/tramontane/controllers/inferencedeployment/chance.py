"""Say whether a difference between two revisions is more than chance.

Pure. Windows of a minute come every 5 s for as long as a rollout takes, and each one is a chance to
be wrong; so the thresholds are far beyond the usual 5 %. What the tests come to together is
measured in `judge`.
"""

from itertools import pairwise
from math import exp, inf, lgamma, log, log1p, sqrt
from typing import Final

from tramontane.controllers.inferencedeployment.load import Histogram

# Standard errors above nothing, and the same as a probability.
Z: Final = 3.5
CHANCE: Final = 0.00023
# The rule of five for tables of counts.
_EXPECTED: Final = 5.0
_NEGLIGIBLE: Final = 1e-12
_TINY_S: Final = 1e-9


def is_slower(mine: Histogram, theirs: Histogram, edge_s: float) -> bool:
    """Return whether the one's times are longer than the other's beyond chance.

    Any of three tests may say so, as each is blind where another sees: the means (all values in one
    bucket), the ranks (long tails, which make a mean uncertain), and what part is above `edge_s`
    (only the tail is longer).
    """
    if not mine.count or not theirs.count:
        return False
    above = [one.count - upto(edge_s, one) for one in (mine, theirs)]
    return (
        _by_means(mine, theirs) > Z
        or _by_ranks(mine, theirs) > Z
        or part_by_chance(above[0], mine.count, above[1], theirs.count) < CHANCE
    )


def upto(edge_s: float, histogram: Histogram) -> float:
    """Return how many observations are surely at or below `edge_s`."""
    pairs = zip(histogram.bounds_s, histogram.counts, strict=True)
    return max((count for bound, count in pairs if bound <= edge_s), default=0.0)


def mean(histogram: Histogram) -> float:
    """Return the mean (s) of a histogram that has observations."""
    return max(histogram.sum_s / histogram.count, _TINY_S)


def rate_by_chance(failed: float, of: float, rate: float) -> float:
    """Return how likely at least `failed` are where each one fails at `rate` (binomial)."""
    least, total = round(failed), round(of)
    if least <= rate * total:
        return 1.0
    if rate <= 0:
        return 0.0
    term = exp(_choose(total, least) + least * log(rate) + (total - least) * log1p(-rate))
    likely = term
    for k in range(least, total):
        term *= (total - k) / (k + 1) * rate / (1 - rate)
        likely += term
        if term < _NEGLIGIBLE * likely:
            break
    return likely


def part_by_chance(mine: float, of_mine: float, theirs: float, of_theirs: float) -> float:
    """Return how likely so large a part is where both are alike (Fisher, one-sided)."""
    least, total = round(mine), round(of_mine)
    others, marked = round(of_theirs), round(mine) + round(theirs)
    if least * (total + others) <= marked * total:
        return 1.0
    term = exp(
        _choose(total, least) + _choose(others, marked - least) - _choose(total + others, marked)
    )
    likely = term
    for k in range(least, min(total, marked)):
        term *= (total - k) / (k + 1) * (marked - k) / (others - marked + k + 1)
        likely += term
        if term < _NEGLIGIBLE * likely:
            break
    return likely


def _choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _by_means(mine: Histogram, theirs: Histogram) -> float:
    """Return the logarithm of the means' ratio, in standard errors."""
    error = sqrt(_spread(mine) / mine.count + _spread(theirs) / theirs.count)
    return log(mean(mine) / mean(theirs)) / max(error, _TINY_S)


def _spread(histogram: Histogram) -> float:
    """Return variance over mean squared, as if all values of a bucket were equally likely."""
    low, below, total, squares = 0.0, 0.0, 0.0, 0.0
    for bound, count in zip(histogram.bounds_s, histogram.counts, strict=True):
        high = bound if bound < inf else 2 * low
        middle, width = (low + high) / 2, high - low
        total += (count - below) * middle
        squares += (count - below) * (middle**2 + width**2 / 12)
        low, below = high, count
    return max(squares * histogram.count / total**2 - 1, 0.0) if total else 0.0


def _by_ranks(mine: Histogram, theirs: Histogram) -> float:
    """Return Mann and Whitney's U, in standard errors; 0 where it is not normally distributed.

    It is not where nearly all are in one bucket: a single late one of twenty would count for much.
    """
    if mine.bounds_s != theirs.bounds_s:
        return 0.0
    one, other = mine.count, theirs.count
    total = one + other
    before = ranks = ties = largest = 0.0
    steps = pairwise(((0.0, 0.0), *zip(mine.counts, theirs.counts, strict=True)))
    for (mine_below, their_below), (mine_upto, their_upto) in steps:
        in_mine, tied = mine_upto - mine_below, mine_upto - mine_below + their_upto - their_below
        ranks += in_mine * (before + (tied + 1) / 2)
        ties += tied**3 - tied
        before += tied
        largest = max(largest, tied)
    variance = one * other / 12 * (total + 1 - ties / (total * (total - 1)))
    if min(one, other) / total * (total - largest) < _EXPECTED:
        return 0.0
    return (ranks - one * (one + 1) / 2 - one * other / 2) / sqrt(variance)
