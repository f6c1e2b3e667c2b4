"""Plan what must be written for one blade: pure, from its world to patches and a status.

| owner of the Node | Node | Blade            | plan                                              |
|-------------------|------|------------------|---------------------------------------------------|
| none              | yes  | any              | delete the Blade, clear labels, taint, condition  |
| a pool            | yes  | none             | make it, mark the Node, status Unknown            |
| a pool            | yes  | of another pool  | delete it; its deletion brings us back here       |
| another, or none  | yes  | held, or in RMA  | its own pool's, as in the row below, until a      |
|                   |      |                  | person releases it; the message says so           |
| a pool            | yes  | its own          | what state.py says, and life.py on top of it      |
| none              | no   | named by a gang  | Lost, kept until the scheduler has moved the seat |
| none              | no   | held, or in RMA  | kept as it is until a person releases it          |
| none              | no   | not named        | delete                                            |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import (
    Blade,
    BladeState,
    BladeStatus,
    Severity,
    Verdict,
)
from tramontane.api.conditions import condition, set_conditions
from tramontane.api.names import (
    API_VERSION,
    CONDITION_GPU_HEALTHY,
    LABEL_BLADE_STATE,
    LABEL_POOL,
    LABEL_TRANCHE,
)
from tramontane.api.nodepool import RemediationMode
from tramontane.controllers.informers import Node
from tramontane.controllers.nodepool import (
    history,
    incidents,
    life,
    nodepatch,
    qualify,
    repair,
    verdict,
)
from tramontane.controllers.nodepool.life import Life
from tramontane.controllers.nodepool.owners import Claim
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.sight import (
    ANNOTATION_TRANCHE_COPIED,
    Sight,
    annotations_of,
    around_of,
    is_kept,
    ours_among,
    signs_of,
)
from tramontane.controllers.nodepool.state import (
    Decision,
    Prior,
    Ruling,
    Signs,
    decide,
)
from tramontane.controllers.nodepool.works import Want

Raw = dict[str, Any]

_EVENT_ACTIONS = {
    BladeState.QUARANTINED: "Quarantine",
    BladeState.DRAINING: "Drain",
    BladeState.REPAIRING: "Repair",
    BladeState.RMA: "GiveUp",
    BladeState.QUALIFYING: "Qualify",
    BladeState.REQUALIFYING: "Qualify",
}

#: In the message of a blade whose Node is another pool's by now, or nobody's.
MOVES_LATER = "when it is released"
_CALLS = (
    repair.FOR_A_PERSON,
    repair.MUST_LOOK,
    qualify.SAYS_NOTHING,
    life.NEVER_SPOKE,
    MOVES_LATER,
)


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """The GPUHealthy condition of a Node."""

    status: str
    reason: str
    message: str
    since: str

    def to_dict(self) -> Raw:
        """Return the API's form."""
        return {
            "type": CONDITION_GPU_HEALTHY,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": self.since,
            "lastHeartbeatTime": self.since,
        }


@dataclass(frozen=True, slots=True)
class Note:
    """An event for people."""

    warning: bool
    reason: str
    text: str
    action: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What must be written, in this order; nothing where a field is empty.

    Attributes:
        blade: the Blade to apply, without status.
        node: operations on the Node; together with `blade`, before all else.
        condition: the Node's condition, where it differs.
        uncondition: whether the Node's condition is to be taken off.
        status: the Blade's status to apply, without the report.
        delete: whether the Blade is to be deleted.
        want: the work pod that the blade must have; all others go, unless `keep`.
        overdue: pods that should have left the blade by now.
        labels, taint: what `node` was made of, to make it anew if the Node has changed.
    """

    blade: Raw | None = None
    node: tuple[nodepatch.Operation, ...] = ()
    labels: Mapping[str, str | None] = field(default_factory=dict)
    taint: str | None = None
    condition: NodeCondition | None = None
    uncondition: bool = False
    status: BladeStatus | None = None
    delete: bool = False
    decision: Decision | None = None
    want: Want | None = None
    keep: bool = False
    overdue: tuple[str, ...] = ()
    reported: bool = False
    note: Note | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to write."""
        return not (
            self.blade
            or self.node
            or self.condition
            or self.uncondition
            or self.status
            or self.delete
        )


def plan(sight: Sight, rule: Callable[[Decision], Ruling]) -> Plan:
    """Return what must be written for a blade.

    Args:
        sight: what is known.
        rule: asked at most once, when a fault calls for quarantine.
    """
    node, blade, policy = sight.node, sight.blade, sight.policy
    if node is None:
        if blade is not None and not sight.gangs and is_kept(blade):
            return Plan()
        if blade is None or policy is None or not sight.gangs:
            return Plan(delete=blade is not None)
    elif policy is None:
        return _leave(node, blade)
    elif blade is not None and blade.spec.pool != policy.pool:
        return Plan(delete=True)
    return _keep(sight, policy, rule)


def _leave(node: Node, blade: Blade | None) -> Plan:
    """Give a Node back as if we had never been there."""
    labels: dict[str, str | None] = {LABEL_POOL: None, LABEL_BLADE_STATE: None}
    if blade is not None and ANNOTATION_TRANCHE_COPIED in blade.metadata.annotations:
        labels[LABEL_TRANCHE] = None
    return Plan(
        node=tuple(nodepatch.plan(node, labels, None)),
        labels=labels,
        uncondition=bool(node.gpu_healthy),
        delete=blade is not None,
    )


def _keep(sight: Sight, policy: Policy, rule: Callable[[Decision], Ruling]) -> Plan:
    node, blade = sight.node, sight.blade
    annotations = annotations_of(node, blade, policy, sight.now)
    # 1. What is seen, and what is remembered.
    old = blade.status if blade is not None else BladeStatus()
    signs = signs_of(sight, policy, annotations)
    release = signs.release
    memory = life.begin(_memory(sight, old), policy.care, sight.now)
    memory = life.released(memory, policy.care, release, signs)
    memory = life.superseded(memory, policy.care, signs)
    own = life.own_finding(memory, release, sight.now)
    own = verdict.ruled(own, policy.rules) if own is not None else None
    if own is not None and signs.reported:
        signs = replace(signs, finding=life.both(signs.finding, own))
    prior = Prior(old.state, incidents.open_fault(memory.incidents))
    # 2. Decide; a fault's consequences need the pool's consent.
    decision = decide(signs, prior, policy, Ruling.GRANTED)
    if decision.by_fault:
        ruling = rule(decision)
        if ruling is not Ruling.GRANTED:
            decision = decide(signs, prior, policy, ruling)
    # 3. Where that is on the blade's way, and which test or repair it needs there.
    lived = life.live(around_of(sight, policy, signs), memory, policy.care, decision)
    if sight.kept_from is not None:
        lived = replace(lived, decision=_kept(lived.decision, sight.kept_from))
    decision = lived.decision
    # 4. What follows for Node and Blade.
    status = _status(sight, policy, signs, lived, memory.incidents)
    labels, taint = _marks(node, policy, decision, annotations)
    wanted = _condition(decision, status)
    return Plan(
        blade=_blade(sight.name, blade, policy, annotations),
        node=tuple(nodepatch.plan(node, labels, taint)) if node is not None else (),
        labels=labels,
        taint=taint,
        condition=wanted
        if node is not None
        and (node.gpu_healthy, node.gpu_healthy_reason) != (wanted.status, wanted.reason)
        else None,
        status=status if status != ours(old) else None,
        decision=decision,
        want=lived.want,
        keep=lived.keep,
        overdue=lived.overdue,
        reported=signs.reported,
        note=_note(old, decision),
    )


def _kept(decision: Decision, claim: Claim) -> Decision:
    """Say of a blade that is held, or in RMA, that its Node is not its pool's any more."""
    where = f"pool {claim.owner} and moves there" if claim.owner else "no pool and is left alone"
    why = f"its Node matches {where} {MOVES_LATER}"
    return replace(decision, message="; ".join(filter(None, (decision.message, why))))


def _memory(sight: Sight, old: BladeStatus) -> life.Memory:
    return life.Memory(
        state=old.state,
        state_since=clock.parse(old.state_since) if old.state_since else None,
        qualification=old.qualification,
        repair=old.repair,
        incidents=old.incidents or _seeded(sight.node, sight.blade, sight.now),
    )


def ours(status: BladeStatus) -> BladeStatus:
    """Return the part of a Blade's status that this controller writes."""
    return status.model_copy(update={"report": None})


def _blade(
    name: str, blade: Blade | None, policy: Policy, annotations: Mapping[str, str]
) -> Raw | None:
    """Return the Blade to apply, or None where it is there as it must be."""
    if blade is not None:
        meta = blade.metadata
        same = (
            meta.labels.get(LABEL_POOL) == policy.pool
            and annotations == ours_among(meta.annotations)
            and any(owner.uid == policy.uid for owner in meta.owner_references)
        )
        if same:
            return None
    return {
        "apiVersion": API_VERSION,
        "kind": "Blade",
        "metadata": {
            "name": name,
            "labels": {LABEL_POOL: policy.pool},
            "annotations": dict(annotations),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "NodePool",
                    "name": policy.pool,
                    "uid": policy.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {"pool": policy.pool},
    }


def _seeded(node: Node | None, blade: Blade | None, now: float) -> incidents.Record:
    """Return the memory of a Blade that was deleted by hand while its Node was quarantined."""
    if blade is not None and blade.status.state is not None:
        return ()
    if node is None or node.gpu_healthy != "False":
        return ()
    if node.labels.get(LABEL_BLADE_STATE) not in life.OUT:
        return ()
    return (incidents.lost_memory(node.gpu_healthy_reason, now),)


def _status(
    sight: Sight, policy: Policy, signs: Signs, lived: Life, record: incidents.Record
) -> BladeStatus:
    blade, decision = sight.blade, lived.decision
    old = blade.status if blade is not None else BladeStatus()
    generation = blade.metadata.generation if blade is not None else 1
    now = clock.utc(sight.now)
    context = incidents.Context(
        before=old.state,
        jobs=sight.gangs,
        release=signs.release,
        clear_after_s=policy.clear_after_s,
        qualification=old.qualification,
        repair=blade.status.repair if blade is not None else None,
    )
    followed = incidents.follow(record, signs, decision, context)
    works = decision.state is BladeState.HEALTHY and decision.severity in {
        Severity.NONE,
        Severity.INFO,
    }
    ready = condition(
        "Ready",
        works,
        decision.reason or decision.state.value,
        decision.message,
        generation,
    )
    return BladeStatus(
        observed_generation=generation,
        state=decision.state,
        state_since=old.state_since if old.state is decision.state and old.state_since else now,
        reason=decision.reason,
        message=decision.message or None,
        verdict=Verdict(severity=decision.severity, action=decision.action),
        qualification=lived.qualification,
        repair=repair.named(lived.repair, followed) if lived.repair is not None else None,
        incidents=followed,
        history=history.of(followed, sight.now),
        conditions=set_conditions(old.conditions, (ready,), now),
    )


def _marks(
    node: Node | None, policy: Policy, decision: Decision, annotations: Mapping[str, str]
) -> tuple[dict[str, str | None], str | None]:
    """Return the labels and the taint value that the Node must have."""
    labels: dict[str, str | None] = {
        LABEL_POOL: policy.pool,
        LABEL_BLADE_STATE: decision.state.value,
    }
    if node is not None and ANNOTATION_TRANCHE_COPIED in annotations:
        labels[LABEL_TRANCHE] = node.labels.get(policy.tranche_label)
    # A pool that only watches taints nothing; a person's hold and a blade's tests are no
    # remediation, and keep work away in any pool.
    watches = policy.mode is not RemediationMode.AUTO
    only_seen = watches and decision.state in {BladeState.UNKNOWN, BladeState.LOST}
    tainted = decision.state is not BladeState.HEALTHY and not only_seen
    return labels, decision.state.value if tainted else None


def _condition(decision: Decision, status: BladeStatus) -> NodeCondition:
    """Return the condition: False while a fault is open, Unknown while nobody can tell."""
    since = status.state_since or ""
    if decision.severity in {Severity.DEGRADED, Severity.FATAL}:
        fault = incidents.open_fault(status.incidents)
        code = (fault.code if fault is not None else None) or str(decision.reason)
        return NodeCondition("False", code, decision.message, since)
    if decision.severity is Severity.UNKNOWN:
        return NodeCondition("Unknown", str(decision.reason), decision.message, since)
    return NodeCondition("True", "Healthy", decision.message, since)


def _calls(message: str) -> set[str]:
    """Return for what a message calls people, which changes no state."""
    return {call for call in _CALLS if call in message}


def _note(old: BladeStatus, decision: Decision) -> Note | None:
    """Return the event of a change that people want to know of."""
    severity = old.verdict.severity if old.verdict is not None else None
    before = (old.state, old.reason, severity)
    same = before == (decision.state, decision.reason, decision.severity)
    if same and _calls(decision.message) <= _calls(old.message or ""):
        return None
    if old.state is None and decision.state is BladeState.UNKNOWN:
        return None
    healthy = decision.reason is None and decision.severity is not Severity.UNKNOWN
    text = f"{old.state or 'New'} to {decision.state}" if not same else str(decision.state)
    return Note(
        warning=not healthy,
        reason=decision.reason or decision.state.value,
        text=f"{text}: {decision.message}" if decision.message else text,
        action=_EVENT_ACTIONS.get(decision.state, "SetState"),
    )
