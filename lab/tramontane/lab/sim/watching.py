"""Follow the API server in memory: watches, and what a cluster does by itself behind them."""

import asyncio
import json
from collections import deque
from typing import Any

from tramontane.kube.errors import Gone, NotFound
from tramontane.kube.resources import Resource
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.history import Event
from tramontane.lab.sim.selecting import Test

Raw = dict[str, Any]


class Watch:
    """One watch: the events that have happened and were not shown yet."""

    def __init__(
        self, api: ApiServer, resource: Resource, namespace: str | None, test: Test, version: int
    ) -> None:
        self._api, self._resource, self._namespace, self._test = api, resource, namespace, test
        self._version = version
        self._news = asyncio.Event()
        self.waiting: list[tuple[str, Raw]] = []

    def begin(self) -> Raw | None:
        """Take what has happened since the version; return the Status of a 410, or None."""
        try:
            past = self._api.since(self._version)
        except Gone as error:
            return {"kind": "Status", "code": 410, "reason": error.reason, "message": error.message}
        for event in past:
            self._hear(event)
        self._api.heard.append(self._hear)
        return None

    def _hear(self, event: Event) -> None:
        self._version = event.version
        if event.resource != self._resource:
            return
        if (shown := event.shown(self._test, self._namespace)) is not None:
            self.waiting.append(shown)
            self._news.set()

    async def wait(self, seconds: float) -> None:
        """Return when there is something to show, or after a while."""
        if self.waiting:
            return
        self._news.clear()
        try:
            async with asyncio.timeout(max(0.0, seconds) if seconds != float("inf") else None):
                await self._news.wait()
        except TimeoutError:
            return

    def taken(self) -> list[bytes]:
        """Return the lines of what there is to show."""
        taken, self.waiting = self.waiting, []
        return [json.dumps({"type": type_, "object": raw}).encode() for type_, raw in taken]

    def bookmark(self) -> bytes:
        """Return the line that says up to where all has been shown."""
        meta = {"resourceVersion": str(self._version)}
        return json.dumps({"type": "BOOKMARK", "object": {"metadata": meta}}).encode()

    def close(self) -> None:
        """Hear nothing any more."""
        if self._hear in self._api.heard:
            self._api.heard.remove(self._hear)


async def collect_garbage(api: ApiServer, pause_s: float = 0.5) -> None:
    """Delete what has lost its owners, a moment later, for ever."""
    gone: deque[str] = deque()
    news = asyncio.Event()

    def heard(event: Event) -> None:
        if event.after is None and event.before is not None:
            gone.append(event.before["metadata"]["uid"])
            news.set()

    api.heard.append(heard)
    try:
        while True:
            await news.wait()
            news.clear()
            await asyncio.sleep(pause_s)
            while gone:
                for resource, name, namespace, uid in api.orphans_of(gone.popleft()):
                    try:
                        api.delete(resource, name, namespace, None, uid)
                    except NotFound:
                        continue
    finally:
        api.heard.remove(heard)


async def forget_often(api: ApiServer, every_s: float) -> None:
    """Compact the history again and again, as etcd is; for ever."""
    while every_s:
        await asyncio.sleep(every_s)
        api.compact()
