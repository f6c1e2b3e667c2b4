"""Remember what this process has written until its caches show it.

A reconcile that runs before the watch event of its own write would decide upon the past: say the
same event twice, or begin a state a second time. What the API server answered to a write is laid
over the cache while it is newer.
"""

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

# A watch event that has not come by then will not: the object was deleted in a gap.
_LONGEST_S = 5.0


class Written(Generic[T]):
    """What was written, over a cache. `version` gives an object's resourceVersion as a number."""

    def __init__(
        self,
        cache: Mapping[str, T],
        version: Callable[[T], int],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._version = version
        self._now_s = now_s
        self._written: dict[str, tuple[T, float]] = {}

    def get(self, key: str) -> T | None:
        """Return the newest known object, or None if there is none."""
        cached = self._cache.get(key)
        if key not in self._written:
            return cached
        written, until_s = self._written[key]
        outdated = cached is not None and self._version(cached) >= self._version(written)
        if outdated or self._now_s() > until_s:
            del self._written[key]
            return cached
        return written

    def put(self, key: str, written: T) -> None:
        """Remember what the API server answered to a write."""
        self._written[key] = (written, self._now_s() + _LONGEST_S)

    def forget(self, key: str) -> None:
        """Drop what was written: the object is gone."""
        self._written.pop(key, None)
