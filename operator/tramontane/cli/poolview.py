"""Say what people want to see of a NodePool: pure, from the object to text."""

from collections.abc import Iterable, Sequence

from tramontane.api import clock
from tramontane.api.conditions import Condition, ConditionStatus
from tramontane.api.nodepool import (
    BladeCounts,
    BreakerState,
    BreakerStatus,
    NodePool,
    PoolSparesStatus,
    TrancheStatus,
)
from tramontane.cli.tables import Table, age, facts
from tramontane.cli.wishes import closed_by

_LIST = ("NAME", "BLADES", "HEALTHY", "IN USE", "QUALIFYING", "OUT", "SPARES", "BREAKER", "READY")
_WIDE = (*_LIST, "GPUS", "FAILURES", "MODE", "MESSAGE")


def table(pools: Iterable[NodePool], *, wide: bool) -> Table:
    """Return one row per pool."""
    rows = [(*_row(one), *(_more(one) if wide else ())) for one in pools]
    return Table(_WIDE if wide else _LIST, rows)


def _row(pool: NodePool) -> tuple[str, ...]:
    status = pool.status
    blades = status.blades or BladeCounts()
    spares, ready = status.spares, _condition(pool, "Ready")
    return (
        pool.metadata.name,
        str(blades.total),
        str(blades.healthy),
        str(blades.in_use),
        str(blades.qualifying),
        str(_out(blades)),
        f"{spares.ready}/{spares.target}" if spares is not None else "",
        _breaker(pool).state.value,
        ready.status.value if ready is not None else "",
    )


def _more(pool: NodePool) -> tuple[str, ...]:
    gpus, ready = pool.status.gpus, _condition(pool, "Ready")
    return (
        f"{gpus.allocated}/{gpus.allocatable}" if gpus is not None else "",
        pool.status.failure_rate or "",
        pool.spec.remediation.mode.value,
        ready.message if ready is not None else "",
    )


def story(pool: NodePool, now: float) -> tuple[list[str], Sequence[Table]]:
    """Return all there is to know of one pool: lines, and tables that follow them."""
    status, remediation = pool.status, pool.spec.remediation
    gpus, spares = status.gpus, status.spares
    rate = status.failure_rate
    lines = facts(
        [
            ("Pool", pool.metadata.name),
            ("Blades", _counts(status.blades or BladeCounts())),
            (
                "GPUs",
                f"{gpus.total}, allocatable {gpus.allocatable}, in use {gpus.allocated}"
                if gpus is not None
                else "",
            ),
            ("Spares", _spares(spares) if spares is not None else ""),
            ("Failure rate", f"{rate} per 1,000 blade-days" if rate else "not measured yet"),
            ("Remediation", f"{remediation.mode}, at most {remediation.max_unavailable} out"),
            *breaker_facts(pool, now),
        ]
    )
    return lines, [one for one in (_tranches(status.tranches), _conditions(pool, now)) if one.rows]


def breaker_facts(pool: NodePool, now: float) -> list[tuple[str, str]]:
    """Return what there is to know of the pool's breaker."""
    breaker, rule = _breaker(pool), pool.spec.remediation.breaker
    since = f" for {age(now - clock.parse(breaker.since))}" if breaker.since else ""
    opens = f"{rule.threshold} of the pool" if "%" in str(rule.threshold) else f"{rule.threshold}"
    return [
        ("Breaker", f"{breaker.state}{since}"),
        ("Opened by", (breaker.reason or "") if breaker.state is BreakerState.OPEN else ""),
        ("Opens at", f"{opens} within {rule.window}"),
        ("Last closed", closed_by(pool.metadata.annotations)),
    ]


def _breaker(pool: NodePool) -> BreakerStatus:
    return pool.status.breaker or BreakerStatus(state=BreakerState.CLOSED)


def _spares(spares: PoolSparesStatus) -> str:
    """Return how many there are of those that are asked for."""
    if not spares.target:
        return f"none asked for, {spares.ready} free"
    return f"{spares.ready} ready of {spares.target}"


def _out(blades: BladeCounts) -> int:
    return blades.quarantined + blades.repairing + blades.rma + blades.unknown + blades.lost


def _counts(blades: BladeCounts) -> str:
    """Return the counts that are not nothing; the total is always told."""
    counts = blades.model_dump()
    total = counts.pop("total")
    named = (f"{state.replace('_', ' ')} {count}" for state, count in counts.items() if count)
    return ", ".join([str(total), *named])


def _tranches(tranches: Sequence[TrancheStatus]) -> Table:
    rows = [
        (
            one.name,
            str(one.delivered),
            str(one.qualifying),
            str(one.healthy),
            str(one.faulty),
            str(one.rma),
            one.pass_rate or "",
        )
        for one in tranches
    ]
    headings = ("NAME", "DELIVERED", "QUALIFYING", "HEALTHY", "FAULTY", "RMA", "PASSED AT ONCE")
    return Table(headings, rows, "Tranches")


def _conditions(pool: NodePool, now: float) -> Table:
    """Return what holds, and whether the pool is ready: no row says that all is well otherwise."""
    rows = [
        (one.type, one.status.value, _ago(one, now), one.reason, one.message)
        for one in pool.status.conditions
        if one.type == "Ready" or one.status is not ConditionStatus.FALSE
    ]
    return Table(("CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"), rows, "Conditions")


def _condition(pool: NodePool, type_: str) -> Condition | None:
    return next((one for one in pool.status.conditions if one.type == type_), None)


def _ago(one: Condition, now: float) -> str:
    time = one.last_transition_time
    return age(now - clock.parse(time)) if time else ""
