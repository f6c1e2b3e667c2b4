"""Decide for the agent of a serving rank: is it hung, is it late, what is due while it ends.

Nothing here reads a clock, a file or a socket: every moment is given, in seconds of any clock that
only goes forward, so that a day of idling is a test of milliseconds. `serving.py` asks, at every
turn of its loop, and does what comes out. Standard library only, Python 3.8 or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Storage that nobody has measured is taken for slow: a start that is ended too early begins anew.
SLOW_BPS = 200e6
# Faster than any storage of today: whoever measured this had not read the files.
IMPLAUSIBLE_BPS = 50e9
# An engine reads the weights, unpacks them and moves them: at most three times a plain read.
READS = 3.0
# What an engine may need between the end of its streams and its own.
LAST_S = 5.0
# Requests that have been accepted show up in the gauges a moment later.
IDLE_S = 1.5
# One lost answer is no death; nor are those that we ourselves were too busy to wait for.
LOST_PINGS = 3
ADAPTER_TRIES = 3
ADAPTER_PAUSE_MAX_S = 60.0

WAIT, TERM, KILL = "wait", "term", "kill"


class HangWatch:
    """Tell a hung engine from an idle one by a counter that grows with every step.

    | steps | busy | then |
    |---|---|---|
    | grew (or fell: it counts anew) | any | it lives |
    | the same | 0 | it lives, idle |
    | the same | > 0 | hung after `hang_after_s` |
    | None: it did not say | any | hung after `hang_after_s`: its own server hangs, too |

    Time in which nobody asked (this process was stopped, the whole blade frozen) is not held
    against the engine.
    """

    def __init__(self, hang_after_s: float) -> None:
        self._hang_after_s = hang_after_s
        self._steps: float | None = None
        self._lived_at: float | None = None
        self._asked_at = 0.0

    def seen(self, now: float, steps: float | None, busy: float) -> bool:
        """Return whether it hangs; `hang_after_s` 0 stands for never."""
        if self._lived_at is None:
            self._lived_at = now
        elif now - self._asked_at > self._hang_after_s / 2:
            self._lived_at += now - self._asked_at
        self._asked_at = now
        if steps is not None and (steps != self._steps or busy <= 0):
            self._steps, self._lived_at = steps, now
        return 0 < self._hang_after_s <= self.still_s(now)

    def still_s(self, now: float) -> float:
        """Return for how long it has shown no life although it should."""
        return 0.0 if self._lived_at is None else now - self._lived_at


@dataclass(frozen=True)
class Reading:
    """Hold what the metrics said once.

    Attributes:
        parts: (steps, busy) by engine: each rank of a data-parallel engine steps for itself, and
            one that hangs must not hide behind the others.
        running: total of the first busy gauge.
        unwatched: requests of an engine that counts no steps: they say nothing of a hang.
    """

    parts: Mapping[str, tuple[float, float]]
    running: float = 0.0
    unwatched: float = 0.0

    @property
    def steps(self) -> float:
        """Return the steps of all engines."""
        return sum(steps for steps, _ in self.parts.values())

    @property
    def busy(self) -> float:
        """Return the requests that any engine works on or keeps waiting."""
        return sum(busy for _, busy in self.parts.values()) + self.unwatched


class EngineWatch:
    """Watch each engine of a replica by itself; where the metrics do not answer, all of them."""

    def __init__(self, hang_after_s: float) -> None:
        self._hang_after_s = hang_after_s
        self._watches = {"": HangWatch(hang_after_s)}

    def seen(self, now: float, reading: Reading | None, *, is_sick: bool) -> bool:
        """Return whether one hangs; an engine that calls itself sick counts as busy."""
        if reading is None:
            verdicts = [watch.seen(now, None, 0.0) for watch in self._watches.values()]
            return any(verdicts)
        known = self._watches
        self._watches = {
            key: known.get(key) or HangWatch(self._hang_after_s) for key in reading.parts
        }
        verdicts = [
            self._watches[key].seen(now, steps, max(busy, float(is_sick)))
            for key, (steps, busy) in reading.parts.items()
        ]
        return any(verdicts)

    def still_s(self, now: float) -> float:
        """Return for how long the stillest of them has shown no life although it should."""
        return max((watch.still_s(now) for watch in self._watches.values()), default=0.0)


@dataclass(frozen=True)
class StartBudget:
    """Hold how long a start may take: a base, and three readings of the weights.

    Source: the rule of KAITO and NIM, a time by model size, but with the speed of this storage,
    measured by whoever verified the files just before.
    """

    base_s: float
    weights_b: float
    speed_bps: float

    @classmethod
    def of(cls, base_s: float, planned_b: float, measured: Mapping[str, Any]) -> StartBudget:
        """Return the budget by what was measured (`bytes`, `seconds`), else by what was planned."""
        weights_b, seconds = _amount(measured.get("bytes")), _amount(measured.get("seconds"))
        if weights_b <= 0:
            return cls(base_s, planned_b, SLOW_BPS)
        speed_bps = weights_b / seconds if seconds > 0 else IMPLAUSIBLE_BPS
        return cls(base_s, weights_b, speed_bps if speed_bps < IMPLAUSIBLE_BPS else SLOW_BPS)

    @property
    def total_s(self) -> float:
        """Return the whole budget."""
        return self.base_s + READS * self.weights_b / self.speed_bps

    def __str__(self) -> str:
        weights, speed = self.weights_b / 1e9, self.speed_bps / 1e9
        return f"{self.base_s:g} s + {READS:g} x {weights:.1f} GB at {speed:.2f} GB/s"


def _amount(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


class SeatZero:
    """Tell from pings whether the agent of seat 0 is there, at the other ranks."""

    def __init__(self, lost_after_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._answered_at: float | None = None
        self._missed = 0

    def pinged(self, now: float, answered: bool) -> None:
        """Take one ping's outcome."""
        self._missed = 0 if answered else self._missed + 1
        if answered:
            self._answered_at = now

    @property
    def met(self) -> bool:
        """Return whether it has ever answered."""
        return self._answered_at is not None

    @property
    def answers(self) -> bool:
        """Return whether it answered when it was last asked."""
        return self.met and self._missed == 0

    def is_lost(self, now: float) -> bool:
        """Return whether it is gone for good: nobody starts it again under this rank."""
        return self._silent_for(now, self._lost_after_s)

    def has_left(self, now: float) -> bool:
        """Return whether it is gone, where it was going to leave anyway; or never was there."""
        return not self.met or self._silent_for(now, self._lost_after_s / 5)

    def _silent_for(self, now: float, seconds: float) -> bool:
        at = self._answered_at
        return at is not None and self._missed >= LOST_PINGS and now - at >= seconds


@dataclass
class DrainPlan:
    """Say what is due from the order to end until the engine is gone.

    | the rank | TERM to the engine |
    |---|---|
    | seat 0 that never served | at once |
    | seat 0, until SETTLE has passed | not yet: requests still come |
    | seat 0 whose engine finishes its streams by itself | after SETTLE |
    | seat 0 with another engine | once it is idle, or after SETTLE + DRAIN |
    | any other | once seat 0 is gone, or after SETTLE + DRAIN |

    KILL comes `LAST_S` after the streams' time is up; where none are left, that long after TERM.
    """

    told_at: float
    settle_s: float
    drain_s: float
    leads: bool
    drains_itself: bool
    has_served: bool
    _termed_at: float | None = field(default=None, init=False)
    _idle_since: float | None = field(default=None, init=False)

    @property
    def up_at(self) -> float:
        """Return when the streams' time is up."""
        return self.told_at + self.settle_s + self.drain_s

    def due(self, now: float, busy: float | None, seat_0_has_left: bool) -> str:
        """Return WAIT, TERM or KILL; TERM from the moment on when it is due until KILL is.

        Args:
            now: the moment.
            busy: requests that the engine works on or keeps waiting; None where it does not say.
            seat_0_has_left: whether the agent of seat 0 is gone; of no meaning on seat 0.
        """
        settled = now >= self.told_at + self.settle_s
        if not settled or busy is None or busy > 0:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        if self._termed_at is None and self._is_time(now, settled, seat_0_has_left):
            self._termed_at = now
        if self._termed_at is None:
            return WAIT
        has_streams = self.leads and self.has_served and self.drains_itself
        kill_at = (self.up_at if has_streams else self._termed_at) + LAST_S
        return KILL if now >= kill_at else TERM

    def _is_time(self, now: float, settled: bool, seat_0_has_left: bool) -> bool:
        if now >= self.up_at:
            return True
        if not self.leads:
            return seat_0_has_left
        if not self.has_served:
            return True
        idle = self._idle_since is not None and now - self._idle_since >= IDLE_S
        return settled and (self.drains_itself or idle)


@dataclass(frozen=True)
class AdapterJob:
    """Name one call to the engine: `verb` is load or unload."""

    verb: str
    name: str
    path: str


class Adapters:
    """Bring the engine's adapters to what is wanted, one call at a time.

    A new path under a known name is unloaded first. What fails is tried again, 1, 2, 4 s later and
    so on up to a minute; after three failures nobody waits for it any more.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, str] = {}
        self._loaded: dict[str, str] = {}
        self._failed: dict[str, tuple[int, float, str]] = {}  # tries, next one at, why

    def want(self, wanted: Mapping[str, str]) -> None:
        """Take paths by name; who asks for another path starts with fresh tries."""
        for name, path in self._wanted.items():
            if wanted.get(name) != path:
                self._failed.pop(name, None)
        self._wanted = dict(wanted)

    def next(self, now: float) -> AdapterJob | None:
        """Return the call that is due."""
        for name, path in self._loaded.items():
            if self._wanted.get(name) != path and self._is_due(name, now):
                return AdapterJob("unload", name, path)
        for name, path in self._wanted.items():
            if name not in self._loaded and self._is_due(name, now):
                return AdapterJob("load", name, path)
        return None

    def done(self, now: float, job: AdapterJob, error: str) -> None:
        """Take the outcome of a call; `error` is empty where it went well."""
        if error:
            tries = self._failed.get(job.name, (0, 0.0, ""))[0] + 1
            pause_s = min(ADAPTER_PAUSE_MAX_S, 2.0 ** min(tries - 1, 10))
            self._failed[job.name] = (tries, now + pause_s, f"{job.verb}: {error}")
            return
        self._failed.pop(job.name, None)
        if job.verb == "load":
            self._loaded[job.name] = job.path
        else:
            self._loaded.pop(job.name, None)

    @property
    def settled(self) -> bool:
        """Return whether each wanted one is loaded, or has failed often enough to go without."""
        return all(
            self._loaded.get(name) == path or self._tries(name) >= ADAPTER_TRIES
            for name, path in self._wanted.items()
        )

    def told(self) -> dict[str, str]:
        """Return for each adapter `loaded`, or why it is not (or still is)."""
        names = {**self._wanted, **self._loaded}
        return {name: self._word(name) for name in sorted(names)}

    def _word(self, name: str) -> str:
        if name in self._failed:
            tries, _, why = self._failed[name]
            return f"{why} (tries: {tries})"
        if name not in self._wanted:
            return "unloading"
        return "loaded" if self._loaded.get(name) == self._wanted[name] else "loading"

    def _tries(self, name: str) -> int:
        return self._failed[name][0] if name in self._failed else 0

    def _is_due(self, name: str, now: float) -> bool:
        return name not in self._failed or now >= self._failed[name][1]
