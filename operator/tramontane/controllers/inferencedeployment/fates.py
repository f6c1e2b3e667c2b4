"""Tell what a blade means to a replica on it: the pure reading of Blade and Node.

| Node | Blade | fate |
|---|---|---|
| absent, or not ready for 5 s; another one is ready | any | GONE: nobody on it answers |
| not ready, and so is every other | any | FINE: it is we who hear nobody |
| ready | Lost, Repairing, Requalifying, RMA | OUT |
| ready | Quarantined, Draining; not the next row | OUT |
| ready | Quarantined, Draining by a Degraded fault or by a person | DOUBTED |
| ready | Suspect, or a verdict of Degraded | DOUBTED |
| cordoned, or tainted by whoever takes nodes away | any other | DOUBTED |
| ready | any other, or absent | FINE |

A doubted blade works: its replica serves on until another one does. Whoever holds a blade, and a
fault that is only expected, want it free, not empty this second.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tramontane.api.blade import Blade, BladeState, Severity
from tramontane.api.reasons import BladeReason, InferenceReason
from tramontane.controllers.inferencedeployment.world import World
from tramontane.kube.views import NodeView

# A kubelet that is restarted may miss a beat; one that is dead has been silent for 40 s already
# when its Node turns Unknown.
NOT_READY_S: Final = 5.0

_CLOSED: Final = frozenset(
    {BladeState.LOST, BladeState.REPAIRING, BladeState.REQUALIFYING, BladeState.RMA}
)
_CONDEMNED: Final = frozenset({BladeState.QUARANTINED, BladeState.DRAINING})
# Taints of those who take nodes away: cluster-autoscaler, Karpenter, people before a shutdown.
_LEAVES: Final = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disrupted",
        "node.kubernetes.io/out-of-service",
    }
)


class Fate(Enum):
    """Say what becomes of a replica on a blade; see the module."""

    FINE = auto()
    DOUBTED = auto()
    OUT = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold the fate of one blade, and why."""

    blade: str
    fate: Fate
    reason: InferenceReason = InferenceReason.BLADE_FAULT
    why: str = ""

    @property
    def is_over(self) -> bool:
        """Return whether nothing may stay there."""
        return self.fate in {Fate.OUT, Fate.GONE}


def fate_of(world: World, name: str) -> Finding:
    """Return what the blade means to a replica on it."""
    node, blade = world.nodes.get(name), world.blades.get(name)
    if node is None:
        return Finding(name, Fate.GONE, InferenceReason.NODE_LOST, f"node {name} is gone")
    silent_s = world.now - node.ready_since
    if node.ready is not True and silent_s >= NOT_READY_S:
        return _silent(world, name, silent_s)
    state = blade.status.state if blade is not None else None
    if blade is not None and (state in _CLOSED or (state in _CONDEMNED and not _is_mild(blade))):
        lost = state is BladeState.LOST
        reason = InferenceReason.NODE_LOST if lost else InferenceReason.BLADE_FAULT
        return Finding(name, Fate.OUT, reason, _why(blade))
    if blade is not None and (state in _CONDEMNED or _is_doubted(blade)):
        return Finding(name, Fate.DOUBTED, InferenceReason.BLADE_FAULT, _why(blade))
    if _is_leaving(node):
        return Finding(name, Fate.DOUBTED, InferenceReason.BLADE_FAULT, f"node {name} is drained")
    return Finding(name, Fate.FINE)


def _silent(world: World, name: str, silent_s: float) -> Finding:
    if not any(one.ready for one in world.nodes.values()):
        # There is nowhere to go, and what runs there may well run on.
        return Finding(name, Fate.FINE)
    why = f"node {name} has not been ready for {silent_s:.0f} s"
    return Finding(name, Fate.GONE, InferenceReason.NODE_LOST, why)


def patience_s(world: World, name: str) -> float | None:
    """Return in how many seconds a silent node counts as gone; None where it does not wait."""
    node = world.nodes.get(name)
    if node is None or node.ready is True:
        return None
    left_s = NOT_READY_S - (world.now - node.ready_since)
    return left_s if left_s > 0 else None


def _is_mild(blade: Blade) -> bool:
    status = blade.status
    severity = status.verdict.severity if status.verdict is not None else None
    if severity is Severity.FATAL:
        return False
    return severity is Severity.DEGRADED or status.reason is BladeReason.HELD_BY_PERSON


def _is_doubted(blade: Blade) -> bool:
    verdict = blade.status.verdict
    degraded = verdict is not None and verdict.severity is Severity.DEGRADED
    return degraded or blade.status.state is BladeState.SUSPECT


def _is_leaving(node: NodeView) -> bool:
    return node.unschedulable or any(taint.key in _LEAVES for taint in node.taints)


def _why(blade: Blade) -> str:
    status = blade.status
    faults = status.report.faults if status.report is not None else ()
    what = faults[0].code if faults else str(status.reason or "no reason given")
    return f"blade {blade.metadata.name} is {status.state} ({what})"
