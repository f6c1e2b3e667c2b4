"""Say who is in a group, and what summing together needs. Values and a Protocol.

Rank r contributes the vector (r mod 16 + 1) · (i mod 251) at place i. All sums are whole numbers
below 2**24 for up to `MAX_RANKS` ranks, so they are exact in float32 whatever the order of
summation: a sum that differs in one bit is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_RANK_CYCLE = 16
_PLACE_CYCLE = 251
MIN_RANKS = 2
MAX_RANKS = 2**24 // (_RANK_CYCLE * _PLACE_CYCLE)
WORD_BYTES = 4


class PeerError(Exception):
    """Say which peer did not come or went away: nothing is known of any blade."""


@dataclass(frozen=True, slots=True)
class Member:
    """One rank of a group. `name` tells groups apart that use the same port one after another."""

    rank: int
    size: int
    address: str
    port: int
    blade: str = ""
    name: str = ""

    def split(self, local: int, processes: int) -> "Member":
        """Return the member that one of a blade's processes is."""
        return Member(
            rank=self.rank * processes + local,
            size=self.size * processes,
            address=self.address,
            port=self.port,
            blade=self.blade,
            name=self.name,
        )


def member_from(environment: Mapping[str, str]) -> Member:
    """Return who this process is.

    Raises:
        LookupError: a variable is missing.
        ValueError: one is no number, or they do not fit together.
    """

    def first(*names: str) -> str:
        for name in names:
            if value := environment.get(name):
                return value
        raise LookupError(f"{names[0]}: must be set (got nothing); or set {' or '.join(names[1:])}")

    def number(*names: str) -> int:
        text = first(*names)
        if not text.isdecimal():
            raise ValueError(f"{names[0]}: must be a number (got {text!r})")
        return int(text)

    rank = number("RANK", "TRAMONTANE_RANK")
    size = number("WORLD_SIZE", "TRAMONTANE_GROUP_SIZE")
    if rank >= size:
        raise ValueError(f"RANK: must be below WORLD_SIZE {size} (got {rank})")
    return Member(
        rank=rank,
        size=size,
        address=first("MASTER_ADDR", "TRAMONTANE_MASTER_ADDR"),
        port=number("MASTER_PORT", "TRAMONTANE_MASTER_PORT"),
        blade=environment.get("TRAMONTANE_BLADE", ""),
        name=environment.get("TRAMONTANE_GROUP", ""),
    )


class Group(Protocol):
    """A group that has met.

    Raises:
        PeerError: from every call, when a peer is gone or silent for too long.
    """

    name: str
    member: Member

    def prepare(self, words: int) -> None:
        """Put this rank's vector into the buffer."""
        ...

    def reduce(self) -> float:
        """Make the buffer the sum of all ranks' buffers; return the seconds that it took."""
        ...

    def wrong(self) -> int:
        """Return how many places of the buffer are not the sum."""
        ...

    def gather(self, value: float) -> tuple[float, ...]:
        """Return every rank's value, by rank; nobody returns before all have called."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


def contribution(rank: int, places: Any) -> Any:
    """Return the rank's vector at `places`, an integer array or tensor; of the same type."""
    return (rank % _RANK_CYCLE + 1) * (places % _PLACE_CYCLE)


def expected(size: int, places: Any) -> Any:
    """Return the sum of all ranks' vectors at `places`."""
    return sum(rank % _RANK_CYCLE + 1 for rank in range(size)) * (places % _PLACE_CYCLE)
