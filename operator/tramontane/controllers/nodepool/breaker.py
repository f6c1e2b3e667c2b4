"""Stop quarantines when so many blades fail at once that it cannot be the blades. Pure.

A driver update, a switch or a mistake in a check makes a whole hall look faulty within minutes.
Then every further quarantine harms, and a person must look. What is counted are *calls*: blades
that a fault took out of service, or would have, had the budget (maxUnavailable) not refused; each
blade once. So the breaker opens even where the budget is the smaller number.

| breaker | calls within the window         | person's word       | becomes                      |
|---------|---------------------------------|---------------------|------------------------------|
| Closed  | below the threshold             | any                 | Closed                       |
| Closed  | reach it                        | any                 | Open, since the last of them |
| Open    | any                             | none later than that| Open: time never closes it   |
| Open    | below, counted from the word on | later than that     | Closed, since the word       |
| Open    | reach it, counted from the word | later than that     | Open, since the last of them |

The blade that reaches the threshold still goes out; nothing does after it. So within a window no
more blades than the threshold are ever granted. A percentage is of the pool's blades, rounded
down, and at least 2: one blade of a small pool is a faulty blade, not a faulty pool. A number is
taken as it stands; with 0 nothing is granted, and the first call opens it.

Memory is NodePool.status.breaker, and each blade's record of when it was taken out; so a restarted
operator decides the same. The person's word is the annotation `tramontane.dev/breaker-closed`.
Source: NVSentinel's breaker, reference/health.md section 2: unique cordons in a sliding window of
5 minutes, and no automatic reset.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tramontane.api import clock
from tramontane.api.blade import BladeStatus, Incident, Severity
from tramontane.api.errors import InvalidValue
from tramontane.api.names import ANNOTATION_BREAKER_CLOSED
from tramontane.api.nodepool import BreakerState, BreakerStatus, NodePool
from tramontane.api.quantity import format_duration, of_percent, parse_duration
from tramontane.controllers.nodepool.history import is_quarantine, takes_capacity

_LEAST_OF_PERCENT = 2
# How far back a restarted operator looks for a window in which the breaker should have opened
# while nobody wrote it down. Further back the pool may have been another.
_LOOK_BACK_S = 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """When the breaker of a pool opens: `spec.remediation.breaker`."""

    threshold: int | str
    window_s: float

    def limit(self, total: int) -> int:
        """Return how many blades of `total` open it."""
        if not str(self.threshold).endswith("%"):
            return int(self.threshold)
        return max(_LEAST_OF_PERCENT, of_percent(self.threshold, total))


def read(pool: NodePool) -> Rule:
    """Return the rule of a pool."""
    asked = pool.spec.remediation.breaker
    return Rule(asked.threshold, parse_duration(asked.window))


def closed_at(annotations: Mapping[str, str]) -> float | None:
    """Return when a person last closed the breaker; None where nobody did, or wrote no time."""
    try:
        return clock.parse(annotations[ANNOTATION_BREAKER_CLOSED])
    except (KeyError, InvalidValue):
        return None


def called_at(status: BladeStatus) -> float | None:
    """Return when a fault last took the blade out of service, or called for it; None: never."""
    call = next((one for one in reversed(status.incidents) if _is_call(one)), None)
    if call is None or not call.at:
        return None
    at, repair = clock.parse(call.at), status.repair
    if repair is None or not repair.since or repair.code != call.code:
        return at
    # A fault that was Degraded at first took the blade out later than its incident began.
    return max(at, clock.parse(repair.since))


def decide(
    old: BreakerStatus | None,
    calls: Iterable[float],
    total: int,
    rule: Rule,
    now: float,
    *,
    closed_at: float | None = None,
) -> BreakerStatus:
    """Return the breaker of the module's table. O(n), and O(m log m) in the recent calls.

    Args:
        old: NodePool.status.breaker; may lag behind.
        calls: for each blade when it was taken out, or should have been (`called_at`).
        total: blades of the pool.
        rule: of the pool.
        now: Unix seconds.
        closed_at: when a person closed the breaker.
    """
    was = old or BreakerStatus(state=BreakerState.CLOSED)
    since = clock.parse(was.since) if was.since else -math.inf
    told = closed_at if closed_at is not None else -math.inf
    is_open = was.state is BreakerState.OPEN
    if is_open and told <= since:
        return was
    # 1. What came before a person's word does not count. A word from the future, of a clock that
    #    is wrong, closes an open breaker now; it does not keep it closed until then.
    base = max(since, min(told, now)) if is_open or told <= now else since
    after = max(base, now - max(_LOOK_BACK_S, rule.window_s))
    times = sorted(at for at in calls if at > after)
    # 2. The earliest window that is full opens it.
    limit = rule.limit(total)
    needed = max(limit, 1)
    for first, last in zip(times, times[needed - 1 :], strict=False):
        if last - first < rule.window_s:
            # Rounded up, and behind any word: what was said before must not close it.
            opened = clock.utc(math.ceil(max(last, told)))
            reason = _reason(needed, total, rule)
            return BreakerStatus(state=BreakerState.OPEN, since=opened, reason=reason)
    if is_open:
        return BreakerStatus(state=BreakerState.CLOSED, since=clock.utc(base))
    return was


@dataclass(slots=True)
class Window:
    """The calls of one pool, and whether its breaker is open, at the moment of deciding.

    At the start: `note` what the blades remember, then `settle` once before anything is granted.
    Later the status in the API follows a moment behind, with each `settle`. Nothing here awaits,
    so that two workers cannot both take the last place.
    """

    is_open: bool = False
    _calls: dict[str, float] = field(default_factory=dict)
    _granted: set[str] = field(default_factory=set)

    def note(self, blade: str, at: float, total: int, rule: Rule, now: float) -> None:
        """Count a blade that was taken out at `at`, or called for it then and was refused."""
        if at > self._calls.get(blade, -math.inf):
            self._calls[blade] = at
        self._latch(total, rule, now)

    def grants(self, blade: str, now: float, total: int, rule: Rule) -> bool:
        """Return whether `blade` may be taken out now; the same answer if asked again.

        O(1); O(calls of an hour) once they are as many as the threshold.
        """
        if blade in self._granted and self._calls[blade] > now - rule.window_s:
            return True
        if self.is_open:
            return False
        self._calls[blade] = now
        if self._latch(total, rule, now) > rule.limit(total):
            return False
        self._granted.add(blade)
        return True

    def settle(
        self,
        old: BreakerStatus | None,
        total: int,
        rule: Rule,
        now: float,
        closed_at: float | None = None,
    ) -> BreakerStatus:
        """Return what the pool's status must say, and follow it."""
        status = decide(old, self._calls.values(), total, rule, now, closed_at=closed_at)
        self.is_open = status.state is BreakerState.OPEN
        if not self.is_open and status.since:
            self._keep_after(clock.parse(status.since))
        return status

    def _latch(self, total: int, rule: Rule, now: float) -> int:
        """Open where the window is full; return how many calls are in it, or fewer than needed."""
        limit = rule.limit(total)
        if len(self._calls) < limit or not self._calls:
            return len(self._calls)
        self._keep_after(now - max(_LOOK_BACK_S, rule.window_s))
        count = sum(at > now - rule.window_s for at in self._calls.values())
        self.is_open = self.is_open or count >= max(limit, 1)
        return count

    def _keep_after(self, since: float) -> None:
        self._calls = {blade: at for blade, at in self._calls.items() if at > since}
        self._granted &= self._calls.keys()


def _is_call(one: Incident) -> bool:
    fatal = one.severity is Severity.FATAL and bool(one.code)
    return (fatal or is_quarantine(one)) and takes_capacity(one.from_)


def _reason(limit: int, total: int, rule: Rule) -> str:
    within = format_duration(rule.window_s)
    return f"{limit} of {total} blades failed within {within} (threshold {rule.threshold})"
