"""Ask the blade without its GPUs' driver: the kernel log at once, the host every few seconds.

Runs in the agent's own process, and so goes on while NVML hangs in the child. Looks at the host
are made in a thread that nobody waits for longer than `deadline_s`: an adapter whose firmware is
stuck can hold a read of its counters for ever, and no second thread is sent after the first.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tramontane.health import host, host_past
from tramontane.health.device import SXID_EVENT, XID_EVENT, Event, Unsupported, Update
from tramontane.health.host import HostPast, HostReading
from tramontane.health.kernel_lines import slot
from tramontane.health.kmsg import KERNEL_LOG, Heard, KernelLog
from tramontane.health.probe import BOOT_ID_FILE

_MAX_LINE = 256
_HUNG = Unsupported("Hung")


class HostProbe:
    """The kernel log, and the host's state when it has changed.

    Args:
        kernel_log: a device like /dev/kmsg, or a plain file.
        sys: root of sysfs.
        proc: root of procfs.
        interval_s: time between two looks at the host.
        deadline_s: how long a look may take before its values count as unknown.
        looked: called with `host` after each look that was answered, and with `kmsg` while the
            kernel log is followed, as often.
    """

    def __init__(
        self,
        *,
        kernel_log: Path = KERNEL_LOG,
        sys: Path = host.SYS,
        proc: Path = host.PROC,
        boot_id_file: Path = BOOT_ID_FILE,
        interval_s: float = 5.0,
        deadline_s: float = 10.0,
        read: Callable[[Path, Path], HostReading] = host.read,
        looked: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = KernelLog(kernel_log)
        self._look_at = partial(read, sys, proc)
        self._boot_id_file = boot_id_file
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._looked = looked
        self._clock = clock
        self._answered = time.monotonic()
        self._look: asyncio.Future[HostReading] | None = None
        self._last: HostReading | None = None
        self._past: HostPast | None = None
        self._waits: dict[str, asyncio.Task[Update]] = {}

    async def next(self) -> Update:
        """Return the next lines that say something, or the host where it has changed."""
        for name, wait in (("log", self._lines), ("host", self._changed)):
            if name not in self._waits:
                self._waits[name] = asyncio.create_task(wait(), name=f"host probe: {name}")
        await asyncio.wait(self._waits.values(), return_when=asyncio.FIRST_COMPLETED)
        name = next(name for name, task in self._waits.items() if task.done())
        return self._waits.pop(name).result()

    def forget(self, released_at: float) -> None:
        """Judge the host from the next look on by what it was at a person's release."""
        if self._past is not None:
            self._past = host_past.forget(self._past, released_at)

    async def aclose(self) -> None:
        """Stop waiting. A look that hangs is left behind: its thread ends with the process."""
        for task in self._waits.values():
            task.cancel()
        await asyncio.gather(*self._waits.values(), return_exceptions=True)
        self._waits.clear()
        self._log.close()

    async def _lines(self) -> Update:
        return Update(events=tuple(self._event(heard) for heard in await self._log.next()))

    def _event(self, heard: Heard) -> Event:
        line = heard.line
        return Event(
            gpu=-1,
            uuid="" if line.switch else self._log.uuids.get(slot(line.pci), ""),
            type=SXID_EVENT if line.switch else XID_EVENT,
            data=line.code,
            at=heard.at,
            line=line.text[:_MAX_LINE],
            source="kmsg",
            fatal=line.fatal,
            pci=line.pci,
            unit=line.unit,
            subcode=line.subcode,
            wanted="" if line.wanted is None else line.wanted.value,
            count=heard.count,
        )

    async def _changed(self) -> Update:
        while True:
            if self._look is None:
                if self._last is not None:
                    await asyncio.sleep(self._interval_s)
                self._look = self._start_look()
            done, _ = await asyncio.wait({self._look}, timeout=self._deadline_s)
            if done:
                reading, self._look = self._look.result(), None
                self._remember(reading)
                self._looked("host")
            else:
                reading = _hung()
            if not self._log.error:
                self._looked("kmsg")
            reading = self._completed(reading)
            if reading != self._last:
                self._last = reading
                return Update(host=reading)

    def _remember(self, reading: HostReading) -> None:
        """Remember a look that was answered; how long after the last one says a steady clock."""
        at, answered = self._clock(), time.monotonic()
        looked_at = at - (answered - self._answered)
        self._past = host_past.remember(self._past, reading, at, looked_at)
        self._answered = answered

    def _completed(self, reading: HostReading) -> HostReading:
        """Add the boot ID, the state of the kernel log, and what earlier looks have shown."""
        boot_id = self._boot_id_file.read_text().strip()
        past = self._past or HostPast()
        return replace(reading, boot_id=boot_id, kernel_log=self._log.error, past=past)

    def _start_look(self) -> asyncio.Future[HostReading]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[HostReading] = loop.create_future()

        def say(reading: HostReading) -> None:
            if not future.done():
                future.set_result(reading)

        def work() -> None:
            reading = self._look_at()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(say, reading)

        threading.Thread(target=work, name="host", daemon=True).start()
        return future


def _hung() -> HostReading:
    return HostReading(
        ports=_HUNG, nvme=_HUNG, memory_bytes=_HUNG, clocksource=_HUNG, pci_gpus=_HUNG
    )
