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
| BreakerOpen     | too many blades failed at once (breaker.py)      | BreakerOpen     |
| TooFewSpares    | fewer free healthy blades than `spares` asks for | WaitingForSpare |
| DryRun          | faults have no consequences; else it is absent   | AskedByPool     |
|                 | the same, whatever the pool asks for             | AskedByOperator |
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from tramontane.api import clock
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
    PoolSpares,
    PoolSparesStatus,
    RemediationMode,
    TrancheStatus,
)
from tramontane.api.quantity import parse_duration
from tramontane.api.reasons import BladeReason, PendingReason
from tramontane.controllers.nodepool import history, spares
from tramontane.controllers.nodepool.owners import MOST_NAME_CHARS
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.tally import Counts

_MOST_NAMED = 5
_MOST_TRANCHES = 256
_NO_TRIES: Counter[bool] = Counter()
_QUALIFYING = frozenset(
    {None, BladeState.DELIVERED, BladeState.QUALIFYING, BladeState.REQUALIFYING}
)


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
        breaker: as it is decided now; None: as the pool's status has it.
        halted: blades that should be quarantined, and the open breaker forbids it.
    """

    nodes: int
    missing: int
    contested: Mapping[str, tuple[str, ...]]
    unlabelled: Mapping[str, Collection[str]]
    refused: tuple[str, ...]
    out: int
    budget: int
    breaker: BreakerStatus | None = None
    halted: tuple[str, ...] = ()


def compute(
    pool: NodePool, policy: Policy, counts: Counts, sight: PoolSight, now: str
) -> NodePoolStatus:
    """Return the status. O(tranches + what is named in messages)."""
    states, free = counts.states, counts.free
    total, blade_days = counts.total, counts.blade_days(clock.parse(now))
    target = spares_target(pool.spec.spares, total, counts.failures, blade_days)
    rate = history.failure_rate(counts.failures, blade_days)
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
    kept_free = PoolSparesStatus(target=target, ready=free)
    breaker = sight.breaker or pool.status.breaker or BreakerStatus(state=BreakerState.CLOSED)
    conditions = [
        *_conditions(pool, blades, sight, str(policy.max_unavailable)),
        _breaker_open(pool, breaker, sight),
        _too_few_spares(pool, kept_free),
        *_dry_run(pool, policy),
    ]
    return NodePoolStatus(
        observed_generation=pool.metadata.generation,
        blades=blades,
        gpus=GpuCounts(
            total=total * policy.gpus,
            allocatable=blades.healthy * policy.gpus,
            allocated=counts.used_gpus,
        ),
        tranches=tuple(
            _tranche(name, counts.tranches[name], counts.tries.get(name, _NO_TRIES))
            for name in sorted(counts.tranches)[:_MOST_TRANCHES]
        ),
        failure_rate=None if rate is None else f"{rate:.1f}",
        spares=kept_free,
        breaker=breaker,
        conditions=set_conditions(pool.status.conditions, conditions, now),
    )


def flips(old: Iterable[Condition], new: Iterable[Condition]) -> bool:
    """Return whether a condition came, went or changed its status."""
    return {(c.type, c.status) for c in old} != {(c.type, c.status) for c in new}


def takes_work(state: BladeState | None, severity: Severity | None, *, unschedulable: bool) -> bool:
    """Return whether the scheduler would take the blade."""
    good = severity in {Severity.NONE, Severity.INFO}
    return state is BladeState.HEALTHY and good and not unschedulable


def spares_target(asked: PoolSpares | None, total: int, failed: int, blade_days: float) -> int:
    """Return how many blades the pool keeps free: as asked for, or sized by what it measured."""
    if asked is None:
        return 0
    if asked.auto is None:
        return asked.count or 0
    rate = spares.rate(failed, blade_days)
    repair_time_s = parse_duration(asked.auto.repair_time)
    return spares.target(total, rate, asked.auto.confidence, repair_time_s)


def _tranche(name: str, states: Counter[BladeState | None], tries: Counter[bool]) -> TrancheStatus:
    ended = tries.total()
    qualifying, healthy = sum(states[one] for one in _QUALIFYING), states[BladeState.HEALTHY]
    return TrancheStatus(
        name=name,
        delivered=states.total(),
        qualifying=qualifying,
        healthy=healthy,
        # Whatever else keeps a blade from work: so the columns add up to what was delivered.
        faulty=states.total() - qualifying - healthy - states[BladeState.RMA],
        rma=states[BladeState.RMA],
        pass_rate=f"{tries[True] / ended:.2f}" if ended else None,
    )


def _conditions(
    pool: NodePool, counts: BladeCounts, sight: PoolSight, limit: str
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
    ]


def _breaker_open(pool: NodePool, breaker: BreakerStatus, sight: PoolSight) -> Condition:
    generation = pool.metadata.generation
    if breaker.state is BreakerState.CLOSED:
        return condition("BreakerOpen", False, "Closed", "", generation)
    waiting = (
        f"; {len(sight.halted)} more call for it ({_named(sight.halted)})" if sight.halted else ""
    )
    message = (
        "no blade is quarantined and no repair begins any more: "
        f"{breaker.reason or 'too many failed at once'}, since "
        f"{breaker.since or 'a time unknown'}{waiting}. Running work is left alone. Find out what "
        "they have in common (a driver, a switch, power, a rule of this pool), then run "
        f"`tramontane breaker close {pool.metadata.name}`"
    )
    return condition("BreakerOpen", True, BladeReason.BREAKER_OPEN, message, generation)


def _too_few_spares(pool: NodePool, kept_free: PoolSparesStatus) -> Condition:
    generation = pool.metadata.generation
    if kept_free.ready >= kept_free.target:
        return condition("TooFewSpares", False, "EnoughSpares", "", generation)
    asked = pool.spec.spares
    why = ""
    if asked is not None and asked.auto is not None:
        auto = asked.auto
        why = f" for confidence {auto.confidence:g} over repairTime {auto.repair_time}"
    message = f"{kept_free.target} healthy blades must be free{why} (got {kept_free.ready})"
    return condition("TooFewSpares", True, PendingReason.WAITING_FOR_SPARE, message, generation)


def _dry_run(pool: NodePool, policy: Policy) -> list[Condition]:
    if policy.mode is not RemediationMode.DRY_RUN:
        return []
    by_pool = pool.spec.remediation.mode is RemediationMode.DRY_RUN
    why = (
        "spec.remediation.mode is DryRun; set it to Auto to have that done"
        if by_pool
        else "the operator runs with --dry-run; start it without to have that done"
    )
    message = f"what a fault calls for is said, and no blade is taken out or repaired: {why}"
    reason = "AskedByPool" if by_pool else "AskedByOperator"
    return [condition("DryRun", True, reason, message, pool.metadata.generation)]


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
