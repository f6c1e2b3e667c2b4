"""Carry one request to the API server and its answer back, as bytes.

The official client brings the configuration, the TLS context, the tokens and the aiohttp
session (see `config`); requests go through that session directly, because its `call_api` costs
twice as much CPU per request.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from tramontane.kube import metrics
from tramontane.kube.config import Connection
from tramontane.kube.errors import ApiError, Silent, Unreachable, from_answer
from tramontane.kube.lines import split_lines

JSON = "application/json"
_CONNECT_S = 10.0
_CONNECTION_TROUBLE = (aiohttp.ClientError, TimeoutError, OSError)
# 504 is the watch cache that has not caught up with etcd ("Too large resource version"); only
# reads are sent again after it, since a write may have been done.
_TRY_LATER = frozenset({429, 503})
_TRY_LATER_READS = _TRY_LATER | {504}


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and the words for it in messages and metrics.

    Attributes:
        verb: as in RBAC, e.g. `create`.
        resource: plural and, after a slash, the subresource.
        subject: `namespace/name` of the object, the namespace, or empty.
    """

    method: str
    path: str
    verb: str
    resource: str
    subject: str = ""
    params: Mapping[str, str] | None = None
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON

    def __str__(self) -> str:
        return f"{self.verb} {self.resource} {self.subject}".rstrip()


class Transport:
    """Send requests over one connection.

    Attributes:
        timeout_s: how long one request may take, its answer included.
        retries: how often a request is sent again that the server put off.
        longest_wait_s: upper bound of what a Retry-After can make us wait.
    """

    def __init__(
        self,
        connection: Connection,
        user_agent: str,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
        longest_wait_s: float = 10.0,
    ) -> None:
        self.connection = connection
        self.retries = retries
        self.longest_wait_s = longest_wait_s
        self._headers = {
            "User-Agent": user_agent,
            # Unpacking costs more CPU than a network inside a hall saves.
            "Accept-Encoding": "identity",
        }
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)

    async def send(self, request: Request) -> bytes:
        """Return the body of the answer.

        Raises:
            ApiError: the answer is no success, after the retries where it asked for them.
            Unreachable: no complete answer came.
        """
        for attempt in range(self.retries + 1):
            try:
                return await self._send_once(request)
            except ApiError as error:
                wait_s = error.retry_after_s
                later = _TRY_LATER_READS if request.method == "GET" else _TRY_LATER
                if error.status not in later or wait_s is None or attempt == self.retries:
                    raise
            metrics.RETRIES.labels(request.verb, request.resource).inc()
            await asyncio.sleep(min(wait_s, self.longest_wait_s))
        raise AssertionError  # the last attempt returns or raises

    async def _send_once(self, request: Request) -> bytes:
        started = time.perf_counter()
        sent_s = time.time()
        code = "unreachable"
        try:
            async with await self._open(request, self._timeout) as answer:
                metrics.CLOCK_SKEW.heard(answer.headers.get("Date"), sent_s, time.time())
                raw = await answer.read()
                code = str(answer.status)
                if answer.status < 300:  # noqa: PLR2004 - the first status that is no success
                    return raw
                raise _refusal(request, answer, raw)
        except _CONNECTION_TROUBLE as error:
            raise _unreachable(request, self.connection.server, error) from error
        finally:
            metrics.REQUESTS.labels(request.verb, request.resource, code).inc()
            metrics.REQUEST_SECONDS.labels(request.verb, request.resource).observe(
                time.perf_counter() - started
            )

    @asynccontextmanager
    async def stream(
        self, request: Request, *, silence_s: float | None, keep_tail: bool
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream and yield an iterator of its complete lines; raises as `chunks` does."""
        async with self.chunks(request, silence_s=silence_s) as chunks:
            yield split_lines(chunks, keep_tail=keep_tail)

    @asynccontextmanager
    async def chunks(
        self, request: Request, *, silence_s: float | None = None, buffer_b: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream and yield an iterator of what comes, as it comes.

        `buffer_b` bounds what is read ahead: twice that.

        Raises:
            ApiError: the server refused to begin it.
            Silent: nothing came for `silence_s`.
            Unreachable: the connection could not be made, or broke.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silence_s)
        count = metrics.REQUESTS.labels
        try:
            answer = await self._open(request, timeout, buffer_b)
        except _CONNECTION_TROUBLE as error:
            count(request.verb, request.resource, "unreachable").inc()
            raise _unreachable(request, self.connection.server, error) from error
        async with answer:
            count(request.verb, request.resource, str(answer.status)).inc()
            chunks = self._chunks(request, answer)
            if answer.status >= 300:  # noqa: PLR2004 - the first status that is no success
                raise _refusal(request, answer, b"".join([chunk async for chunk in chunks]))
            yield chunks

    async def _chunks(
        self, request: Request, answer: aiohttp.ClientResponse
    ) -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except _CONNECTION_TROUBLE as error:
            raise _unreachable(request, self.connection.server, error) from error

    async def _open(
        self, request: Request, timeout: aiohttp.ClientTimeout, buffer_b: int | None = None
    ) -> aiohttp.ClientResponse:
        connection = self.connection
        headers = await connection.authorize({**self._headers, "Accept": request.accept})
        if request.body is not None:
            headers = {**headers, "Content-Type": request.content_type}
        query = f"?{urlencode(request.params)}" if request.params else ""
        return await connection.session.request(
            request.method,
            URL(f"{connection.server}{request.path}{query}", encoded=True),
            data=request.body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            read_bufsize=buffer_b,
            **connection.arguments,
        )


def _refusal(request: Request, answer: aiohttp.ClientResponse, raw: bytes) -> ApiError:
    return from_answer(
        answer.status,
        raw,
        subject=str(request),
        http_reason=answer.reason or "",
        retry_after=answer.headers.get("Retry-After"),
    )


def _unreachable(request: Request, server: str, error: BaseException) -> Unreachable:
    if isinstance(error, aiohttp.SocketTimeoutError):
        return Silent(f"{request}: something must come from {server} (got silence)")
    got = str(error) or type(error).__name__
    return Unreachable(f"{request}: {server} must answer (got {got})")
