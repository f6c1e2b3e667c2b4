"""Sizes of groups: looked for when a pod refers to them, followed once they are served."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound, Unreachable
from tramontane.kube.resources import Resource
from tramontane.scheduler.foreign import counts
from tramontane.scheduler.foreign.counts import Counts
from tramontane.scheduler.foreign.groups import UPSTREAM, VOLCANO, WHOLE, Group


class Server:
    """Serve the APIs that it is told to, each with one object `ml/g`."""

    def __init__(self, *served: str) -> None:
        self.served = set(served)
        self.asked: list[str] = []
        self.lost = 0

    async def get_raw(self, path: str) -> bytes:
        self.asked.append(path)
        if self.lost:
            self.lost -= 1
            raise Unreachable("no answer")
        if path not in self.served:
            raise NotFound(404, "NotFound", path)
        return json.dumps({"resources": [{"name": "podgroups"}, {"name": "others"}]}).encode()

    async def list_page(self, resource: Resource, *_: Any, **__: Any) -> dict[str, Any]:
        gang = {"gang": {"minCount": 4}}
        spec = {"minMember": 3, "schedulingPolicy": gang}
        item = {"metadata": {"namespace": "ml", "name": "g"}, "spec": spec}
        return {"metadata": {"resourceVersion": resource.version}, "items": [item]}

    @asynccontextmanager
    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        await asyncio.Event().wait()
        yield cast("AsyncIterator[bytes]", None)


@asynccontextmanager
async def following(
    server: Server,
) -> AsyncIterator[tuple[Counts, "asyncio.Queue[tuple[str, str]]"]]:
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    book = Counts(cast("Client", server), lambda api, key: told.put_nowait((api, key)))
    task = asyncio.create_task(book.run())
    try:
        yield book, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_asked_for_until_a_pod_refers_to_it() -> None:
    server = Server("/apis/scheduling.volcano.sh/v1beta1")
    async with following(server) as (book, told):
        book.need("")
        await asyncio.sleep(0)
        assert server.asked == []
        assert book.sizes("ml", Group("x", VOLCANO, "g")) is None
        book.need(VOLCANO)
        assert await told.get() == (VOLCANO, "ml/g")
        assert book.sizes("ml", Group("x", VOLCANO, "g")) == {WHOLE: 3}
        assert book.sizes("other", Group("x", VOLCANO, "g")) is None
        book.need(VOLCANO)
        assert len(server.asked) == 1


async def test_the_newest_version_that_is_served_and_readable_is_followed() -> None:
    server = Server("/apis/scheduling.k8s.io/v1", "/apis/scheduling.k8s.io/v1alpha2")
    async with following(server) as (book, told):
        book.need(UPSTREAM)
        await told.get()
        assert book.sizes("ml", Group("x", UPSTREAM, "g")) == {WHOLE: 4}
        assert server.asked[-1] == "/apis/scheduling.k8s.io/v1"


@pytest.mark.parametrize("lost", [0, 1], ids=["not-served", "no-answer"])
async def test_what_is_not_there_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(counts, "PROBE_EVERY_S", 0.0)
    server = Server()
    server.lost = lost
    async with following(server) as (book, told):
        book.need(VOLCANO)
        while len(server.asked) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert told.empty()
        server.served.add("/apis/scheduling.volcano.sh/v1beta1")
        assert await told.get() == (VOLCANO, "ml/g")
