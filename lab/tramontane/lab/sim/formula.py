"""Answer in closed form what the simulator answers by trying: pure arithmetic.

Sources (health.md, section 4; training.md, section 4):

* series system: MTTF = 1 / (blades · rate)
* Young: the best interval is sqrt(2 · save · MTTF)
* ETTR = 1 / (1 + save/interval) · (1 - (detect + queue + restart + interval/2) / MTTF), valid
  while the second factor stays well above 0
* spares: the smallest k with P[Binomial(n, p) >= k] at most 1 %, p the chance of a blade to be
  away. That is ByteRobust's rule (> k, of blades that fail within the replacement time) and one
  more: the blade that fails is not among those that are away, and needs a spare all the same
"""

import math
from dataclasses import dataclass

from tramontane.controllers.nodepool.spares import failure_probability, quantile

DAY_S = 86400.0
# Below this the linear loss is no small one any more, and the formula says too little.
VALID_FROM = 0.8


@dataclass(frozen=True, slots=True)
class Plan:
    """One job on failing blades. Times in seconds; `rate` per 1,000 blade-days.

    Attributes:
        interval_s: of work between two saves; None: Young's.
    """

    blades: int
    rate: float
    save_s: float
    detect_s: float = 5.0
    queue_s: float = 0.0
    restart_s: float = 60.0
    interval_s: float | None = None

    @property
    def mttf_s(self) -> float:
        """Return the mean time between two failures of the job; infinite without failures."""
        per_s = self.blades * self.rate / 1000 / DAY_S
        return 1 / per_s if per_s else math.inf

    @property
    def every_s(self) -> float:
        """Return the interval that is used."""
        return young_s(self.save_s, self.mttf_s) if self.interval_s is None else self.interval_s

    @property
    def kept(self) -> float:
        """Return the share that failures leave: the formula's second factor."""
        stood_s = self.detect_s + self.queue_s + self.restart_s + self.every_s / 2
        return 1 - stood_s / self.mttf_s

    @property
    def is_valid(self) -> bool:
        """Return whether the formula may be used here."""
        return self.kept >= VALID_FROM

    @property
    def ettr(self) -> float:
        """Return the share of time in steps that count, from 0 to 1."""
        if math.isinf(self.mttf_s) and self.interval_s is None:
            return 1.0
        return max(0.0, self.kept) / (1 + self.save_s / self.every_s)


def young_s(save_s: float, mttf_s: float) -> float:
    """Return Young's interval."""
    return math.sqrt(2 * save_s * mttf_s)


def spares_needed(blades: int, rate: float, away_s: float, wait_share: float = 0.01) -> int:
    """Return the least spares with which at most `wait_share` of failures wait for a blade.

    Args:
        blades: that work, and whose failures need a spare.
        rate: failures per 1,000 blade-days.
        away_s: mean time from a failure until the blade works again.
        wait_share: what share may wait.
    """
    if not 0 < wait_share < 1:
        raise ValueError(f"wait_share must be between 0 and 1 (got {wait_share})")
    if not rate or not away_s:
        return 0
    return quantile(blades, failure_probability(rate, away_s), wait_share) + 1
