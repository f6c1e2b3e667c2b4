"""Answer the gangs of one pool that wait, one after another, most entitled first.

    1. the tenant's limits
    2. a place now, on what is not kept for anybody before it; an elastic gang takes a smaller
       size only where that ends sooner than waiting for a larger one
    3. else the earliest time by the time table; where others that rank lower could make room
       sooner, the cheapest of them are asked to give way
    4. the first `MOST_RESERVED` of those that wait are promised their blades for that time
       (conservative backfill); those behind may start, if they delay none of these (EASY)

What is decided counts at once: seats are taken, promises are kept free.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tramontane.api import clock
from tramontane.api.quantity import format_duration
from tramontane.api.reasons import PendingReason
from tramontane.scheduler import outcome, victims
from tramontane.scheduler.explain import MOST_SHOWN, Refusal, counted
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.forecast import Forecast
from tramontane.scheduler.gangs import Estimate, GangRecord, Order, Placement
from tramontane.scheduler.outcome import Outcome
from tramontane.scheduler.place import Plan, find, misconfigured, why_not
from tramontane.scheduler.releases import UNLIMITED_S, ends_s
from tramontane.scheduler.sharing import Shares
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.timetable import Promise, TimeTable

MOST_RESERVED: Final = 100
# Looking for gangs that give way is dear; those who come later in the order ask in a later pass.
MOST_HUNTS: Final = 8
MOST_IN_VAIN: Final = 24
# A gang that starts within this time anyway is not worth anybody's work.
SOON_ENOUGH_S: Final = 120.0
# Refusals that a freed blade can end, and for which spares stand back.
FOR_ROOM = frozenset(
    {
        PendingReason.WAITING_FOR_CAPACITY,
        PendingReason.TOPOLOGY_PLACEMENT_FAILED,
        PendingReason.HEALTH_HOLD,
        PendingReason.RESERVED_FOR_OTHER,
        PendingReason.WAITING_FOR_PREEMPTED,
    }
)


@dataclass(slots=True)
class Queue:
    """Hold what is decided about one pool so far within a pass.

    `sitting` are its placed gangs; `orders` are those of them that must give way, new and old. A
    gang that recovers is `protected`: it does not give way before it is whole, or its claim ends.
    `before` are the promises of the last pass, `promises` those of this one.
    """

    snapshot: Snapshot
    pool: Pool
    shares: Shares
    sitting: Mapping[str, GangRecord]
    now_s: float
    forecast: Forecast
    protected: Collection[str] = ()
    before: Mapping[str, Promise] = field(default_factory=dict)
    promises: dict[str, Promise] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    refused: bool = False
    table: TimeTable = field(init=False)
    _answers: dict[object, Refusal] = field(default_factory=dict)
    _hunts: int = 0
    _in_vain: int = 0
    _at_most: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay out the time table of what sits on the pool now."""
        self.table = TimeTable(self.snapshot, self.pool, self.now_s)
        for gang in self.sitting.values():
            assert gang.placement is not None
            self.table.settle(gang, gang.placement, ends_s(gang, self.now_s))
            if gang.told.order is not None:
                self.orders[gang.key] = gang.told.order
        row_of = self.snapshot.fleet.row_of
        for key, pods in self.snapshot.pods.of_gang.items():
            if key not in self.sitting:
                for pod in pods.values():
                    row = row_of.get(pod.node, -1)
                    if self.pool.first <= row < self.pool.end:
                        self.table.settle_pod(row, pod.requests)

    def answer(self, gang: GangRecord, position: int) -> Outcome:
        """Return the outcome of a gang that waits."""
        refusal = self._quota(gang)
        if refusal is not None:
            return outcome.waiting(gang, *refusal, position=position)
        gang = self.shares.within(gang)
        answer = self._try(gang)
        if isinstance(answer, Plan):
            answer = self._as_promised(gang, answer)
            size = gang.size_of(len(answer.placement.seats))
            text = self._worth_waiting(gang, size)
            if not text:
                self._seat(gang, answer.placement)
                return outcome.fresh(gang, answer, self.now_s)
            answer = Refusal(PendingReason.WAITING_FOR_CAPACITY, text)
            gang_now = replace(gang, sizes=tuple(s for s in gang.sizes if s > size))
        else:
            gang_now = gang
        reason, text = answer.reason, answer.message.removeprefix(f"Gang {gang.key}: ")
        if reason not in FOR_ROOM:
            comes = self._delivered(gang) if reason == PendingReason.EXCEEDS_POOL else None
            return outcome.waiting(gang, reason, text, position=position, estimate=comes)
        self.refused = True
        if len(self.table.reservations) >= MOST_RESERVED:
            return outcome.waiting(gang, reason, text, position=position)
        before = self.before.get(gang.key)
        promise = self.table.earliest(gang_now, before)
        if asked := self._ask(gang_now, promise):
            promise = self.table.earliest(gang_now, before)
            reason, text = PendingReason.WAITING_FOR_PREEMPTED, _asked_words(asked, promise)
        if promise is None:
            comes = self._delivered(gang)
            return outcome.waiting(gang, reason, text, position=position, estimate=comes)
        self.table.reserve(gang, *promise)
        self.promises[gang.key] = Promise(gang.uid, gang.generation, *promise)
        return outcome.waiting(
            gang,
            reason,
            text,
            position=position,
            reserved_s=promise[0],
            estimate=self.forecast.estimate(self.now_s, promise[0]),
        )

    def _as_promised(self, gang: GangRecord, plan: Plan) -> Plan:
        """Return the plan on the blades that the gang was promised, where these are free now.

        Others may look better by now, but those are what the ones behind it were promised.
        """
        before = self.before.get(gang.key)
        if before is None or gang.spares or plan.note:
            return plan
        kept = self.table.kept_now(gang, before)
        same = kept is not None and len(kept.seats) == len(plan.placement.seats)
        return replace(plan, placement=kept) if kept is not None and same else plan

    def _quota(self, gang: GangRecord) -> tuple[PendingReason, str] | None:
        """Return why the gang's tenant may not start it.

        Where one of its gangs waits for the tenant's maximum, those behind it wait, too: else
        they would use up for ever what it needs.
        """
        if self.shares.room(gang) is None:
            return self.shares.refusal(gang)
        if (first := self._at_most.get(gang.tenant)) is not None:
            text = (
                f"must wait for Gang {first} of the same tenant, which waits for its maxGPUs; "
                "raise the priority, or the tenant's maxGPUs"
            )
            return PendingReason.WAITING_FOR_QUOTA, text
        refusal = self.shares.refusal(gang)
        if refusal is not None and refusal[0] is PendingReason.WAITING_FOR_QUOTA:
            self._at_most[gang.tenant] = gang.key
        return refusal

    def may_use(self, gang: GangRecord, gpus: int) -> bool:
        """Return whether the gang's tenant may use so many GPUs more, and nobody waits for them."""
        room = self.shares.room(gang)
        return gpus <= 0 or room is None or (gpus <= room and gang.tenant not in self._at_most)

    def _try(self, gang: GangRecord) -> Plan | Refusal:
        """Return a place now, or why there is none; equal gangs get equal answers."""
        key = (_shape(gang, self.now_s), self.snapshot.version, len(self.table.reservations))
        if key in self._answers:
            known = self._answers[key]
            return Refusal(known.reason, f"Gang {gang.key}: {known.message}")
        answer = misconfigured(self.snapshot, gang)
        if answer is None:
            allowed = self.table.now(gang)
            if (plan := find(allowed, gang, self.now_s)) is not None:
                return plan
            if allowed is not self.snapshot and find(self.snapshot, gang, self.now_s) is not None:
                answer = self._reserved(gang)
            else:
                answer = why_not(self.snapshot, gang, self.now_s)
        text = answer.message.removeprefix(f"Gang {gang.key}: ")
        self._answers[key] = Refusal(answer.reason, text)
        return answer

    def _reserved(self, gang: GangRecord) -> Refusal:
        """Return the refusal of a gang for which there is room, but not long enough."""
        kept = self.table.kept_for(gang)
        first = kept[0]
        if gang.max_runtime_s is None:
            way_out = "set maxRuntime: a run that is over by then may start now"
        else:
            way_out = (
                f"it starts now with a maxRuntime below "
                f"{format_duration(max(1, int(first.start_s - self.now_s)))}, or after them"
            )
        return Refusal(
            PendingReason.RESERVED_FOR_OTHER,
            f"Gang {gang.key}: needs blades that are kept for {counted(len(kept), 'gang')} before "
            f"it (the first is Gang {first.gang}, from {clock.utc(first.start_s)}); {way_out}",
        )

    def _worth_waiting(self, gang: GangRecord, size: int) -> str:
        """Return in words that a larger size later ends sooner than this one now, or nothing.

        The work is `maxRuntime` at the best size; with fewer blades it takes as many times longer.
        """
        larger = tuple(other for other in gang.sizes if other > size)
        if not larger or gang.max_runtime_s is None:
            return ""
        promise = self.table.earliest(replace(gang, sizes=larger))
        if promise is None:
            return ""
        best, wait_s = max(gang.sizes), promise[0] - self.now_s
        later = gang.size_of(len(promise[1].seats))
        ends_later_s = wait_s + gang.max_runtime_s * best / later
        if ends_later_s >= gang.max_runtime_s * best / size:
            return ""
        return (
            f"needs {later} blades (got {size} of the sizes it may have); it waits, since "
            f"{later} from {clock.utc(promise[0])} on end sooner than {size} now"
        )

    def _ask(self, gang: GangRecord, promise: tuple[float, Placement] | None) -> list[str]:
        """Return who gives way to the gang; ask the cheapest to, where that is sooner.

        Gangs that were asked before leave anyway; more are asked only where those do not do.
        """
        asked = sorted(key for key, order in self.orders.items() if order.by == gang.key)
        leave_s = max((self.orders[key].deadline_s for key in asked), default=self.now_s)
        soon_s = max(self.now_s + SOON_ENOUGH_S, leave_s + 1)
        if promise is not None and promise[0] <= soon_s:
            return asked
        candidates = [
            one
            for one in self.sitting.values()
            if one.key not in self.orders
            and one.key not in self.protected
            and self.shares.may_preempt(gang, one)
        ]
        if not candidates or self._hunts >= MOST_HUNTS or self._in_vain >= MOST_IN_VAIN:
            return asked
        # Not before those who were asked already have left, or others would be asked in vain.
        then_s = max(leave_s, math.ceil(self.now_s + max(one.grace_s for one in candidates))) + 1.0
        # Those that are gone by then anyway are counted as gone.
        candidates = [one for one in candidates if ends_s(one, self.now_s) > then_s]
        snapshot = self.table.at(gang, then_s)
        chosen = victims.cheapest(snapshot, self.pool, gang, candidates, now_s=self.now_s)
        if chosen is None:
            self._in_vain += 1
            return asked
        self._hunts += 1
        rank = self.shares.rank(gang)
        for victim in map(self.sitting.__getitem__, chosen.keys):
            # Whole seconds: that is what a status holds, and it must read back the same.
            deadline_s = float(math.ceil(self.now_s + victim.grace_s))
            over = rank.over(self.shares.rank(victim))
            why = f"{over}; {chosen.gpu_hours:.1f} GPU-hours of work are lost"
            self.orders[victim.key] = Order(gang.key, deadline_s, why)
            self.table.give_way(victim.key, deadline_s)
        return sorted([*asked, *chosen.keys])

    def _seat(self, gang: GangRecord, placement: Placement) -> None:
        row_of = self.snapshot.fleet.row_of
        rows: dict[int, list[int]] = {}
        owners = gang.slot_of_seats(len(placement.seats))
        for owner, name in zip(owners, placement.seats, strict=True):
            rows.setdefault(owner, []).append(row_of[name])
        for owner, of_slot in rows.items():
            self.snapshot.take(of_slot, gang.slots[owner].ask.requests)
        for name in placement.spares:
            self.snapshot.hold(row_of[name], gang.key)
        runs_s = UNLIMITED_S if gang.max_runtime_s is None else gang.max_runtime_s
        self.table.settle(gang, placement, self.now_s + runs_s)
        self.shares.took(gang, len(placement.seats))

    def _delivered(self, gang: GangRecord) -> Estimate | None:
        """Return when enough blades will have been delivered, where only blades are lacking."""
        if gang.required or gang.slice_size > 1 or not self.pool.record.deliveries:
            return None
        ever = self.table.rows_ever(gang)
        lacking = sum(gang.counts(min(gang.wanted_sizes()))) - ever
        for delivery in sorted(self.pool.record.deliveries, key=lambda one: one.at_s):
            lacking -= delivery.blades
            if lacking <= 0:
                return Estimate(max(delivery.at_s, self.now_s), max(delivery.at_s, self.now_s))
        return None


def _asked_words(keys: Sequence[str], promise: tuple[float, Placement] | None) -> str:
    shown = ", ".join(keys[:MOST_SHOWN])
    more = f" and {len(keys) - MOST_SHOWN} more" if len(keys) > MOST_SHOWN else ""
    until = f" by {clock.utc(promise[0])}" if promise else ""
    return (
        f"needs blades of {counted(len(keys), 'gang')} of lower rank, to save and leave{until} "
        f"({shown}{more})"
    )


def _shape(gang: GangRecord, now_s: float) -> tuple[object, ...]:
    """Return what decides whether a gang fits: equal shapes fit alike."""
    return (
        gang.slots,
        gang.sizes,
        gang.spares,
        gang.pack,
        gang.required,
        gang.relaxed(now_s),
        gang.relax_after_s,
        gang.slice_size,
        gang.slice_level,
        gang.avoid,
        gang.max_runtime_s,
        gang.shares_blades,
        gang.flaw,
    )
