"""The health agents of all simulated blades, in one process.

Each is the agent's real code over GPUs in memory: it reports by server-side apply and renews its
own heartbeat. They share one client. An agent starts when its Blade appears: thousands that each
ask for their Blade again and again would keep the API server from making it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from functools import partial
from typing import Any, Self

from tramontane.api.errors import TramontaneError
from tramontane.health.agent import Agent, Timing
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import BLADES
from tramontane.lab.device import LabDevice
from tramontane.lab.hall import SimulatedAgent

_RESTART_S = 1.0

log = logging.getLogger(__name__)


class SimulatedAgents:
    """Agents by blade; they work while the `async with` block lasts."""

    def __init__(
        self,
        client: Client,
        names: Iterable[str],
        *,
        namespace: str,
        gpus: int,
        timing: Timing | None = None,
        running: bool = True,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._timing = timing or Timing()
        self._running = running  # False: there are devices to break, and nobody who looks
        self._blades = Informer(client, BLADES, _exists)
        self._blades.add_listener(self._blade_changed)
        self._silent: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._devices = {name: LabDevice(name, gpus=gpus) for name in names}
        self.agents = {
            name: SimulatedAgent(device, partial(self.speak, name), partial(self.silence, name))
            for name, device in self._devices.items()
        }

    async def __aenter__(self) -> Self:
        if self._running:
            self._watch = asyncio.create_task(self._blades.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._tasks.values(), *([self._watch] if self._watch else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _blade_changed(self, name: str, old: bool | None, new: bool | None) -> None:
        if new and not old:
            self._start(name)

    def _start(self, name: str) -> None:
        """Start a blade's agent if there is a Blade, and nothing that keeps it silent."""
        known = name in self._devices and name in self._blades.cache
        if known and name not in self._tasks and name not in self._silent:
            self._tasks[name] = asyncio.create_task(self._live(name), name=name)

    async def speak(self, name: str) -> None:
        """Let a silenced agent run again."""
        self._silent.discard(name)
        self._start(name)

    async def silence(self, name: str) -> None:
        """Stop an agent in the middle of whatever it does, as a crash would."""
        self._silent.add(name)
        if task := self._tasks.pop(name, None):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _live(self, name: str) -> None:
        """Run one agent, and another one should it fail, as a DaemonSet would."""
        never = asyncio.Event()
        device = self._devices[name]
        while True:
            device.set(0)  # an agent that starts wants the reading, changed or not
            agent = Agent(
                name, device, self._client, namespace=self._namespace, timing=self._timing
            )
            try:
                await agent.run(never)
            except TramontaneError as error:
                log.warning("agent failed blade=%s error=%r", name, str(error))
            await asyncio.sleep(_RESTART_S)


def _exists(_: dict[str, Any]) -> bool:
    return True
