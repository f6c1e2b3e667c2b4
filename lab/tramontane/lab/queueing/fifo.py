"""Decide as best-effort FIFO does: who fits starts, in the order of the queue; nobody is kept room.

The order is that of Kueue's BestEffortFIFO: priority, then age. Places are found by the same
`place()` that the engine uses, so the two differ in time alone.
"""

from collections.abc import Hashable, Mapping

from tramontane.scheduler.engine import Outcome, Pass
from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import PENDING, PLACED, GangRecord
from tramontane.scheduler.place import place
from tramontane.scheduler.recover import recover
from tramontane.scheduler.snapshot import Pods, take_snapshot


def decide(fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods, now_s: float) -> Pass:
    """Return the outcome of every gang; gangs have one slot and no spares.

    What equals a refused gang in all but its age, and is no smaller, is refused unseen.
    """
    snapshot = take_snapshot(fleet, gangs, pods)
    done = Pass()
    too_big: dict[Hashable, int] = {}
    for gang in sorted(gangs.values(), key=lambda g: (-g.priority, g.created_s, g.key)):
        epoch, seats = gang.told.epoch, gang.slots[0].count
        if gang.placement is not None:
            recovery = recover(snapshot, gang, now_s)
            done.outcomes[gang.key] = Outcome(
                PLACED,
                epoch + bool(recovery.moves),
                recovery.placement,
                ready=not recovery.waiting,
                moves=recovery.moves,
                placed_s=gang.told.placed_s,
            )
            continue
        kind = _kind(gang, now_s)
        answer = place(snapshot, gang, now_s) if seats < too_big.get(kind, seats + 1) else None
        if answer is None or isinstance(answer, Refusal):
            too_big[kind] = min(seats, too_big.get(kind, seats))
            done.outcomes[gang.key] = Outcome(PENDING, epoch, None, ready=False)
            continue
        row_of = fleet.row_of
        snapshot.take([row_of[name] for name in answer.placement.seats], gang.slots[0].ask.requests)
        done.outcomes[gang.key] = Outcome(
            PLACED, epoch + 1, answer.placement, ready=True, placed_s=now_s
        )
    return done


def _kind(gang: GangRecord, now_s: float) -> Hashable:
    """Return what gangs have in common that only differ in size, age and limit."""
    pack = (gang.pack, gang.required, gang.relaxed(now_s), gang.slice_size, gang.slice_level)
    return gang.pool, gang.slots[0].ask, gang.avoid, pack
