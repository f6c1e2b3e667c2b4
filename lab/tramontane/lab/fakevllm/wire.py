"""Speak HTTP/1.1 over plain sockets: enough of it for clients, proxies and probes, and quick.

A connection answers one request after the other. An answer is either whole, or a stream whose
pieces are sent as they are made; a client that goes away is told to the answer at once.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

_MAX_HEAD_B: Final = 2**18
_MAX_BODY_B: Final = 2**26
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
JSON: Final = "application/json"


@dataclass(slots=True)
class Ask:
    """Hold one request; names of headers are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    keep: bool = True

    def json(self) -> Any:
        """Return the body.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.body)


@dataclass(slots=True)
class Answer:
    """Hold a whole answer."""

    status: int = 200
    body: bytes = b""
    type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class Stream:
    """Send an answer piece by piece, in chunks.

    Attributes:
        gone: called once if the client goes away before the end.
    """

    def __init__(self, connection: "Connection", ask: Ask) -> None:
        self._connection = connection
        self.ask = ask
        self.gone: Callable[[], None] | None = None
        self.status = 200
        self.is_open = True
        self.begun = False

    def begin(self, headers: bytes) -> None:
        """Send the head."""
        self.begun = True
        keep = b"keep-alive" if self.ask.keep else b"close"
        self._connection.write(
            b"HTTP/1.1 200 OK\r\n" + headers + b"transfer-encoding: chunked\r\nconnection: "
            + keep + b"\r\n\r\n"
        )  # fmt: skip

    def send(self, data: bytes) -> None:
        """Send one chunk."""
        if self.is_open:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, data: bytes = b"") -> None:
        """Send a last piece, and the end."""
        if self.is_open:
            self.is_open = False
            last = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            self._connection.write(last + b"0\r\n\r\n")
            self._connection.answered(self.ask, self.status)

    def end_whole(self, answer: Answer) -> None:
        """Answer whole after all: nothing has been sent yet."""
        if self.is_open:
            self.is_open = False
            self.status = answer.status
            self._connection.write(head_and_body(answer, keep=self.ask.keep))
            self._connection.answered(self.ask, answer.status)

    def cut(self) -> None:
        """Break off: the client sees that the answer is not whole."""
        if self.is_open:
            self.is_open = False
            self._connection.cut()

    def lost(self) -> None:
        """Note that the client has gone."""
        if self.is_open:
            self.is_open = False
            if self.gone:
                self.gone()


# Answers, or takes the stream and answers later.
Handler = Callable[[Ask, Stream], Awaitable[Answer | None]]
Told = Callable[[Ask, int, str], None]


def head_and_body(answer: Answer, *, keep: bool) -> bytes:
    """Return an answer as it goes over the wire."""
    lines = [
        f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, '')}",
        "server: uvicorn",
        f"content-length: {len(answer.body)}",
        *([f"content-type: {answer.type}"] if answer.body else []),
        *(f"{name}: {value}" for name, value in answer.headers.items()),
        f"connection: {'keep-alive' if keep else 'close'}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body


class BadRequest(Exception):  # noqa: N818 - named for what it is answered with
    """Say that what came is no request."""


class Connection(asyncio.Protocol):
    """Serve one client."""

    def __init__(self, handler: Handler, told: Told, live: "set[Connection]") -> None:
        self._handler = handler
        self._told = told
        self._live = live
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._stream: Stream | None = None
        self._task: asyncio.Task[None] | None = None
        self._continued = False
        self.peer = ""
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._live.add(self)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        """Tell the answer in progress that nobody reads it."""
        self._live.discard(self)
        self._transport = None
        if self._stream:
            self._stream.lost()
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Collect; answer what is whole."""
        self._buffer += data
        if self._stream is None:
            self._next()

    def write(self, data: bytes) -> None:
        """Send bytes, if the client is still there."""
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def cut(self) -> None:
        """Drop the connection without an end."""
        if self._transport:
            self._transport.abort()

    def close_when_idle(self) -> None:
        """Close now, or after the answer in progress."""
        self.closing = True
        if self._stream is None and self._transport:
            self._transport.close()

    def answered(self, ask: Ask, status: int) -> None:
        """Go on with the next request."""
        self._told(ask, status, self.peer)
        self._stream = None
        if not ask.keep or self.closing:
            if self._transport:
                self._transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Take the next request from the buffer, if it is all there."""
        if self._stream is not None or self._transport is None:
            return
        try:
            ask = self._take()
        except (BadRequest, ValueError, UnicodeDecodeError) as error:
            answer = Answer(400, f"Invalid HTTP request received: {error}".encode(), "text/plain")
            self.write(head_and_body(answer, keep=False))
            self._transport.close()
            return
        if ask is not None:
            self._stream = Stream(self, ask)
            self._task = asyncio.get_running_loop().create_task(self._answer(self._stream))

    async def _answer(self, stream: Stream) -> None:
        try:
            answer = await self._handler(stream.ask, stream)
        except Exception as error:  # noqa: BLE001 - a fault of the fake is an answer, too
            answer = Answer(500, f"Internal Server Error: {error!r}".encode(), "text/plain")
        self._task = None
        if answer is not None:
            stream.end_whole(answer)

    def _take(self) -> Ask | None:
        """Return the first whole request of the buffer, and drop it there."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_B:
                raise BadRequest("head too long")
            return None
        ask = _read_head(bytes(self._buffer[:end]))
        if "expect" in ask.headers and not self._continued:
            self._continued = True
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        start = end + 4
        if ask.headers.get("transfer-encoding", "").lower() == "chunked":
            found = _dechunked(self._buffer, start)
            if found is None:
                return None
            ask.body, after = found
        else:
            length = int(ask.headers.get("content-length", "0"))
            if not 0 <= length <= _MAX_BODY_B:
                raise BadRequest(f"body of {length} bytes")
            after = start + length
            if len(self._buffer) < after:
                return None
            ask.body = bytes(self._buffer[start:after])
        del self._buffer[:after]
        self._continued = False
        return ask


def _read_head(head: bytes) -> Ask:
    first, *rest = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 - GET /path HTTP/1.1
        raise BadRequest(first[:80])
    headers = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(line[:80])
        headers[name.strip().lower()] = value.strip()
    said = headers.get("connection", "").lower()
    keep = said != "close" if parts[2] == "HTTP/1.1" else said == "keep-alive"
    return Ask(parts[0], urlsplit(parts[1]).path, headers, keep=keep)


def _dechunked(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """Return a chunked body and where it ends; None while it is not all there. O(body)."""
    body = bytearray()
    place = start
    while True:
        end = buffer.find(b"\r\n", place)
        if end < 0:
            return None
        size = int(bytes(buffer[place:end]).split(b";")[0], 16)
        place = end + 2
        if size == 0:
            # Trailers are skipped; an empty line ends them.
            last = buffer.find(b"\r\n", place)
            while last > place:
                place = last + 2
                last = buffer.find(b"\r\n", place)
            return None if last < 0 else (bytes(body), last + 2)
        if len(body) + size > _MAX_BODY_B:
            raise BadRequest("body too long")
        if len(buffer) < place + size + 2:
            return None
        body += buffer[place : place + size]
        place += size + 2
