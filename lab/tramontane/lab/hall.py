"""What goes on in the hall besides Kubernetes: which blade has which fault.

A fault is three things at once: something to see for the blade's agent, a node that may lose
its power, and the end of the ranks on it. The hall does all three, and takes them back. A repair
takes back only what it mends (`Fault.mend`): the rest is there again after it.
"""

import asyncio
import contextlib
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tramontane.lab.device import LabDevice
from tramontane.lab.faults import (
    KINDS,
    Fault,
    Mend,
    calm_machine,
    calm_memory,
    flap_s,
    left_after,
    trouble_of,
)
from tramontane.lab.fleet import Fleet
from tramontane.lab.nvml import StateFile, blade
from tramontane.lab.paths import LabError
from tramontane.lab.processes import Processes


class Agent(Protocol):
    """One blade's health agent, and the GPUs that it sees."""

    def show(self, fault: Fault) -> None:
        """Let the GPUs have the fault."""

    def calm(self, fault: Fault) -> None:
        """Let a flapping fault be away for now."""

    def heal(self) -> None:
        """Let the GPUs be as new."""

    def reset(self, gpu: int | None) -> None:
        """Reset one GPU, or all."""

    def reboot(self) -> str:
        """Reboot the blade; return its new boot ID."""

    async def silence(self) -> None:
        """Stop the agent as a crash would; the blade keeps running."""

    async def speak(self) -> None:
        """Let the agent run again."""


class SimulatedAgent:
    """An agent that runs in the simulator over GPUs in memory; started and stopped by calls."""

    def __init__(
        self,
        device: LabDevice,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.device = device
        self._start, self._stop = start, stop

    def show(self, fault: Fault) -> None:
        """Let the GPUs in memory have the fault."""
        if (happen := KINDS[fault.kind].memory) is not None:
            happen(self.device, fault)

    def calm(self, fault: Fault) -> None:
        """Let the GPUs in memory be without it for now."""
        calm_memory(self.device, fault)

    def heal(self) -> None:
        """Let the GPUs in memory be as new."""
        self.device.heal()

    def reset(self, gpu: int | None) -> None:
        """Reset GPUs in memory."""
        if gpu is None:
            self.device.reset_all()
        else:
            self.device.reset(gpu)

    def reboot(self) -> str:
        """Reboot the blade in memory."""
        self.device.reboot()
        return self.device.reading.boot_id

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

    def calm(self, fault: Fault) -> None:
        """Write the library's state file without the fault."""
        self._file.write(calm_machine(self._file.state, fault))

    def heal(self) -> None:
        """Write a healthy state file under a new boot; events that happened stay happened."""
        self.reboot()

    def reset(self, gpu: int | None) -> None:
        """Write the state file with those GPUs as new."""
        state, whole = self._file.state, blade(self._name, count=self._gpus).gpus
        missing = len(state.gpus) < len(whole)
        gpus = tuple(
            whole[index] if gpu in {None, index} and not missing else old
            for index, old in enumerate(state.gpus)
        )
        self._file.write(replace(state, gpus=gpus))

    def reboot(self) -> str:
        """Write what the machine shows after a boot; events that happened stay happened."""
        boot_id = self._boot()
        old = self._file.state
        whole = blade(self._name, count=self._gpus)
        self._file.write(replace(whole, events=old.events, next_seq=old.next_seq))
        return boot_id

    def _boot(self) -> str:
        self._boots += 1
        boot_id = f"{self._name}-boot-{self._boots}"
        boot_file(self._folder, self._name).write_text(f"{boot_id}\n")
        return boot_id

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
        self._faults: dict[str, tuple[Fault, ...]] = defaultdict(tuple)
        self._flapping: dict[str, list[asyncio.Task[None]]] = defaultdict(list)
        self.changed = changed  # called after each change

    @property
    def size(self) -> int:
        """Return how many blades there are."""
        return len(self._agents)

    @property
    def faults(self) -> dict[str, tuple[Fault, ...]]:
        """Return what is wrong, by blade; healthy ones are left out."""
        return {name: faults for name, faults in sorted(self._faults.items()) if faults}

    def of(self, name: str) -> tuple[Fault, ...]:
        """Return what is wrong with one blade."""
        return self._faults.get(name, ())

    def trouble(self, name: str) -> str:
        """Return what ranks on the blade die of, or nothing."""
        return next(filter(None, map(trouble_of, self.of(name))), "")

    def has_power(self, name: str) -> bool:
        """Return whether anything runs on the blade."""
        return not any(KINDS[fault.kind].power for fault in self.of(name))

    async def inject(self, name: str, fault: Fault) -> None:
        """Let a blade have a fault.

        Raises:
            LabError: there is no such blade, or no such GPU on it any more.
        """
        agent = self._agent(name)
        before = self.of(name)
        self._faults[name] = (*before, fault)
        self.changed()  # ranks die at once; agents and node heartbeats take their time
        try:
            agent.show(fault)
        except IndexError:
            self._faults[name] = before
            raise LabError(
                f"blade {name}: must have GPU {fault.gpu} (got one less since dead-on-arrival)"
            ) from None
        kind = KINDS[fault.kind]
        if kind.flaps:
            self._flapping[name].append(asyncio.create_task(_flap(agent, fault)))
        if kind.power:
            await self._fleet.power_off(name)
        if kind.silent:
            await agent.silence()

    async def clear(self, name: str) -> tuple[Fault, ...]:
        """Repair a blade; return the faults that it had."""
        agent = self._agent(name)
        had = self._faults.pop(name, ())
        kinds = [KINDS[fault.kind] for fault in had]
        await self._calm(name)
        agent.heal()
        if any(kind.power for kind in kinds):
            await self._fleet.power_on(name)
        if any(kind.silent for kind in kinds):
            await agent.speak()
        self.changed()
        return had

    def reset(self, name: str, gpu: int | None) -> str:
        """Reset a GPU of a blade, or all; return why that could not be done, or nothing.

        Raises:
            LabError: there is no such blade.
        """
        agent = self._agent(name)
        for fault in self.of(name):
            if KINDS[fault.kind].deaf and gpu in {None, fault.gpu}:
                return f"GPU {fault.gpu} cannot be reset: {fault}"
        agent.reset(gpu)
        self._mended(name, agent, Mend.RESET, gpu)
        return ""

    async def reboot(self, name: str) -> None:
        """Reboot a blade: it is gone for a moment, and what a boot mends is mended.

        Raises:
            LabError: there is no such blade, or it did not come back.
        """
        agent = self._agent(name)
        mute = any(KINDS[fault.kind].silent for fault in self.of(name))
        if not mute:
            await agent.silence()
        boot_id = agent.reboot()
        self._mended(name, agent, Mend.REBOOT, None)
        await self._fleet.reboot(name, boot_id)
        if not mute:
            await agent.speak()

    def _mended(self, name: str, agent: Agent, mend: Mend, gpu: int | None) -> None:
        """Let what the repair has not mended be there again; what flaps comes by itself."""
        had, left = self.of(name), left_after(self.of(name), mend, gpu)
        self._faults[name] = left
        for fault in left:
            touched = gpu in {None, fault.gpu}
            if touched and not KINDS[fault.kind].flaps:
                agent.show(fault)
        if had != left:
            self.changed()

    async def aclose(self) -> None:
        """End what flaps."""
        for name in tuple(self._flapping):
            await self._calm(name)

    async def _calm(self, name: str) -> None:
        tasks = self._flapping.pop(name, [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


async def _flap(agent: Agent, fault: Fault) -> None:
    """Let a fault, which is there now, go and come for ever."""
    while True:
        await asyncio.sleep(flap_s(fault))
        agent.calm(fault)
        await asyncio.sleep(flap_s(fault))
        agent.show(fault)
