"""Play a trace of jobs against a policy, on a virtual clock.

    1. everything that happens at one moment is written down: jobs arrive and end, blades fail and
       come back, gangs that were told to give way have saved and gone
    2. the policy decides once about all gangs, as the scheduler does
    3. its outcomes are carried into the records: pods appear on new seats and leave old ones

A job that loses a blade stands still until its gang is whole again, then repeats the work since
its last save. It never runs beyond its limit. A blade that a policy gives away twice, or gives
away while it is out of service, ends the simulation.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from tramontane.lab.paths import LabError
from tramontane.lab.queueing.hall import Hall
from tramontane.lab.queueing.lives import FOREVER, Fault, Life, Promise, Run
from tramontane.lab.queueing.trace import Job
from tramontane.scheduler.engine import Outcome, Pass
from tramontane.scheduler.fleet import HEALTHY, Fleet
from tramontane.scheduler.gangs import PLACED, PREEMPTING, GangRecord, Told
from tramontane.scheduler.records import PodRecord
from tramontane.scheduler.snapshot import Pods

Policy = Callable[[Fleet, Mapping[str, GangRecord], Pods, float], Pass]

SAVE_S: Final = 60.0  # from the order to give way to the last pod's end
SETBACK_S: Final = 600.0  # work since the last save, and the restart
# Estimates of a waiting gang change with every pass: of those within this time, one is kept.
ESTIMATES_EVERY_S: Final = 600.0


class _Kind(IntEnum):
    """Say what an event is; those of one moment happen in this order."""

    END = 0
    BACK = 1
    FAIL = 2
    ARRIVE = 3
    GONE = 4
    LOOK = 5


@dataclass(slots=True)
class _Running:
    """Hold a placed gang's clock.

    It ends at `ends_s` unless it stands still, which it does since `stopped_s`; at `latest_s` in
    any case, by its limit.
    """

    ends_s: float
    latest_s: float
    stopped_s: float | None = None

    def due_s(self) -> float:
        """Return when the job ends as things are."""
        return min(self.latest_s, FOREVER if self.stopped_s is not None else self.ends_s)


def simulate(hall: Hall, jobs: Sequence[Job], policy: Policy, faults: Iterable[Fault] = ()) -> Run:
    """Return what becomes of the jobs; the hall is left as it was, but for unrepaired blades.

    Raises:
        LabError: the policy gave a blade away that it did not have.
    """
    return _Simulation(hall, jobs, policy, tuple(faults)).run()


class _Simulation:
    """The state of one run."""

    def __init__(
        self, hall: Hall, jobs: Sequence[Job], policy: Policy, faults: Sequence[Fault]
    ) -> None:
        self._hall, self._policy, self._faults = hall, policy, faults
        self._gangs: dict[str, GangRecord] = {}
        self._lives = {job.gang.key: Life(job) for job in jobs}
        self._left_s = {job.gang.key: job.runtime_s for job in jobs}
        self._running: dict[str, _Running] = {}
        self._owner: dict[str, str] = {}
        self._pods = Pods()
        self._events: list[tuple[float, int, str]] = []
        self._looks: set[float] = set()
        self._first_s = min((job.gang.created_s for job in jobs), default=0.0)
        self._last_s = max((job.gang.created_s for job in jobs), default=0.0)
        self._counted_s, self._used_s, self._passes = self._first_s, 0.0, 0
        for job in jobs:
            self._at(job.gang.created_s, _Kind.ARRIVE, job.gang.key)
        for fault in faults:
            self._at(fault.at_s, _Kind.FAIL, fault.blade)
            self._at(fault.back_s, _Kind.BACK, fault.blade)

    def run(self) -> Run:
        """Play until nothing happens any more."""
        while self._events:
            now = self._events[0][0]
            self._count_until(now)
            happened = False
            while self._events and self._events[0][0] <= now:
                _, kind, name = heapq.heappop(self._events)
                happened |= self._happen(_Kind(kind), name, now)
            if happened and self._gangs:
                self._decide(now)
        return Run(
            list(self._lives.values()),
            self._used_s,
            (self._last_s - self._first_s) * len(self._hall.records),
            self._passes,
            self._faults,
        )

    def _at(self, at_s: float, kind: _Kind, name: str) -> None:
        if at_s < FOREVER:
            heapq.heappush(self._events, (at_s, kind, name))

    def _count_until(self, now: float) -> None:
        until = min(now, self._last_s)
        if until > self._counted_s:
            self._used_s += len(self._owner) * (until - self._counted_s)
            self._counted_s = until

    def _happen(self, kind: _Kind, name: str, now: float) -> bool:
        """Write an event down; returns whether it was one: an end may have been put off."""
        match kind:
            case _Kind.ARRIVE:
                self._gangs[name] = self._lives[name].job.gang
            case _Kind.END:
                return self._end(name, now)
            case _Kind.GONE:
                return self._gone(name, now)
            case _Kind.FAIL:
                self._fail(name, now)
            case _Kind.BACK:
                self._hall.turn(name, HEALTHY)
            case _Kind.LOOK:
                self._looks.discard(now)
        return True

    def _end(self, key: str, now: float) -> bool:
        running = self._running.get(key)
        if running is None or running.due_s() > now:
            return False
        self._leave(key)
        self._lives[key].end_s = now
        del self._gangs[key]
        return True

    def _gone(self, key: str, now: float) -> bool:
        """Take the pods of a gang away that was told to give way."""
        running = self._running.get(key)
        if running is None:  # it ended before it could
            return False
        stood_s = now - running.stopped_s if running.stopped_s is not None else 0.0
        self._left_s[key] = max(1.0, running.ends_s - now + stood_s + SETBACK_S)
        self._lives[key].preempted += 1
        for seat in range(len(self._seats(key))):
            self._pod(key, seat, "")
        del self._running[key]
        return True

    def _fail(self, blade: str, now: float) -> None:
        self._hall.turn(blade, "Quarantined")
        key = self._owner.get(blade, "")
        running = self._running.get(key)
        if running is None:
            return
        gang = self._gangs[key]
        seat = self._seats(key).index(blade)
        self._gangs[key] = replace(gang, lost=(*gang.lost, (seat, blade)))
        if running.stopped_s is None:
            running.stopped_s = now
            self._at(running.due_s(), _Kind.END, key)

    def _seats(self, key: str) -> tuple[str, ...]:
        placement = self._gangs[key].placement
        return placement.seats if placement else ()

    def _leave(self, key: str) -> None:
        """Free all that a gang has."""
        for seat, blade in enumerate(self._seats(key)):
            self._pod(key, seat, "")
            del self._owner[blade]
        self._running.pop(key, None)

    def _pod(self, key: str, seat: int, blade: str) -> None:
        """Have the seat's pod on this blade, or nowhere."""
        gang, name = self._gangs[key], f"{key}-{seat}"
        old = self._pods.of_gang.get(key, {}).get(name)
        slot = gang.slots[gang.slot_of_seats(seat + 1)[seat] if len(gang.slots) > 1 else 0]
        new = PodRecord(blade, key, seat, deleting=False, requests=slot.ask.requests)
        self._pods.change(name, old, new if blade else None)

    def _decide(self, now: float) -> None:
        done = self._policy(self._hall.fleet, self._gangs, self._pods, now)
        self._passes += 1
        moved = [  # what leaves a blade does so before another gang comes
            (key, outcome)
            for key, outcome in done.outcomes.items()
            if outcome.placement is not self._gangs[key].placement
            and outcome.placement != self._gangs[key].placement
        ]
        for key, outcome in moved:
            kept = outcome.placement.seats if outcome.placement else ()
            for seat, blade in enumerate(self._seats(key)):
                if seat >= len(kept) or kept[seat] != blade:
                    self._pod(key, seat, "")
                    del self._owner[blade]
        for key, outcome in moved:
            self._sit(key, outcome)
        for key, outcome in done.outcomes.items():
            self._carry(key, outcome, now)
        at = done.look_again_s
        if at is not None and at > now and at not in self._looks:
            self._looks.add(at)
            self._at(at, _Kind.LOOK, "")

    def _sit(self, key: str, outcome: Outcome) -> None:
        before = self._seats(key)
        fleet = self._hall.fleet
        for seat, blade in enumerate(outcome.placement.seats if outcome.placement else ()):
            if seat < len(before) and before[seat] == blade:
                continue
            if blade in self._owner or not fleet.in_service[fleet.row_of[blade]]:
                what = self._owner.get(blade) or "out of service"
                raise LabError(
                    f"Gang {key}: seat {seat} must be on a free blade (got {blade}: {what}); "
                    "this is a fault of the policy"
                )
            self._owner[blade] = key
            self._pod(key, seat, blade)

    def _carry(self, key: str, outcome: Outcome, now: float) -> None:
        """Write an outcome into the gang's record, and what follows from it into its life."""
        gang, life = self._gangs[key], self._lives[key]
        if outcome.phase == PREEMPTING and gang.told.phase != PREEMPTING:
            by = outcome.order.deadline_s if outcome.order else now
            self._at(min(by, now + SAVE_S), _Kind.GONE, key)
        elif outcome.placement is None:
            _note(life, outcome, now)
        elif outcome.phase == PLACED:
            self._run_on(key, outcome, now)
        told = _told(gang, outcome, now)
        if told != gang.told or outcome.placement != gang.placement:
            self._gangs[key] = replace(gang, told=told, placement=outcome.placement)

    def _run_on(self, key: str, outcome: Outcome, now: float) -> None:
        """Start a gang that was placed, and let one go on that is whole again."""
        running, life = self._running.get(key), self._lives[key]
        if running is None:
            limit_s = life.job.gang.max_runtime_s
            latest_s = FOREVER if limit_s is None else now + limit_s
            running = self._running[key] = _Running(now + self._left_s[key], latest_s)
            if life.start_s is None:
                life.start_s = now
        elif running.stopped_s is not None and outcome.ready:
            running.ends_s += now - running.stopped_s + SETBACK_S
            running.stopped_s = None
        else:
            return
        self._at(running.due_s(), _Kind.END, key)


def _note(life: Life, outcome: Outcome, now: float) -> None:
    """Keep what a waiting gang was promised and told."""
    promised, estimate = outcome.reserved_s, outcome.estimate
    if promised is not None and (not life.promises or life.promises[-1].start_s != promised):
        life.promises.append(Promise(now, promised))
    kept = life.estimates
    if estimate is not None and (not kept or now >= kept[-1][0] + ESTIMATES_EVERY_S):
        kept.append((now, estimate))


def _told(gang: GangRecord, outcome: Outcome, now: float) -> Told:
    """Return the status as it reads once the outcome is written; words apart from the reason."""
    told = gang.told
    return Told(
        phase=outcome.phase,
        epoch=outcome.epoch,
        reason=outcome.reason,
        position=outcome.position,
        ready=outcome.ready,
        ready_since_s=told.ready_since_s if told.ready is outcome.ready else now,
        observed=gang.generation,
        placed_s=outcome.placed_s,
        order=outcome.order,
        estimate=outcome.estimate,
        advised_size=outcome.advised_size,
    )
