"""A real agent process as its benchmark sees it: what it uses, and what it says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tramontane.lab.controlplane import free_ports

_PATIENCE_S = 60.0
_POLL_S = 0.05
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process (MB). `pss` divides shared pages by those who share them."""

    rss: float
    pss: float
    peak_rss: float


class Agent:
    """A running agent: what it uses, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._address = f"http://127.0.0.1:{port}"

    @property
    def pids(self) -> dict[str, int]:
        """Return the processes: the agent's, and that of its child, which owns the session."""
        pid = self._process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {"agent": pid, "child": int(child)}

    def memory(self) -> dict[str, Memory]:
        """Return the memory of both processes now."""
        return {name: _memory(pid) for name, pid in self.pids.items()}

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each has used."""
        return {name: _cpu_s(pid) for name, pid in self.pids.items()}

    async def get(self, path: str) -> tuple[int, str]:
        """Ask the agent's port; returns status and text."""
        async with aiohttp.ClientSession() as session, session.get(self._address + path) as answer:
            return answer.status, await answer.text()

    async def ready(self) -> None:
        """Return when it has looked, and the API server has what it saw."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    if (await self.get("/readyz"))[0] == HTTPStatus.OK:
                        return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(_POLL_S)

    async def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        _, text = await self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def reaches(self, name: str, least: float, timeout_s: float, **labels: str) -> None:
        """Return when the sum of a metric's samples is so large.

        Raises:
            TimeoutError: it is not within `timeout_s`.
        """
        async with asyncio.timeout(timeout_s):
            while await self.total(name, **labels) < least:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(1)


@asynccontextmanager
async def running(
    arguments: Sequence[str], environment: Mapping[str, str], bytecode: Path
) -> AsyncIterator[Agent]:
    """Run an agent while the block lasts; it is ready when the block begins.

    `bytecode` is where its compiled modules are kept for the next one.
    """
    (port,) = free_ports(1)
    ours = {**os.environ, **environment, "PYTHONPYCACHEPREFIX": str(bytecode)}
    ours.pop("PYTHONDONTWRITEBYTECODE", None)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tramontane.health", "--metrics-port", str(port)),
        *arguments,
        env=ours,
    )
    try:
        agent = Agent(process, port)
        await agent.ready()
        yield agent
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), _PATIENCE_S)


def _memory(pid: int) -> Memory:
    status = _fields(Path(f"/proc/{pid}/status"))
    pss = _fields(Path(f"/proc/{pid}/smaps_rollup"))["Pss"]
    return Memory(*(round(kib * 1024 / _MB, 1) for kib in (status["VmRSS"], pss, status["VmHWM"])))


def _fields(path: Path) -> dict[str, int]:
    """Return the lines of `Name:  123 kB`."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if words[-1:] == ["kB"]}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
