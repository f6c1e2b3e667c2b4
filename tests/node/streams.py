"""Stream completions from whoever a Service's EndpointSlices name, as kube-proxy would choose.

Each request is a connection of its own to one ready endpoint, chosen at random at that moment, and
is never tried again: a refused connection, an error or a stream without its end is a dropped
request. What an HTTP library would repair is what these tests look for.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import ENDPOINTSLICES

_SERVICE = "kubernetes.io/service-name"
_NOBODY_S = 60.0
_STREAM_S = 120.0


def addresses(slices: Any, service: str) -> list[str]:
    """Return `ip:port` of the ready endpoints of a service."""
    found = []
    for one in slices:
        if (one["metadata"].get("labels") or {}).get(_SERVICE) != service:
            continue
        port = next((port["port"] for port in one.get("ports") or ()), 0)
        found += [
            f"{address}:{port}"
            for endpoint in one.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready", True)
            for address in endpoint["addresses"]
        ]
    return found


@dataclass(slots=True)
class Streams:
    """Send streamed requests until told to stop, and count how they end."""

    client: Client
    service: str
    model: str
    at_once: int = 16
    tokens: int = 8
    done: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    by_address: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    _slices: Informer[Any] | None = None
    _stop: bool = False

    @asynccontextmanager
    async def running(self) -> Any:
        """Send requests while the block runs; at its end all that were begun have ended."""
        self._slices = Informer(self.client, ENDPOINTSLICES, lambda raw: raw, namespace="default")
        watching = asyncio.create_task(self._slices.run())
        await self._slices.wait_synced()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=_STREAM_S),
        ) as session:
            senders = [asyncio.create_task(self._send(session)) for _ in range(self.at_once)]
            try:
                yield self
            finally:
                self._stop = True
                await asyncio.gather(*senders)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def until(self, holds: Callable[[Self], bool], within_s: float = 300.0) -> None:
        """Wait until something holds of what was counted."""
        async with asyncio.timeout(within_s):
            while not holds(self):  # noqa: ASYNC110 - what changes is a plain number
                await asyncio.sleep(0.05)

    def ready(self) -> list[str]:
        """Return the addresses that would be chosen from now."""
        assert self._slices is not None
        return addresses(self._slices.cache.values(), self.service)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            address = await self._somebody()
            began = time.monotonic()
            why = await self._stream(session, address)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if why:
                self.dropped[why] += 1
            else:
                self.done += 1
                self.by_address[address] += 1

    async def _somebody(self) -> str:
        async with asyncio.timeout(_NOBODY_S):
            while not (found := self.ready()):  # noqa: ASYNC110 - it is the cache that changes
                await asyncio.sleep(0.01)
        return random.choice(found)

    async def _stream(self, session: aiohttp.ClientSession, address: str) -> str:
        """Return why the request was dropped; empty where it came to its end."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "How are you?"}],
            "max_tokens": self.tokens,
            "stream": True,
        }
        try:
            url = f"http://{address}/v1/chat/completions"
            async with session.post(url, json=body) as answer:
                if answer.status != 200:
                    return f"status {answer.status}"
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__
        if not text.rstrip().endswith("data: [DONE]"):
            return "cut short"
        chunks = text.count("\ndata: ") + text.startswith("data: ")
        return "" if chunks > self.tokens else f"{chunks} chunks"
