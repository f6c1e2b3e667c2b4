"""Estimate when a waiting gang starts, and learn from every start how good estimates are.

What the time table promises is computed from limits. Jobs end before their limit, and more
important ones come in between: how much sooner or later gangs really start is learnt from those
that did. Of each gang the waits promised to it while it waited are compared with the waits that
followed; the quotients of those promises that were most like the present one are the distribution
from which p50 and p90 are read (split conformal prediction: no model of the jobs is needed, only
that tomorrow resembles today). Like are promises of about the same length: over a long wait early
ends add up, a short one hangs on a single gang.

The quotients live in the process: after a restart the first estimates are the promises themselves.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tramontane.scheduler.gangs import Estimate

MOST_LEARNT: Final = 1000
MOST_LIKE: Final = 100
LEAST_LEARNT: Final = 20
LEAST_WAIT_S: Final = 1.0
# A gang is asked again what it was promised each time its remaining wait has shrunk by a third.
STEP: Final = 2 / 3


@dataclass(frozen=True, slots=True)
class Forecast:
    """Hold (promised wait in seconds, quotient of the real one), oldest first."""

    quotients: tuple[tuple[float, float], ...] = ()

    def estimate(self, now_s: float, promised_s: float) -> Estimate:
        """Return when a gang starts that is promised to start at `promised_s`."""
        wait_s = max(0.0, promised_s - now_s)
        like = self._like(wait_s)
        half, most = _quantile(like, 0.5), _quantile(like, 0.9)
        return Estimate(now_s + wait_s * half, now_s + wait_s * most)

    def learnt(self, quotients: Iterable[tuple[float, float]]) -> "Forecast":
        """Return the forecast after more starts."""
        return Forecast((*self.quotients, *quotients)[-MOST_LEARNT:])

    def _like(self, wait_s: float) -> list[float]:
        """Return the quotients of the promises nearest to this one by the ratio of their waits."""
        if len(self.quotients) < LEAST_LEARNT:
            return []
        at = math.log(max(wait_s, LEAST_WAIT_S))
        nearest = heapq.nsmallest(
            MOST_LIKE, self.quotients, key=lambda one: abs(math.log(one[0]) - at)
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

    def waits(self, promised: Mapping[str, float], now_s: float) -> None:
        """Note what the waiting gangs are promised now; those not named wait no longer."""
        self._latest = dict(promised)
        for key in self._promises.keys() - promised.keys():
            del self._promises[key]
        for key, at_s in promised.items():
            wait_s = at_s - now_s
            noted = self._promises.setdefault(key, [])
            if wait_s >= LEAST_WAIT_S and (not noted or wait_s <= noted[-1][1] * STEP):
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
        return [now_s - self._latest.pop(key) for key in keys if key in self._latest]
