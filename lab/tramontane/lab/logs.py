"""Logs of simulated pods, served as a kubelet serves them.

KWOK's nodes advertise this server as their kubelet, so `GET …/pods/NAME/log?follow=true`, and
with it `kubectl logs -f`, goes the real way: API server, kubelet endpoint, stream.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from aiohttp import web

from tramontane.api import clock
from tramontane.lab.paths import LabError

_KEPT_LINES = 20_000


class NoAnswer(LabError):  # noqa: N818 - named for the finding
    """Nobody answers on the pod's node."""


@dataclass(slots=True)
class PodLog:
    """What one container has printed; grows at the end, forgets at the front."""

    lines: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    written: int = 0  # lines ever, so that readers keep their place
    ended: bool = False
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, at: float, line: str) -> None:
        """Append one line and wake the readers."""
        self.lines.append((at, line))
        self.written += 1
        self._wake()

    def end(self) -> None:
        """Say that the container has ended: readers that follow come to an end."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def read(self, window: "Window") -> AsyncIterator[tuple[float, str]]:
        """Yield the lines in the window, and where it follows those to come."""
        place = max(self.written - len(self.lines), self.written - window.tail)
        while True:
            grown = self._grown
            skipped = place - (self.written - len(self.lines))
            batch = list(islice(self.lines, max(0, skipped), None))
            place = self.written
            for at, line in batch:
                if at >= window.since:
                    yield at, line
            if place == self.written:
                if self.ended or not window.follow:
                    return
                await grown.wait()


@dataclass(frozen=True, slots=True)
class Window:
    """Which lines somebody asked for."""

    follow: bool = False
    since: float = 0.0
    tail: int = _KEPT_LINES
    timestamps: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str], now: float) -> "Window":
        """Read a kubelet's query parameters."""
        since = 0.0
        if seconds := query.get("sinceSeconds"):
            since = now - float(seconds)
        elif moment := query.get("sinceTime"):
            since = clock.parse(moment)
        return cls(
            follow=query.get("follow") == "true",
            since=since,
            tail=int(query.get("tailLines", _KEPT_LINES)),
            timestamps=query.get("timestamps") == "true",
        )


class LogServer:
    """The kubelet endpoint: answers for every pod that `find` knows, 503 where it says NoAnswer."""

    def __init__(self, find: Callable[[str, str], PodLog | None], now: Callable[[], float]) -> None:
        self._find = find
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """Return the routes to be served with the simulator's other ones."""
        return [web.get("/containerLogs/{namespace}/{pod}/{container}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        namespace, pod = request.match_info["namespace"], request.match_info["pod"]
        try:
            log = self._find(namespace, pod)
        except NoAnswer as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        if log is None:
            raise web.HTTPNotFound(text=f"pod {namespace}/{pod} does not run here")
        window = Window.of(request.query, self._now())
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        # A reader that goes away is no fault of ours.
        with contextlib.suppress(ConnectionResetError):
            async for at, line in log.read(window):
                stamp = f"{clock.micro(at)} " if window.timestamps else ""
                await answer.write(f"{stamp}{line}\n".encode())
            await answer.write_eof()
        return answer
