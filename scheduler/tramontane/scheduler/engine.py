"""Decide, in one pass over all gangs, what each one's status shall say.

    1. gangs that are not active give up their seats
    2. placed gangs with lost seats move those: a gang that ran comes before one that never did,
       so no filler takes what it needs
    3. in order of priority, then age: gangs without a place are placed, placed gangs take the
       spares they lack

A plan is counted in the snapshot before the next gang is looked at. Where a gang finds no place,
younger or less important ones that do find one still go ahead (backfill without reservations: a
big gang may wait long on a busy pool). Spares are not refilled from a pool in which a more
important gang was just refused: they would only keep it waiting.

The same gangs, fleet, pods and time give the same outcomes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import explain
from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import INACTIVE, PENDING, PLACED, GangRecord, Placement
from tramontane.scheduler.integrity import AS_ITS_PODS_ARE, PUT_BACK, Finding, mend
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.recover import Move, Recovery, recover, refill
from tramontane.scheduler.snapshot import Pods, Snapshot, take_snapshot

# Refusals that a freed blade can end, and for which spares stand back.
FOR_ROOM = frozenset(
    {
        PendingReason.WAITING_FOR_CAPACITY,
        PendingReason.TOPOLOGY_PLACEMENT_FAILED,
        PendingReason.HEALTH_HOLD,
    }
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a gang's status shall say; `reason` is empty where nothing is amiss."""

    phase: str
    epoch: int
    placement: Placement | None
    ready: bool
    reason: str = ""
    message: str = ""
    position: int = 0
    moves: tuple[Move, ...] = ()


@dataclass(slots=True)
class Pass:
    """Hold the outcomes of one pass.

    `look_again_s` is when the clock alone may change one of them; None where it cannot.
    `hungry` says that a freed blade would: some gang waits for room or lacks a spare.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    look_again_s: float | None = None
    hungry: bool = False


def decide(
    fleet: Fleet,
    gangs: Mapping[str, GangRecord],
    pods: Pods,
    now_s: float,
    found: Mapping[str, Finding] | None = None,
) -> Pass:
    """Return the outcome of every gang that is not being deleted.

    `found` is what the caller put right already (`integrity.put_back`), to be said.
    """
    gangs, findings = mend(gangs, fleet, pods)
    findings = {**(found or {}), **findings}
    snapshot = take_snapshot(fleet, {k: _as_counted(g) for k, g in gangs.items()}, pods)
    live = sorted(
        (gang for gang in gangs.values() if not gang.deleting),
        key=lambda gang: (-gang.priority, gang.created_s, gang.key),
    )
    done = Pass()
    recovered = {
        gang.key: recover(snapshot, gang, now_s)
        for gang in live
        if gang.active and gang.lost_seats() and _sound(gang, findings)
    }
    refused: set[str] = set()
    positions: dict[str, int] = {}
    for gang in live:
        if not gang.active:
            outcome = _inactive(gang)
        elif gang.placement is not None:
            recovery, finding = recovered.get(gang.key), findings.get(gang.key)
            refilling = gang.pool not in refused
            outcome = _placed(snapshot, gang, recovery, finding, may_refill=refilling, now_s=now_s)
            lacking = len(outcome.placement.spares if outcome.placement else ()) < gang.spares
            done.hungry |= lacking or outcome.reason == PendingReason.WAITING_FOR_SPARE
        else:
            position = positions.get(gang.pool, 0) + 1
            outcome = _pending(snapshot, gang, position, now_s)
            if outcome.phase == PENDING:
                positions[gang.pool] = position
                done.hungry = True
                if outcome.reason in FOR_ROOM:
                    refused.add(gang.pool)
        done.outcomes[gang.key] = outcome
        if not outcome.ready and gang.active:
            _look_again(done, gang, now_s)
    return done


def _as_counted(gang: GangRecord) -> GangRecord:
    """Return the gang as the snapshot counts it: one that is not active holds no seats."""
    return gang if gang.active or gang.placement is None else replace(gang, placement=None)


def _sound(gang: GangRecord, findings: Mapping[str, Finding]) -> bool:
    """Return whether lost seats may be moved: the placement is as the spec asks."""
    finding = findings.get(gang.key)
    return bool(gang.slots) and (finding is None or finding.mended)


def _inactive(gang: GangRecord) -> Outcome:
    """Return the outcome of a gang that holds no seats: its pods count until they are gone."""
    return Outcome(
        INACTIVE,
        gang.told.epoch + (gang.placement is not None),
        None,
        ready=False,
        reason=PendingReason.SUSPENDED,
        message=f"Gang {gang.key}: holds no seats while spec.active is false",
    )


def _pending(snapshot: Snapshot, gang: GangRecord, position: int, now_s: float) -> Outcome:
    """Return the outcome of a gang without a place, and count its seats if it gets one."""
    answer = place(snapshot, gang, now_s)
    if isinstance(answer, Refusal):
        return Outcome(
            PENDING,
            gang.told.epoch,
            None,
            ready=False,
            reason=answer.reason,
            message=answer.message,
            position=position,
        )
    _assume(snapshot, gang, answer)
    return Outcome(PLACED, gang.told.epoch + 1, answer.placement, ready=True, message=answer.note)


def _assume(snapshot: Snapshot, gang: GangRecord, plan: Plan) -> None:
    row_of, seats = snapshot.fleet.row_of, plan.placement.seats
    rows: dict[int, list[int]] = {}
    for owner, name in zip(gang.slot_of_seats(len(seats)), seats, strict=True):
        rows.setdefault(owner, []).append(row_of[name])
    for owner, of_slot in rows.items():
        snapshot.take(of_slot, gang.slots[owner].ask.requests)
    for name in plan.placement.spares:
        snapshot.hold(row_of[name], gang.key)


def _placed(
    snapshot: Snapshot,
    gang: GangRecord,
    recovery: Recovery | None,
    finding: Finding | None,
    *,
    may_refill: bool,
    now_s: float,
) -> Outcome:
    """Return the outcome of a gang that has its seats.

    | what there is | Ready | reason |
    |---|---|---|
    | a placement that cannot be right, and nobody knows better | False | Misconfigured |
    | a lost seat without a new blade                           | False | WaitingForSpare |
    | an edit that was put back, or fewer spares than asked     | True  | none, but a message |
    """
    before = gang.placement
    assert before is not None
    if finding is not None and not finding.mended:
        text = (
            f"Gang {gang.key}: {finding.text}; nothing is moved: correct the placement, "
            "or set spec.active to false and true again to have the gang placed anew"
        )
        return Outcome(
            PLACED,
            gang.told.epoch,
            before,
            ready=False,
            reason=PendingReason.MISCONFIGURED,
            message=text,
        )
    after = recovery.placement if recovery else before
    moves = recovery.moves if recovery else ()
    if gang.slots and may_refill:
        after = refill(snapshot, gang, after, now_s)
    epoch = gang.told.epoch + (after != before)
    if recovery is not None and recovery.waiting:
        return Outcome(
            PLACED,
            epoch,
            after,
            ready=False,
            reason=PendingReason.WAITING_FOR_SPARE,
            message=explain.lost_seats_wait(gang, recovery.waiting),
            moves=moves,
        )
    message = explain.spares_short(gang, len(after.spares))
    if finding is not None:
        message = f"Gang {gang.key}: {finding.text}"
    elif after == before and gang.told.message.endswith((PUT_BACK, AS_ITS_PODS_ARE)):
        message = gang.told.message  # said until the placement changes, so that it is read
    elif not message and gang.flaw:
        message = f"Gang {gang.key}: {gang.flaw}; its placement is kept"
    return Outcome(PLACED, epoch, after, ready=True, message=message, moves=moves)


def _look_again(done: Pass, gang: GangRecord, now_s: float) -> None:
    """Note when waiting turns a required packing into a preferred one."""
    if not gang.required or gang.relax_after_s is None or gang.relaxed(now_s):
        return
    since = gang.waiting_since_s()
    at = (now_s if since is None else since) + gang.relax_after_s
    done.look_again_s = at if done.look_again_s is None else min(done.look_again_s, at)
