"""Advise how often to save a checkpoint: the interval that loses the least time.

Too seldom, and each failure costs much work; too often, and saving itself costs it. Pure.

Sources: J. W. Young, "A first order approximation to the optimum checkpoint interval" (1974),
sqrt(2·C·M); J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart
dumps" (2006), equation 37, used here; the failure rate of Meta's RSC-1, arXiv 2410.21680
(reference health.md, section 4).
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from tramontane.controllers.trainingjob.progress import Saved

# Failures per 1,000 blade-days: what is known of others while the pool has not measured its own.
PUBLISHED_RATE: Final = 6.5
LONGEST_S: Final = 6 * 3600.0
SAVES_PER_INTERVAL: Final = 2
# A save that held nothing up (it was written beside the steps) still costs something (s).
_LEAST_COST_S = 0.1
_DAY_S = 86_400.0
_BLADES = 1000


def mtbf_s(failures_per_1000_blade_days: float, blades: int) -> float:
    """Return the mean time between failures of so many blades together (s)."""
    failures_per_s = failures_per_1000_blade_days * blades / (_BLADES * _DAY_S)
    return 1 / failures_per_s if failures_per_s > 0 else math.inf


def advised_interval_s(
    save_s: float | None,
    failures_per_1000_blade_days: float | None,
    blades: int,
    *,
    took_s: float = 0.0,
) -> float | None:
    """Return the time from one checkpoint's end to the next one's begin (s).

    `save_s` is what a save holds training up, `took_s` what it takes in all where it is written
    beside the steps. Never below twice the longer of them, never above 6 h.

    | what is known | advice |
    |---|---|
    | no save measured | None |
    | the pool's failure rate (None: not measured) | the published rate of 6.5 |
    | a rate of 0: nothing has failed yet | 6 h |
    | saving takes longer than half the time between failures | at each mean time between failures |
    """
    if save_s is None or not math.isfinite(save_s) or blades < 1:
        return None
    rate = PUBLISHED_RATE if failures_per_1000_blade_days is None else failures_per_1000_blade_days
    cost_s, mean_s = max(save_s, _LEAST_COST_S), mtbf_s(rate, blades)
    if math.isinf(mean_s):
        best_s = LONGEST_S
    elif cost_s >= 2 * mean_s:
        best_s = mean_s
    else:
        part = cost_s / (2 * mean_s)
        best_s = math.sqrt(2 * cost_s * mean_s) * (1 + math.sqrt(part) / 3 + part / 9) - cost_s
    least_s = SAVES_PER_INTERVAL * max(save_s, took_s)
    return min(LONGEST_S, max(least_s, best_s))


def advice_s(saves: Sequence[Saved], failure_rate: str | None, blades: int) -> float | None:
    """Return the interval for a job's last saves and its pool's `status.failureRate` (s)."""
    if not saves:
        return None
    return advised_interval_s(
        median(one.cost_s for one in saves),
        None if failure_rate is None else float(failure_rate),
        blades,
        took_s=median(one.took_s for one in saves),
    )
