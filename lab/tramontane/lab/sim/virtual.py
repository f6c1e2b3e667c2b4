"""Run asyncio on a clock that only goes on when everybody sleeps.

An ordinary event loop asks its selector to wait until the next timer is due. Here the selector
does not wait: it moves the clock to that moment and returns. So a month passes in the time that
its decisions take, no decision sees a different order of events from one run to the next, and
nothing in the code under test knows: `asyncio.sleep` and `call_later` are the real ones.

There is no input but timers. A loop in which nobody sleeps any more would wait for ever; that is
an error of the caller, and said.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from tramontane.lab.paths import LabError

T = TypeVar("T")
# The unit in which a timer counts as due; a double holds a year of seconds to within less.
_RESOLUTION_S = 1e-6


class Stalled(LabError):  # noqa: N818 - named for what was found
    """Say that all tasks wait and no timer is left that could wake one."""


class _TimerSelector(selectors.BaseSelector):
    """Wait for nothing: each wait is over at once, and the clock has moved on by it."""

    def __init__(self, pass_s: Callable[[float], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._pass_s = pass_s

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise Stalled(
                "virtual clock: a timer must be left while tasks wait (got none);"
                " what they wait for can never happen"
            )
        self._pass_s(timeout)
        return ready

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual.

    Attributes:
        start_s: Unix time at which the clock begins; `time()` counts from 0.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self.start_s = start_s
        self._passed_s = 0.0
        super().__init__(_TimerSelector(self._pass))
        self._clock_resolution = _RESOLUTION_S

    def time(self) -> float:
        """Return the virtual seconds since the loop was made (the loop's monotonic clock)."""
        return self._passed_s

    def wall(self) -> float:
        """Return the virtual Unix time."""
        return self.start_s + self._passed_s

    def _pass(self, seconds: float) -> None:
        self._passed_s += seconds


def run(work: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run `work` to its end on a virtual loop, cancel what it left, and close the loop.

    Raises:
        Stalled: everything waits for something that cannot happen any more.
        Exception: the first that a timer's callback raised; asyncio would only log it.
    """
    raised: list[BaseException] = []

    def heard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "handle" in context:
            raised.append(context["exception"])
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(heard)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(work)
    if raised:
        raise raised[0]
    return result
