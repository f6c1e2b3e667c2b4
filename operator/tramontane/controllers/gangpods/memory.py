"""Believe what the API server said for a while, where asking each time would cost too much."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.resources import PRIORITYCLASSES

T = TypeVar("T")

_KNOWN_S = 60.0
_MISSING_S = 5.0


class Memory(Generic[T]):
    """Remember answers by key; None is what does not exist, and is asked for again sooner."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[T]],
        now: Callable[[], float],
        *,
        known_s: float = _KNOWN_S,
        missing_s: float = _MISSING_S,
    ) -> None:
        self._ask = ask
        self._now = now
        self._known_s = known_s
        self._missing_s = missing_s
        self._answers: dict[str, tuple[T | None, float]] = {}

    async def of(self, key: str) -> T | None:
        """Return the answer for `key`, at most so old; None where there is no such thing."""
        answer, until = self._answers.get(key, (None, 0.0))
        if self._now() < until:
            return answer
        try:
            answer, known_s = await self._ask(key), self._known_s
        except NotFound:
            answer, known_s = None, self._missing_s
        self._answers[key] = (answer, self._now() + known_s)
        return answer

    def forget(self, key: str) -> None:
        """Ask again next time."""
        self._answers.pop(key, None)


class Priorities:
    """Remember the values of PriorityClasses."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client = client
        self._values: Memory[int] = Memory(self._ask, now)

    async def of(self, name: str | None) -> int | None:
        """Return the value of a class: 0 without a name, None where it does not exist."""
        return 0 if name is None else await self._values.of(name)

    async def _ask(self, name: str) -> int:
        return int((await self._client.get(PRIORITYCLASSES, name))["value"])
