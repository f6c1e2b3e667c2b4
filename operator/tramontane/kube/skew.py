"""Tell how far our clock is from the API server's, from the Date of its answers: pure.

A Date has whole seconds, cut off: when it was written the server's clock stood somewhere in
[date, date + 1). Ours stood between the request's sending and the answer's coming. So one answer
gives an interval that the difference, ours minus theirs, lies in; many answers give the part that
is common to all. It has 0 in it while both clocks may be equal, and 0 is what is shown then.

Certificates, Leases' times and agents' events are what a wrong clock spoils; what is timed by the
monotonic clock is not touched by it.
"""

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

# A Date is cut to whole seconds.
_GRAIN_S = 1.0
# Clocks run apart: an interval is narrowed by answers of this time only, and of that before it.
WINDOW_S = 60.0


class Interval(NamedTuple):
    """Hold the bounds (s) of our clock minus theirs; both may be infinite."""

    low: float = float("-inf")
    high: float = float("inf")

    def narrowed(self, by: "Interval") -> "Interval":
        """Return what is in both; `by` alone where nothing is: a clock was set meanwhile."""
        low, high = max(self.low, by.low), min(self.high, by.high)
        return Interval(low, high) if low <= high else by

    @property
    def nearest(self) -> float:
        """Return the difference nearest to 0 that may be."""
        return min(max(0.0, self.low), self.high)


ANYTHING = Interval()


def interval(date_s: float, sent_s: float, answered_s: float) -> Interval:
    """Return in what the difference lies, by one answer; times are Unix seconds, ours and theirs.

    | answered | sent | Date | difference |
    |---|---|---|---|
    | 100.30 | 100.10 | 100 | -0.90 to 0.30: none is possible |
    | 107.30 | 107.10 | 100 | 6.10 to 7.30: we are ahead |
    """
    return Interval(sent_s - date_s - _GRAIN_S, answered_s - date_s)


@lru_cache(maxsize=4)
def parse_date(text: str) -> float | None:
    """Return a Date header as Unix seconds; None where it is none. A second's answers share one."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


@dataclass(slots=True)
class Skew:
    """Remember the intervals of the last one to two windows."""

    _began_s: float = float("-inf")
    _now: Interval = ANYTHING
    _before: Interval = ANYTHING

    def take(self, seen: Interval, at_s: float) -> None:
        """Take one answer's interval; `at_s` is monotonic."""
        if not 0 <= at_s - self._began_s < WINDOW_S:
            whole = at_s - self._began_s < 2 * WINDOW_S
            self._before = self._now if whole else ANYTHING
            self._now, self._began_s = ANYTHING, at_s
        self._now = self._now.narrowed(seen)

    def seconds(self, at_s: float) -> float | None:
        """Return the difference that is shown; None where nothing was heard of late."""
        if not 0 <= at_s - self._began_s < 2 * WINDOW_S:
            return None
        return self._before.narrowed(self._now).nearest
