"""Keep a virtual clock and what is due on it: the next thing that is due is what happens next."""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class Entry:
    """One thing to come; `cancel` makes it not come."""

    __slots__ = ("act", "at_s", "given")

    def __init__(
        self, at_s: float, act: Callable[..., None] | None, given: tuple[Any, ...]
    ) -> None:
        self.at_s, self.act, self.given = at_s, act, given

    def cancel(self) -> None:
        """Let it not happen."""
        self.act = None


class Agenda:
    """A clock that jumps from one entry to the next.

    Attributes:
        now: Unix seconds.
    """

    def __init__(self, start_s: float) -> None:
        self.now = start_s
        self._heap: list[tuple[float, int, Entry]] = []
        self._order = count()

    def after(self, seconds: float, act: Callable[..., None], *given: Any) -> Entry:
        """Have `act` called in so many seconds; those of one moment in the order of asking."""
        entry = Entry(self.now + max(0.0, seconds), act, given)
        heapq.heappush(self._heap, (entry.at_s, next(self._order), entry))
        return entry

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due before `end_s` (Unix s)."""
        while self._heap and self._heap[0][0] < end_s:
            at_s, _, entry = heapq.heappop(self._heap)
            if entry.act is not None:
                self.now = at_s
                entry.act(*entry.given)
        self.now = end_s
