"""Let the nodes of one engine find each other, and see a peer's death or silence.

Rank 0 listens where torch or ZeroMQ would; the others come and say who they are, one JSON line
each. All then wait for one word, `go`. From then on a lost connection is a lost rank, and silence
(a node whose power was cut sends nothing) freezes the steps until there is a sign of life.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from . import logs

_PING_S: Final = 0.5
_RETRY_S: Final = 0.2
_PLACE: Final = "shm_broadcast.py:466"


@dataclass(slots=True)
class Peers:
    """Hold the other ranks of this process's engine.

    Attributes:
        waits_for: what they must come to before there is an engine: nodes, or engines on them.
        world: the layout, which must be the same everywhere.
        lost: called once when one is lost after the start; a message for people.
        ordered: called with what rank 0 orders this one (a fault), on other ranks.
    """

    rank: int
    weight: int
    world: str
    silent_s: float
    lost: Callable[[str], None]
    ordered: Callable[[dict[str, Any]], None]
    together: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _loaded: set[int] = field(default_factory=set)
    _joined: dict[int, tuple[int, asyncio.StreamWriter]] = field(default_factory=dict)
    _heard: dict[int, float] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _ending: bool = False

    @property
    def is_silent(self) -> bool:
        """Tell whether a peer gives no sign of life."""
        if not self.together.is_set():
            return False
        now = time.monotonic()
        return any(now - at > self.silent_s for at in self._heard.values())

    async def listen(self, host: str, port: int, waits_for: int) -> asyncio.Server:
        """Let the others come; `together` is set once they are all there."""

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._keep(self._host(reader, writer, waits_for))

        return await asyncio.start_server(serve, host or None, port)

    async def join(self, host: str, port: int, within_s: float) -> None:
        """Go to rank 0 and wait there for all.

        Raises:
            TimeoutError: they did not all come in time.
            PermissionError: rank 0 refuses this one.
        """
        async with asyncio.timeout(within_s):
            while True:
                try:
                    reader, writer = await asyncio.open_connection(host, port)
                except OSError:
                    await asyncio.sleep(_RETRY_S)
                    continue
                try:
                    if await self._greet(reader, writer):
                        return
                except (ConnectionError, asyncio.IncompleteReadError):
                    writer.close()
                    await asyncio.sleep(_RETRY_S)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        _say(writer, {"rank": self.rank, "weight": self.weight, "world": self.world})
        while True:
            said = await _hear(reader)
            if "refused" in said:
                writer.close()
                raise PermissionError(said["refused"])
            if said.get("go"):
                self._joined[0] = (0, writer)
                self._heard[0] = time.monotonic()
                self._keep(self._follow(0, reader, writer))
                self._keep(self._ping())
                self.together.set()
                return True

    def order(self, rank: int, what: dict[str, Any]) -> bool:
        """Order another rank a fault; return whether there is such a rank."""
        found = self._joined.get(rank)
        if found:
            _say(found[1], {"order": what})
        return found is not None

    def tell_loaded(self) -> None:
        """Tell rank 0 that this one has loaded its part."""
        for _, writer in self._joined.values():
            _say(writer, {"loaded": True})

    async def all_loaded(self) -> None:
        """Wait until all others have loaded their part."""
        while not self._loaded >= self._joined.keys():
            self.changed.clear()
            await self.changed.wait()

    def leave(self) -> None:
        """End all connections; what the others then lose is not told here."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        for _, writer in self._joined.values():
            writer.close()

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _host(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waits_for: int
    ) -> None:
        try:
            hello = await _hear(reader)
            rank, weight = int(hello["rank"]), int(hello["weight"])
        except (ConnectionError, asyncio.IncompleteReadError, KeyError, ValueError, TypeError):
            writer.close()
            return
        refusal = self._refusal(rank, str(hello.get("world")))
        if refusal:
            logs.error(_PLACE, refusal)
            _say(writer, {"refused": refusal})
            writer.close()
            return
        if rank in self._joined:
            # Its node may have been cut off: the old connection will never say so.
            self._joined[rank][1].close()
        self._joined[rank] = (weight, writer)
        logs.info(_PLACE, f"rank {rank} joined, {len(self._joined)} in all")
        if sum(weight for weight, _ in self._joined.values()) >= waits_for:
            for _, one in self._joined.values():
                _say(one, {"go": True})
            self.together.set()
            self._heard = dict.fromkeys(self._joined, time.monotonic())
            self._keep(self._ping())
        await self._follow(rank, reader, writer)

    def _refusal(self, rank: int, world: str) -> str:
        if world != self.world:
            return f"rank {rank} must have the layout {self.world} (got {world})"
        if rank == self.rank or self.together.is_set():
            return f"rank {rank} must come once, before the engine starts (got it again)"
        return ""

    async def _follow(
        self, rank: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Listen to a peer until it is gone."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while True:
                said = await _hear(reader)
                self._heard[rank] = time.monotonic()
                if "order" in said:
                    self.ordered(said["order"])
                if said.get("loaded"):
                    self._loaded.add(rank)
                    self.changed.set()
        writer.close()
        if self._ending or self._joined.get(rank, (0, None))[1] is not writer:
            return
        self._loaded.discard(rank)
        self._heard.pop(rank, None)
        self._joined.pop(rank, None)
        if self.together.is_set():
            self.lost(f"connection to rank {rank} closed by peer")

    async def _ping(self) -> None:
        while True:
            for _, writer in self._joined.values():
                _say(writer, {})
            await asyncio.sleep(_PING_S)


def _say(writer: asyncio.StreamWriter, what: dict[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(what).encode() + b"\n")


async def _hear(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = await reader.readuntil()
    said = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError(f"must be an object (got {line!r})")  # noqa: TRY004 - it is about the line
    return said
