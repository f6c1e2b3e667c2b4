"""The server lives in a thread of its own: a command runs its own loop and blocks."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from support.scripted import Scripted, kubeconfig, scripted_server, status
from unit.cli.desk import BLADES, POOLS, Desk


def _taught(server: Scripted) -> None:
    """Teach the server label selectors, and that an object's path is no empty collection's."""
    usual = server.handle

    async def handle(request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith((f"{BLADES}/", f"{POOLS}/")) and path not in server.objects:
            return status(404, "NotFound", f"{path} not found")
        answer = await usual(request)
        if selector := request.query.get("labelSelector"):
            key, _, value = selector.partition("=")
            items = [
                one
                for one in server.objects.values()
                if one["metadata"].get("labels", {}).get(key) == value
            ]
            return web.json_response({"metadata": {}, "items": items})
        return answer

    setattr(server, "handle", handle)  # noqa: B010 - mypy sees a method


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    started, found = threading.Event(), list[Scripted]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with scripted_server() as server:
            _taught(server)
            found.append(server)
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert started.wait(10)
        path = kubeconfig(tmp_path / "kubeconfig", found[0].url)
        yield Desk(found[0], path, {"KUBECONFIG": str(path)})
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
