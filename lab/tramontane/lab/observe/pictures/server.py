"""Serve the page, the boards and the answers of Prometheus from one loopback address.

One origin, so that the page needs no leave from anybody (CORS). Of Prometheus only the query API
is passed on, and only for reading.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

_TIMEOUT = aiohttp.ClientTimeout(total=60)
_SESSION = web.AppKey("session", aiohttp.ClientSession)


def application(
    page: Path, boards: Mapping[str, Any], prometheus: str, scrape_s: float
) -> web.Application:
    """Return the server's routes; `boards` has the classic JSON by short name."""
    app = web.Application()
    app.cleanup_ctx.append(_session)
    app.router.add_get("/", _file(page / "index.html"))
    app.router.add_get("/settings.json", _json({"scrape_s": scrape_s}))
    for name, board in boards.items():
        app.router.add_get(f"/boards/{name}.json", _json(board))
    app.router.add_get("/api/v1/{path:.*}", _pass_on(prometheus.rstrip("/")))
    app.router.add_static("/page", page)
    app.router.add_static("/build/img", page / "img")
    return app


async def _session(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        app[_SESSION] = session
        yield


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _file(path: Path) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path)

    return handle


def _json(content: Any) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.json_response(content)

    return handle


def _pass_on(prometheus: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        target = f"{prometheus}/api/v1/{request.match_info['path']}"
        async with request.app[_SESSION].get(target, params=request.query) as answer:
            return web.Response(
                body=await answer.read(),
                status=answer.status,
                content_type=answer.content_type,
            )

    return handle


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve on a free port of the loopback address; the value is the address."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
