"""Ask the blade from outside: a child process with a deadline.

The agent takes updates from a `Probe`. `ChildProbe` is the real one: it starts child.py, reads
its lines, and takes silence for an answer:

| the child                          | the probe                                              |
|------------------------------------|--------------------------------------------------------|
| says something new                 | hands it on                                            |
| gives beats                        | waits on                                               |
| is silent beyond the deadline      | says Unresponsive at once, ends it, starts another     |
| has died                           | starts another; from the second time on Unresponsive   |
| cannot be killed (blocked in the   | says Unresponsive once per start deadline; starts no   |
| kernel)                            | other, which would only block beside it                |

Strikes count how often in a row there was no reading where one was due; a reading sets them back.
"""

import asyncio
import contextlib
import logging
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from tramontane.health import wire
from tramontane.health.backoff import Backoff
from tramontane.health.device import Unresponsive, Update

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

_MAX_LINE = 1 << 22
_KILL_AFTER_S = 2.0
_DEAD_AFTER_S = 5.0
_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 30.0

log = logging.getLogger(__name__)


class Probe(Protocol):
    """Where an agent gets its updates from."""

    async def next(self) -> Update:
        """Wait until there is something new and return it."""

    async def aclose(self) -> None:
        """End the session."""


class HostWatch(Probe, Protocol):
    """Where an agent gets the host from, which is judged by what it was before."""

    def forget(self, released_at: float) -> None:
        """Hold nothing against the host that was better before a person released the blade."""


class ChildProbe:
    """NVML in a child process.

    Args:
        interval_s: time between two readings of the state.
        deadline_s: silence beyond the interval that is taken for a hang.
        start_deadline_s: the same for the first line: starting NVML may take seconds on a node
            whose driver does not stay loaded.
        library: path of the NVML library; None: what the linker finds.
        environment: variables of the child beside ours.
        polled: called with how long NVML took for a look (s), after each that it answered.
        rng: jitter of the pauses between children.
    """

    def __init__(
        self,
        *,
        interval_s: float = 0.5,
        deadline_s: float = 5.0,
        start_deadline_s: float = 20.0,
        library: str | None = None,
        boot_id_file: Path = BOOT_ID_FILE,
        environment: dict[str, str] | None = None,
        polled: Callable[[float], None] = lambda _: None,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._start_deadline_s = start_deadline_s
        self._boot_id_file = boot_id_file
        self._environment = {**os.environ, **(environment or {})}
        self._polled = polled
        self._backoff = Backoff(_FIRST_PAUSE_S, _MAX_PAUSE_S, rng)
        self._command = self._command_line(library)
        self._process: asyncio.subprocess.Process | None = None
        self._doomed: asyncio.subprocess.Process | None = None
        self._spoke = False
        self._strikes = 0
        self.restarts = 0

    def _command_line(self, library: str | None) -> Sequence[str]:
        command = [sys.executable, "-m", "tramontane.health.child"]
        command += ["--parent", str(os.getpid()), "--interval", str(self._interval_s)]
        command += ["--boot-id-file", str(self._boot_id_file)]
        return [*command, "--nvml-library", library] if library else command

    @property
    def pid(self) -> int | None:
        """Return the process ID of the child that is answering, if there is one."""
        return None if self._process is None else self._process.pid

    async def next(self) -> Update:
        """Return the next reading, events, or Unresponsive."""
        while True:
            if self._doomed is not None and not await self._buried(self._doomed):
                return self._strike(self._doomed, "the probe that hangs in NVML cannot be ended")
            process = self._process or await self._start()
            limit_s = self._interval_s + self._deadline_s if self._spoke else self._start_deadline_s
            assert process.stdout is not None
            try:
                line = await asyncio.wait_for(process.stdout.readline(), limit_s)
            except TimeoutError:
                return self._strike(process, f"no answer from NVML within {limit_s:g} s")
            except ValueError:
                return self._strike(process, "the probe's line is too long")
            if not line:
                died = await self._dead(process)
                if self._strikes > 1:
                    return died
                continue
            update = wire.decode(line)
            self._spoke = True
            if update.took_s is not None:
                self._polled(update.took_s)
            if update.reading is not None or not update.events:
                self._strikes = 0
                self._backoff.reset()
            if update.reading is not None or update.events:
                return update

    def _strike(self, process: asyncio.subprocess.Process, evidence: str) -> Update:
        self._process, self._doomed = None, process
        self._strikes += 1
        log.warning("probe failed pid=%d strikes=%d why=%r", process.pid, self._strikes, evidence)
        return Update(
            unresponsive=Unresponsive(
                self._strikes, evidence, self._boot_id_file.read_text().strip()
            )
        )

    async def _dead(self, process: asyncio.subprocess.Process) -> Update:
        # Standard output may close a moment before the process is gone.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_AFTER_S)
        return self._strike(process, f"the probe ended (status {process.returncode})")

    async def _buried(self, process: asyncio.subprocess.Process) -> bool:
        """End a child; return whether it is gone, and the next one may be started."""
        try:
            await asyncio.wait_for(_end(process), _KILL_AFTER_S + self._start_deadline_s)
        except TimeoutError:
            return False
        self._doomed = None
        self.restarts += 1
        await asyncio.sleep(self._backoff.next())
        return True

    async def _start(self) -> asyncio.subprocess.Process:
        self._spoke = False
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environment,
            limit=_MAX_LINE,
        )
        log.info("probe started pid=%d", self._process.pid)
        return self._process

    async def aclose(self) -> None:
        """End the child, which ends the NVML session in order if NVML lets it."""
        processes = [self._process, self._doomed]
        self._process = self._doomed = None
        for process in processes:
            if process is not None:
                try:
                    await asyncio.wait_for(_end(process), _KILL_AFTER_S + _DEAD_AFTER_S)
                except TimeoutError:
                    self._doomed = process  # no other is started beside it


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process: ask, then kill, then wait until it is really gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(_drained(process), _KILL_AFTER_S)
        except TimeoutError:
            log.warning("probe killed pid=%d", process.pid)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await _drained(process)


async def _drained(process: asyncio.subprocess.Process) -> None:
    """Wait for a process, reading what it still says so that a full pipe does not stop it."""
    assert process.stdout is not None
    while await process.stdout.read(_MAX_LINE):
        continue
    await process.wait()
