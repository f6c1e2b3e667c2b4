"""The server lives in a thread of its own: a command runs its own loop and blocks."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support.scripted import Scripted, kubeconfig, scripted_server, status
from unit.cli.desk import Desk


def _taught(server: Scripted) -> None:
    """Teach the server label selectors, and that an object's path is no empty collection's."""
    usual = server.handle

    async def handle(request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.method == "GET" and _is_object(path) and path not in server.objects:
            return status(404, "NotFound", f"{path} not found")
        answer = await usual(request)
        selector = request.query.get("labelSelector")
        if selector and isinstance(answer, web.Response) and answer.status == 200:
            whole = json.loads(answer.body if isinstance(answer.body, bytes) else b"{}")
            whole["items"] = [
                one
                for one in whole["items"]
                if all(_fits(one, term) for term in re.split(r",(?![^(]*\))", selector))
            ]
            return web.json_response(whole)
        return answer

    setattr(server, "handle", handle)  # noqa: B010 - mypy sees a method


def _is_object(path: str) -> bool:
    """Return whether a path is that of one object: plural/name, or the same in a namespace."""
    below = re.sub(r"^/(api/v1|apis/[^/]+/[^/]+)/", "", path)
    return below != path and below.count("/") in {1, 3}


def _fits(raw: dict[str, Any], term: str) -> bool:
    labels = raw["metadata"].get("labels") or {}
    if match := re.fullmatch(r"(\S+) notin \((.*)\)", term):
        return labels.get(match[1]) not in match[2].split(",")
    key, equals, value = term.partition("=")
    return labels.get(key) == value if equals else key in labels


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
