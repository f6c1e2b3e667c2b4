"""Leave NVML alone while the operator has a GPU reset.

A reset is refused while anybody has a session with the driver (NVSentinel#1690), and our child is
somebody. So while `Blade.status.repair` says that a reset runs there is no child. Nothing is known
of the GPUs then: every check that looks through NVML is unknown, and what was wrong stays wrong
until the next child has looked. The host's probe goes on.

A reset takes seconds. One that is not over after `AT_MOST_S` does not keep us from looking.
"""

import asyncio
import logging

from tramontane.api.blade import Action, BladeRepair
from tramontane.health.device import Update
from tramontane.health.probe import Probe

AT_MOST_S = 600.0

log = logging.getLogger(__name__)


class Pausing:
    """A probe that ends its session while it is told to, and begins another one after that."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._reset: str | None = None
        self._until = 0.0
        self._may_look = asyncio.Event()
        self._may_look.set()
        self._taking: asyncio.Timeout | None = None
        self._blind = False

    @property
    def blind(self) -> bool:
        """Return whether nothing is known of the GPUs: since it left, and until it has looked."""
        return self._blind

    def mind(self, repair: BladeRepair | None) -> float | None:
        """Leave while a reset runs; return for how much longer at most (s), or None."""
        now = asyncio.get_running_loop().time()
        reset = None
        if repair is not None and repair.doing is Action.RESET:
            reset = repair.started_at
        if reset != self._reset:
            self._reset, self._until = reset, now + AT_MOST_S
        if reset is None or now >= self._until:
            self._may_look.set()
            return None
        if self._may_look.is_set():
            log.info("leaving nvml for a reset since=%s", reset)
            self._blind = True
            self._may_look.clear()
            if self._taking is not None:
                self._taking.reschedule(now)
        return self._until - now

    async def next(self) -> Update:
        """Return what the probe says; while a reset runs, wait for its end."""
        while True:
            await self._may_look.wait()
            try:
                async with asyncio.timeout(None) as self._taking:
                    update = await self._probe.next()
            except TimeoutError:
                if self._taking is None or not self._taking.expired():
                    raise
                await self._probe.aclose()
                continue
            finally:
                self._taking = None
            self._blind = not self._may_look.is_set()
            return update

    async def aclose(self) -> None:
        """End the session."""
        await self._probe.aclose()
