"""Say whether a new revision does worse than the one that serves, from their engines' metrics.

Pure. Both are judged over the same window, the last minute (up to two where it has few requests),
of replicas that have served for that long. Each check needs 20 requests on both sides.

| check | the new revision is rejected where |
|---|---|
| errors | failed / ended > errorRate, and > that of the old one, beyond chance |
| TTFT ratio | new / old > ttftP95Ratio (how: below), beyond chance |
| SLO, TTFT and ITL | its p95 > the SLO and the old one's is not, and it is slower beyond chance |

*TTFT ratio.* A histogram tells in which bucket a p95 lies, not where: with vLLM's buckets 0.12 s
and 0.18 s are both in 0.1 to 0.25 s, and 0.24 s and 0.26 s are up to five times apart. So buckets
bound the ratio of the p95s, from (its lower edge / the old one's upper edge) to (its upper edge /
the old one's lower edge), and the ratio of the means, which sum and count give exactly, decides
between the bounds:

| ratio of the p95s, by its bounds | ratio of the means | over the limit |
|---|---|---|
| all above the limit | any | yes |
| all at or below the limit | any | no |
| the limit lies between | above the limit | yes |
| the limit lies between | at or below the limit | no |

*Beyond chance* (`chance`): 3.5 standard errors. A rollout of twenty minutes looks 240 times, and
twenty requests say little. Tokens of one request come at one speed, so ITL counts as many
observations as there were requests.

Measured with log-normal TTFT in the buckets of vLLM, medians of 5 ms to 5 s (the tests sample a
part of it): of equal revisions, at most 0.05 % of windows with 20 to 200 requests on each side are
rejected, and at most 2 % of rollouts of twenty minutes, looked at every 5 s. One that is 1.5 times
slower, found within two windows (120 s):

| requests a minute, new and old | sigma 0.25 | 0.5 | 0.8 |
|---|---|---|---|
| 25 and 25 | 100 % | 67 % | 23 % |
| 25 and 475 | 100 % | 91 % | 47 % |
| 60 and 60 | 100 % | 100 % | 64 % |
| 60 and 600, 200 and 200 | 100 % | 100 % | 97 % |

What is missed then is found later in the hold: within ten minutes all but 9 % of the worst case.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from tramontane.api.inferencedeployment import AbortOn, Slo
from tramontane.api.quantity import parse_duration
from tramontane.controllers.inferencedeployment.chance import (
    is_slower,
    mean,
    part_by_chance,
    rate_by_chance,
)
from tramontane.controllers.inferencedeployment.load import Histogram, Load, merged, quantile

ENOUGH: Final = 20
STALE_S: Final = 30.0
# A window of 60 s, of samples that come every 5 s.
WHOLE_WINDOW_S: Final = 54.0
# How likely errors may be without a cause. They are counted, not estimated from buckets.
ERROR_CHANCE: Final = 0.001
_Q: Final = 0.95


@dataclass(frozen=True, slots=True)
class Judgement:
    """Say whether a revision is to be rejected, and upon which numbers."""

    rejected: bool
    why: str


@dataclass(frozen=True, slots=True)
class _Side:
    """Hold what the replicas of one revision did together."""

    requests: float
    errors: float
    ttft: Histogram
    itl: Histogram

    @classmethod
    def of(cls, now: float, loads: Iterable[Load]) -> "_Side":
        whole = [
            load for load in loads if load.window_s >= WHOLE_WINDOW_S and now - load.at <= STALE_S
        ]
        return cls(
            sum(load.requests for load in whole),
            sum(load.errors for load in whole),
            merged(load.ttft for load in whole),
            merged(load.itl for load in whole),
        )

    @property
    def error_rate(self) -> float:
        return min(self.errors / self.requests, 1.0) if self.requests else 0.0


def judge(
    now: float,
    new: Sequence[Load],
    old: Sequence[Load],
    abort: AbortOn,
    slo: Slo | None,
) -> Judgement:
    """Return whether the new revision does worse than the old one; errors count without one, too.

    Args:
        now: Unix seconds; loads older than 30 s are left out.
        new: loads of the new revision's replicas that serve.
        old: those of the old one's; empty where none serves, and only errors are judged.
        abort: the spec's limits.
        slo: the spec's goals.
    """
    one, other = _Side.of(now, new), _Side.of(now, old)
    if one.requests < ENOUGH and one.ttft.count < ENOUGH:
        return Judgement(False, f"{one.requests:.0f} requests, too few to judge by")
    found = _errors(one, other, alone=not old, limit=float(abort.error_rate))
    found = found or _ratio(one.ttft, other.ttft, float(abort.ttft_p95_ratio))
    found = found or _slo("TTFT", one.ttft, other.ttft, slo.ttft_p95 if slo else None)
    if slo is not None and slo.itl_p95 is not None:
        mine, theirs = (_by_requests(side.itl, side.requests) for side in (one, other))
        found = found or _slo("ITL", mine, theirs, slo.itl_p95)
    return Judgement(bool(found), found or _summary(one, other))


def _summary(one: _Side, other: _Side) -> str:
    text = f"{one.errors:.0f} of {one.requests:.0f} requests failed"
    mine, theirs = quantile(one.ttft, _Q), quantile(other.ttft, _Q)
    if mine is None or theirs is None:
        return text
    return f"{text}, TTFT p95 {mine:.3g} s (old {theirs:.3g} s)"


def _errors(one: _Side, other: _Side, *, alone: bool, limit: float) -> str:
    if one.requests < ENOUGH or (other.requests < ENOUGH and not alone):
        return ""
    failed, ended = min(one.errors, one.requests), one.requests
    if rate_by_chance(failed, ended, limit) >= ERROR_CHANCE:
        return ""
    found = f"{failed:.0f} of {ended:.0f} requests failed ({one.error_rate:.1%}, limit {limit:.1%}"
    if alone:
        return f"{found})"
    if part_by_chance(failed, ended, other.errors, other.requests) >= ERROR_CHANCE:
        return ""
    return f"{found}, old {other.error_rate:.1%})"


def _ratio(mine: Histogram, theirs: Histogram, limit: float) -> str:
    if min(mine.count, theirs.count) < ENOUGH:
        return ""
    (low, high), (their_low, their_high) = _bucket(mine), _bucket(theirs)
    means = mean(mine) / mean(theirs)
    surely, possibly = low > limit * their_high, high > limit * their_low
    if not (surely or (possibly and means > limit)) or not is_slower(mine, theirs, low):
        return ""
    return (
        f"TTFT over {limit:.3g} times the old one's: mean {mean(mine):.3g} s against "
        f"{mean(theirs):.3g} s ({means:.2f} times), p95 {quantile(mine, _Q):.3g} s against "
        f"{quantile(theirs, _Q):.3g} s, of {mine.count:.0f} and {theirs.count:.0f} requests"
    )


def _slo(what: str, mine: Histogram, theirs: Histogram, goal: str | None) -> str:
    if goal is None or min(mine.count, theirs.count) < ENOUGH:
        return ""
    limit_s = parse_duration(goal)
    p95_s, their_p95_s = quantile(mine, _Q) or 0.0, quantile(theirs, _Q) or 0.0
    if p95_s <= limit_s or their_p95_s > limit_s:
        return ""
    if not is_slower(mine, theirs, _bucket(mine)[0]):
        return ""
    return (
        f"{what} p95 {p95_s:.3g} s over the SLO of {limit_s:.3g} s, which the old one keeps "
        f"({their_p95_s:.3g} s), of {mine.count:.0f} and {theirs.count:.0f} requests"
    )


def _bucket(histogram: Histogram) -> tuple[float, float]:
    """Return the edges of the bucket that holds the p95."""
    low, wanted = 0.0, _Q * histogram.count
    for bound, count in zip(histogram.bounds_s, histogram.counts, strict=True):
        if count >= wanted:
            return low, bound
        low = bound
    return low, inf


def _by_requests(histogram: Histogram, requests: float) -> Histogram:
    """Return the histogram with as many observations as there were requests, if it has more."""
    if histogram.count <= requests:
        return histogram
    part = requests / histogram.count
    counts = tuple(part * count for count in histogram.counts)
    return Histogram(histogram.bounds_s, counts, part * histogram.sum_s)
