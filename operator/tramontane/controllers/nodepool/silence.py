"""Tell how long agents have been silent, without believing anybody's clock too much.

A heartbeat Lease carries its holder's wall clock. Silence is measured from when *we* saw that time
change, on our own monotonic clock. Only at first sight (this process has just begun to lead) there
is nothing to measure from. Then:

| question             | at first sight, silence is                                               |
|----------------------|--------------------------------------------------------------------------|
| is the blade Unknown?| as long as the holder's time says: a dead agent must not look alive again |
| is the blade Lost?   | nought: a wrong clock must not move the seats of running jobs             |

The kubelet's Lease is of the same machine, so of the same clock as the agent's: the difference of
the two times says how long before or after the agent the kubelet spoke.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tramontane.controllers.nodepool.state import LOST_AFTER_S


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat as it was last seen: the holder's time, and ours when it came (monotonic)."""

    renewed_at: float
    seen_s: float
    doubt_s: float = 0.0

    def silence_s(self, now_s: float) -> float:
        """Return how long the agent has been silent, for the verdict Unknown."""
        return now_s - self.seen_s + self.doubt_s

    def machine_silence_s(self, now_s: float, kubelet_at: float | None) -> float:
        """Return how long agent and kubelet have both been silent, for the state Lost.

        Args:
            now_s: our monotonic time.
            kubelet_at: time in the kubelet's Lease; None where it is not known: not silent then.
        """
        if kubelet_at is None:
            return 0.0
        kubelet_s = self.seen_s + (kubelet_at - self.renewed_at)
        return min(now_s - self.seen_s, now_s - kubelet_s)


@dataclass(slots=True)
class Beats:
    """The heartbeats of all blades, by name of the blade."""

    _beats: dict[str, Beat] = field(default_factory=dict)
    _overdue: set[str] = field(default_factory=set)

    def get(self, blade: str) -> Beat | None:
        """Return the last heartbeat, or None if there never was one."""
        return self._beats.get(blade)

    def note(self, blade: str, renewed_at: float, now_s: float, now: float) -> bool:
        """Record a heartbeat; return whether it is news: the first, or one after a silence.

        Args:
            blade: name of the blade.
            renewed_at: time in the Lease.
            now_s: our monotonic time.
            now: our wall clock, to doubt a first heartbeat by.
        """
        old = self._beats.get(blade)
        if old is not None and old.renewed_at == renewed_at:
            return False
        doubt_s = max(0.0, now - renewed_at) if old is None else 0.0
        self._beats[blade] = Beat(renewed_at, now_s, doubt_s)
        was_overdue = blade in self._overdue
        self._overdue.discard(blade)
        return old is None or was_overdue

    def forget(self, blade: str) -> None:
        """Drop the heartbeat of a blade whose Lease is gone."""
        self._beats.pop(blade, None)
        self._overdue.discard(blade)

    def sweep(self, now_s: float) -> Iterator[str]:
        """Yield the blades that have become silent for 45 s since the last sweep. O(blades)."""
        for blade, beat in self._beats.items():
            if beat.silence_s(now_s) >= LOST_AFTER_S and blade not in self._overdue:
                self._overdue.add(blade)
                yield blade
