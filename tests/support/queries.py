"""Count DNS queries on an interface, in the kernel: nobody has to read fast enough.

    with Queries("lo") as queries:
        ...
        assert queries.count() == 0, queries.names()

A packet socket with a filter sees each packet to port 53, UDP or TCP, IPv4 or IPv6, whoever sends
it to whatever address; on `lo` it sees each one twice. It needs root (CAP_NET_RAW).
"""

import ctypes
import socket
import struct
from typing import Self

_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_ETH_P_ALL = 3
_LENGTH = 65536
_ETHERNET, _IPV6, _UDP, _HEADER = 14, 40, 8, 12

# Classic BPF over an Ethernet frame: (opcode, jump if true, jump if false, operand).
_FILTER = (
    (0x28, 0, 0, 12),  # type of the frame
    (0x15, 0, 5, 0x86DD),  # IPv6?
    (0x30, 0, 0, 20),
    (0x15, 1, 0, 17),  # UDP?
    (0x15, 0, 12, 6),  # TCP?
    (0x28, 0, 0, 56),  # the port that it goes to
    (0x15, 9, 10, 53),
    (0x15, 0, 9, 0x0800),  # IPv4?
    (0x30, 0, 0, 23),
    (0x15, 1, 0, 17),
    (0x15, 0, 6, 6),
    (0x28, 0, 0, 20),
    (0x45, 4, 0, 0x1FFF),  # a later fragment has no ports
    (0xB1, 0, 0, 14),  # length of the header
    (0x48, 0, 0, 16),
    (0x15, 0, 1, 53),
    (0x06, 0, 0, _LENGTH),
    (0x06, 0, 0, 0),
)


class Queries:
    """Watch one interface from now on; closed by its block."""

    def __init__(self, interface: str) -> None:
        self._total = 0
        code = b"".join(struct.pack("HBBI", *one) for one in _FILTER)
        kept = ctypes.create_string_buffer(code)
        program = struct.pack("HP", len(_FILTER), ctypes.addressof(kept))
        # Protocol 0 receives nothing, so that nothing comes before the filter is there.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def count(self) -> int:
        """Return how many packets went to port 53 so far; those that nobody read count too."""
        told = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._total += struct.unpack("II", told)[0]
        return self._total

    def names(self) -> list[str]:
        """Return which names were asked for over UDP since the last call, for a message."""
        found: list[str] = []
        while True:
            try:
                frame = self._socket.recv(_LENGTH)
            except BlockingIOError:
                return found
            found.append(_name_in(frame))


def _name_in(frame: bytes) -> str:
    """Return the name that a frame asks for; empty where there is none to be read."""
    is_ipv6 = frame[12:14] == b"\x86\xdd"
    at = _ETHERNET + (_IPV6 if is_ipv6 else 4 * (frame[_ETHERNET] & 0xF)) + _UDP + _HEADER
    labels = []
    while at < len(frame) and (length := frame[at]):
        labels.append(frame[at + 1 : at + 1 + length].decode(errors="replace"))
        at += 1 + length
    return ".".join(labels)
