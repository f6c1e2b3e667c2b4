"""Bring the replicas that there are to those that are wanted, as fast as capacity allows.

1. who has been replaced leaves
2. of each revision, those too many leave: who waits, fails, loads; then the least loaded
3. new ones come, at most one more than wanted at a time while others must still leave
4. one that is doubted, or keeps failing, is followed by another: one at a time

A replica that serves leaves only while enough others do:

| the rollout is | so many must serve on |
|---|---|
| none, or Surge | as many as are wanted |
| Serial | one fewer than are wanted; never below minReplicas - 1 |
| Serial, and a gang waits although nobody is leaving | one fewer than have a place; the same |

What has been rejected gets no requests, and may always leave.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice

from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.api.reasons import InferenceReason, PendingReason
from tramontane.controllers.inferencedeployment.case import Case
from tramontane.controllers.inferencedeployment.fates import Fate, fate_of
from tramontane.controllers.inferencedeployment.recovery import MAX_AVOIDED, Do, is_hopeless
from tramontane.controllers.inferencedeployment.replicas import Replica, State

# A gang that has waited so long will not be placed by itself in the next second.
WAITS_S = 5.0
_FIRST_TO_LEAVE = (
    State.WAITING,
    State.FAILED,
    State.STOPPING,
    State.STARTING,
    State.LOADING,
    State.SERVING,
)


@dataclass(frozen=True, slots=True)
class Aim:
    """Say what is wanted.

    Attributes:
        wanted: replicas, of all revisions together.
        targets: live replicas by revision; one that is not named is wanted 0 times.
        serial: whether one may leave before another one serves.
        rejected: revisions that get no requests any more.
        stable: the revision that is served before all others.
    """

    wanted: int
    targets: Mapping[str, int]
    serial: bool = False
    rejected: frozenset[str] = frozenset()
    stable: str | None = None


def converge(case: Case, aim: Aim) -> Case:
    """Return the case with replicas sent away and called, by the module's steps."""
    case = _without_replaced(case)
    case = _without_surplus(case, aim)
    for revision in _by_right(aim):
        case = _filled(case, aim, revision)
    return _tidy(_followed(case, aim))


def waits_for_capacity(replica: Replica, now: float) -> bool:
    """Return whether the replica's Gang waits for a place, and not just for the scheduler."""
    gang = replica.gang
    if gang is None or replica.placed or replica.state is not State.WAITING:
        return False
    reason = gang.status.reason
    told = reason is not None and reason is not PendingReason.PENDING_EVALUATION
    return told and replica.since_s(now) >= WAITS_S


def _without_replaced(case: Case) -> Case:
    """Return the case without those whose replacement serves, or has a place they have no use of.

    A replacement that nobody needs any more, and that does not serve, leaves itself.
    """
    for new in case.live:
        old = case.named(new.entry.replaces)
        if old is None:
            continue
        if new.takes_over(case.now) or (
            new.placed and not old.answers and is_hopeless_here(case, old)
        ):
            case = case.leave(old, f"{new.name} replaces it ({old.entry.why or 'doubted'})")
        elif new.state is not State.SERVING and not has_cause(case, old):
            case = case.leave(new, f"{old.name} works again")
    return case


def has_cause(case: Case, old: Replica) -> bool:
    """Return whether there still is a reason to replace the replica."""
    outcome = case.outcomes.get(old.name)
    doubted = outcome is not None and outcome.do is Do.FOLLOW
    return doubted or (not old.answers and is_hopeless_here(case, old))


def is_hopeless_here(case: Case, old: Replica) -> bool:
    """Return whether the replica keeps failing where it is."""
    return is_hopeless(old.entry, case.spec.recovery)


def _without_surplus(case: Case, aim: Aim) -> Case:
    """Return the case without those that are too many of their revision and may leave. O(n log n).

    They leave one by one, as `_leaves_before` says. Who may not leave now may not after another
    one has left either, so each is looked at once.
    """
    relieved = case.relieved
    there = [one for one in case.live if one.name not in relieved]
    counts = Counter(one.revision for one in there)
    serve = {
        one.name
        for one in case.live
        if one.takes_over(case.now) and one.revision not in aim.rejected
    }
    floor, makes_room = _floor(case, aim), False
    queue = [
        (_leaves_before(case, one), one.name)
        for one in there
        if counts[one.revision] > aim.targets.get(one.revision, 0)
    ]
    heapify(queue)
    while queue:
        victim = case.by_name[heappop(queue)[1]]
        count, target = counts[victim.revision], aim.targets.get(victim.revision, 0)
        needed = victim.state is State.SERVING and victim.revision not in aim.rejected
        if count <= target or (needed and len(serve) - (victim.name in serve) < floor):
            continue
        case = case.leave(victim, _why_too_many(aim, victim.revision, count))
        counts[victim.revision] -= 1
        serve.discard(victim.name)
        if not makes_room:
            floor, makes_room = _floor(case, aim), True
        if (old := case.named(victim.entry.replaces)) is not None:
            # Of two for one, the older counts again.
            counts[old.revision] += 1
            heappush(queue, (_leaves_before(case, old), old.name))
    return case


def _leaves_before(case: Case, replica: Replica) -> tuple[int, bool, float, int]:
    rank, sound = _FIRST_TO_LEAVE.index(replica.state), replica.name not in case.outcomes
    return rank, sound, replica.requests, -replica.ordinal


def _floor(case: Case, aim: Aim) -> int:
    """Return how many must serve on while others leave by our doing."""
    if not aim.serial:
        return aim.wanted
    most = aim.wanted
    useful = [one for one in case.live if one.revision not in aim.rejected]
    makes_room = any(one.leaves for one in case.replicas)
    if not makes_room and any(waits_for_capacity(one, case.now) for one in useful):
        most = min(most, sum(one.placed for one in useful))
    return max(case.spec.capacity.min_replicas, most, 1) - 1


def _why_too_many(aim: Aim, revision: str, count: int) -> str:
    if revision in aim.rejected:
        return f"revision {revision} was rejected"
    return f"{count} of revision {revision} for {aim.targets.get(revision, 0)} wanted"


def _by_right(aim: Aim) -> Iterator[str]:
    """Yield the wanted revisions, the stable one first: it must not starve for a new one."""
    yield from sorted(aim.targets, key=lambda revision: (revision != aim.stable, revision))


def _filled(case: Case, aim: Aim, revision: str) -> Case:
    if revision not in case.world.revisions:
        return case  # first it is stored
    relieved = case.relieved
    total = sum(one.name not in relieved for one in case.live)
    leftover = any(
        len(case.counted(other)) > aim.targets.get(other, 0)
        for other in {one.revision for one in case.live}
    )
    limit = max(aim.wanted + (leftover and not aim.serial), sum(aim.targets.values()))
    waiting = iter([one for one in case.successors if one.revision == revision])
    have, target = len(case.counted(revision)), aim.targets[revision]
    coming = []
    for number in range(have, have + min(target - have, limit - total)):
        why = f"{number} of revision {revision} for {target} wanted"
        entry = ReplicaStatus(name="new", revision=revision)
        if (heir := next(waiting, None)) is not None:
            why = f"in place of {heir.of}: {heir.outcome.why}"
            update = {
                "avoid": heir.avoid,
                "reason": heir.outcome.reason,
                "why": heir.outcome.why,
            }
            entry = entry.model_copy(update=update)
        coming.append((entry, why))
    return case.come(*coming)


def _followed(case: Case, aim: Aim) -> Case:
    """Return the case with a replacement called for the first that wants one, one at a time."""
    if case.relieved:
        return case
    for name, outcome in case.outcomes.items():
        old = case.named(name)
        if outcome.do is not Do.FOLLOW or old is None or not aim.targets.get(old.revision):
            continue
        if old.revision not in case.world.revisions or old.state is State.WAITING:
            continue
        moves = outcome.reason is InferenceReason.ENGINE_FAILED
        entry = ReplicaStatus(
            name="new",
            revision=old.revision,
            avoid=outcome.avoid if moves else _avoided(case, old, outcome.avoid),
            replaces=name,
            moves=int(moves),
            reason=outcome.reason,
            why=outcome.why,
        )
        if moves:
            case = case.put(old.noted(moves=old.entry.moves + 1))
        return case.come((entry, f"to replace {name}: {outcome.why}"))
    return case


def _avoided(case: Case, old: Replica, first: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a replacement avoids: all blades of the pool that it would be replaced on again.

    Else two of them, where the scheduler gives them away, would hand a replica to and fro.
    """
    world, pool = case.world, old.gang.spec.pool if old.gang is not None else None
    bad = (
        name
        for name, blade in sorted(world.blades.items())
        if blade.spec.pool == pool and fate_of(world, name).fate is not Fate.FINE
    )
    return tuple(islice(dict.fromkeys((*first, *bad)), MAX_AVOIDED))


def _tidy(case: Case) -> Case:
    """Return the case without links to replicas that leave: their names will be given again."""
    for replica in case.live:
        if replica.entry.replaces and case.named(replica.entry.replaces) is None:
            case = case.put(replica.noted(replaces=None))
    return case
