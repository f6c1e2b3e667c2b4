"""Follow the kernel log for the lines of the NVIDIA driver, however many there are.

A broken GPU can fill the log: 800,000 lines of XID 95 were seen, 29 of them distinct
(NVSentinel#1120). So three sieves stand before anything is decoded, and before the agent wakes:

1. a line without `Xid` in it is dropped: one search in its bytes;
2. a line whose words this look has already seen is counted: one look-up;
3. what is left is parsed, and counted where its GPU and code were already told in this second.

The first of a kind is told at once, its repeats once a second with their count; what takes each
other back (163 and 162) is told in its order. Reading itself is held to `_BATCH` lines in
`_PAUSE_S`; a ring that overruns meanwhile loses its oldest lines, as it does to every reader.

Records are stamped by the kernel's local_clock(), which NTP does not slew. CLOCK_MONOTONIC, which
it does, is a second off after a day or two, and after some days one XID would be two, NVML's and
the log's. So ours is CLOCK_MONOTONIC_RAW, and what is still between the two is measured (`_Ring`).

At the start the ring holds all that this boot has said, and it is read from there: an XID from
before the agent's start is told with the time at which it happened. Instead of the device, a
plain file does (of records, or of bare lines as syslog writes them); it may grow, be cut, or be
replaced.
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tramontane.health import kernel_lines
from tramontane.health.checks import sxid, xid
from tramontane.health.escalation import CANCELS
from tramontane.health.kernel_lines import KernelLine

KERNEL_LOG = Path("/dev/kmsg")

# 20,000 lines a second; the ring of a usual kernel holds some thousand.
_BATCH = 4096
_PAUSE_S = 0.2
_REOPEN_S = 1.0
_RECORD = 8192
_CHUNK = 1 << 18
# Kinds told apart per second; what is beyond is told without its unit.
_MAX_KINDS = 1024
# Codes of which the part that was struck decides what to do. Source: NVIDIA's XID catalogue.
_BY_UNIT = frozenset({13, 74, *range(144, 151), 154})
# What takes each other back, by name: the last one counts.
_OPPOSITES: Mapping[str, frozenset[str]] = {
    **CANCELS,
    **{old: frozenset({new}) for new, cancelled in CANCELS.items() for old in cancelled},
}
# How long the ring may stay unread: so well is known when a record came.
_LOOK_S = 2.0

Clock = Callable[[], float]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """A line, when the kernel wrote it (Unix seconds), and how many like it there were."""

    line: KernelLine
    at: float
    count: int = 1


@dataclass(slots=True)
class _Kind:
    """A kind of line in its present second: `more` are those after the one that was told."""

    until: float
    latest: Heard
    more: int = 0


class Repeats:
    """Tell the first of a kind at once, and how many more there were at the second's end."""

    def __init__(self, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._kinds: dict[tuple[object, ...], _Kind] = {}

    def add(self, heard: Heard, now: float) -> tuple[_Kind, list[Heard]]:
        """Return the line's kind, and what must be told now: the line, if it is the first."""
        told = self._taken_back(heard.line)
        key = self._key(heard.line)
        kind = self._kinds.get(key)
        if kind is not None:
            kind.latest, kind.more = heard, kind.more + 1
            return kind, told
        kind = self._kinds[key] = _Kind(now + self._every_s, heard)
        return kind, [*told, heard]

    def due(self, now: float) -> list[Heard]:
        """Return the repeats whose second is over, with their counts."""
        told = []
        for key, kind in list(self._kinds.items()):
            if kind.until > now:
                continue
            if not kind.more:
                del self._kinds[key]
                continue
            told.append(replace(kind.latest, count=kind.more))
            kind.until, kind.more = now + self._every_s, 0
        return told

    def next_due(self) -> float | None:
        """Return when `due` has something to do, or None."""
        return min((kind.until for kind in self._kinds.values()), default=None)

    def _taken_back(self, line: KernelLine) -> list[Heard]:
        """End the kinds that a line takes back; return their repeats, which came before it."""
        opposites = _OPPOSITES.get(_name(line))
        if opposites is None:
            return []
        over = [
            key
            for key, kind in self._kinds.items()
            if _name(kind.latest.line) in opposites
            and (line.switch or line.pci == kind.latest.line.pci)
        ]
        kinds = [self._kinds.pop(key) for key in over]
        return [replace(kind.latest, count=kind.more) for kind in kinds if kind.more]

    def _key(self, line: KernelLine) -> tuple[object, ...]:
        apart = (line.switch or line.code in _BY_UNIT) and len(self._kinds) < _MAX_KINDS
        part = (line.unit, line.subcode) if apart else ()
        return (line.switch, line.pci, line.code, *part)


def _name(line: KernelLine) -> str:
    return sxid.code(line.code) if line.switch else xid.code(line.code)


class _Source(Protocol):
    """A log that is open; `lag_s` is how far its records' clock is behind ours."""

    fd: int
    lag_s: float

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that can be read now, at most a batch."""

    def close(self) -> None:
        """Close it."""


def raw_monotonic() -> float:
    """Return the seconds since the boot, as the kernel counts them in its records."""
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


class KernelLog:
    """Follow the log at `path`; `next` waits for the next lines that say something.

    Args:
        wall: Unix seconds.
        monotonic: seconds since the boot.
    """

    def __init__(
        self, path: Path = KERNEL_LOG, *, wall: Clock = time.time, monotonic: Clock = raw_monotonic
    ) -> None:
        self._path = path
        self._wall = wall
        self._monotonic = monotonic
        self._source: _Source | None = None
        self._repeats = Repeats()
        self.error = "NotRead"
        self.uuids: dict[str, str] = {}

    def read(self) -> list[Heard]:
        """Return what is new, without waiting; at most one batch of lines is looked at."""
        now = self._monotonic()
        told = self._repeats.due(now)
        source = self._open()
        if source is None:
            return told
        wall = self._wall()
        words: dict[bytes, _Kind] = {}
        try:
            for raw in source.lines():
                if b"Xid" not in raw:
                    self._identify(raw)
                    continue
                text, since_boot_s = _record(raw)
                known = words.get(text)
                if known is not None:
                    known.more += 1
                    continue
                line = kernel_lines.parse(text.decode("utf-8", "replace"))
                if line is None:
                    continue
                age_s = 0.0 if since_boot_s is None else now - source.lag_s - since_boot_s
                kind, news = self._repeats.add(Heard(line, wall - max(0.0, age_s)), now)
                told += news
                if _name(line) in _OPPOSITES:
                    words.clear()  # the kinds that it took back are gone
                words[text] = kind
        except OSError as error:
            self._failed(error)
        return told

    async def next(self) -> list[Heard]:
        """Return the next lines, as soon as there are any."""
        while True:
            if told := self.read():
                return told
            await self._wait()

    def close(self) -> None:
        """Close the log."""
        if self._source is not None:
            self._source.close()
        self._source = None

    def _identify(self, raw: bytes) -> None:
        """Remember a GPU's UUID, which the driver writes before the XIDs of that GPU."""
        if b"GPU at PCI" in raw and (found := kernel_lines.identity(raw.decode(errors="replace"))):
            self.uuids[kernel_lines.slot(found[0])] = found[1]

    def _open(self) -> _Source | None:
        if self._source is None:
            try:
                self._source = _source(self._path, self._monotonic)
            except OSError as error:
                self._failed(error)
                return None
            self.error = ""
        return self._source

    def _failed(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        if name != self.error:
            log.warning("reading the kernel log failed path=%s error=%s", self._path, name)
        self.error = name
        self.close()

    async def _wait(self) -> None:
        """Wait until there may be something: a record, a count that is due, a file that grew.

        No shorter than `_PAUSE_S` after a look, so that each record of a flood does not wake us.
        """
        if self._source is None:
            await asyncio.sleep(_REOPEN_S)
            return
        await asyncio.sleep(_PAUSE_S)
        if not isinstance(self._source, _Ring):
            return
        due = self._repeats.next_due()
        left_s = _LOOK_S if due is None else min(_LOOK_S, max(0.0, due - self._monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await _readable(self._source.fd)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _source(path: Path, clock: Clock) -> _Source:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return _Ring(fd, clock) if stat.S_ISCHR(os.fstat(fd).st_mode) else _File(fd, path)


def _record(raw: bytes) -> tuple[bytes, float | None]:
    """Return text and seconds since the boot of `6,339,5140900,-;text`; a bare line has none.

    Below the text are lines of key=value, each begun by a space.
    """
    head, semicolon, text = raw.partition(b";")
    fields = head.split(b",", 3)
    if not semicolon or len(fields) < 3 or not fields[2].isdigit():  # noqa: PLR2004 - prio,seq,µs
        return raw, None
    return text.partition(b"\n")[0], int(fields[2]) / 1e6


class _Ring:
    """The kernel's ring: one record per read.

    The first record after the ring was read to its end was written between then and now, which
    tells how far the two clocks are apart: no less and no more than that.
    """

    def __init__(self, fd: int, clock: Clock) -> None:
        self.fd = fd
        self.lag_s = 0.0
        self._clock = clock
        self._ended_at = 0.0
        self._read_out = False
        self._overran = False

    def lines(self) -> Iterator[bytes]:
        fresh, self._read_out = self._read_out, False
        for _ in range(_BATCH):
            try:
                raw = os.read(self.fd, _RECORD)
            except BlockingIOError:
                self._read_out, self._overran = True, False
                self._ended_at = self._clock()
                return
            except BrokenPipeError:  # the next read goes on with the oldest record that is left
                if not self._overran:
                    log.warning("kernel log overran, lines are lost")
                self._overran = True
                continue
            if fresh:
                fresh = False
                self._compare(raw)
            yield raw

    def _compare(self, fresh: bytes) -> None:
        _, since_boot_s = _record(fresh)
        if since_boot_s is None:
            return
        least_s, most_s = self._ended_at - since_boot_s, self._clock() - since_boot_s
        self.lag_s = min(max(self.lag_s, least_s), most_s)

    def close(self) -> None:
        os.close(self.fd)


class _File:
    """A plain file: what a test, the lab or a syslog daemon writes."""

    lag_s = 0.0

    def __init__(self, fd: int, path: Path) -> None:
        self.fd = fd
        self._path = path
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        self._follow()
        *whole, self._rest = (self._rest + os.read(self.fd, _CHUNK)).split(b"\n")
        # A line without an end is no line of ours.
        self._rest = self._rest[:_CHUNK]
        yield from whole

    def _follow(self) -> None:
        """Begin anew where the file was cut or another has taken its place."""
        ours, named = os.fstat(self.fd), self._path.stat()
        if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
            os.close(self.fd)
            self.fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        elif os.lseek(self.fd, 0, os.SEEK_CUR) > ours.st_size:
            os.lseek(self.fd, 0, os.SEEK_SET)
        else:
            return
        self._rest = b""

    def close(self) -> None:
        os.close(self.fd)
