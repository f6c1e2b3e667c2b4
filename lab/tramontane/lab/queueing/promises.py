"""Find promises that lower-ranked work broke, by asking the policy again at the very moment.

A waiting gang may be told a later start than before for good reasons, and what was said before is
void then:

| excuse | for |
|---|---|
| a gang of higher priority arrived                            | gangs of lower priority |
| a blade went out of service, a lost seat moved               | everybody |
| a gang ahead in the queue moved, and now takes the time promised | the gang it moved onto |

A gang ahead may move forward, since jobs end before their limit, and onto a smaller one that was
to fill a gap. Where a start slips without an excuse, the policy decides once more about the same
moment, but without the gangs that rank lower and have come in since the promise was made. Where
the promise can be kept then, it was they who broke it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tramontane.lab.queueing.lives import FOREVER, Promise
from tramontane.lab.queueing.measure import TOLERANCE_S
from tramontane.lab.queueing.simulate import Policy
from tramontane.scheduler.engine import Outcome, Pass
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.snapshot import Pods


@dataclass(frozen=True, slots=True)
class Broken:
    """Hold a promise, what came instead and when, and what it was without those that rank lower."""

    gang: str
    promise: Promise
    now_s: float
    slipped_to_s: float
    alone_s: float


@dataclass(slots=True)
class Watched:
    """A policy under watch; `again` decides without memory, so that asking it changes nothing.

    `broken` are promises that lower-ranked work broke; `slips` counts all starts that became later
    without an arrival or a fault, `overtaken` those of them that a gang ahead pushed back.
    """

    policy: Policy
    again: Policy
    broken: list[Broken] = field(default_factory=list)
    promised: set[str] = field(default_factory=set)
    slips: int = 0
    overtaken: int = 0
    _standing: dict[str, Promise] = field(default_factory=dict)
    _known: frozenset[str] = frozenset()
    _fleet: Fleet | None = None

    def __call__(
        self, fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods, now_s: float
    ) -> Pass:
        """Return what the policy decides, and note the promises that it breaks."""
        done = self.policy(fleet, gangs, pods, now_s)
        everybody = self._disturbed(fleet, done)
        above = max((gangs[key].priority for key in gangs.keys() - self._known), default=None)
        standing: dict[str, Promise] = {}
        moved: list[tuple[float, float]] = []
        waiting = (gang for gang in gangs.values() if gang.placement is None)
        for gang in sorted(waiting, key=order_of):
            outcome, before = done.outcomes[gang.key], self._standing.get(gang.key)
            start_s, limit_s = _start_s(outcome, now_s), _limit_s(gang)
            excused = everybody or (above is not None and above > gang.priority)
            was_s = before.start_s if before is not None else FOREVER
            if not math.isclose(start_s, was_s, rel_tol=0, abs_tol=TOLERANCE_S):
                if before is not None and start_s > was_s and not excused:
                    self.slips += 1
                    end_s = was_s + limit_s
                    if any(begin < end_s and was_s < end for begin, end in moved):
                        self.overtaken += 1
                    else:
                        slip = Broken(gang.key, before, now_s, start_s, FOREVER)
                        self._judge(fleet, gangs, pods, slip)
                moved.append((start_s, start_s + limit_s))
            if outcome.placement is None and outcome.reserved_s is not None:
                same = before is not None and before.start_s == start_s and not excused
                standing[gang.key] = before if before and same else Promise(now_s, start_s)
        self._standing, self._known, self._fleet = standing, frozenset(gangs), fleet
        self.promised |= standing.keys()
        return done

    def _disturbed(self, fleet: Fleet, done: Pass) -> bool:
        """Return whether a blade went out of service, or a seat moved, since the last pass."""
        last = self._fleet
        if last is not None and bool((last.in_service & ~fleet.in_service).any()):
            return True
        return any(outcome.moves for outcome in done.outcomes.values())

    def _judge(
        self, fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods, slip: Broken
    ) -> None:
        """Note a slip as broken if the promise can be kept without those that rank lower."""
        gang, made_s = gangs[slip.gang], slip.promise.made_s
        kept = {key: one for key, one in gangs.items() if not _came_below(one, gang, made_s)}
        of_gang = {key: some for key, some in pods.of_gang.items() if key in kept}
        alone = self.again(fleet, kept, Pods(pods.plain, of_gang), slip.now_s)
        alone_s = _start_s(alone.outcomes[gang.key], slip.now_s)
        if alone_s <= slip.promise.start_s + TOLERANCE_S:
            self.broken.append(replace(slip, alone_s=alone_s))


def order_of(gang: GangRecord) -> tuple[int, float, str]:
    """Return a gang's place in the queue: priority, then age."""
    return -gang.priority, gang.created_s, gang.key


def _came_below(one: GangRecord, gang: GangRecord, made_s: float) -> bool:
    """Return whether a gang ranks lower and has no place, or has it since the promise."""
    since = one.told.placed_s if one.placement is not None else None
    return order_of(one) > order_of(gang) and (since is None or since >= made_s)


def _limit_s(gang: GangRecord) -> float:
    return FOREVER if gang.max_runtime_s is None else gang.max_runtime_s


def _start_s(outcome: Outcome, now_s: float) -> float:
    """Return when a gang starts, as far as it is told; never where nothing is promised."""
    if outcome.placement is not None:
        return now_s
    return FOREVER if outcome.reserved_s is None else outcome.reserved_s
