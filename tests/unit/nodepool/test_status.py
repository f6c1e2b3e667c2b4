"""What a pool says of itself: breaker, spares, failure rate and tranches."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api.blade import BladeState
from tramontane.api.clock import utc
from tramontane.api.conditions import find
from tramontane.api.nodepool import BreakerState, BreakerStatus, NodePool, NodePoolStatus
from tramontane.controllers.nodepool import policy
from tramontane.controllers.nodepool.status import PoolSight, compute
from tramontane.controllers.nodepool.tally import Member, Tally

NOW = 1_800_000_000.0
DAY = 86_400.0
SIGHT = PoolSight(nodes=9, missing=0, contested={}, unlabelled={}, refused=(), out=0, budget=1)
HEALTHY = Member("paris", BladeState.HEALTHY, takes_work=True)
OPEN = BreakerStatus(
    state=BreakerState.OPEN,
    since=utc(NOW),
    reason="3 of 10 blades failed within 5m (threshold 30%)",
)


def told(tally: Tally, sight: PoolSight = SIGHT, status: Any = None, **spec: Any) -> NodePoolStatus:
    spec = {"nodeSelector": {}, "gpu": {"count": 8}, **spec}
    meta = {"name": "paris", "generation": 2}
    pool = NodePool.model_validate({"metadata": meta, "spec": spec, "status": status or {}})
    return compute(pool, policy.read(pool), tally.of("paris"), sight, utc(NOW))


def hall(*members: Member, count: int = 1) -> Tally:
    tally = Tally()
    for n in range(count):
        for i, member in enumerate(members):
            tally.enter(f"gpu-{n}-{i}", member)
    return tally


def message(status: NodePoolStatus, type_: str) -> str | None:
    found = find(status.conditions, type_)
    assert found is not None
    return found.message if found.status == "True" else None


# Breaker


def test_the_breaker_is_closed_where_nobody_says_otherwise() -> None:
    status = told(hall(HEALTHY))
    assert status.breaker == BreakerStatus(state=BreakerState.CLOSED)
    assert message(status, "BreakerOpen") is None


@pytest.mark.parametrize("by", ["decided", "remembered"])
def test_an_open_breaker_says_what_happened_and_what_to_do(by: str) -> None:
    sight = replace(SIGHT, breaker=OPEN if by == "decided" else None, halted=("b", "a"))
    remembered = {"breaker": OPEN.to_dict()} if by == "remembered" else None
    status = told(hall(HEALTHY), sight, remembered)
    assert status.breaker == OPEN
    found = find(status.conditions, "BreakerOpen")
    assert found is not None
    assert (found.status, found.reason, found.observed_generation) == ("True", "BreakerOpen", 2)
    assert found.message == (
        "no blade is quarantined and no repair begins any more: 3 of 10 blades failed within 5m "
        "(threshold 30%), since 2027-01-15T08:00:00Z; 2 more call for it (a, b). Running work is "
        "left alone. Find out what they have in common (a driver, a switch, power, a rule of this "
        "pool), then run `tramontane breaker close paris`"
    )


def test_what_is_decided_now_outweighs_what_was_written() -> None:
    sight = replace(SIGHT, breaker=BreakerStatus(state=BreakerState.CLOSED, since=utc(NOW)))
    status = told(hall(HEALTHY), sight, {"breaker": OPEN.to_dict()})
    assert message(status, "BreakerOpen") is None


# Spares and failure rate

MONTH = replace(HEALTHY, since=NOW - 60 * DAY)


@pytest.mark.parametrize(
    ("spares", "members", "target"),
    [
        pytest.param(None, [MONTH], 0, id="none asked for"),
        pytest.param({"count": 4}, [MONTH], 4, id="a number"),
        pytest.param({"auto": {}}, [replace(HEALTHY, since=NOW)], 1, id="nothing measured"),
        pytest.param({"auto": {}}, [MONTH], 0, id="a quiet month"),
        pytest.param({"auto": {}}, [replace(MONTH, failures=1)], 3, id="each failed once"),
        pytest.param(
            {"auto": {"repairTime": "24h"}}, [replace(MONTH, failures=1)], 10, id="slow repairs"
        ),
        pytest.param(
            {"auto": {"confidence": 0.999999}}, [replace(MONTH, failures=1)], 7, id="six nines"
        ),
    ],
)
def test_spares(spares: dict[str, Any] | None, members: list[Member], target: int) -> None:
    status = told(hall(*members, count=128), spares=spares)
    assert status.spares is not None
    assert (status.spares.target, status.spares.ready) == (target, 128)
    assert message(status, "TooFewSpares") is None


def test_too_few_spares_says_how_many_and_why() -> None:
    busy = replace(MONTH, takes_work=False)
    by_hand = told(hall(busy, count=128), spares={"count": 4})
    assert message(by_hand, "TooFewSpares") == "4 healthy blades must be free (got 0)"
    auto = told(hall(busy, count=128), spares={"auto": {"confidence": 0.999}})
    assert message(auto, "TooFewSpares") == (
        "1 healthy blades must be free for confidence 0.999 over repairTime 4h (got 0)"
    )


@pytest.mark.parametrize(
    ("members", "count", "expected"),
    [
        pytest.param([HEALTHY], 128, None, id="of unknown age"),
        pytest.param([replace(HEALTHY, since=NOW - DAY)], 6, None, id="too little"),
        pytest.param([replace(HEALTHY, since=NOW - DAY)], 8, "0.0", id="no failure yet"),
        pytest.param([replace(MONTH, failures=1), *[MONTH] * 9], 13, "3.6", id="13 in 130 months"),
    ],
)
def test_failure_rate(members: list[Member], count: int, expected: str | None) -> None:
    assert told(hall(*members, count=count)).failure_rate == expected


# Tranches


def of(state: BladeState | None, first_try: bool | None) -> Member:
    return Member("paris", state, takes_work=False, tranche="t3", first_try=first_try)


def test_a_tranche_is_accounted_for_blade_by_blade() -> None:
    members = [
        of(BladeState.DELIVERED, None),
        of(BladeState.QUALIFYING, None),
        of(BladeState.REQUALIFYING, False),
        *[of(BladeState.HEALTHY, True)] * 5,
        of(BladeState.HEALTHY, False),
        of(BladeState.SUSPECT, True),
        of(BladeState.QUARANTINED, False),
        of(BladeState.DRAINING, True),
        of(BladeState.REPAIRING, False),
        of(BladeState.RMA, False),
        of(BladeState.LOST, None),
        of(None, None),
    ]
    status = told(hall(*members))
    [tranche] = status.tranches
    assert tranche.to_dict() == {
        "name": "t3",
        "delivered": 16,
        "qualifying": 4,
        "healthy": 6,
        "faulty": 5,
        "rma": 1,
        "passRate": "0.58",
    }
    columns = (tranche.qualifying, tranche.healthy, tranche.faulty, tranche.rma)
    assert sum(columns) == tranche.delivered
    assert status.blades is not None
    assert status.blades.to_dict() == {
        "total": 16,
        "healthy": 6,
        "inUse": 0,
        "spare": 0,
        "qualifying": 2,
        "suspect": 1,
        "quarantined": 2,
        "repairing": 2,
        "rma": 1,
        "unknown": 1,
        "lost": 1,
    }


def test_a_tranche_that_has_just_come_has_no_pass_rate() -> None:
    [tranche] = told(hall(of(BladeState.QUALIFYING, None))).tranches
    assert tranche.pass_rate is None
