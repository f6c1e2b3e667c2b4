"""Say what follows for a replica from what happened to it: pure, one replica at a time.

Rows are tried from the top.

| seen | outcome |
|---|---|
| it leaves already | none |
| its Gang must give way | LEAVE: it drains, and another one waits for a place |
| a blade of its is out or gone | REPLACE: it is dropped, another one avoids that blade |
| it failed for good because of its weights, and by now others verified them | REPLACE |
| it has failed for good | none |
| it is stopped, and a pod of its has not ended for 2 min | REPLACE: nobody can end it there |
| it is stopped, or a rank ended, on a blade that is doubted | REPLACE |
| it is stopped | none: it waits its back-off |
| its weights are not what they must be, but others verified them | REPLACE |
| the same, and nobody has | FAIL: it is not tried again |
| any other rank ended, was evicted or vanished | RESTART |
| a blade of its is doubted, it works | FOLLOW: another one comes, then it leaves |
| it was restarted more than recovery.restarts times, and never moved | FOLLOW, elsewhere |
| anything else | none |

Restarts are spaced by base · 2^(n - 1), at most max; after the last one that is allowed, and of a
replica that was moved once already, by max. A replica that has served for 10 min, and for max,
begins to count anew.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tramontane.api import clock
from tramontane.api.inferencedeployment import InferenceRecovery
from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.ends import end_of
from tramontane.controllers.inferencedeployment.fates import Fate, Finding, fate_of
from tramontane.controllers.inferencedeployment.replicas import ALIVE, Replica, State
from tramontane.controllers.inferencedeployment.world import World
from tramontane.controllers.trainingjob.durations import seconds

SERVED_LONG_S: Final = 600.0
# A process that outlives its kill by so much hangs in its kernel, mostly in a GPU's driver.
STUCK_S: Final = 120.0
#: Blades that a replica avoids at most.
MAX_AVOIDED: Final = 64
# Beyond this the longest back-off that can be written has been reached.
_MOST_DOUBLINGS: Final = 40


class Do(Enum):
    """Say what is to be done about a replica; see the module."""

    RESTART = auto()
    REPLACE = auto()
    FOLLOW = auto()
    LEAVE = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say what is to be done about a replica, why, and which blades its successor avoids."""

    do: Do
    reason: InferenceReason
    why: str
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """Say what is known of the weights of the replica's revision.

    Attributes:
        digest: what they must be; None while nobody knows.
        verified: whether some replica found them to be that.
    """

    digest: str | None = None
    verified: bool = False


def outcome_of(world: World, replica: Replica, known: Known) -> Outcome | None:
    """Return what follows for the replica; see the module's table."""
    if replica.leaves:
        return None
    if (order := _order(replica)) is not None:
        return Outcome(Do.LEAVE, InferenceReason.PREEMPTED, order)
    blades = replica.blades if replica.placed or replica.pods else ()
    fates = [fate_of(world, blade) for blade in blades]
    over = [finding for finding in fates if finding.is_over]
    doubted = [finding for finding in fates if finding.fate is Fate.DOUBTED]
    if over:
        return _replace(over)
    if replica.state is State.FAILED:
        return _verified_since(replica, known)
    if replica.state is State.STOPPING:
        return _replace(doubted) if doubted else _stuck(world, replica) or _moved(world, replica)
    return _alive(world, replica, known, doubted)


def _alive(world: World, replica: Replica, known: Known, doubted: list[Finding]) -> Outcome | None:
    end = end_of(replica, known.digest, world.now) if replica.state in ALIVE else None
    if end is not None and end.reason is InferenceReason.ARTIFACT_MISMATCH:
        if known.verified:
            return Outcome(Do.REPLACE, end.reason, end.why, (replica.seats[end.seat],))
        return Outcome(Do.FAIL, end.reason, end.why, (replica.seats[end.seat],))
    if end is not None:
        return _replace(doubted) if doubted else Outcome(Do.RESTART, end.reason, end.why)
    if doubted:
        avoid = tuple(finding.blade for finding in doubted)
        return Outcome(Do.FOLLOW, doubted[0].reason, doubted[0].why, avoid)
    return _moved(world, replica)


def _verified_since(replica: Replica, known: Known) -> Outcome | None:
    reason, entry = InferenceReason.ARTIFACT_MISMATCH, replica.entry
    if entry.reason is not reason or not known.verified:
        return None
    return Outcome(Do.REPLACE, reason, entry.why or "", entry.avoid)


def _stuck(world: World, replica: Replica) -> Outcome | None:
    if not replica.pods or replica.since_s(world.now) < STUCK_S:
        return None
    pod = replica.pods[0]
    why = f"pod {pod.name} on {pod.node} has not ended for {STUCK_S:.0f} s"
    avoid = tuple(dict.fromkeys(one.node for one in replica.pods if one.node))
    return Outcome(Do.REPLACE, InferenceReason.BLADE_FAULT, why, avoid)


def _moved(world: World, replica: Replica) -> Outcome | None:
    entry = replica.entry
    if not is_spent(entry, world.deployment.spec.recovery) or entry.moves:
        return None
    if replica.state is State.SERVING:
        return None
    why = f"it was restarted {entry.restarts - 1} times ({entry.why})"
    return Outcome(Do.FOLLOW, InferenceReason.ENGINE_FAILED, why, replica.blades)


def _replace(findings: list[Finding]) -> Outcome:
    avoid = tuple(finding.blade for finding in findings)
    return Outcome(Do.REPLACE, findings[0].reason, findings[0].why, avoid)


def _order(replica: Replica) -> str | None:
    gang = replica.gang
    if gang is None or (order := gang.status.preempt) is None:
        return None
    return f"{order.by} takes its blades" + (f" ({order.reason})" if order.reason else "")


def is_spent(entry: ReplicaStatus, recovery: InferenceRecovery) -> bool:
    """Return whether the replica has failed more often than it is restarted without a thought."""
    return entry.restarts > recovery.restarts


def is_hopeless(entry: ReplicaStatus, recovery: InferenceRecovery) -> bool:
    """Return whether the replica keeps failing, wherever it is."""
    return is_spent(entry, recovery) or (entry.moves > 0 and entry.restarts > 0)


def backoff_s(entry: ReplicaStatus, recovery: InferenceRecovery) -> float:
    """Return how long after its last failure the replica starts again."""
    longest_s = seconds(recovery.backoff.max)
    if is_hopeless(entry, recovery):
        return longest_s
    doublings = min(max(entry.restarts - 1, 0), _MOST_DOUBLINGS)
    return min(longest_s, seconds(recovery.backoff.base) * 2.0**doublings)


def waits_s(replica: Replica, recovery: InferenceRecovery, now: float) -> float:
    """Return for how long the replica must not start yet."""
    if replica.entry.failed_at is None:
        return 0.0
    return clock.parse(replica.entry.failed_at) + backoff_s(replica.entry, recovery) - now


def has_served_long(entry: ReplicaStatus, recovery: InferenceRecovery, now: float) -> bool:
    """Return whether what failed before tells nothing any more; `entry` is as it was written."""
    if entry.state != State.SERVING or entry.since is None:
        return False
    long_s = max(SERVED_LONG_S, seconds(recovery.backoff.max))
    return now - clock.parse(entry.since) >= long_s
