"""Logs that tests write: an API server's answer, stream after stream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tramontane.api import clock
from tramontane.kube.errors import NotFound

# A pause in a stream: seconds of the loop's clock.
Part = bytes | float | Exception


def line(at: float, text: str) -> bytes:
    return f"{clock.micro(at)} {text}".encode()


class Logs:
    """Serve, stream after stream, what is to be said; then 404.

    A number in a stream is a pause, an exception ends it. `by_pod` holds what a pod says each time
    that it is asked; an exception there refuses the request.

    Attributes:
        asked: what was asked for.
        most: how many streams were open at once.
    """

    def __init__(self, *streams: Sequence[Part], **by_pod: Sequence[Part] | Exception) -> None:
        self.streams = list(streams)
        self.by_pod = {name.replace("_", "-"): said for name, said in by_pod.items()}
        self.asked: list[dict[str, Any]] = []
        self.open = self.most = 0

    @asynccontextmanager
    async def pod_log(
        self, namespace: str, name: str, **asked: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append({"pod": f"{namespace}/{name}", **asked})
        said: Sequence[Part] | Exception | None = self.by_pod.get(name)
        if said is None:
            said = self.streams.pop(0) if self.streams else NotFound(404, "NotFound", name)
        if isinstance(said, Exception):
            raise said
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield _lines(said)
        finally:
            self.open -= 1


async def _lines(parts: Sequence[Part]) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        if isinstance(part, float):
            await asyncio.sleep(part)
        else:
            yield part


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for announces nothing
            await asyncio.sleep(0.01)
