"""A scripted API server: real HTTP on loopback, answers as the test writes them.

It keeps objects with resourceVersions and lists, watches, creates, replaces, patches (RFC 7386)
and deletes them, in the way of the real one. What the real one does only on a bad day is
scripted: `answers` holds what to say instead, `cut` and `freeze` end or stall watches, `compact`
makes all resourceVersions so far too old, and `deaf` hides a change from the watches.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

Raw = dict[str, Any]


def status(code: int, reason: str, message: str = "scripted", **headers: str) -> web.Response:
    """Return an answer with a Status object; underscores in header names become dashes."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(body, status=code, headers=named)


class Scripted:
    """The server and what it has seen.

    Attributes:
        requests: (method, path with query) of all requests, watches included.
        bodies: what writes carried.
        answers: called with each request, first come first served: a response instead of the
            usual one, or None for the usual one (and the entry is used up).
        watches: how many watches are open.
    """

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, Raw] = {}  # by path
        self.version = 100
        self.oldest = 0  # resourceVersions below it are gone
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.answers: deque[Callable[[web.Request], web.StreamResponse | None]] = deque()
        self.frozen = False
        self._log: list[tuple[int, str, bytes]] = []  # version, path, line
        self._watches: list[tuple[str, asyncio.Queue[bytes | None]]] = []

    @property
    def watches(self) -> int:
        return len(self._watches)

    def seen(self, method: str, part: str) -> int:
        """Return how many requests had this method and `part` in their path or query."""
        return sum(one == method and part in path for one, path in self.requests)

    # What tests do to it

    def put(self, collection: str, name: str, *, deaf: bool = False, **fields: Any) -> Raw:
        """Create or change an object, e.g. put("/api/v1/namespaces/ml/pods", "a", spec={})."""
        path = f"{collection}/{name}"
        kind = "MODIFIED" if path in self.objects else "ADDED"
        self.version += 1
        meta = {"name": name, "uid": f"uid-{name}", **fields.pop("metadata", {})}
        parts = collection.split("/")
        if "namespaces" in parts:
            meta["namespace"] = parts[parts.index("namespaces") + 1]
        meta["resourceVersion"] = str(self.version)
        self.objects[path] = {**fields, "metadata": meta}
        self.emit(kind, path, self.objects[path], deaf=deaf)
        return self.objects[path]

    def remove(self, collection: str, name: str, *, deaf: bool = False) -> None:
        path = f"{collection}/{name}"
        gone = self.objects.pop(path)
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self.emit("DELETED", path, gone, deaf=deaf)

    def emit(self, kind: str, path: str, item: Raw, *, deaf: bool = False) -> None:
        line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
        if not deaf:
            self._log.append((self.version, path, line))
        for prefix, queue in self._watches:
            if not deaf and path.startswith(prefix):
                queue.put_nowait(line)

    def bookmark(self) -> None:
        self.version += 1
        meta = {"resourceVersion": str(self.version)}
        self.broadcast(json.dumps({"type": "BOOKMARK", "object": {"metadata": meta}}) + "\n")

    def broadcast(self, text: str) -> None:
        """Send raw bytes on all watches, as they are."""
        for _, queue in self._watches:
            queue.put_nowait(text.encode())

    def cut(self) -> None:
        """End all watches in the middle."""
        for _, queue in self._watches:
            queue.put_nowait(None)

    def compact(self) -> None:
        self.oldest = self.version + 1

    # What it does by itself

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        self.headers.append(dict(request.headers))
        body = json.loads(await request.read() or b"null")
        if request.method != "GET":
            self.bodies.append(body)
        if self.answers and (answer := self.answers.popleft()(request)) is not None:
            return answer
        if request.query.get("watch"):
            return await self._watch(request)
        if request.method == "POST":
            return self._create(request.path, body)
        found = self.objects.get(request.path)
        if found is None:
            return self._absent(request, body)
        return self._write(request.method, request.path, found, body)

    def _absent(self, request: web.Request, body: Any) -> web.Response:
        """Answer a request for a path that is no object's."""
        if request.method == "PATCH" and "fieldManager" in request.query:
            return self._apply(request.path, body)
        # Of /apis/GROUP/VERSION it knows nothing, unless a test says that it is there.
        parts = request.path.count("/") - request.path.startswith("/apis/")
        if request.method == "GET" and parts in {3, 4, 5}:
            return self._list(request)
        return status(404, "NotFound", f"{request.path} not found")

    def _write(self, method: str, path: str, found: Raw, body: Any) -> web.Response:
        collection, _, name = path.rpartition("/")
        if method == "DELETE":
            self.remove(collection, name)
            return web.json_response({"kind": "Status", "status": "Success"})
        if method == "PUT":
            asked = body["metadata"].get("resourceVersion")
            if asked not in {None, found["metadata"]["resourceVersion"]}:
                return status(409, "Conflict", "the object has been modified")
            return web.json_response(self.put(collection, name, **body))
        if method == "PATCH":
            return web.json_response(self.put(collection, name, **_merged(found, body)))
        return web.json_response(found)

    def _create(self, collection: str, body: Raw) -> web.Response:
        name = body["metadata"]["name"]
        if f"{collection}/{name}" in self.objects:
            return status(409, "AlreadyExists", f"{name} already exists")
        return web.json_response(self.put(collection, name, **body), status=201)

    def _apply(self, path: str, body: Raw) -> web.Response:
        """Create what is applied and not there, or change the status of what is."""
        collection, _, name = path.rpartition("/")
        if name != "status":
            return web.json_response(self.put(collection, name, **body), status=201)
        found = self.objects.get(collection)
        if found is None:
            return status(404, "NotFound", f"{collection} not found")
        above, _, owner = collection.rpartition("/")
        return web.json_response(self.put(above, owner, **{**found, "status": body["status"]}))

    def _list(self, request: web.Request) -> web.Response:
        """Answer with a page; the continue token is the offset and the version of the list."""
        offset, version = 0, self.version
        if token := request.query.get("continue"):
            offset, version = (int(part) for part in token.split("-"))
            if version < self.oldest:
                return status(410, "Expired", "the continue token is too old")
        whole = [item for path, item in sorted(self.objects.items()) if _in(path, request.path)]
        limit = int(request.query.get("limit", len(whole) or 1))
        meta = {"resourceVersion": str(version)}
        if offset + limit < len(whole):
            meta["continue"] = f"{offset + limit}-{version}"
        return web.json_response({"metadata": meta, "items": whole[offset : offset + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.oldest - 1:
            return status(410, "Expired", "too old resource version")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, path, missed in self._log:
            if version > since and _in(path, request.path):
                queue.put_nowait(missed)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        watch = (request.path, queue)
        self._watches.append(watch)
        try:
            while (line := await queue.get()) is not None:
                if not self.frozen:
                    await answer.write(line)
            transport = request.transport
            if transport is not None:
                transport.abort()
        finally:
            self._watches.remove(watch)
        return answer


def _in(path: str, collection: str) -> bool:
    """Return whether an object is in a collection, or in that of all namespaces."""
    own, _, _ = path.rpartition("/")
    if own == collection:
        return True
    head, _, plural = collection.rpartition("/")
    return own.startswith(f"{head}/namespaces/") and own.endswith(f"/{plural}")


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


@asynccontextmanager
async def scripted_server() -> AsyncIterator[Scripted]:
    """Start a server on a free port of loopback, and stop it."""
    server = Scripted()

    async def handle(request: web.Request) -> web.StreamResponse:
        return await server.handle(request)  # looked up now: a test may have replaced it

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.cut()
        await runner.cleanup()


def kubeconfig(path: Path, server: str, token: str = "fixed") -> Path:
    """Write a kubeconfig that leads to `server`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "c", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    path.write_text(json.dumps(config))
    return path


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Return when `condition` holds; a slow machine only makes it later."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)
