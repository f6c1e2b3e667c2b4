"""Run passes: wait for a change, decide, write what differs.

    1. before the first pass, read all gangs from the API server: what the last leader wrote may
       not have come through our watch yet, and its seats must not be given again
    2. wait until something matters, then a moment longer, so that changes that come together are
       one pass; never more than half of the time is spent deciding
    3. decide
    4. write statuses, what somebody waits for first; numbers in messages may lag a little
    5. what is written counts from its answer on; what was not answered counts as given, and is
       written again
    6. bind the pods of foreign gangs meanwhile, without waiting for it

The cycle owns no truth: it may be killed between any two lines.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tramontane.api.names import MANAGER_SCHEDULER
from tramontane.api.reasons import PendingReason
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, Conflict, Gone, NotFound, TooManyRequests, Unreachable
from tramontane.kube.events import EventRecorder
from tramontane.kube.gcpause import gc_paused
from tramontane.kube.resources import GANGS, PODS
from tramontane.scheduler import metrics
from tramontane.scheduler.engine import Outcome, Pass, decide
from tramontane.scheduler.forecast import Learner
from tramontane.scheduler.foreign.binder import Binder
from tramontane.scheduler.foreign.member import decode_member
from tramontane.scheduler.gangs import GangRecord, Placement, decode_gang
from tramontane.scheduler.status import Change, change, ready_since_s, render
from tramontane.scheduler.telling import Teller
from tramontane.scheduler.timetable import Promise
from tramontane.scheduler.world import OURS, World

log = logging.getLogger(__name__)

COALESCE_S = 0.005
RESYNC_S = 60.0
WORDS_EVERY_S = 5.0
MOST_WORDS = 100
RETRY_S = (0.5, 30.0)
SERVER_FAULT = 500
# A start within a resync of its promise has kept it: nothing else wakes the cycle at that time.
LATE_S = RESYNC_S
COMPONENT = "tramontane.dev/scheduler"


class Cycle:
    """The passes of the leading scheduler; it writes all of Gang.status, and binds pods."""

    def __init__(
        self,
        client: Client,
        world: World,
        *,
        leading: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._world = world
        self._leading = leading
        self._clock = clock
        self._events = EventRecorder(client, COMPONENT)
        self._binder = Binder(client, world.roster, self._events, world.changed.set)
        self._learner = Learner()
        self._promises: Mapping[str, Promise] = {}
        self._teller = Teller(self._events)
        self._worded: dict[str, float] = {}
        self._failures = 0
        self._decided_in_s = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Run passes until `stop` is set; the pass under way is finished first."""
        world = self._world
        await world.wait_synced()
        await self.catch_up()
        telling = asyncio.create_task(self._events.run())
        try:
            while not stop.is_set():
                world.changed.clear()
                again_s = await self.run_once()
                await _either(world.changed, stop, timeout_s=again_s)
                await asyncio.sleep(max(COALESCE_S, self._decided_in_s))
            await self._binder.finish()
        finally:
            telling.cancel()

    async def catch_up(self) -> None:
        """Take all gangs, and the pods that were bound, as the API server has them now."""
        delay_s = RETRY_S[0]
        while True:
            try:
                await self._read_gangs()
                await self._read_bound()
            except Gone:
                continue
            except (ApiError, Unreachable) as error:
                log.warning("catching up failed error=%r", str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_S[1])
            else:
                return

    async def run_once(self) -> float:
        """Decide once and write what differs; return in how many seconds to look again."""
        world, now_s = self._world, self._clock()
        began = time.perf_counter()
        gangs, found = world.memory.gangs()
        foreign = world.foreign()
        records = gangs | self._binder.records(foreign, now_s)
        with gc_paused():
            forecast = self._learner.forecast
            done = decide(
                world.fleet(),
                records,
                world.pods,
                now_s,
                found,
                forecast=forecast,
                promises=self._promises,
            )
        self._promises = done.promises
        self._decided_in_s = time.perf_counter() - began
        self._learn(records, done, now_s)
        metrics.count_pass(done, self._decided_in_s, records)
        world.hungry = done.hungry
        for key, finding in found.items():
            log.warning("gang edited gang=%s finding=%r", key, finding.text)
        if not self._leading():
            return RESYNC_S
        self._teller.looked_at(world.fleet())
        say_s = self._binder.carry_out(foreign, done.outcomes, now_s)
        keys, late = self._to_write(gangs, done, now_s)
        written = await self._write_all(gangs, done, keys, now_s)
        again_s = self._look_again_s(done, now_s, written=written, late=late)
        return again_s if say_s is None else min(again_s, say_s)

    def _learn(self, gangs: Mapping[str, GangRecord], done: Pass, now_s: float) -> None:
        """Compare the starts of this pass with what was promised before."""
        started = [
            key
            for key, outcome in done.outcomes.items()
            if outcome.placement is not None and gangs[key].placement is None
        ]
        for late_s in self._learner.started(started, now_s):
            metrics.PROMISES.labels("late" if late_s > LATE_S else "kept").inc()
        self._learner.waits(done.promised(), now_s)

    def _to_write(
        self, gangs: Mapping[str, GangRecord], done: Pass, now_s: float
    ) -> tuple[list[str], bool]:
        """Return the gangs to write, facts before words, and whether some words must wait."""
        memory = self._world.memory
        facts: list[str] = []
        words: list[str] = []
        for key, outcome in done.outcomes.items():
            if key not in gangs:
                continue
            difference = change(memory.seen[key], outcome)
            if difference is Change.FACTS or memory.unsure(key):
                facts.append(key)
            elif difference is Change.WORDS:
                words.append(key)
            elif is_trusted(outcome):
                memory.adopt(key)
        due = [k for k in words if now_s >= self._worded.get(k, 0.0) + WORDS_EVERY_S][:MOST_WORDS]
        self._worded = {k: at for k, at in self._worded.items() if k in done.outcomes}
        self._worded |= dict.fromkeys(due, now_s)
        return facts + due, len(due) < len(words)

    async def _write_all(
        self, gangs: Mapping[str, GangRecord], done: Pass, keys: Sequence[str], now_s: float
    ) -> bool:
        """Write these gangs' statuses; return whether all is written.

        Who gives blades up comes first, and who may still have them because an answer was lost: at
        no moment, and whoever dies in between, may two gangs have one blade. Of a write that did
        not succeed the blades are not given on; everybody else's are.
        """
        memory, outcomes = self._world.memory, done.outcomes

        async def write(some: Sequence[str]) -> list[str]:
            """Write these; return which of them are not written."""
            written = await asyncio.gather(
                *(self._write(gangs[key], outcomes[key], now_s) for key in some)
            )
            return [key for key, is_written in zip(some, written, strict=True) if not is_written]

        first = [k for k in keys if memory.unsure(k) or _gives_up(gangs[k], outcomes[k])]
        known = {k: (memory.seen[k].placement, gangs[k].placement) for k in first}
        failed = await write(first)
        kept = {blade for k in failed for placement in known[k] for blade in _blades(placement)}
        rest = [k for k in keys if k not in known]
        may = [k for k in rest if kept.isdisjoint(_blades(outcomes[k].placement))]
        return not await write(may) and not failed and len(may) == len(rest)

    async def _write(self, gang: GangRecord, outcome: Outcome, now_s: float) -> bool:
        """Write one status; return whether nothing is left to be done about it."""
        memory = self._world.memory
        try:
            answer = await self._client.apply(
                GANGS,
                render(gang, outcome, now_s),
                manager=MANAGER_SCHEDULER,
                subresource="status",
            )
        except (NotFound, Conflict):
            # Gone, or another gang of this name: the informer tells the rest.
            memory.give_up(gang.key)
            return True
        except (ApiError, Unreachable) as error:
            unknown = not isinstance(error, ApiError) or error.status >= SERVER_FAULT
            if unknown and not isinstance(error, TooManyRequests):
                told = replace(
                    gang.told,
                    epoch=outcome.epoch,
                    phase=outcome.phase,
                    reason=outcome.reason,
                    message=outcome.message,
                    order=outcome.order,
                    ready=outcome.ready,
                    ready_since_s=ready_since_s(gang, outcome, now_s),
                    placed_s=outcome.placed_s,
                )
                memory.hope(replace(gang, placement=outcome.placement, told=told))
            else:
                memory.give_up(gang.key)
            metrics.WRITES.labels("unanswered" if unknown else "refused").inc()
            log.warning("writing gang status failed gang=%s error=%r", gang.key, str(error))
            return False
        metrics.WRITES.labels("ok").inc()
        memory.wrote(decode_gang(answer), trusted=is_trusted(outcome))
        self._teller.wrote(gang, outcome, now_s)
        return True

    async def _read_bound(self) -> None:
        """Take the pods that the last leader bound and that our watch has not shown yet."""
        roster, continue_ = self._world.roster, None
        while True:
            page = await self._client.list_page(PODS, field_selector=OURS, continue_=continue_)
            for raw in page.get("items") or ():
                member = decode_member(raw)
                if member.node and not roster.is_seen(member):
                    roster.assume(member, member.node, self._clock())
            continue_ = page["metadata"].get("continue")
            if not continue_:
                return

    async def _read_gangs(self) -> None:
        continue_: str | None = None
        while True:
            page = await self._client.list_page(GANGS, continue_=continue_)
            for raw in page.get("items") or ():
                record = decode_gang(raw)
                self._world.memory.observe(record.key, record)
            continue_ = page["metadata"].get("continue")
            if not continue_:
                return

    def _look_again_s(self, done: Pass, now_s: float, *, written: bool, late: bool) -> float:
        delays = [RESYNC_S]
        if late:
            delays.append(WORDS_EVERY_S)
        if done.look_again_s is not None:
            delays.append(max(0.0, done.look_again_s - now_s))
        self._failures = 0 if written else self._failures + 1
        if self._failures:
            delays.append(min(RETRY_S[0] * 2 ** (self._failures - 1), RETRY_S[1]))
        return min(delays)


def is_trusted(outcome: Outcome) -> bool:
    """Return whether a placement is right, to be put back if somebody edits it.

    One that is known to be wrong is not: a person is asked to correct it, and may.
    """
    wrong = outcome.reason == PendingReason.MISCONFIGURED and not outcome.ready
    return outcome.placement is None or not wrong


async def _either(changed: asyncio.Event, stop: asyncio.Event, timeout_s: float) -> None:
    """Return when either is set, or after a while."""
    tasks = [asyncio.create_task(event.wait()) for event in (changed, stop)]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def _gives_up(gang: GangRecord, outcome: Outcome) -> bool:
    """Return whether the gang loses blades that it has."""
    return not _blades(gang.placement) <= _blades(outcome.placement)


def _blades(placement: Placement | None) -> set[str]:
    return {*placement.seats, *placement.spares} if placement is not None else set()
