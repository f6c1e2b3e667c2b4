"""Tell whether a seat's blade is lost to its job: the pure reading of Blade, Node and Pool.

| Blade | Node | loss |
|---|---|---|
| Quarantined, Draining by a Fatal fault | any | BladeFault, when drain.onFatal says |
| Quarantined, Draining by a Degraded one | any | BladeFault, when drain.onDegraded says |
| Repairing, Requalifying, RMA | any | BladeFault: nothing may run there |
| Lost | any | NodeLost |
| absent | Ready | none: somebody deleted the Blade, and it is made anew |
| any | absent, or not Ready for nodeLostAfter | NodeLost |
| anything else: Suspect, Unknown, Degraded, held by a person, ... | Ready | none |

A blade that is only doubted keeps its running job: unknown is not healthy, but it is not dead.
"""

from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.blade import Blade, BladeState, Severity
from tramontane.api.nodepool import DrainWhen, NodePool
from tramontane.api.reasons import BladeReason
from tramontane.api.trainingjob import IncidentCause
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.observe import World

# A fault seen this long before the quarantine is not what the quarantine was for.
_SAME_FAULT_S = 600.0
_CONDEMNED = frozenset({BladeState.QUARANTINED, BladeState.DRAINING})
_CLOSED = frozenset({BladeState.REPAIRING, BladeState.REQUALIFYING, BladeState.RMA})


@dataclass(frozen=True, slots=True)
class Loss:
    """Say why a blade is lost to its job.

    Attributes:
        cause: what the incident will say.
        code: of the fault, or the blade's reason.
        since: when it happened, as far as anybody knows (Unix s).
        node_gone: whether nobody on the node can answer: its pods must be deleted by force.
    """

    cause: IncidentCause
    code: str
    since: float
    node_gone: bool


def loss_of(world: World, name: str, pool: NodePool) -> Loss | None:
    """Return why the blade is lost to the job, or None while it is not."""
    blade, node = world.blades.get(name), world.nodes.get(name)
    if node is None:
        return Loss(IncidentCause.NODE_LOST, "node-deleted", world.now, node_gone=True)
    if blade is not None and blade.status.state is BladeState.LOST:
        since = _since(blade, world.now)
        return Loss(IncidentCause.NODE_LOST, _code(blade), since, node_gone=node.ready is not True)
    silence_s = world.now - node.ready_since if node.ready is not True else 0.0
    if silence_s > seconds(world.job.spec.recovery.node_lost_after):
        return Loss(IncidentCause.NODE_LOST, "node-not-ready", node.ready_since, node_gone=True)
    if blade is not None and _leaves_now(world, blade, pool):
        since = _fault_since(blade, world.now)
        return Loss(
            IncidentCause.BLADE_FAULT, _code(blade), since, node_gone=node.ready is not True
        )
    return None


def is_sound(world: World, name: str) -> bool:
    """Return whether nothing speaks against the blade: then a crash on it is the user's own."""
    blade, node = world.blades.get(name), world.nodes.get(name)
    if blade is None or node is None or node.ready is not True:
        return False
    verdict = blade.status.verdict
    if verdict is not None and verdict.severity in {Severity.FATAL, Severity.DEGRADED}:
        return False
    return blade.status.state in {BladeState.HEALTHY, BladeState.UNKNOWN}


def _drain_of(blade: Blade, pool: NodePool) -> DrainWhen | None:
    """Return when running work leaves a condemned blade; None: the blade is not condemned."""
    status, drain = blade.status, pool.spec.remediation.drain
    if status.state in _CLOSED:
        return DrainWhen.NOW
    if status.state not in _CONDEMNED:
        return None
    severity = status.verdict.severity if status.verdict is not None else None
    if severity is Severity.FATAL or status.reason is BladeReason.INVENTORY_MISMATCH:
        return drain.on_fatal
    by_fault = severity is Severity.DEGRADED and status.reason is not BladeReason.HELD_BY_PERSON
    return drain.on_degraded if by_fault else None


def _leaves_now(world: World, blade: Blade, pool: NodePool) -> bool:
    """Return whether running work leaves the blade now.

    Now: at once. AtCheckpoint: after the first checkpoint since. WhenIdle: not before the
    timeout, which ends both waits.
    """
    when = _drain_of(blade, pool)
    if when is None or when is DrainWhen.NOW:
        return when is not None
    since = _since(blade, world.now)
    if world.now - since >= seconds(pool.spec.remediation.drain.timeout):
        return True
    saved = world.marks.saved if world.marks else None
    return when is DrainWhen.AT_CHECKPOINT and saved is not None and saved.at > since


def _since(blade: Blade, now: float) -> float:
    return clock.parse(blade.status.state_since) if blade.status.state_since else now


def _fault_since(blade: Blade, now: float) -> float:
    """Return when the fault behind the quarantine was first seen, else when the state began."""
    since = _since(blade, now)
    faults = blade.status.report.faults if blade.status.report else ()
    seen = [
        clock.parse(fault.first_seen)
        for fault in faults
        if fault.severity is Severity.FATAL and fault.first_seen
    ]
    recent = [at for at in seen if at > since - _SAME_FAULT_S]
    return min([since, *recent, now])


def _code(blade: Blade) -> str:
    """Return the worst fault's code, else the blade's reason."""
    faults = blade.status.report.faults if blade.status.report else ()
    fatal = (fault.code for fault in faults if fault.severity is Severity.FATAL)
    return next(fatal, str(blade.status.reason or blade.status.state or "unknown"))
