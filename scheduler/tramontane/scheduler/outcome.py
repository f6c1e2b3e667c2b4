"""What a gang's status shall say, from what was decided about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import explain
from tramontane.scheduler.gangs import (
    INACTIVE,
    PENDING,
    PLACED,
    PREEMPTING,
    Estimate,
    GangRecord,
    Order,
    Placement,
)
from tramontane.scheduler.integrity import AS_ITS_PODS_ARE, PUT_BACK, Finding
from tramontane.scheduler.place import Plan
from tramontane.scheduler.recover import Move, Recovery
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.timetable import Promise


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a gang's status shall say; `reason` is empty where nothing is amiss.

    `reserved_s` is the start that a waiting gang is promised, by limits; `estimate` is when it is
    likely to start. `observed` is the generation of the spec that it speaks of; None is the present
    one. Times are Unix seconds.
    """

    phase: str
    epoch: int
    placement: Placement | None
    ready: bool
    reason: str = ""
    message: str = ""
    position: int = 0
    moves: tuple[Move, ...] = ()
    placed_s: float | None = None
    reserved_s: float | None = None
    estimate: Estimate | None = None
    order: Order | None = None
    advised_size: int = 0
    observed: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Hold why a placement stays although another size is asked for.

    `later` says that the request is still to be looked at.
    """

    reason: PendingReason | None
    text: str
    later: bool = False


@dataclass(slots=True)
class Pass:
    """Hold the outcomes of one pass.

    `look_again_s` is when the clock alone may change one of them; None where it cannot.
    `hungry` says that a freed blade would: some gang waits for room or lacks a spare. `snapshot`
    is what is in use once all of it is carried out. `promises` go into the next pass.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    look_again_s: float | None = None
    hungry: bool = False
    snapshot: Snapshot | None = None
    promises: dict[str, Promise] = field(default_factory=dict)

    def look_again(self, at_s: float) -> None:
        """Note that a pass is due at this time, if not before."""
        if self.look_again_s is None or at_s < self.look_again_s:
            self.look_again_s = at_s

    def promised(self) -> Mapping[str, float]:
        """Return the starts that waiting gangs are promised."""
        return {
            key: outcome.reserved_s
            for key, outcome in self.outcomes.items()
            if outcome.reserved_s is not None
        }


def inactive(gang: GangRecord) -> Outcome:
    """Return the outcome of a gang that holds no seats: its pods count until they are gone."""
    return Outcome(
        INACTIVE,
        gang.told.epoch + (gang.placement is not None),
        None,
        ready=False,
        reason=PendingReason.SUSPENDED,
        message=f"Gang {gang.key}: holds no seats while spec.active is false",
    )


def waiting(
    gang: GangRecord,
    reason: str,
    text: str,
    *,
    position: int,
    reserved_s: float | None = None,
    estimate: Estimate | None = None,
) -> Outcome:
    """Return the outcome of a gang without a place. One that gave way has a new epoch."""
    return Outcome(
        PENDING,
        gang.told.epoch + (gang.told.phase == PREEMPTING),
        None,
        ready=False,
        reason=reason,
        message=f"Gang {gang.key}: {text}",
        position=position,
        reserved_s=reserved_s,
        estimate=estimate,
    )


def fresh(gang: GangRecord, plan: Plan, now_s: float) -> Outcome:
    """Return the outcome of a gang that has just got its place."""
    return Outcome(
        PLACED,
        gang.told.epoch + 1,
        plan.placement,
        ready=True,
        message=plan.note,
        placed_s=now_s,
    )


def giving_way(gang: GangRecord, order: Order, placed_s: float) -> Outcome:
    """Return the outcome of a gang that must leave: it keeps its seats until its pods are gone."""
    return Outcome(
        PREEMPTING,
        gang.told.epoch,
        gang.placement,
        ready=False,
        message=f"Gang {gang.key}: gives way to Gang {order.by}: {order.reason}",
        placed_s=placed_s,
        order=order,
    )


def kept_as_it_is(gang: GangRecord, finding: Finding, placed_s: float) -> Outcome:
    """Return the outcome of a placement that cannot be right, where nobody knows better."""
    text = (
        f"Gang {gang.key}: {finding.text}; nothing is moved: correct the placement, "
        "or set spec.active to false and true again to have the gang placed anew"
    )
    return Outcome(
        PLACED,
        gang.told.epoch,
        gang.placement,
        ready=False,
        reason=PendingReason.MISCONFIGURED,
        message=text,
        placed_s=placed_s,
    )


def seated(
    gang: GangRecord,
    after: Placement,
    recovery: Recovery | None,
    finding: Finding | None,
    *,
    placed_s: float,
    advised_size: int,
    kept: Kept | None = None,
    replaced: Estimate | None = None,
) -> Outcome:
    """Return the outcome of a gang that sits on `after` now; `replaced` is when it may be whole.

    | what there is, first match | Ready | reason |
    |---|---|---|
    | a lost seat without a new blade                | False | WaitingForSpare |
    | another size is asked for and does not fit     | True | why not |
    | an edit that was put back, or fewer spares than asked | True | none, but a message |
    """
    observed = gang.told.observed if kept is not None and kept.later else None
    epoch = gang.told.epoch + (after != gang.placement)
    moves = recovery.moves if recovery else ()
    if recovery is not None and recovery.waiting:
        return Outcome(
            PLACED,
            epoch,
            after,
            ready=False,
            reason=PendingReason.WAITING_FOR_SPARE,
            message=_with(gang, explain.lost_seats_wait(gang, recovery.waiting), kept),
            moves=moves,
            placed_s=placed_s,
            advised_size=advised_size,
            observed=observed,
            estimate=replaced,
        )
    message = explain.spares_short(gang, len(after.spares))
    if finding is not None:
        message = f"Gang {gang.key}: {finding.text}"
    elif after == gang.placement and gang.told.message.endswith((PUT_BACK, AS_ITS_PODS_ARE)):
        message = gang.told.message  # said until the placement changes, so that it is read
    elif not message and gang.flaw:
        message = f"Gang {gang.key}: {gang.flaw}; its placement is kept"
    return Outcome(
        PLACED,
        epoch,
        after,
        ready=True,
        reason=(kept.reason or "") if kept else "",
        message=_with(gang, message, kept),
        moves=moves,
        placed_s=placed_s,
        advised_size=advised_size,
        observed=observed,
    )


def _with(gang: GangRecord, message: str, kept: Kept | None) -> str:
    """Return a message with, last, why the placement keeps its size: it is found there again."""
    if kept is None:
        return message
    return f"{message}; {kept.text}" if message else f"Gang {gang.key}: {kept.text}"
