"""Turn events into reconciles: keys in, one worker per key, back-off on failure.

A key that is added many times while it waits is reconciled once; one that is added while it is
being reconciled is reconciled once more afterwards. So no reconcile ever runs beside itself, and
keys that wait are as many as there are at most. Urgent keys come before all others.
"""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from tramontane.kube import metrics
from tramontane.kube.errors import ApiError, Unreachable

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
_JITTER = 0.1
_MOST_DOUBLINGS = 30


class WorkQueue(Generic[K]):
    """A queue of keys. All methods must be called in the event loop's thread.

    Attributes:
        base_s: the delay after a first failure; it doubles with each further one.
        max_s: the longest delay after failures.
        name: the label in metrics and logs.
    """

    def __init__(
        self,
        base_s: float = 0.05,
        max_s: float = 60,
        name: str = "default",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_s = base_s
        self.max_s = max_s
        self.name = name
        self._monotonic = monotonic
        # (0 if urgent else 1, order, key); a key that becomes urgent is in it twice.
        self._ready: asyncio.PriorityQueue[tuple[int, int, K]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._urgent: set[K] = set()
        # In _ready, or to be put there when its worker is done; since when (monotonic).
        self._wanted: dict[K, float] = {}
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._depth = metrics.QUEUE_DEPTH.labels(name)
        metrics.QUEUE_OLDEST.add(self)

    def __len__(self) -> int:
        """Return how many keys wait for a worker."""
        return len(self._wanted)

    @property
    def idle(self) -> bool:
        """Return whether no key waits for a worker or has one; delayed keys do not count."""
        return not self._wanted and not self._working

    def oldest_s(self) -> float:
        """Return for how long the key has waited that has waited longest; 0 where none does."""
        since = min(list(self._wanted.values()), default=float("inf"))
        return max(0.0, self._monotonic() - since)

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Have `key` reconciled soon: once, however often it is added before that."""
        if key in self._wanted and (not urgent or key in self._urgent):
            return
        self._wanted.setdefault(key, self._monotonic())
        if urgent:
            self._urgent.add(key)
        if key not in self._working:
            self._put(key)
        self._depth.set(len(self._wanted))

    def _put(self, key: K) -> None:
        self._ready.put_nowait((int(key not in self._urgent), next(self._order), key))

    def add_after(self, key: K, delay_s: float) -> None:
        """Have `key` reconciled in `delay_s`, unless it is due sooner: the earliest time counts."""
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        if timer := self._timers.get(key):
            if timer.when() <= loop.time() + delay_s:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay_s, self._due, key)

    async def run(
        self, reconcile: Callable[[K], Awaitable[float | None]], workers: int = 4
    ) -> None:
        """Reconcile keys until cancelled.

        A number that `reconcile` returns is when to look again, in seconds. What it raises is
        logged, and the key comes again after the back-off.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(workers):
                    group.create_task(self._work(reconcile), name=f"{self.name}-{number}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _work(self, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            _, _, key = await self._ready.get()
            if key in self._working or key not in self._wanted:
                continue  # it was in the queue twice
            del self._wanted[key]
            self._urgent.discard(key)
            self._working.add(key)
            self._depth.set(len(self._wanted))
            try:
                await self._reconcile(reconcile, key)
            finally:
                self._working.discard(key)
                if key in self._wanted:
                    self._put(key)

    async def _reconcile(self, reconcile: Callable[[K], Awaitable[float | None]], key: K) -> None:
        started = time.perf_counter()
        outcome = "error"
        try:
            again_s = await reconcile(key)
            outcome = "ok"
        except (ApiError, Unreachable) as error:
            delay_s = self._back_off(key)
            log.warning(
                "reconcile failed queue=%s key=%s again_s=%.2f error=%r",
                self.name, _shown(key), delay_s, str(error),
            )  # fmt: skip
        except Exception:
            # A fault of one key must not stop the others.
            delay_s = self._back_off(key)
            log.exception(
                "reconcile failed queue=%s key=%s again_s=%.2f", self.name, _shown(key), delay_s
            )
        else:
            self._failures.pop(key, None)
            if again_s is not None:
                self.add_after(key, again_s)
        finally:
            metrics.RECONCILE_SECONDS.labels(self.name, outcome).observe(
                time.perf_counter() - started
            )

    def _back_off(self, key: K) -> float:
        """Put `key` off for longer with each failure in a row; return for how long."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(self.base_s * 2.0 ** min(failures, _MOST_DOUBLINGS), self.max_s)
        delay_s *= 1 + random.uniform(-_JITTER, _JITTER)
        self.add_after(key, delay_s)
        return delay_s

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)


def _shown(key: object) -> str:
    """Return a key as logs have it: `ml/llama` for a pair."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
