"""What a change would do, from frozen values to lines."""

from typing import Any

import pytest

from tramontane.api.blade import Blade
from tramontane.api.nodepool import NodePool
from tramontane.cli import effects
from tramontane.cli.changes import Plan
from tramontane.cli.effects import Use

FAULT = {"code": "xid-79", "severity": "Fatal", "action": "Reboot"}


def pool(total: int = 40, out: int = 3, spares: int = 0, target: int = 0, **spec: Any) -> NodePool:
    status = {
        "blades": {"total": total, "healthy": total - out, "quarantined": out},
        "spares": {"ready": spares, "target": target},
        "breaker": {"state": "Open", "reason": "13 of 40 blades within 5m"},
    }
    whole = {"nodeSelector": {"matchLabels": {"a": "b"}}, "gpu": {"count": 8}, **spec}
    return NodePool.model_validate({"metadata": {"name": "paris"}, "spec": whole, "status": status})


def blade(
    name: str = "gpu-1", state: str = "Healthy", spec: dict[str, Any] | None = None, **more: Any
) -> Blade:
    status = {"state": state, "verdict": {"severity": "None", "action": "None"}, **more}
    return Blade.model_validate(
        {"metadata": {"name": name}, "spec": {"pool": "paris", **(spec or {})}, "status": status}
    )


def facts(plan: Plan) -> dict[str, str]:
    pairs = (line.partition(":") for line in plan.lines)
    return {name: text.strip() for name, _, text in pairs}


@pytest.mark.parametrize(
    ("there", "states", "says"),
    [
        pytest.param(
            pool(40, 3), ["Healthy"], "4 of 40 out after it; the budget is 4 (10%)", id="within"
        ),
        pytest.param(
            pool(40, 4),
            ["Healthy", "Healthy"],
            "6 of 40 out after it; the budget is 4 (10%): 2 beyond it, so no fault takes another",
            id="beyond: a person is not refused",
        ),
        pytest.param(
            pool(40, 3),
            ["Quarantined"],
            "3 of 40 out after it; the budget is 4 (10%)",
            id="out already",
        ),
        pytest.param(
            pool(40, 0, remediation={"maxUnavailable": 2}),
            ["Healthy"],
            "1 of 40 out after it; the budget is 2",
            id="a number",
        ),
    ],
)
def test_the_budget_after_a_hold(there: NodePool, states: list[str], says: str) -> None:
    blades = [blade(f"gpu-{i}", state) for i, state in enumerate(states)]
    plan = effects.hold(blades, {}, {"paris": there}, "fan", "anna")
    assert facts(plan)["Pool paris"] == says


@pytest.mark.parametrize(
    ("use", "says"),
    [
        pytest.param(Use(), "1 ready of 2 after it: 1 too few", id="a free blade was one"),
        pytest.param(Use(gangs=("ml/llama",)), "2 ready of 2 after it", id="one at work was none"),
    ],
)
def test_the_spares_after_a_hold(use: Use, says: str) -> None:
    plan = effects.hold([blade()], {"gpu-1": use}, {"paris": pool(spares=2, target=2)}, "x", "anna")
    assert facts(plan)["Spares"] == says


def test_a_pool_that_may_not_be_read_hides_nothing_else() -> None:
    plan = effects.hold([blade()], {"gpu-1": Use(pods=None)}, {}, "fan", "anna")
    assert facts(plan)["Pool paris"] == "not known"
    assert plan.tables[0].rows == [("gpu-1", "Healthy", "pods not known", "")]


def test_many_blades_are_counted() -> None:
    blades = [blade(f"gpu-{i:02}") for i in range(25)]
    plan = effects.hold(blades, {}, {"paris": pool()}, "power", "anna")
    assert facts(plan)["Will write"] == "spec.hold on 25 blades: power (by anna)"
    assert [row[0] for row in plan.tables[0].rows][-2:] == ["gpu-19", "and 5 more"]
    assert len(plan.content["blades"]) == 25, "a program gets them all"


def test_a_program_gets_a_hold_in_numbers() -> None:
    held = blade(spec={"hold": {"reason": "fan", "by": "berta", "at": "2026-11-24T15:02:07Z"}})
    use = Use(gangs=("ml/llama",), pods=None)
    there = {"paris": pool(40, 4, spares=2, target=2)}
    plan = effects.hold([held], {"gpu-1": use}, there, "power", "anna")
    assert plan.content["hold"] == {"reason": "power", "by": "anna"}
    assert plan.content["pools"] == [
        {"name": "paris", "total": 40, "out": 5, "budget": 4, "spares": {"target": 2, "ready": 2}}
    ]
    [one] = plan.content["blades"]
    assert (one["name"], one["pool"], one["state"]) == ("gpu-1", "paris", "Healthy")
    assert one["hold"]["by"] == "berta"
    nothing: list[str] = []
    assert one["inUseBy"] == {
        "gangs": ["ml/llama"], "spareOf": nothing, "pods": None, "replicas": nothing,
    }  # fmt: skip
    unknown = effects.hold([blade()], {}, {}, "power", "anna")
    assert unknown.content["pools"] == [{"name": "paris"}]


def test_a_program_gets_a_release_and_a_closed_breaker_in_full() -> None:
    tested = pool(qualification={"soak": "10m", "burnIn": {"template": {"spec": {}}}})
    message = "xid-79 " * 20
    broken = blade("gpu-2", "Quarantined", message=message, report={"faults": [FAULT]})
    plan = effects.release(
        [blade(), broken], {"paris": tested}, "ok", "anna", skip_burn_in=False
    ).content
    assert plan["tests"] == {"paris": ["soak 10m", "burn-in"]}
    assert plan["left"] == ["gpu-1"]
    [one] = plan["blades"]
    assert (one["message"], one["openFaults"]) == (message, ["xid-79"])
    waiting = [blade(f"gpu-{i}", reason="BreakerOpen") for i in range(2)]
    closing = effects.close_breaker(
        pool(40, 3), [*waiting, *[blade("x")] * 38], "ok", "anna"
    ).content
    assert (closing["roomInBudget"], closing["thenGoOut"]) == (1, 1)
    assert [one["name"] for one in closing["blades"]] == ["gpu-0", "gpu-1"]
    assert closing["breaker"]["reason"] == "13 of 40 blades within 5m"
    assert closing["opensAgain"] == {"threshold": "30%", "window": "5m"}


def test_a_release_says_which_tests_come_and_what_is_still_wrong() -> None:
    tested = pool(qualification={"soak": "10m", "burnIn": {"template": {"spec": {}}}})
    broken = blade("gpu-2", "Quarantined", message="xid-79", report={"faults": [FAULT]})
    plan = effects.release(
        [blade("gpu-1", "RMA"), broken], {"paris": tested}, "ok", "anna", skip_burn_in=False
    )
    assert facts(plan)["Tests in paris"] == "soak 10m, burn-in"
    assert facts(plan)["Open faults"].startswith("on 1 blade: what the report still shows")
    assert [row[3] for row in plan.tables[0].rows] == ["", "xid-79"]
    skipped = effects.release([broken], {"paris": tested}, "ok", "anna", skip_burn_in=True)
    assert facts(skipped)["Tests in paris"] == "none: skipped"


def test_a_release_ends_nothing_that_comes_back_by_itself() -> None:
    lost = blade("gpu-1", "Lost", message="the Node is not Ready")
    plan = effects.release([lost], {"paris": pool()}, "ok", "anna", skip_burn_in=False)
    assert plan.tables[0].rows[0][2] == (
        "nothing: it is back when its Node is Ready and its agent reports"
    )


def test_a_mild_fault_is_no_open_one() -> None:
    mild = blade("gpu-2", "Quarantined", report={"faults": [{**FAULT, "severity": "Info"}]})
    plan = effects.release([mild], {"paris": pool()}, "ok", "anna", skip_burn_in=False)
    assert "Open faults" not in facts(plan)


@pytest.mark.parametrize(
    ("there", "says"),
    [
        pytest.param(pool(40, 3), "1 of 2 blades behind it", id="as many as the budget has"),
        pytest.param(pool(40, 0), "2 of 2 blades behind it", id="all"),
        pytest.param(
            pool(40, 0, remediation={"mode": "DryRun"}),
            "none: remediation.mode is DryRun",
            id="it only says what it would do",
        ),
    ],
)
def test_what_goes_out_when_the_breaker_is_closed(there: NodePool, says: str) -> None:
    blades = [blade(f"gpu-{i}", reason="BreakerOpen") for i in range(2)]
    blades += [blade(f"gpu-{i}") for i in range(2, 40)]
    plan = effects.close_breaker(there, blades, None, "anna")
    assert facts(plan)["Then go out"] == says
    assert facts(plan)["Opened by"] == "13 of 40 blades within 5m"
    assert [row[0] for row in plan.tables[0].rows] == ["gpu-0", "gpu-1"]


def test_where_nothing_waits_behind_the_breaker_nothing_goes_out() -> None:
    plan = effects.close_breaker(pool(40, 0), [blade("gpu-1")], None, "anna")
    assert facts(plan)["Then go out"] == "none: no blade waits behind it"
