"""Sum with torch.distributed, where torch is installed: NCCL between GPUs, gloo between CPUs.

All meet at a key-value store of rank 0 before the library forms its group: the library itself
would only say that somebody is missing, the store says who.
"""

import time
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

from tramontane.health.collective.group import Member, PeerError, contribution, expected
from tramontane.health.collective.ring import Deadline, named


def log_apart(environment: MutableMapping[str, str]) -> None:
    """Let what NCCL logs (NCCL_DEBUG) go to standard error, if nobody says where else.

    By default it shares standard output with the outcome, and comes after it: when the process
    ends. Source: NCCL, debug.cc.
    """
    environment.setdefault("NCCL_DEBUG_FILE", "/dev/stderr")


class TorchGroup:
    """A torch process group that has met, with one buffer."""

    def __init__(
        self, torch: Any, member: Member, kind: str, device: str, timeout_s: float
    ) -> None:
        self._torch = torch
        self._dist = torch.distributed
        self._device = device
        self.name = f"torch-{kind}"
        self.member = member
        self._buffer: Any = None
        if device != "cpu":
            torch.cuda.set_device(device)
        store = self._meet(Deadline(timeout_s))
        self._dist.init_process_group(
            kind,
            store=store,
            rank=member.rank,
            world_size=member.size,
            timeout=timedelta(seconds=timeout_s),
        )

    def prepare(self, words: int) -> None:
        """Put this rank's vector into the buffer."""
        self._buffer = contribution(self.member.rank, self._places(words)).to(self._torch.float32)

    def reduce(self) -> float:
        """Make the buffer the sum of all ranks' buffers; return the seconds that it took."""
        self._wait()
        began = time.perf_counter()
        self._dist.all_reduce(self._buffer)
        self._wait()
        return time.perf_counter() - began

    def wrong(self) -> int:
        """Return how many places of the buffer are not the sum."""
        right = expected(self.member.size, self._places(self._buffer.numel()))
        return int((self._buffer != right.to(self._torch.float32)).sum())

    def gather(self, value: float) -> tuple[float, ...]:
        """Return every rank's value, by rank."""
        torch = self._torch
        own = torch.tensor([value], dtype=torch.float64, device=self._device)
        all_ = [torch.zeros_like(own) for _ in range(self.member.size)]
        self._dist.all_gather(all_, own)
        return tuple(float(one) for one in all_)

    def close(self) -> None:
        """Leave the group."""
        self._dist.destroy_process_group()

    def _meet(self, deadline: Deadline) -> Any:
        """Return the store once all ranks have signed in."""
        member, dist = self.member, self._dist
        try:
            store = dist.TCPStore(
                member.address,
                member.port,
                member.size,
                member.rank == 0,
                timeout=timedelta(seconds=deadline.timeout_s),
                wait_for_workers=False,
            )
        except RuntimeError as error:
            text = f"{named(0)}: {member.address}:{member.port} must answer"
            raise PeerError(f"{text} within {deadline.timeout_s:g} s (got {error})") from error
        group = dist.PrefixStore(f"group-{member.name}", store)
        group.set(f"here-{member.rank}", member.blade)
        for rank in range(member.size):
            try:
                group.wait([f"here-{rank}"], timedelta(seconds=max(deadline.left_s(), 0.1)))
            except RuntimeError as error:
                text = f"{named(rank)}: did not come within {deadline.timeout_s:g} s"
                raise PeerError(text) from error
        return group

    def _places(self, words: int) -> Any:
        return self._torch.arange(words, dtype=self._torch.int32, device=self._device)

    def _wait(self) -> None:
        if self._device != "cpu":
            self._torch.cuda.synchronize(self._device)
