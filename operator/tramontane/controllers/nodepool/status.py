"""Say what a pool has and what it lacks: NodePool.status, pure.

| condition       | True                                             | reason          |
|-----------------|--------------------------------------------------|-----------------|
| Ready           | at least one blade is Healthy                    | Ready           |
|                 | False: the selector matches no Node              | Misconfigured   |
|                 | False: no blade is Healthy                       | HealthHold      |
| Reconciling     | a Node of the pool has no Blade yet              | CreatingBlades  |
| Stalled         | a Node is claimed by another pool too, a topology| Misconfigured   |
|                 | label is missing, or the name is too long        |                 |
| BudgetExhausted | a blade should be quarantined and may not be     | BudgetExhausted |
| BreakerOpen     | never yet: the breaker is closed                 | BreakerOpen     |
| TooFewSpares    | fewer free healthy blades than `spares.count`    | WaitingForSpare |
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tramontane.api.blade import BladeState, Severity
from tramontane.api.conditions import Condition, condition, set_conditions
from tramontane.api.nodepool import (
    BladeCounts,
    BreakerState,
    BreakerStatus,
    GpuCounts,
    LabelSelector,
    NodePool,
    NodePoolStatus,
    PoolSparesStatus,
    TrancheStatus,
)
from tramontane.api.reasons import BladeReason, PendingReason
from tramontane.controllers.nodepool.owners import MOST_NAME_CHARS
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.tally import Counts

_MOST_NAMED = 5
_MOST_TRANCHES = 256
_FAULTY = frozenset({BladeState.QUARANTINED, BladeState.DRAINING, BladeState.REPAIRING})
_QUALIFYING = frozenset({BladeState.DELIVERED, BladeState.QUALIFYING, BladeState.REQUALIFYING})


@dataclass(frozen=True, slots=True)
class PoolSight:
    """What else bears on the status.

    Attributes:
        nodes: Nodes in the cluster.
        missing: Nodes of the pool that have no Blade yet.
        contested: Node to all pools that match it.
        unlabelled: topology label to the Nodes of the pool that lack it.
        refused: blades that should be quarantined and may not be.
        out: blades that are out; `budget`: how many may be.
    """

    nodes: int
    missing: int
    contested: Mapping[str, tuple[str, ...]]
    unlabelled: Mapping[str, Collection[str]]
    refused: tuple[str, ...]
    out: int
    budget: int


def compute(
    pool: NodePool, policy: Policy, counts: Counts, sight: PoolSight, now: str
) -> NodePoolStatus:
    """Return the status. O(tranches + what is named in messages)."""
    states, free = counts.states, counts.free
    target = pool.spec.spares.count or 0 if pool.spec.spares is not None else 0
    total = counts.total
    blades = BladeCounts(
        total=total,
        healthy=states[BladeState.HEALTHY],
        in_use=counts.used,
        spare=min(target, free),
        qualifying=states[BladeState.DELIVERED] + states[BladeState.QUALIFYING],
        suspect=states[BladeState.SUSPECT],
        quarantined=states[BladeState.QUARANTINED] + states[BladeState.DRAINING],
        repairing=states[BladeState.REPAIRING] + states[BladeState.REQUALIFYING],
        rma=states[BladeState.RMA],
        unknown=states[BladeState.UNKNOWN] + states[None],
        lost=states[BladeState.LOST],
    )
    spares = PoolSparesStatus(target=target, ready=free)
    conditions = _conditions(pool, blades, spares, sight, str(policy.max_unavailable))
    return NodePoolStatus(
        observed_generation=pool.metadata.generation,
        blades=blades,
        gpus=GpuCounts(
            total=total * policy.gpus,
            allocatable=blades.healthy * policy.gpus,
            allocated=counts.used_gpus,
        ),
        tranches=tuple(
            _tranche(name, counts.tranches[name])
            for name in sorted(counts.tranches)[:_MOST_TRANCHES]
        ),
        spares=spares,
        breaker=pool.status.breaker or BreakerStatus(state=BreakerState.CLOSED),
        conditions=set_conditions(pool.status.conditions, conditions, now),
    )


def flips(old: Iterable[Condition], new: Iterable[Condition]) -> bool:
    """Return whether a condition came, went or changed its status."""
    return {(c.type, c.status) for c in old} != {(c.type, c.status) for c in new}


def takes_work(state: BladeState | None, severity: Severity | None, *, unschedulable: bool) -> bool:
    """Return whether the scheduler would take the blade."""
    good = severity in {Severity.NONE, Severity.INFO}
    return state is BladeState.HEALTHY and good and not unschedulable


def _tranche(name: str, states: Counter[BladeState | None]) -> TrancheStatus:
    return TrancheStatus(
        name=name,
        delivered=states.total(),
        qualifying=sum(states[state] for state in _QUALIFYING),
        healthy=states[BladeState.HEALTHY],
        faulty=sum(states[state] for state in _FAULTY),
        rma=states[BladeState.RMA],
    )


def _conditions(
    pool: NodePool, counts: BladeCounts, spares: PoolSparesStatus, sight: PoolSight, limit: str
) -> list[Condition]:
    generation = pool.metadata.generation
    quarrels = _quarrels(pool.metadata.name, sight)
    refused = len(sight.refused)

    def say(type_: str, holds: bool, reason: str, message: str = "") -> Condition:
        return condition(type_, holds, reason, message, generation)

    return [
        _ready(pool, counts, sight),
        say(
            "Reconciling",
            sight.missing > 0,
            "CreatingBlades" if sight.missing else "UpToDate",
            f"{sight.missing} Nodes have no Blade yet" if sight.missing else "",
        ),
        say(
            "Stalled",
            bool(quarrels),
            PendingReason.MISCONFIGURED if quarrels else "NotStalled",
            "; ".join(quarrels),
        ),
        say(
            "BudgetExhausted",
            refused > 0,
            BladeReason.BUDGET_EXHAUSTED if refused else "WithinBudget",
            f"{refused} blades should be quarantined ({_named(sight.refused)}); at most "
            f"{sight.budget} of {counts.total} may be out (maxUnavailable {limit}, "
            f"got {sight.out}); bring blades back or raise maxUnavailable"
            if refused
            else "",
        ),
        say("BreakerOpen", False, "Closed"),
        say(
            "TooFewSpares",
            spares.ready < spares.target,
            PendingReason.WAITING_FOR_SPARE if spares.ready < spares.target else "EnoughSpares",
            f"{spares.target} healthy blades must be free (got {spares.ready})"
            if spares.ready < spares.target
            else "",
        ),
    ]


def _ready(pool: NodePool, counts: BladeCounts, sight: PoolSight) -> Condition:
    generation = pool.metadata.generation
    if counts.total == 0 and sight.missing == 0:
        message = (
            f"nodeSelector must match a Node (got {_shown(pool.spec.node_selector)}, which "
            f"matches none of {sight.nodes} for this pool); correct it or label the Nodes"
        )
        return condition("Ready", False, PendingReason.MISCONFIGURED, message, generation)
    message = f"{counts.healthy} of {counts.total} blades are Healthy"
    if counts.healthy == 0:
        return condition("Ready", False, PendingReason.HEALTH_HOLD, message, generation)
    return condition("Ready", True, "Ready", message, generation)


def _quarrels(name: str, sight: PoolSight) -> list[str]:
    """Return what people must put right, each with names."""
    found = []
    if len(name) > MOST_NAME_CHARS:
        found.append(
            f"the pool's name must have at most {MOST_NAME_CHARS} characters (got {len(name)})"
        )
    groups: dict[tuple[str, ...], list[str]] = {}
    for node, pools in sight.contested.items():
        groups.setdefault(pools, []).append(node)
    for pools, nodes in sorted(groups.items()):
        found.append(
            f"a Node must match one pool only (got {' and '.join(pools)} for "
            f"{_named(nodes)}); the Blade stays with the pool that had it first"
        )
    found += [
        f"each Node must have the topology label {label} ({_named(nodes)} lack it)"
        for label, nodes in sorted(sight.unlabelled.items())
        if nodes
    ]
    return found


def _named(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - _MOST_NAMED} more" if len(every) > _MOST_NAMED else ""
    return ", ".join(every[:_MOST_NAMED]) + more


def _shown(selector: LabelSelector) -> str:
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for one in selector.match_expressions:
        values = f" ({', '.join(one.values)})" if one.values else ""
        parts.append(f"{one.key} {one.operator}{values}")
    return '"' + ", ".join(parts) + '"'
