"""An API server that serves logs and nothing else: `python -m bench.follower_server [CERT KEY]`.

Each open log gets ten lines a second, each line in a chunk of its own, as a kubelet writes them;
one of the ten is a step. `GET /step` says at which step all logs are. Some pods print what no
program should; see `NASTY`. It prints its port and serves until its input ends.
"""

import asyncio
import os
import ssl
import sys
import time
from collections.abc import Callable

LINES_A_SECOND = 10
_SLICES = 20  # of a tenth of a second: not all logs write at the same moment
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
_NOISE = "rank=0 level=info msg='data loader is ahead' queue=12 shard=s3-0042 wait=0.004s"
_LONG_B = 10_000_000
_FLOOD_LINES = 1_000_000


def _stamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _long_line() -> bytes:
    return _chunk(f"{_stamp()} step ".encode() + b"9" * _LONG_B + b"\n")


def _binary() -> bytes:
    """Return noise without a newline."""
    return _chunk(os.urandom(_LONG_B).replace(b"\n", b"\0"))


def _flood() -> bytes:
    stamp = _stamp()
    lines = [f"{stamp} step {number} {_NOISE}\n".encode() for number in range(_FLOOD_LINES)]
    return b"".join(_chunk(b"".join(lines[n : n + 1000])) for n in range(0, len(lines), 1000))


NASTY: dict[str, Callable[[], bytes]] = {"long": _long_line, "binary": _binary, "flood": _flood}


class Server:
    """All open logs."""

    def __init__(self) -> None:
        self.slices: list[list[asyncio.Transport]] = [[] for _ in range(_SLICES)]
        self.opened = 0
        self.ticks = 0

    @property
    def step(self) -> int:
        return self.ticks // LINES_A_SECOND

    def add(self, path: str, transport: asyncio.Transport) -> None:
        transport.write(_HEAD)
        name = path.partition("/pods/")[2].partition("/")[0].rpartition("-")[0]
        if name in NASTY:
            transport.write(NASTY[name]())
        self.slices[self.opened % _SLICES].append(transport)
        self.opened += 1

    async def write(self) -> None:
        begun = time.monotonic()
        while True:
            self.ticks += 1
            for number in range(_SLICES):
                due = begun + (self.ticks + number / _SLICES) / LINES_A_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                is_step = self.ticks % LINES_A_SECOND == 0
                text = f"step {self.step} loss 2.3142 lr 3e-4 grad_norm 0.41" if is_step else _NOISE
                chunk = _chunk(f"{_stamp()} {text}\n".encode())
                self.slices[number] = [one for one in self.slices[number] if not one.is_closing()]
                for one in self.slices[number]:
                    one.write(chunk)


class Connection(asyncio.Protocol):
    """One connection: one request, and then a log without an end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        if not self._asked.endswith(b"\r\n\r\n"):
            return
        path = self._asked.split(b" ", 2)[1].decode()
        self._asked = b""
        if path == "/step":
            body = str(self._server.step).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)
        else:
            self._server.add(path, self._transport)


async def main(files: list[str]) -> None:
    server = Server()
    tls = None
    if files:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(files[0], files[1])
    loop = asyncio.get_running_loop()
    serving = await loop.create_server(
        lambda: Connection(server), "127.0.0.1", 0, ssl=tls, backlog=4096
    )
    print(serving.sockets[0].getsockname()[1], flush=True)
    writing = asyncio.create_task(server.write())
    await asyncio.to_thread(sys.stdin.read)
    writing.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
