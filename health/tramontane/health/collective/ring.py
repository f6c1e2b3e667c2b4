"""Sum in a ring over TCP sockets, with numpy: where there is no torch, and in the tests.

How the ring forms:

1. Every rank opens a port for the one before it. Rank 0 also opens MASTER_PORT.
2. Every other rank tells rank 0 its number, group, blade and port.
3. Rank 0 tells all of them where everybody is; or, when the time is over, who is missing.
4. Every rank connects to the next one.

The sum itself is the usual ring: n-1 steps in which each rank adds what comes to a piece and
passes it on, then n-1 steps in which the finished pieces go round. Each rank sends and receives
2(n-1)/n of the bytes. Sending has a thread of its own, or all would wait for all.
"""

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tramontane.health.collective.group import Member, PeerError, contribution, expected

_RETRY_S = 0.1
# What a stranger that connects and says nothing may cost.
_HELLO_S = 2.0
_MAX_HELLO_BYTES = 1 << 20
_PIECE_WORDS = 1 << 18
_SOCKET_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a rank's port is."""

    host: str
    port: int
    blade: str


class Deadline:
    """The time by which something must have happened."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Return what is left, never quite nothing: a socket takes 0 for "do not wait"."""
        return max(self._end - time.monotonic(), 1e-3)

    @property
    def passed(self) -> bool:
        """Return whether it is over."""
        return time.monotonic() >= self._end


class Ring:
    """A ring that has formed; see the module's story."""

    name = "ring"

    def __init__(
        self, member: Member, seats: Sequence[Seat], following: socket.socket, before: socket.socket
    ) -> None:
        self.member = member
        self._seats = seats
        self._following = following
        self._before = before
        self._buffer: NDArray[np.float32] = np.empty(0, np.float32)
        self._piece: NDArray[np.float32] = np.empty(_PIECE_WORDS, np.float32)
        self._sender = ThreadPoolExecutor(1, "sender")

    def prepare(self, words: int) -> None:
        """Put this rank's vector into the buffer."""
        if len(self._buffer) != words:
            self._buffer = np.empty(words, np.float32)
        self._buffer[:] = contribution(self.member.rank, np.arange(words))

    def reduce(self) -> float:
        """Make the buffer the sum of all ranks' buffers; return the seconds that it took."""
        rank, size = self.member.rank, self.member.size
        edges = [len(self._buffer) * place // size for place in range(size + 1)]
        pieces = [self._buffer[edges[place] : edges[place + 1]] for place in range(size)]
        began = time.perf_counter()
        for step in range(size - 1):
            with self._sending(pieces[(rank - step) % size]):
                self._add(pieces[(rank - step - 1) % size])
        for step in range(size - 1):
            with self._sending(pieces[(rank - step + 1) % size]):
                self._receive(pieces[(rank - step) % size])
        return time.perf_counter() - began

    def wrong(self) -> int:
        """Return how many places of the buffer are not the sum."""
        right = expected(self.member.size, np.arange(len(self._buffer))).astype(np.float32)
        return int(np.count_nonzero(self._buffer != right))

    def gather(self, value: float) -> tuple[float, ...]:
        """Return every rank's value: each goes once round the ring."""
        rank, size = self.member.rank, self.member.size
        values = np.zeros((size, 1), np.float64)
        values[rank] = value
        for step in range(size - 1):
            with self._sending(values[(rank - step) % size]):
                self._receive(values[(rank - step - 1) % size])
        return tuple(float(one) for one in values[:, 0])

    def close(self) -> None:
        """Leave the group."""
        for link in (self._following, self._before):
            with suppress(OSError):  # wakes a thread that is sending; a dead link has none
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._sender.shutdown(wait=False)

    @contextmanager
    def _sending(self, data: NDArray[Any]) -> Iterator[None]:
        """Send to the next rank while the body runs."""
        sent = self._sender.submit(self._following.sendall, _bytes(data))
        yield
        with self._naming(self.member.rank + 1):
            sent.result()

    def _add(self, target: NDArray[np.float32]) -> None:
        """Add what comes from the rank before, piece by piece as it comes."""
        for start in range(0, len(target), _PIECE_WORDS):
            part = target[start : start + _PIECE_WORDS]
            came = self._piece[: len(part)]
            self._receive(came)
            part += came

    def _receive(self, target: NDArray[Any]) -> None:
        view = _bytes(target)
        with self._naming(self.member.rank - 1):
            while view:
                count = self._before.recv_into(view)
                if not count:
                    raise ConnectionResetError("closed the connection")
                view = view[count:]

    @contextmanager
    def _naming(self, rank: int) -> Iterator[None]:
        """Say which peer an error of the network is about."""
        try:
            yield
        except OSError as error:
            peer = rank % self.member.size
            text = "fell silent" if isinstance(error, TimeoutError) else str(error)
            raise PeerError(f"{named(peer, self._seats[peer].blade)}: {text}") from error


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.view(np.uint8).data


def named(rank: int, blade: str = "") -> str:
    """Return a peer's name for people."""
    return f"rank {rank} ({blade})" if blade else f"rank {rank}"


def form(member: Member, timeout_s: float) -> Ring:
    """Return the ring once all are there.

    Raises:
        PeerError: one did not come in time.
    """
    deadline = Deadline(timeout_s)
    family = _family(member)
    with ExitStack() as ports:
        # MASTER_PORT first: the port that the kernel chooses must not be that one.
        server = ports.enter_context(_listen(family, member.port)) if member.rank == 0 else None
        listener = ports.enter_context(_listen(family, 0))
        own_port = int(listener.getsockname()[1])
        if server is not None:
            seats = _welcome_all(member, own_port, server, deadline)
        else:
            seats = _join(member, own_port, deadline)
        peer = (member.rank + 1) % member.size
        following = _connect(
            seats[peer].host, seats[peer].port, deadline, named(peer, seats[peer].blade)
        )
        _tell(following, {"rank": member.rank, "group": member.name})
        before = _accept_from(listener, member, (member.rank - 1) % member.size, seats, deadline)
    for link in (following, before):
        link.settimeout(timeout_s)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Ring(member, seats, following, before)


def _welcome_all(
    member: Member, own_port: int, server: socket.socket, deadline: Deadline
) -> list[Seat]:
    """As rank 0: hear everybody, and tell all of them; or tell those who came who did not."""
    seats: dict[int, Seat] = {0: Seat(member.address, own_port, member.blade)}
    links: dict[int, socket.socket] = {}
    while len(seats) < member.size and not deadline.passed:
        if (came := _hear(server, member, deadline)) is None:
            continue
        link, hello = came
        rank = int(hello["rank"])
        seats[rank] = Seat(link.getpeername()[0], int(hello["port"]), str(hello["blade"]))
        links[rank] = link
    missing = [rank for rank in range(member.size) if rank not in seats]
    ring = [(seats[rank].host, seats[rank].port, seats[rank].blade) for rank in sorted(seats)]
    for link in links.values():
        with suppress(OSError):  # the ring will miss whoever has gone since
            _tell(link, {"missing": missing} if missing else {"ring": ring})
        link.close()
    if missing:
        raise _missing(missing, deadline.timeout_s)
    return [seats[rank] for rank in range(member.size)]


def _join(member: Member, own_port: int, deadline: Deadline) -> list[Seat]:
    """As any other rank: tell rank 0, and hear where all are."""
    with _connect(member.address, member.port, deadline, named(0)) as link:
        _tell(
            link,
            {
                "rank": member.rank,
                "group": member.name,
                "size": member.size,
                "blade": member.blade,
                "port": own_port,
            },
        )
        # Rank 0 began at another time: its answer may come after our own time is over.
        answer = _hear_line(link, deadline.left_s() + deadline.timeout_s)
    if answer is None:
        raise PeerError(f"{named(0)}: left before all had come")
    if answer.get("missing"):
        raise _missing(answer["missing"], deadline.timeout_s)
    return [Seat(host, port, blade) for host, port, blade in answer["ring"]]


def _missing(ranks: Sequence[int], timeout_s: float) -> PeerError:
    who = ", ".join(named(rank) for rank in ranks[:8])
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""  # noqa: PLR2004 the same eight
    return PeerError(f"{who}{more}: did not come within {timeout_s:g} s")


def _accept_from(
    listener: socket.socket, member: Member, peer: int, seats: Sequence[Seat], deadline: Deadline
) -> socket.socket:
    while not deadline.passed:
        came = _hear(listener, member, deadline)
        if came is not None and came[1]["rank"] == peer:
            return came[0]
    raise PeerError(f"{named(peer, seats[peer].blade)}: did not connect")


def _hear(
    server: socket.socket, member: Member, deadline: Deadline
) -> tuple[socket.socket, Mapping[str, Any]] | None:
    """Return a member of our group that connected and what it said; None: a stranger or nobody."""
    server.settimeout(deadline.left_s())
    try:
        link, _ = server.accept()
    except TimeoutError:
        return None
    hello = _hear_line(link, _HELLO_S)
    if hello is not None and hello.get("group") == member.name:
        rank = hello.get("rank")
        if isinstance(rank, int) and 0 <= rank < member.size:
            return link, hello
    link.close()
    return None


def _hear_line(link: socket.socket, timeout_s: float) -> dict[str, Any] | None:
    link.settimeout(timeout_s)
    try:
        # Unbuffered: what follows the line is the first piece of the sum, not ours to take.
        with link.makefile("rb", buffering=0) as stream:
            said = json.loads(stream.readline(_MAX_HELLO_BYTES))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _tell(link: socket.socket, what: Mapping[str, Any]) -> None:
    link.sendall(json.dumps(what).encode() + b"\n")


def _connect(host: str, port: int, deadline: Deadline, peer: str) -> socket.socket:
    """Return a connection; a peer that is not there yet, or has no name yet, is waited for."""
    while True:
        try:
            return _widened(socket.create_connection((host, port), deadline.left_s()))
        except OSError as error:
            if deadline.passed:
                text = f"{peer}: {host}:{port} must answer within {deadline.timeout_s:g} s"
                raise PeerError(f"{text} (got {error})") from error
            time.sleep(_RETRY_S)


def _listen(family: socket.AddressFamily, port: int) -> socket.socket:
    server = _widened(socket.socket(family, socket.SOCK_STREAM))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    server.listen(1024)
    return server


def _widened(link: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        link.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
    return link


def _family(member: Member) -> socket.AddressFamily:
    """Return the family of rank 0's address; IPv4 while the name is not known yet."""
    try:
        return socket.getaddrinfo(member.address, member.port, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        return socket.AF_INET
