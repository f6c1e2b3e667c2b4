"""Tell whether a seat's blade is lost to its job: the pure reading of Blade, Node and Pool.

| Blade | Node | loss |
|---|---|---|
| Quarantined, Draining by a Fatal fault | any | BladeFault, as drain.onFatal says |
| Quarantined, Draining by a Degraded one | any | BladeFault, as drain.onDegraded says |
| Repairing, Requalifying, RMA | any | BladeFault: nothing may run there |
| Lost | Ready | NodeLost: kubelet and agent are silent, or another machine has its name |
| absent | Ready | none: somebody deleted the Blade, and it is made anew |
| any | absent, or silent for nodeLostAfter | NodeLost |
| anything else: Suspect, Unknown, Degraded, held by a person, ... | Ready | none |

| drain | the loss is |
|---|---|
| Now, or its timeout is over | at once |
| AtCheckpoint | planned: the job saves first (`handshake`) |
| WhenIdle | none before the timeout |

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

# A Node that turns NotReady has been silent for the control plane's grace: 40 s by default, 50 s
# from Kubernetes 1.32 on (kube-controller-manager --node-monitor-grace-period).
SILENT_ALREADY_S = 40.0
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
        planned: whether the pod may stay until a checkpoint has been saved.
    """

    cause: IncidentCause
    code: str
    since: float
    node_gone: bool
    planned: bool = False


def loss_of(world: World, name: str, pool: NodePool) -> Loss | None:
    """Return why the blade is lost to the job, or None while it is not."""
    blade, node = world.blades.get(name), world.nodes.get(name)
    if node is None:
        return Loss(IncidentCause.NODE_LOST, "node-deleted", world.now, node_gone=True)
    is_lost = blade is not None and blade.status.state is BladeState.LOST
    code = _code(blade) if blade is not None and is_lost else "node-not-ready"
    if node.ready is not True:
        if is_silent(world, name):
            gone = node.ready is None
            return Loss(IncidentCause.NODE_LOST, code, node.ready_since, node_gone=gone)
    elif blade is not None and is_lost:
        return Loss(IncidentCause.NODE_LOST, code, _since(blade, world.now), node_gone=False)
    when = _leaves(world, blade, pool) if blade is not None else None
    if blade is None or when is None:
        return None
    since, planned = _fault_since(blade, world.now), when is DrainWhen.AT_CHECKPOINT
    node_gone = node.ready is None
    return Loss(IncidentCause.BLADE_FAULT, _code(blade), since, node_gone, planned)


def closed_to_new(world: World, name: str) -> Loss | None:
    """Return why no new pod may come to a blade whose pods may stay: a person wants it empty.

    A hold by `tramontane quarantine` and a cordon both say so. What runs there runs on; a pod that
    was evicted, as by `kubectl drain`, is made anew elsewhere.
    """
    blade, node = world.blades.get(name), world.nodes.get(name)
    if blade is not None and blade.status.reason is BladeReason.HELD_BY_PERSON:
        return Loss(IncidentCause.EVICTED, "held", _since(blade, world.now), node_gone=False)
    if node is not None and node.unschedulable:
        return Loss(IncidentCause.EVICTED, "cordoned", world.now, node_gone=False)
    return None


def is_silent(world: World, name: str) -> bool:
    """Return whether the node is gone, or has not been Ready for nodeLostAfter.

    Unknown means that its kubelet is silent, and has been for a while; False that the kubelet
    itself says so.
    """
    node = world.nodes.get(name)
    if node is None or node.ready is True:
        return node is None
    already_s = SILENT_ALREADY_S if node.ready is None else 0.0
    silence_s = already_s + world.now - node.ready_since
    return silence_s >= seconds(world.job.spec.recovery.node_lost_after)


def is_sound(world: World, name: str) -> bool:
    """Return whether nothing speaks against the blade: then a crash on it is the user's own."""
    blade, node = world.blades.get(name), world.nodes.get(name)
    if blade is None or node is None or node.ready is not True:
        return False
    verdict = blade.status.verdict
    if verdict is not None and verdict.severity in {Severity.FATAL, Severity.DEGRADED}:
        return False
    held = blade.status.reason is BladeReason.HELD_BY_PERSON
    return held or blade.status.state in {BladeState.HEALTHY, BladeState.UNKNOWN}


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


def _leaves(world: World, blade: Blade, pool: NodePool) -> DrainWhen | None:
    """Return whether running work leaves the blade: Now, AtCheckpoint, or not yet."""
    when = _drain_of(blade, pool)
    if when is None or when is DrainWhen.NOW:
        return when
    if world.now - _since(blade, world.now) >= seconds(pool.spec.remediation.drain.timeout):
        return DrainWhen.NOW
    return when if when is DrainWhen.AT_CHECKPOINT else None


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
    for severity in (Severity.FATAL, Severity.DEGRADED):
        for fault in faults:
            if fault.severity is severity:
                return fault.code
    return str(blade.status.reason or blade.status.state or "unknown")
