"""Decide, in one pass over all gangs, what each one's status shall say.

    1. gangs that are not active, or gave way and have no pods left, give up their seats; an order
       to give way falls with the gang that it is for
    2. placed gangs with lost seats move those: a gang that ran comes before every other claim,
       so no filler takes what it needs; after `CLAIM_S` it queues for them like the others
    3. pool by pool, the most entitled first (`sharing`): gangs without a place are placed,
       promised blades for later, or refused (`waiting`); placed gangs take the spares they lack,
       and another size where their owner asks (`elastic`)

A plan is counted in the snapshot before the next gang is looked at. Spares are not refilled from
a pool in which a more important gang was just refused: they would only keep it waiting.

The same gangs, fleet, pods, time, forecast and last promises give the same outcomes.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import elastic
from tramontane.scheduler import outcome as outcomes
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.forecast import Forecast
from tramontane.scheduler.gangs import PLACED, PREEMPTING, GangRecord, Placement
from tramontane.scheduler.integrity import Finding, mend
from tramontane.scheduler.outcome import Outcome, Pass
from tramontane.scheduler.place import misconfigured
from tramontane.scheduler.records import PoolRecord
from tramontane.scheduler.recover import Recovery, recover, refill
from tramontane.scheduler.releases import ends_s, placed_since_s
from tramontane.scheduler.sharing import shares_of
from tramontane.scheduler.snapshot import Pods, Snapshot, take_snapshot
from tramontane.scheduler.timetable import Promise
from tramontane.scheduler.waiting import FOR_ROOM, Queue

CLAIM_S: Final = 3600.0
# Time for the operator to see that a gang gives way, before no pods means that none will come.
SETTLE_S: Final = 5.0

__all__ = ["CLAIM_S", "FOR_ROOM", "Outcome", "Pass", "decide"]


def decide(
    fleet: Fleet,
    gangs: Mapping[str, GangRecord],
    pods: Pods,
    now_s: float,
    found: Mapping[str, Finding] | None = None,
    *,
    forecast: Forecast | None = None,
    promises: Mapping[str, Promise] | None = None,
) -> Pass:
    """Return the outcome of every gang that is not being deleted.

    `found` is what the caller put right already (`integrity.put_back`), to be said; `forecast`
    what earlier starts taught; `promises` are those of the last pass, which keep their blades.
    """
    gangs = {key: _left(_called_off(gang, gangs), pods, now_s) for key, gang in gangs.items()}
    gangs, findings = mend(gangs, fleet, pods)
    findings = {**(found or {}), **findings}
    snapshot = take_snapshot(fleet, {k: _as_counted(g) for k, g in gangs.items()}, pods)
    one = _Pass(snapshot, gangs, findings, now_s, forecast or Forecast(), promises or {})
    return one.run()


@dataclass(slots=True)
class _Pass:
    """One pass: its inputs, and the outcomes so far."""

    snapshot: Snapshot
    gangs: Mapping[str, GangRecord]
    findings: Mapping[str, Finding]
    now_s: float
    forecast: Forecast
    promises: Mapping[str, Promise]

    def run(self) -> Pass:
        done, by_pool = Pass(snapshot=self.snapshot), _by_pool(self.gangs)
        claims = sorted(
            (gang for gang in self.gangs.values() if self._claims(gang)),
            key=lambda gang: (-gang.priority, gang.created_s, gang.key),
        )
        recovered = {gang.key: recover(self.snapshot, gang, self.now_s) for gang in claims}
        for name, live in by_pool.items():
            self._run_pool(done, name, live, recovered)
        return done

    def _run_pool(
        self,
        done: Pass,
        name: str,
        live: list[GangRecord],
        recovered: Mapping[str, Recovery],
    ) -> None:
        pool = self.snapshot.fleet.pools.get(name)
        shares = shares_of(pool.record if pool else PoolRecord(name, ()), live)
        queue = None
        if pool is not None:
            sitting = {
                g.key: replace(g, placement=recovered[g.key].placement) if g.key in recovered else g
                for g in live
                if g.active and g.placement is not None and g.slots
            }
            queue = Queue(
                self.snapshot,
                pool,
                shares,
                sitting,
                self.now_s,
                self.forecast,
                protected=recovered.keys(),
                before=self.promises,
            )
        position = 0
        for gang in shares.order(live):
            if not gang.active:
                outcome = outcomes.inactive(gang)
            elif gang.placement is not None:
                outcome = self._placed(done, gang, queue, recovered.get(gang.key))
                done.hungry |= _would_take_more(gang, outcome)
            else:
                outcome = self._waiting(gang, queue, position + 1)
                if outcome.placement is None:
                    position += 1
                    done.hungry = True
            done.outcomes[gang.key] = outcome
            self._look_again(done, gang, outcome)
        if queue is not None:
            done.promises |= queue.promises

    def _claims(self, gang: GangRecord) -> bool:
        """Return whether lost seats come before everybody else's claims."""
        if not self._movable(gang):
            return False
        since = gang.told.ready_since_s
        broken = gang.told.reason == PendingReason.WAITING_FOR_SPARE and since is not None
        return not broken or self.now_s < (since or 0.0) + CLAIM_S

    def _movable(self, gang: GangRecord) -> bool:
        """Return whether there are lost seats, and they may be moved."""
        if gang.deleting or not gang.active or not gang.slots or gang.told.order is not None:
            return False
        if gang.flaw:
            return False
        finding = self.findings.get(gang.key)
        return bool(gang.lost_seats()) and (finding is None or finding.mended)

    def _waiting(self, gang: GangRecord, queue: Queue | None, position: int) -> Outcome:
        if queue is None or gang.flaw:
            refusal = misconfigured(self.snapshot, gang)
            assert refusal is not None  # there is no such pool, or the spec cannot be read
            text = refusal.message.removeprefix(f"Gang {gang.key}: ")
            return outcomes.waiting(gang, refusal.reason, text, position=position)
        return queue.answer(gang, position)

    def _placed(
        self, done: Pass, gang: GangRecord, queue: Queue | None, recovery: Recovery | None
    ) -> Outcome:
        """Return the outcome of a gang that has its seats."""
        placement, placed_s = gang.placement, placed_since_s(gang)
        assert placement is not None
        finding = self.findings.get(gang.key)
        order = queue.orders.get(gang.key) if queue else gang.told.order
        if order is not None:
            return outcomes.giving_way(gang, order, placed_s)
        if finding is not None and not finding.mended:
            return outcomes.kept_as_it_is(gang, finding, placed_s)
        if recovery is None and self._movable(gang):
            recovery = recover(self.snapshot, _beside(queue, gang), self.now_s)
            if queue is not None and recovery.moves:
                queue.table.settle(gang, recovery.placement, ends_s(gang, self.now_s))
        after = recovery.placement if recovery else placement
        # A pass has hundreds of placed gangs, and most do not change: copies are dear.
        sits, kept = _seated_at(gang, after), None
        answer = elastic.resize(queue, sits) if queue else None
        if isinstance(answer, elastic.Resized):
            after, recovery = answer.placement, None
            if answer.left:
                done.look_again(self.now_s)
        elif answer is not None:
            kept = answer
            done.hungry |= kept.later
        if gang.slots and not (queue and queue.refused):
            after = refill(self.snapshot, gang, after, self.now_s)
        broken = recovery is not None and bool(recovery.waiting)
        sits = _seated_at(gang, after)
        replaced = elastic.replacement(queue, sits) if queue and broken else None
        size = elastic.advise(queue, sits, broken=broken, replaced=replaced) if queue else 0
        return outcomes.seated(
            gang,
            after,
            recovery,
            finding,
            placed_s=placed_s,
            advised_size=size,
            kept=kept,
            replaced=replaced,
        )

    def _look_again(self, done: Pass, gang: GangRecord, outcome: Outcome) -> None:
        """Note when the clock alone changes something for this gang."""
        if outcome.order is not None:
            settled_s = (gang.told.ready_since_s or self.now_s) + SETTLE_S
            over_s = max(outcome.order.deadline_s + SETTLE_S, self.now_s + 1)
            done.look_again(settled_s if settled_s > self.now_s else over_s)
        if outcome.ready or not gang.active:
            return
        if gang.required and gang.relax_after_s is not None and not gang.relaxed(self.now_s):
            # Waiting turns a required packing into a preferred one.
            since = gang.waiting_since_s()
            done.look_again((self.now_s if since is None else since) + gang.relax_after_s)


def _called_off(gang: GangRecord, gangs: Mapping[str, GangRecord]) -> GangRecord:
    """Return the gang without its order to give way where the one that it is for is gone.

    It keeps its seats: if its pods have ended already, they may come back there.
    """
    order = gang.told.order
    if order is None or gang.told.phase != PREEMPTING:
        return gang
    by = gangs.get(order.by)
    if by is not None and by.active and not by.deleting:
        return gang
    return replace(gang, told=replace(gang.told, phase=PLACED, order=None))


def _left(gang: GangRecord, pods: Pods, now_s: float) -> GangRecord:
    """Return the gang without its seats where it gave way: its pods are gone, or its time is over.

    Pods that are still there then, on a blade that hangs, say, count by themselves.
    """
    order = gang.told.order
    if gang.told.phase != PREEMPTING or gang.placement is None:
        return gang
    over = order is None or now_s >= order.deadline_s + SETTLE_S
    since = gang.told.ready_since_s
    early = since is not None and 0 <= now_s - since < SETTLE_S
    if not over and (early or pods.of_gang.get(gang.key)):
        return gang
    return replace(gang, placement=None, told=replace(gang.told, order=None))


def _beside(queue: Queue | None, gang: GangRecord) -> GangRecord:
    """Return the gang avoiding what is promised to others before it."""
    if queue is None or not (kept := queue.table.kept_for(gang)):
        return gang
    names = queue.snapshot.fleet.names
    promised = frozenset(names[row] for one in kept for row in one.rows.tolist())
    return replace(gang, avoid=gang.avoid | promised)


def _as_counted(gang: GangRecord) -> GangRecord:
    """Return the gang as the snapshot counts it: one that is not active holds no seats."""
    return gang if gang.active or gang.placement is None else replace(gang, placement=None)


def _by_pool(gangs: Mapping[str, GangRecord]) -> dict[str, list[GangRecord]]:
    live = sorted(
        (gang for gang in gangs.values() if not gang.deleting),
        key=lambda gang: (gang.pool, gang.created_s, gang.key),
    )
    groups: Iterator[tuple[str, Iterator[GangRecord]]] = itertools.groupby(live, lambda g: g.pool)
    return {pool: list(of_pool) for pool, of_pool in groups}


def _would_take_more(gang: GangRecord, outcome: Outcome) -> bool:
    """Return whether a placed gang waits for a seat, lacks spares, or would rather be larger."""
    placement = outcome.placement
    spares = placement.spares if placement is not None else ()
    if len(spares) < gang.spares or outcome.reason == PendingReason.WAITING_FOR_SPARE:
        return True
    size = gang.size_of(len(placement.seats)) if placement is not None else 0
    return bool(gang.sizes) and size < max(gang.sizes)


def _seated_at(gang: GangRecord, placement: Placement) -> GangRecord:
    return gang if placement is gang.placement else replace(gang, placement=placement)
