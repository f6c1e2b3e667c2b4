"""Reports against inventory, rules and release."""

from typing import Any

import pytest

from tramontane.api.blade import Fault, Report
from tramontane.api.clock import utc
from tramontane.api.nodepool import NodePool
from tramontane.controllers.nodepool import policy, verdict

NOW = 1_800_000_000.0
GPUS = [{"index": i, "product": "NVIDIA-H200", "memory": "141Gi"} for i in range(8)]


def read(**spec: Any) -> policy.Policy:
    return policy.read(
        NodePool.model_validate(
            {
                "metadata": {"name": "paris", "uid": "u"},
                "spec": {
                    "nodeSelector": {"matchLabels": {"gpu": "h200"}},
                    "gpu": {"count": 8},
                    **spec,
                },
            }
        )
    )


def report(*faults: dict[str, Any], gpus: Any = GPUS, driver: str | None = "580.95.05") -> Report:
    agent = {"driver": driver, "time": utc(NOW)}
    return Report.model_validate({"agent": agent, "gpus": gpus, "faults": faults})


def fault(code: str = "xid-79", severity: str = "Fatal", **more: Any) -> dict[str, Any]:
    return {"code": code, "check": "xid", "severity": severity, "action": "Reset", **more}


def rule(severity: str, **more: Any) -> dict[str, Any]:
    return {"match": {"code": "xid-79"}, "severity": severity, **more}


@pytest.mark.parametrize(
    ("spec", "given", "expected"),
    [
        pytest.param({}, report(), ("None", "None", ""), id="nothing"),
        pytest.param({}, report(fault()), ("Fatal", "Reset", "xid-79"), id="one fault"),
        pytest.param(
            {},
            report(fault("a", "Info", action="Reboot"), fault("b", "Degraded")),
            ("Degraded", "Reboot", "b"),
            id="worst severity, strongest action",
        ),
        pytest.param(
            {},
            report(fault("a", "Unknown"), fault("b", "Degraded")),
            ("Unknown", "Reset", "a"),
            id="unknown is worse than degraded",
        ),
        pytest.param({}, report(fault("a", "None")), ("None", "None", ""), id="severity None"),
        pytest.param(
            {"health": {"rules": [rule("Ignore")]}},
            report(fault()),
            ("None", "None", ""),
            id="ignored",
        ),
        pytest.param(
            {"health": {"rules": [rule("Info", action="Inspect"), rule("Ignore")]}},
            report(fault()),
            ("Info", "Inspect", "xid-79"),
            id="first match wins",
        ),
        pytest.param(
            {"health": {"rules": [{"match": {"check": "ecc"}, "severity": "Ignore"}]}},
            report(fault()),
            ("Fatal", "Reset", "xid-79"),
            id="another check's rule",
        ),
        pytest.param(
            {"health": {"rules": [rule("Degraded", count=3, window="24h")]}},
            report(fault(severity="Info", count=2, lastSeen=utc(NOW))),
            ("Info", "Reset", "xid-79"),
            id="count not reached",
        ),
        pytest.param(
            {"health": {"rules": [rule("Degraded", count=3, window="24h")]}},
            report(fault(severity="Info", count=3, firstSeen=utc(NOW - 60), lastSeen=utc(NOW))),
            ("Degraded", "Reset", "xid-79"),
            id="count reached",
        ),
        pytest.param(
            {"health": {"rules": [rule("Degraded", count=3, window="1h")]}},
            report(fault(severity="Info", count=4, firstSeen=utc(NOW - 86400), lastSeen=utc(NOW))),
            ("Info", "Reset", "xid-79"),
            id="count spread wider than the window",
        ),
        pytest.param(
            {"health": {"rules": [rule("Degraded", count=3, window="1h")]}},
            report(fault(severity="Info", count=9, lastSeen=utc(NOW - 3601))),
            ("Info", "Reset", "xid-79"),
            id="all before the window",
        ),
        pytest.param(
            {}, report(gpus=GPUS[:7]), ("Fatal", "Inspect", "inventory-mismatch"), id="7 GPUs"
        ),
        pytest.param(
            {},
            report(fault("nvml-unresponsive", "Degraded", check="nvml"), gpus=[]),
            ("Unknown", "Reset", "nvml-unresponsive"),
            id="a driver that never answered",
        ),
        pytest.param(
            {},
            report(fault("nvml-driver-not-loaded", check="nvml"), gpus=[]),
            ("Fatal", "Reset", "nvml-driver-not-loaded"),
            id="no driver",
        ),
        pytest.param(
            {},
            report(fault(), gpus=GPUS[:7]),
            ("Fatal", "Inspect", "xid-79"),
            id="a fault explains better than a mismatch",
        ),
        pytest.param(
            {"gpu": {"count": 8, "minDriver": "580.65"}},
            report(driver="580.65.06"),
            ("None", "None", ""),
            id="driver new enough",
        ),
        pytest.param(
            {"gpu": {"count": 8, "minDriver": "580.65"}},
            report(driver="575.99"),
            ("Fatal", "Inspect", "inventory-mismatch"),
            id="driver too old",
        ),
        pytest.param(
            {"gpu": {"count": 8, "minDriver": "580.65"}},
            report(driver=None),
            ("Fatal", "Inspect", "inventory-mismatch"),
            id="driver unknown",
        ),
    ],
)
def test_the_verdict_of_a_report(
    spec: dict[str, Any], given: Report, expected: tuple[str, str, str]
) -> None:
    found = verdict.judge(given, read(**spec), NOW, None)
    assert (found.severity, found.action, found.code) == expected


@pytest.mark.parametrize(("last_seen", "counts"), [(NOW - 1, False), (NOW, True), (NOW + 1, True)])
def test_a_release_covers_only_what_was_seen_before_it(last_seen: float, counts: bool) -> None:
    found = verdict.judge(report(fault(lastSeen=utc(last_seen))), read(), NOW, NOW)
    assert (found.code == "xid-79") is counts


def test_messages_have_both_values_and_no_end_of_them() -> None:
    gpus = [*GPUS[:6], *({**gpu, "memory": "80Gi", "product": "NVIDIA A100"} for gpu in GPUS[6:])]
    spec = {"gpu": {"count": 8, "memory": "141Gi", "product": "NVIDIA-H200"}}
    found = verdict.judge(report(gpus=gpus), read(**spec), NOW, None)
    assert found.message == (
        "GPU 6,7 must be NVIDIA-H200 (got NVIDIA-A100); "
        "GPU 6,7 must have 141Gi of memory or more (got 80Gi)"
    )
    many = [fault(f"xid-{i}", gpu=i, evidence="x" * 1000) for i in range(6)]
    found = verdict.judge(report(*many), read(), NOW, None)
    assert found.message.endswith("and 3 more")
    assert found.message.startswith("GPU 0: xid-0 (Fatal, Reset): xxx")
    assert len(found.message) < 800


@pytest.mark.parametrize(
    ("limit", "total", "budget"),
    [("10%", 64, 6), ("10%", 8, 1), ("0%", 8, 1), (0, 8, 0), (3, 8, 3), ("100%", 8, 8)],
)
def test_the_budget_of_a_pool(limit: int | str, total: int, budget: int) -> None:
    assert read(remediation={"maxUnavailable": limit}).budget(total) == budget


def test_a_fault_without_times_counts() -> None:
    bare = Fault.model_validate(fault())
    assert verdict.override(bare, (), NOW) == bare
    assert verdict.judge(report(fault()), read(), NOW, NOW).code == "xid-79"
