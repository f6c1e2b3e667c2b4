"""Double a pause up to a limit, with jitter: agents that failed together do not return together."""

from collections.abc import Callable


class Backoff:
    """Pauses of `first_s`, twice that, …, at most `limit_s`; each times 0.5 to 1.5."""

    def __init__(self, first_s: float, limit_s: float, rng: Callable[[], float]) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._rng = rng
        self._pause_s = first_s

    def next(self) -> float:
        """Return the pause to make now; the one after it is longer."""
        pause_s = self._pause_s * (0.5 + self._rng())
        self._pause_s = min(self._limit_s, 2 * self._pause_s)
        return pause_s

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._pause_s = self._first_s
