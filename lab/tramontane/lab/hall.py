"""What goes on in the hall besides Kubernetes: which blade has which fault.

A fault is three things at once: something to see for the blade's agent, a node that may lose
its power, and the end of the ranks on it. The hall does all three, and takes them back.
"""

import contextlib
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tramontane.health.fake import FakeDevice
from tramontane.lab.faults import KINDS, Fault, trouble_of
from tramontane.lab.fleet import Fleet
from tramontane.lab.nvml import StateFile, blade
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes


class Agent(Protocol):
    """One blade's health agent, and the GPUs that it sees."""

    def show(self, fault: Fault) -> None:
        """Let the GPUs have the fault."""

    def heal(self) -> None:
        """Let the GPUs be as new."""

    async def silence(self) -> None:
        """Stop the agent as a crash would; the blade keeps running."""

    async def speak(self) -> None:
        """Let the agent run again."""


class SimulatedAgent:
    """An agent that runs in the simulator over GPUs in memory; started and stopped by calls."""

    def __init__(
        self,
        device: FakeDevice,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.device = device
        self._start, self._stop = start, stop

    def show(self, fault: Fault) -> None:
        """Let the GPUs in memory have the fault."""
        if (happen := KINDS[fault.kind].memory) is not None:
            happen(self.device, fault)

    def heal(self) -> None:
        """Let the GPUs in memory be as new."""
        self.device.heal()

    async def silence(self) -> None:
        """End the agent's task."""
        await self._stop()

    async def speak(self) -> None:
        """Start the agent's task."""
        await self._start()


class ProcessAgent:
    """An agent in a process of its own, over the simulated NVML library."""

    def __init__(self, name: str, folder: Path, gpus: int) -> None:
        self._name, self._folder, self._gpus = name, folder, gpus
        self._file = StateFile(state_file(folder, name))
        self._file.write(blade(name, count=gpus))
        self._boots = 0
        self._boot()

    def show(self, fault: Fault) -> None:
        """Write the library's state file with the fault in it."""
        if (change := KINDS[fault.kind].machine) is not None:
            self._file.write(change(self._file.state, fault))

    def heal(self) -> None:
        """Write a healthy state file under a new boot; events that happened stay happened."""
        self._boot()
        old = self._file.state
        whole = blade(self._name, count=self._gpus)
        self._file.write(replace(whole, events=old.events, next_seq=old.next_seq))

    def _boot(self) -> None:
        self._boots += 1
        boot_file(self._folder, self._name).write_text(f"{self._name}-boot-{self._boots}\n")

    async def silence(self) -> None:
        """Freeze the agent's process: nothing that it owes is done, and nothing is cleaned up."""
        self._signal(signal.SIGSTOP)

    async def speak(self) -> None:
        """Let the agent's process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, sig: signal.Signals) -> None:
        with contextlib.suppress(KeyError):  # not started yet, or never
            Processes.load(self._folder).kill(agent_process(self._name), sig)


def agent_process(name: str) -> str:
    """Return the name of the process that is a blade's real agent."""
    return f"agent-{name}"


def state_file(folder: Path, name: str) -> Path:
    """Return the file from which a blade's simulated NVML library answers."""
    path = folder / "nvml" / f"{name}.state"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def boot_file(folder: Path, name: str) -> Path:
    """Return the file that a blade's real agent reads for the kernel's boot ID."""
    return state_file(folder, name).with_suffix(".boot")


class Hall:
    """All blades, and what is wrong with each."""

    def __init__(
        self,
        fleet: Fleet,
        agents: Mapping[str, Agent],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._fleet = fleet
        self._agents = agents
        self._faults: dict[str, list[Fault]] = defaultdict(list)
        self.changed = changed  # called after each change

    @property
    def size(self) -> int:
        """Return how many blades there are."""
        return len(self._agents)

    @property
    def faults(self) -> dict[str, tuple[Fault, ...]]:
        """Return what is wrong, by blade; healthy ones are left out."""
        return {name: tuple(faults) for name, faults in sorted(self._faults.items()) if faults}

    def trouble(self, name: str) -> str:
        """Return what ranks on the blade die of, or nothing."""
        said = map(trouble_of, self._faults.get(name, ()))
        return next(filter(None, said), "")

    async def inject(self, name: str, fault: Fault) -> None:
        """Let a blade have a fault.

        Raises:
            LabError: there is no such blade.
        """
        agent = self._agent(name)
        self._faults[name].append(fault)
        self.changed()  # ranks die at once; agents and node heartbeats take their time
        agent.show(fault)
        kind = KINDS[fault.kind]
        if kind.power:
            await self._fleet.power_off(name)
        if kind.silent:
            await agent.silence()

    async def clear(self, name: str) -> tuple[Fault, ...]:
        """Repair a blade; return the faults that it had."""
        agent = self._agent(name)
        had = tuple(self._faults.pop(name, ()))
        kinds = [KINDS[fault.kind] for fault in had]
        agent.heal()
        if any(kind.power for kind in kinds):
            await self._fleet.power_on(name)
        if any(kind.silent for kind in kinds):
            await agent.speak()
        self.changed()
        return had

    def _agent(self, name: str) -> Agent:
        try:
            return self._agents[name]
        except KeyError:
            known = sorted(self._agents)
            raise LabError(
                f'blade "{name}": must be one of the lab\'s'
                f" (got none of that name among {len(known)}: {known[0]} to {known[-1]})"
                if known
                else f'blade "{name}": must be one of the lab\'s (got none: the lab is empty)'
            ) from None
