"""Estimate when a waiting gang starts, and learn from every start how good estimates are.

What the time table promises is computed from limits. Jobs end before their limit, and more
important ones come in between: how much sooner or later gangs really start is learnt from those
that did. Of each gang the waits promised to it while it waited are compared with the waits that
followed; the quotients of those promises that were most like the present one are the distribution
from which p50 and p90 are read (split conformal prediction: no model of the jobs is needed, only
that tomorrow resembles today). Like are promises of about the same length: over a long wait early
ends add up, a short one hangs on a single gang.

Days differ, so which quantile is read is set by how first estimates have come true: a start after
its p90 raises the level that stands for p90 a little, one before it lowers it less (adaptive
conformal inference, Gibbs and Candès 2021). In the long run nine of ten starts come before p90:
for that the level may rise above 1, where the longest of the like quotients does not do, and what
it is above 1 widens that one. On days when everything comes later than ever, the quotients of those
days are known only when their gangs have started.

The quotients live in the process: after a restart the first estimates are the promises themselves.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tramontane.scheduler.gangs import Estimate

MOST_LEARNT: Final = 1000
MOST_LIKE: Final = 100
GAIN: Final = 0.01
LEAST_LEARNT: Final = 20
LEAST_WAIT_S: Final = 1.0
# Beyond the longest like quotient, 0.01 of the level are 10 %: about one start that came too late.
WIDEN: Final = 10.0
# exp(WIDEN * 0.5): 150 times the longest. An estimate beyond that says no more.
MOST_LEVEL: Final = 1.5
# A gang is asked again what it was promised each time its remaining wait has shrunk by a third.
STEP: Final = 2 / 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """Hold (promised wait in seconds, quotient of the real one), oldest first.

    `half` and `most` are the levels that stand for p50 and p90; `most` may be above 1.
    """

    quotients: tuple[tuple[float, float], ...] = ()
    half: float = 0.5
    most: float = 0.9

    def estimate(self, now_s: float, promised_s: float) -> Estimate:
        """Return when a gang starts that is promised to start at `promised_s`."""
        wait_s = max(0.0, promised_s - now_s)
        like = self._like(wait_s)
        level = max(self.half, self.most)
        half, most = _quantile(like, self.half), _quantile(like, min(level, 1.0))
        most *= math.exp(WIDEN * max(0.0, level - 1.0))
        return Estimate(now_s + wait_s * half, now_s + wait_s * most)

    def learnt(self, quotients: Iterable[tuple[float, float]]) -> "Forecast":
        """Return the forecast after more starts."""
        return replace(self, quotients=(*self.quotients, *quotients)[-MOST_LEARNT:])

    def came_true(self, estimate: Estimate, start_s: float) -> "Forecast":
        """Return the forecast after a start that was estimated."""
        half = self.half + GAIN * ((start_s > estimate.p50_s) - 0.5)
        most = self.most + GAIN * ((start_s > estimate.p90_s) - 0.1)
        return replace(self, half=min(max(half, 0.0), 1.0), most=min(max(most, 0.0), MOST_LEVEL))

    def _like(self, wait_s: float) -> list[float]:
        """Return the quotients of the promises nearest to this one by the ratio of their waits."""
        if len(self.quotients) < LEAST_LEARNT:
            return []
        at = math.log(max(wait_s, LEAST_WAIT_S))
        # Newest first: of those as near as each other, the newer ones are taken.
        nearest = heapq.nsmallest(
            MOST_LIKE, reversed(self.quotients), key=lambda one: abs(math.log(one[0]) - at)
        )
        return sorted(quotient for _, quotient in nearest)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile with conformal prediction's correction: one more than the share asks."""
    if not ordered:
        return 1.0
    return ordered[min(len(ordered) - 1, int(share * (len(ordered) + 1)))]


@dataclass(slots=True)
class Learner:
    """Follow waiting gangs from promise to start; `forecast` is what they taught."""

    forecast: Forecast = Forecast()
    _promises: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _latest: dict[str, float] = field(default_factory=dict)
    _first: dict[str, Estimate] = field(default_factory=dict)

    def waits(self, promised: Mapping[str, float], now_s: float) -> None:
        """Note what the waiting gangs are promised now; those not named wait no longer."""
        self._latest = dict(promised)
        for key in self._promises.keys() - promised.keys():
            del self._promises[key]
            self._first.pop(key, None)
        for key, at_s in promised.items():
            wait_s = at_s - now_s
            noted = self._promises.setdefault(key, [])
            if wait_s >= LEAST_WAIT_S and (not noted or wait_s <= noted[-1][1] * STEP):
                if not noted:
                    self._first[key] = self.forecast.estimate(now_s, at_s)
                noted.append((now_s, wait_s))

    def started(self, keys: Iterable[str], now_s: float) -> list[float]:
        """Learn from gangs that start now; call it before `waits` forgets them.

        Returns by how many seconds each start that was promised comes after its last promise.
        """
        keys = tuple(keys)
        quotients = [
            (wait_s, (now_s - at_s) / wait_s)
            for key in keys
            for at_s, wait_s in self._promises.pop(key, ())
        ]
        if quotients:
            self.forecast = self.forecast.learnt(quotients)
        if len(self.forecast.quotients) >= LEAST_LEARNT:
            for estimate in (self._first.pop(key) for key in keys if key in self._first):
                self.forecast = self.forecast.came_true(estimate, now_s)
        return [now_s - self._latest.pop(key) for key in keys if key in self._latest]
