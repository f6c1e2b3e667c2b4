"""Hold the first requests of a model that no replica serves, until one does, and pass them on.

While a deployment is scaled to zero its Service leads here. A request that comes is demand: the
operator hears of it and starts a replica, and the request waits, within bounds, instead of failing.
Once a replica accepts connections, bytes go through in both directions as they come.

    request ─► which deployment? ─► backend? ──yes─► connect ─► stream ─► client
                    │ none of ours    │ no             │ refused: nothing was sent yet
                    ▼                 ▼                ▼
                   404              held: tell demand, look again ─► hold_s is over: 504
                                      └─ too many, too large: 503
"""

import asyncio
import contextlib
import json
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

# Per deployment: enough for the burst that wakes a model, too little to hurt the operator.
MOST_HELD: Final = 100
MOST_BODY_B: Final = 2**26
POLL_S: Final = 0.1
# A held request is demand for as long as it waits: loading may take longer than going idle.
DEMAND_EVERY_S: Final = 5.0
CONNECT_S: Final = 2.0
RETRY_AFTER_S: Final = 5

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# RFC 9110, 7.6.1, and Expect, which the server has answered by itself.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What aiohttp would add of its own.
_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


def key_of(host: str) -> str | None:
    """Return "namespace/name" of the Service that a Host header names, None if it names none.

    | host                            | key            |
    |---------------------------------|----------------|
    | claims.insurer:8000             | insurer/claims |
    | claims.insurer.svc              | insurer/claims |
    | claims.insurer.svc.hall.example | insurer/claims |
    | claims, or claims.insurer.com   | none           |
    """
    name, colon, port = host.partition(":")
    if colon and not port.isdigit():
        return None
    labels = name.lower().removesuffix(".").split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004
        return None
    if len(labels) > 2 and labels[2] != "svc":  # noqa: PLR2004 - name, namespace
        return None
    return f"{labels[1]}/{labels[0]}"


class _Unreachable(Exception):  # noqa: N818 - named for what was found
    """Say that connecting failed: no byte of the request was sent."""


@dataclass(slots=True)
class _Body:
    """Hold what of a request's body came while it was held; the rest comes from the client.

    Attributes:
        total_b: bytes that are held for each deployment; this body's are counted there.
    """

    request: web.Request
    key: str
    total_b: Counter[str]
    chunks: deque[bytes] = field(default_factory=deque)

    def keep(self, chunk: bytes) -> None:
        """Hold one more piece."""
        self.chunks.append(chunk)
        self.total_b[self.key] += len(chunk)

    def take(self) -> bytes:
        """Hold the first piece no more."""
        chunk = self.chunks.popleft()
        self.total_b[self.key] -= len(chunk)
        if not self.total_b[self.key]:
            del self.total_b[self.key]
        return chunk

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the whole body; what was held first. Works once: what is sent is forgotten."""
        while self.chunks:
            yield self.take()
        async for chunk in self.request.content.iter_any():
            yield chunk


class Activator:
    """Serve the requests of all deployments that have no replica.

    Attributes:
        held: requests that wait now, by key.
        port: where it listens, once started.
    """

    def __init__(
        self,
        backend_of: Callable[[str], str | None],
        demand: Callable[[str], None],
        port: int,
        hold_s: float,
        *,
        host: str = "0.0.0.0",  # noqa: S104 - it is a server for the whole cluster
        most_held: int = MOST_HELD,
        most_body_b: int = MOST_BODY_B,
        short: Callable[[str], str | None] | None = None,
    ) -> None:
        """Take what tells of replicas.

        Args:
            backend_of: returns "address:port" of a replica that serves a deployment, another one
                at each call where there are several; None while there is none. Raises LookupError
                for a key that is no deployment. Asked often: it reads a cache.
            demand: is told each time that a request waits.
            port: 0 takes a free one.
            hold_s: longest wait of a request.
            host: address to listen on.
            most_held: requests of one deployment that wait at once.
            most_body_b: bytes of their bodies.
            short: returns the key for a host without a namespace, None if it is not clear.
        """
        self.held: Counter[str] = Counter()
        self.port = port
        self._backend_of = backend_of
        self._demand = demand
        self._hold_s = hold_s
        self._host = host
        self._most_held = most_held
        self._most_body_b = most_body_b
        self._short = short
        self._body_b: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, grace_s: float = 10.0) -> None:
        """Listen; `grace_s` is how long `stop` lets streams go on."""
        self._session = aiohttp.ClientSession(
            # A replica that has just ended a connection must not cost a request.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NOT_ADDED,
        )
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        # A client that goes away cancels the handler, and with it the request to the replica.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=grace_s, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Send those who wait away, let streams end, stop listening."""
        self._stopping.set()
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        key = key_of(host) or (self._short(host.partition(":")[0]) if self._short else None)
        if key is None:
            raise _no(
                web.HTTPNotFound,
                f"Host must be NAME.NAMESPACE of an InferenceDeployment (got {host!r})",
            )
        body = _Body(request, key, self._body_b)
        deadline = asyncio.get_running_loop().time() + self._hold_s
        try:
            address = self._backend(key)
            while True:
                if address is None:
                    address = await self._hold(key, body, deadline)
                with contextlib.suppress(_Unreachable):
                    return await self._pass_on(request, body, address)
                address = None
        finally:
            while body.chunks:
                body.take()

    def _backend(self, key: str) -> str | None:
        try:
            return self._backend_of(key)
        except LookupError:
            raise _no(web.HTTPNotFound, f"InferenceDeployment {key}: must exist") from None

    async def _hold(self, key: str, body: _Body, deadline: float) -> str:
        """Wait for a replica that accepts connections; read the body meanwhile.

        Raises:
            web.HTTPException: 503, there is no room; 504, none came in time.
        """
        if self.held[key] >= self._most_held:
            raise _no(
                web.HTTPServiceUnavailable,
                f"InferenceDeployment {key}: at most {self._most_held} requests may wait for its "
                "first replica (got one more)",
            )
        self.held[key] += 1
        reading = asyncio.ensure_future(self._read(key, body))
        stopping = asyncio.ensure_future(self._stopping.wait())
        waiting = asyncio.ensure_future(self._wait(key, deadline))
        tasks = {reading, stopping, waiting}
        try:
            while not waiting.done():
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if reading in done:
                    reading.result()
                    tasks.discard(reading)
                if stopping in done:
                    raise _no(
                        web.HTTPServiceUnavailable,
                        f"InferenceDeployment {key}: the operator restarts",
                    )
            return waiting.result()
        finally:
            # The rest of the body may only be read by one.
            for task in (reading, stopping, waiting):
                task.cancel()
            await asyncio.gather(reading, stopping, waiting, return_exceptions=True)
            self.held[key] -= 1
            if not self.held[key]:
                del self.held[key]

    async def _wait(self, key: str, deadline: float) -> str:
        """Return an address that accepts connections, as soon as there is one."""
        clock = asyncio.get_running_loop().time
        demand_at = 0.0
        while True:
            now = clock()
            if now >= deadline:
                raise _no(
                    web.HTTPGatewayTimeout,
                    f"InferenceDeployment {key}: a replica must serve within {self._hold_s:g} s "
                    "(got none); try again later",
                )
            if now >= demand_at:
                self._demand(key)
                demand_at = now + DEMAND_EVERY_S
            address = self._backend(key)
            if address and await _accepts(address, min(CONNECT_S, deadline - now)):
                return address
            await asyncio.sleep(max(0.0, min(POLL_S, deadline - clock())))

    async def _read(self, key: str, body: _Body) -> None:
        """Read the body, so that a client that goes away is noticed; within the bounds."""
        content = body.request.content
        while chunk := await content.readany():
            body.keep(chunk)
            if self._body_b[key] > self._most_body_b:
                raise _no(
                    web.HTTPServiceUnavailable,
                    f"InferenceDeployment {key}: requests that wait for its first replica may "
                    f"have {self._most_body_b} bytes together (got more)",
                )

    async def _pass_on(self, request: web.Request, body: _Body, address: str) -> web.StreamResponse:
        """Ask the replica, and stream its answer to the client.

        Raises:
            _Unreachable: it does not accept connections.
        """
        assert self._session
        path = request.raw_path if request.raw_path.startswith("/") else request.path_qs
        asking = self._session.request(
            request.method,
            URL(f"http://{address}{path}", encoded=True),
            headers=_end_to_end(request.headers),
            data=body.pieces() if request.body_exists else None,
            allow_redirects=False,
        )
        try:
            answer = await asking
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _Unreachable(str(error)) from error
        except aiohttp.ClientError as error:
            raise _no(
                web.HTTPBadGateway, f"replica {address} must answer (got {type(error).__name__})"
            ) from error
        async with answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
            )
            await response.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientPayloadError:
                # The client must see that the answer is not whole.
                if request.transport:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response


async def _accepts(address: str, within_s: float) -> bool:
    """Tell whether somebody accepts connections there."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:
        return False
    writer.close()
    return True


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers that are not about this connection."""
    named = {
        name.strip().lower()
        for value in headers.getall("Connection", [])
        for name in value.split(",")
    }
    dropped = _HOP_BY_HOP | named
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in dropped
    )


_KINDS: Final = {
    404: "NotFoundError",
    502: "BadGatewayError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}


def _no(kind: type[web.HTTPError], message: str) -> web.HTTPError:
    """Return a refusal with an error body as OpenAI's clients read it."""
    code = kind.status_code
    error = {"message": message, "type": _KINDS[code], "param": None, "code": code}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if code == 503 else None  # noqa: PLR2004
    text = json.dumps({"error": error})
    return kind(text=text, content_type="application/json", headers=headers)
