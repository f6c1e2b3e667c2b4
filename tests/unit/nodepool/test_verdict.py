"""Reports against inventory, rules and release."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api.blade import Fault, Report
from tramontane.api.clock import utc
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool import policy, verdict
from tramontane.controllers.nodepool.policy import Usual

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


def report(
    *faults: dict[str, Any],
    gpus: Any = GPUS,
    driver: str | None = "580.95.05",
    network: dict[str, Any] | None = None,
) -> Report:
    agent = {"driver": driver, "time": utc(NOW)}
    shown = {} if network is None else {"network": network}
    return Report.model_validate({"agent": agent, "gpus": gpus, "faults": faults, **shown})


def having(index: int, **more: Any) -> list[dict[str, Any]]:
    """Return the GPUs, all with 18 links, VBIOS and GSP firmware, one of them with more."""
    base = {"nvlinks": 18, "vbios": "96.00", "gspFirmware": "580.95.05"}
    return [{**gpu, **base, **(more if gpu["index"] == index else {})} for gpu in GPUS]


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
            {"gpu": {"count": 8, "product": "NVIDIA-H200", "memory": "140Gi"}},
            report(
                fault("nvml-unknown", "Unknown", action="None", check="nvml", gpu=3),
                gpus=having(3, product=None, memory=None),
            ),
            ("Unknown", "None", "nvml-unknown"),
            id="a GPU that tells nothing is no wrong delivery",
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
        pytest.param(
            {},
            report(fault("gpu-count", action="Reboot", check="gpu-count"), gpus=GPUS[:7]),
            ("Fatal", "Reboot", "gpu-count"),
            id="a GPU that fell off the bus is no wrong delivery",
        ),
        pytest.param(
            {},
            report(fault("a"), fault("b", "Info", action="Inspect")),
            ("Fatal", "Reset", "a"),
            id="a ticket keeps no repair away",
        ),
        pytest.param(
            {},
            report(fault("b", "Info", action="Inspect")),
            ("Info", "Inspect", "b"),
            id="a ticket alone",
        ),
        pytest.param(
            {},
            report(fault("xid-63", "Degraded"), fault("nvlink-down", "Degraded")),
            ("Degraded", "Reset", "nvlink-down"),
            id="what cannot wait speaks first",
        ),
        pytest.param(
            {"gpu": {"count": 8, "nvlinkLinks": 18}},
            report(gpus=having(3, nvlinks=17)),
            ("Fatal", "Inspect", "inventory-mismatch"),
            id="a link short",
        ),
        pytest.param(
            {"gpu": {"count": 8, "nvlinkLinks": 18}},
            report(gpus=having(3)),
            ("None", "None", ""),
            id="all links",
        ),
        pytest.param(
            {"gpu": {"count": 8, "nvlinkLinks": 18}}, report(), ("None", "None", ""), id="no links"
        ),
        pytest.param(
            {"gpu": {"count": 8, "nvlinkLinks": 18}},
            report(
                fault("nvlink-down", "Degraded", check="nvlink-state"), gpus=having(3, nvlinks=17)
            ),
            ("Degraded", "Reset", "nvlink-down"),
            id="a link that the agent saw fail",
        ),
        pytest.param(
            {"gpu": {"count": 8, "infinibandPorts": 8, "infinibandRate": 400}},
            report(network={"ports": 8, "rate": 400}),
            ("None", "None", ""),
            id="all ports",
        ),
        pytest.param(
            {"gpu": {"count": 8, "infinibandPorts": 8}},
            report(network={"ports": 7, "rate": 400}),
            ("Degraded", "Inspect", "inventory-mismatch"),
            id="a port short",
        ),
        pytest.param(
            {"gpu": {"count": 8, "infinibandRate": 400}},
            report(network={"ports": 8, "rate": 200}),
            ("Degraded", "Inspect", "inventory-mismatch"),
            id="a slow port",
        ),
        pytest.param(
            {"gpu": {"count": 8, "infinibandRate": 400}},
            report(network={"ports": 0}),
            ("None", "None", ""),
            id="no port no rate",
        ),
        pytest.param(
            {"gpu": {"count": 8, "infinibandPorts": 8, "infinibandRate": 400}},
            report(),
            ("None", "None", ""),
            id="ports not known",
        ),
        pytest.param(
            {"gpu": {"count": 8, "infinibandPorts": 8}},
            report(
                fault("infiniband-down", check="infiniband-state", action="Inspect"),
                network={"ports": 7, "rate": 400},
            ),
            ("Fatal", "Inspect", "infiniband-down"),
            id="a port that the agent saw fail",
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


@pytest.mark.parametrize("by", ["firstSeen", "lastSeen"])
def test_a_state_that_is_reported_counts_whatever_was_released(by: str) -> None:
    lost = fault("gpu-lost", check="gpu-lost", **{by: utc(NOW - 100)})
    found = verdict.judge(report(lost), read(), NOW, NOW - 1)
    assert (found.severity, found.code) == ("Fatal", "gpu-lost")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(
            [{"match": {"code": "inventory-mismatch"}, "severity": "Ignore"}],
            ("None", "None", ""),
            id="ignored",
        ),
        pytest.param(
            [{"match": {"code": "inventory-mismatch"}, "severity": "Info"}],
            ("Info", "Inspect", "inventory-mismatch"),
            id="a note",
        ),
        pytest.param(
            [
                {"match": {"code": "inventory-mismatch"}, "severity": "Ignore", "count": 2},
                {"match": {"check": "gpu-count"}, "severity": "Ignore"},
            ],
            ("Fatal", "Inspect", "inventory-mismatch"),
            id="by count or check",
        ),
    ],
)
def test_rules_hold_of_our_own_findings(
    rules: list[dict[str, Any]], expected: tuple[str, str, str]
) -> None:
    found = verdict.judge(report(gpus=GPUS[:7]), read(health={"rules": rules}), NOW, None)
    assert (found.severity, found.action, found.code) == expected


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param(report(gpus=having(3)), "", id="same"),
        pytest.param(report(gpus=GPUS), "", id="not shown"),
        pytest.param(
            report(gpus=having(3, vbios="95.00")),
            "GPU 3 have VBIOS 95.00, most of the pool have 96.00",
            id="vbios",
        ),
        pytest.param(
            report(gpus=having(3, gspFirmware="575.57")),
            "GPU 3 have GSP firmware 575.57, most of the pool have 580.95.05",
            id="gsp",
        ),
        pytest.param(
            report(gpus=having(3), driver="575.57"),
            "driver is 575.57, most of the pool have 580.95.05",
            id="driver",
        ),
        pytest.param(report(gpus=having(3), driver=None), "", id="driver not known"),
    ],
)
def test_a_blade_unlike_the_others_is_a_note(given: Report, said: str) -> None:
    usual = Usual("580.95.05", "96.00", "580.95.05")
    found = verdict.judge(given, replace(read(), usual=usual), NOW, None)
    assert found.message == said
    assert found.severity.value == ("Info" if said else "None")
    assert found.reason == (BladeReason.INVENTORY_MISMATCH if said else None)
    assert verdict.judge(given, read(), NOW, None) == verdict.NOTHING


@pytest.mark.parametrize(
    ("drivers", "usual"),
    [
        ([], ""),
        (["580", "580", "575"], "580"),
        (["580", "575"], ""),
        (["580", None, None], "580"),
        (["580", "580", "575", "570", "565"], ""),
    ],
)
def test_the_usual_driver_is_that_of_more_than_half(drivers: list[str | None], usual: str) -> None:
    reports = [report(gpus=having(3, vbios=f"{driver}"), driver=driver) for driver in drivers]
    assert policy.usual_of(reports).driver == usual


def test_what_is_usual_is_counted_by_blade_not_by_gpu() -> None:
    found = policy.usual_of([report(gpus=having(3)), report(gpus=having(3))])
    assert found == Usual("580.95.05", "96.00", "580.95.05")
    assert policy.usual_of([report(gpus=having(3)), report(gpus=GPUS)]).vbios == "96.00"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(fault("xid-94", count=2), BladeReason.RECURRING_FAULT, id="came-back"),
        pytest.param(fault("xid-94"), BladeReason.HARDWARE_FAULT, id="once"),
        pytest.param(
            fault("xid-94", "Info", action="RestartApp", count=9),
            BladeReason.HARDWARE_FAULT,
            id="often-in-one-burst",
        ),
        pytest.param(fault("xid-48", count=2), BladeReason.HARDWARE_FAULT, id="one-burst-of-48"),
        pytest.param(
            fault("xid-48", count=2, action="Replace"), BladeReason.RECURRING_FAULT, id="48-again"
        ),
        pytest.param(fault("xid-79", count=5), BladeReason.HARDWARE_FAULT, id="no-such-rule"),
        pytest.param(
            fault("nvml-unresponsive", check="nvml"), BladeReason.PROBE_HUNG, id="no-answer"
        ),
    ],
)
def test_a_fault_that_is_judged_by_its_return_says_so(
    given: dict[str, Any], reason: BladeReason
) -> None:
    assert verdict.judge(report(given), read(), NOW, None).reason is reason


def test_a_finding_says_when_and_in_which_boot_it_was_seen() -> None:
    given = fault(firstSeen=utc(NOW - 60), lastSeen=utc(NOW - 5), bootID="b1")
    found = verdict.judge(report(given), read(), NOW, None)
    assert (found.first_seen, found.last_seen, found.fault_boot_id) == (NOW - 60, NOW - 5, "b1")
    assert (verdict.NOTHING.last_seen, verdict.NOTHING.fault_boot_id) == (None, "")


@pytest.mark.parametrize(
    ("faults", "waits"),
    [
        pytest.param([fault("xid-63", "Degraded")], True, id="a remapped row"),
        pytest.param([fault("xid-63")], False, id="made fatal by a rule"),
        pytest.param([fault("nvlink-down", "Degraded")], False, id="a link"),
        pytest.param(
            [fault("row-remap-pending", "Degraded"), fault("nvlink-down", "Degraded")],
            False,
            id="both",
        ),
        pytest.param([fault("xid-63", "Degraded"), fault("xid-31", "Info")], True, id="and a note"),
        pytest.param([fault("xid-63", "Degraded"), fault()], False, id="and a fatal one"),
    ],
)
def test_a_reset_waits_for_the_jobs_end_only_where_nothing_is_harmed(
    faults: list[dict[str, Any]], waits: bool
) -> None:
    assert verdict.judge(report(*faults), read(), NOW, None).waits_for_idle is waits


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        pytest.param({"check": "xid"}, [], id="all-of-a-check-means-its-faults"),
        pytest.param({"code": "xid-43"}, ["xid-43"], id="by-its-code"),
        pytest.param({"code": "xid-43", "check": "xid"}, ["xid-43"], id="by-both"),
    ],
)
def test_what_the_catalogue_ignores_is_raised_by_its_code_only(
    match: dict[str, str], expected: list[str]
) -> None:
    rules = read(health={"rules": [{"match": match, "severity": "Fatal", "action": "Reset"}]})
    [shown] = report(fault("xid-43", "None")).faults
    seen = verdict.override(shown, rules.rules, NOW)
    assert seen is not None
    assert ([seen.code] if seen.severity == "Fatal" else []) == expected
