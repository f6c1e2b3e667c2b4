"""Stream completions from whoever a Service's EndpointSlices name, as kube-proxy would choose.

Each try is a connection of its own to one ready endpoint, chosen at random at that moment. A
refused connection, an error, silence, or a stream without its end is a try that failed:

| tries that failed | the request is |
|---|---|
| up to `retries` | asked again, whole, after 0.5 s, 1 s, 2 s and so on: *cut* |
| one more | *dropped* |

With no retries every cut request is a dropped one: what an HTTP library would repair is what tests
look for. With some it is a client that does not give up when a machine dies under its stream.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

import aiohttp

from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import ENDPOINTSLICES

_SERVICE = "kubernetes.io/service-name"
_NOBODY_S = 60.0
_STREAM_S = 120.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0


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


def wait_s(tries: int) -> float:
    """Return how long to wait after so many failed tries before the one that failed last."""
    return min(_FIRST_WAIT_S * float(2**tries), _LONGEST_WAIT_S)


@dataclass(slots=True)
class Streams:
    """Send streamed requests until told to stop, and count how they end.

    Attributes:
        at_once: requests that are under way at any time.
        retries: how often a request is asked again whose try failed.
        silence_s: time without a byte that is a failed try; None: the whole stream's limit.
        done: requests that came to their end.
        cut: failed tries after which the request was asked again, by what was seen.
        dropped: requests that were given up, by what was seen last.
        slowest_s: the longest that a request took, with all its tries.
    """

    client: Client
    service: str
    model: str
    at_once: int = 16
    tokens: int = 8
    retries: int = 0
    silence_s: float | None = None
    done: int = 0
    cut: Counter[str] = field(default_factory=Counter)
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
            timeout=aiohttp.ClientTimeout(
                total=_STREAM_S, sock_connect=self.silence_s, sock_read=self.silence_s
            ),
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
        """Wait until something holds of what was counted.

        Raises:
            TimeoutError: it did not within `within_s`.
        """
        async with asyncio.timeout(within_s):
            while not holds(self):  # noqa: ASYNC110 - what changes is a plain number
                await asyncio.sleep(0.05)

    def ready(self) -> list[str]:
        """Return the addresses that would be chosen from now."""
        assert self._slices is not None
        return addresses(self._slices.cache.values(), self.service)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            began = time.monotonic()
            await self._ask(session)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        """Bring one request to its end, or give it up."""
        for tries in range(self.retries + 1):
            address = await self._somebody()
            why = await self._stream(session, address)
            if not why:
                self.done += 1
                self.by_address[address] += 1
                return
            if tries < self.retries:
                self.cut[why] += 1
                await asyncio.sleep(wait_s(tries))
        self.dropped[why] += 1

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
            # As a client in the cluster says it: by that the operator knows whom to wake.
            host = {"Host": f"{self.service}.default.svc:8000"}
            async with session.post(url, json=body, headers=host) as answer:
                if answer.status != HTTPStatus.OK:
                    return f"status {answer.status}"
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__
        if not text.rstrip().endswith("data: [DONE]"):
            return "cut short"
        chunks = text.count("\ndata: ") + text.startswith("data: ")
        return "" if chunks > self.tokens else f"{chunks} chunks"
