"""Each check alone: what it finds, what it cannot see, and that its switch works."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tramontane.api.blade import Action, Severity
from tramontane.health import checks, pci
from tramontane.health.checks import host, session
from tramontane.health.checks.base import Past
from tramontane.health.device import (
    VALUES,
    BankRemap,
    EccErrors,
    EccMode,
    Fabric,
    MigMode,
    OfMax,
    PowerLimit,
    Reading,
    RemappedRows,
    RetiredPages,
    RowSpares,
    Unresponsive,
    Unsupported,
    unread,
)

from .builders import lost, past, reading, with_gpu

D, F, INFO = Severity.DEGRADED, Severity.FATAL, Severity.INFO


def found(
    look: Reading, before: Past | None = None
) -> list[tuple[str, Severity, Action, int | None]]:
    outcomes = checks.run(look, before or Past())
    return [
        (finding.code, finding.severity, finding.action, finding.gpu)
        for outcome in outcomes.values()
        for finding in outcome.findings
    ]


def test_a_healthy_blade_has_no_findings_and_nothing_unknown() -> None:
    before = past(*[reading()] * 70)
    outcomes = checks.run(reading(), before)
    assert found(reading(), before) == []
    assert {name for name, outcome in outcomes.items() if outcome.unknown} == set()
    # An idle GPU's link is not judged, and the host is looked at from elsewhere.
    blind = {name for name, outcome in outcomes.items() if outcome.blind}
    assert blind - host.NAMES == {"pcie-generation"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {"remapped_rows": RemappedRows(0, 2, pending=True)},
            ("row-remap-pending", D, Action.RESET),
            id="row-remap-pending",
        ),
        pytest.param(
            {"remapped_rows": RemappedRows(0, 2, failure=True)},
            ("row-remap-failure", F, Action.REPLACE),
            id="row-remap-failure",
        ),
        pytest.param(
            {"ecc_mode": EccMode(current=False, pending=True)},
            ("ecc-disabled", D, Action.RESET),
            id="ecc-off",
        ),
        pytest.param(
            {"ecc_mode": EccMode(current=False, pending=False)},
            ("ecc-disabled", D, Action.INSPECT),
            id="ecc-off-on-purpose",
        ),
        pytest.param(
            {"ecc_mode": EccMode(current=True, pending=False)},
            ("ecc-pending", INFO, Action.INSPECT),
            id="ecc-off-after-reset",
        ),
        pytest.param(
            {"ecc_errors": EccErrors(volatile_uncorrected=1)},
            ("ecc-uncorrected", D, Action.RESET),
            id="one-uncorrected",
        ),
        pytest.param(
            {"ecc_errors": EccErrors(volatile_corrected=50_000_001)},
            ("ecc-corrected", INFO, Action.INSPECT),
            id="many-corrected",
        ),
        pytest.param(
            {"sram_threshold_exceeded": True},
            ("ecc-sram-threshold", F, Action.REPLACE),
            id="sram",
        ),
        pytest.param(
            {"reset_required": True},
            ("gpu-reset-required", F, Action.RESET),
            id="reset-required",
        ),
        pytest.param({"recovery_action": 1}, ("recovery-gpu-reset", F, Action.RESET), id="fi230-1"),
        pytest.param(
            {"retired_pages": RetiredPages(11, 5)},
            ("retired-pages-many", INFO, Action.INSPECT),
            id="pages-above-soft-limit",
        ),
        pytest.param(
            {"retired_pages": RetiredPages(62, 1)},
            ("retired-pages-limit", F, Action.REPLACE),
            id="pages-at-hard-limit",
        ),
        pytest.param({"nvlinks": (1, 0, 1)}, ("nvlink-down", D, Action.RESET), id="a-link-down"),
        pytest.param(
            {"fabric": Fabric(3, 0, 1 << 2 | 1 << 6, 2)},
            ("fabric-recovering", D, Action.DRAIN),
            id="both-recoveries-are-one-finding",
        ),
        pytest.param(
            {"fabric": Fabric(3, 0, 2 << 12, 1)},
            ("fabric-partition", INFO, Action.INSPECT),
            id="no-partition-where-the-summary-is-healthy",
        ),
        pytest.param(
            {"fabric": Fabric(3, 0, 9 << 8)},
            ("fabric-configuration", D, Action.INSPECT),
            id="a-configuration-code-that-is-newer",
        ),
        pytest.param(
            {"recovery_action": 2}, ("recovery-node-reboot", F, Action.REBOOT), id="fi230-2"
        ),
        pytest.param({"recovery_action": 3}, ("recovery-drain-p2p", D, Action.DRAIN), id="fi230-3"),
        pytest.param(
            {"recovery_action": 4}, ("recovery-drain-and-reset", D, Action.RESET), id="fi230-4"
        ),
        pytest.param(
            {"recovery_action": 5}, ("recovery-recover-imex", D, Action.DRAIN), id="fi230-5"
        ),
        pytest.param({"recovery_action": 6}, ("recovery-bus-reset", F, Action.RESET), id="fi230-6"),
        pytest.param(
            {"recovery_action": 7}, ("recovery-system-reboot", F, Action.REBOOT), id="fi230-7"
        ),
        pytest.param(
            {"recovery_action": 8}, ("recovery-unknown", D, Action.INSPECT), id="fi230-newer"
        ),
    ],
)
def test_a_value_beyond_its_threshold_is_a_finding_on_that_gpu(
    values: dict[str, Any], expected: tuple[str, Severity, Action]
) -> None:
    assert found(with_gpu(reading(), 5, **values)) == [(*expected, 5)]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"remapped_rows": RemappedRows(3, 2)}, id="rows-remapped-in-the-past"),
        pytest.param({"ecc_errors": EccErrors(aggregate_uncorrected=9)}, id="aggregate-is-history"),
        pytest.param({"ecc_errors": EccErrors(volatile_corrected=50_000_000)}, id="at-threshold"),
        pytest.param({"row_spares": RowSpares(600, 30, 9, 1)}, id="few-spares-left"),
        pytest.param({"retired_pages": RetiredPages(10, 5)}, id="pages-at-soft-limit"),
        pytest.param({"bank_remap": BankRemap(active=2)}, id="banks-remapped-in-the-past"),
        pytest.param({"nvlinks": (1,) * 17 + (2,)}, id="a-link-sleeps"),
        pytest.param({"fabric": Fabric(state=0)}, id="in-no-fabric"),
        pytest.param({"fabric": Fabric(3, 0, 0b01_01_0001_10_10_10_10, 1)}, id="every-bit-is-well"),
        pytest.param({"pcie_generation": OfMax(1, 5)}, id="idle-links-are-slow"),
        pytest.param({"clock_reasons": 0x1 | 0x4 | 0x20}, id="clocks-as-they-work"),
        pytest.param({"clock_reasons": 0x48}, id="slowed-down-for-a-moment"),
        pytest.param({"temperature_c": 99}, id="hot-for-a-moment"),
        pytest.param({"thermal_margin_c": -3}, id="margin-where-limits-are-known"),
        pytest.param({"power_limit": PowerLimit(700_000, 700_000)}, id="limit-as-built"),
        pytest.param({"power_limit": PowerLimit(750_000, 700_000)}, id="limit-raised"),
        pytest.param({"mig": MigMode(current=True, pending=True)}, id="partitioned"),
        pytest.param({"processes": 4, "memory_used_bytes": 100 << 30}, id="in-use"),
    ],
)
def test_a_value_within_its_threshold_is_none(values: dict[str, Any]) -> None:
    assert found(with_gpu(reading(), 5, **values)) == []


def test_a_lost_gpu_is_one_finding_and_makes_no_check_unknown() -> None:
    outcomes = checks.run(lost(reading(), 3), Past(8))
    assert found(lost(reading(), 3)) == [("gpu-lost", F, Action.REBOOT, 3)]
    assert [name for name, outcome in outcomes.items() if outcome.unknown] == []
    assert outcomes["row-remap"].blind == {3}


@pytest.mark.parametrize("trouble", ["lost", "reset_required"])
@pytest.mark.parametrize("check", ["inventory", "firmware"])
def test_what_a_troubled_gpu_does_not_tell_is_no_gap_in_knowledge(check: str, trouble: str) -> None:
    look = with_gpu(reading(), 3, unread=("serial", "vbios"), **{trouble: True})
    outcome = checks.run(look, Past(8))[check]
    assert outcome.blind == {3}
    assert not outcome.unknown


UNKNOWN_WITHOUT: list[tuple[str, set[str]]] = [
    ("remapped_rows", {"row-remap"}),
    ("row_spares", {"row-spares"}),
    ("retired_pages", {"retired-pages"}),
    ("bank_remap", {"bank-remap"}),
    ("repair", {"gpu-repair"}),
    ("ecc_mode", {"ecc-mode"}),
    ("ecc_errors", {"ecc-errors", "ecc-rate"}),
    ("sram_threshold_exceeded", {"ecc-sram"}),
    ("sram_errors", {"ecc-aggregate"}),
    ("recovery_action", {"recovery-action"}),
    ("nvlinks", {"nvlink-state"}),
    ("nvlink_errors", {"nvlink-errors"}),
    ("fabric", {"fabric"}),
    ("pcie_width", {"pcie-width"}),
    ("pcie_generation", {"pcie-generation"}),
    ("pcie_replays", {"pcie-replay"}),
    ("utilization_pct", {"pcie-generation"}),
    ("clock_reasons", {"clock-events"}),
    ("temperature_c", {"thermal"}),
    ("memory_temperature_c", set()),
    ("temperature_max_c", set()),
    ("memory_temperature_max_c", set()),
    ("thermal_margin_c", set()),
    ("power_mw", {"power"}),
    ("power_limit", set()),
    ("energy_mj", set()),
    ("inforom_valid", {"inforom"}),
    ("persistence", {"persistence"}),
    ("mig", {"mig"}),
    ("processes", {"gpu-idle"}),
    ("memory_used_bytes", set()),
]


@pytest.mark.parametrize(("field", "unknown"), UNKNOWN_WITHOUT)
@pytest.mark.parametrize("error", ["NotSupported", "FunctionNotFound", "NoPermission", "Unknown"])
def test_what_cannot_be_read_is_unknown_and_no_finding(
    field: str, unknown: set[str], error: str
) -> None:
    look = with_gpu(reading(), 2, **{field: Unsupported(error)})
    before = past(*[reading()] * 70)
    outcomes = checks.run(look, before)
    assert found(look, before) == []
    assert {name for name, outcome in outcomes.items() if outcome.unknown} == unknown
    assert all(2 in outcomes[name].blind for name in unknown)


def test_every_value_has_a_row_in_the_table_above() -> None:
    assert {field for field, _ in UNKNOWN_WITHOUT} == set(VALUES)


@pytest.mark.parametrize(
    ("seen", "before", "on_pci", "missing"),
    [
        pytest.param(8, 8, None, 0, id="all-there"),
        pytest.param(7, 8, None, 1, id="one-gone-since"),
        pytest.param(6, 0, 8, 2, id="two-on-the-bus-only"),
        pytest.param(8, 0, 0, 0, id="simulated-gpus-are-on-no-bus"),
        pytest.param(8, 6, None, 0, id="more-than-before"),
    ],
)
def test_the_count_is_compared_with_the_most_that_is_known(
    seen: int, before: int, on_pci: int | None, missing: int
) -> None:
    outcome = checks.run(reading(seen, pci_gpus=on_pci), Past(before))["gpu-count"]
    assert [finding.count for finding in outcome.findings] == [missing] * bool(missing)


def test_facts_that_the_driver_does_not_tell_are_unknown() -> None:
    look = with_gpu(reading(), 0, unread=("serial",))
    assert checks.run(look, Past())["inventory"].unknown


@pytest.mark.parametrize("field", ["vbios", "gsp_firmware"])
def test_a_version_that_the_driver_does_not_tell_is_the_firmware_checks_business(
    field: str,
) -> None:
    outcomes = checks.run(with_gpu(reading(), 0, unread=(field,)), Past())
    assert (outcomes["inventory"].unknown, outcomes["firmware"].unknown) == (False, True)


@pytest.mark.parametrize(
    ("versions", "odd"),
    [
        pytest.param("aaaaaaaa", [], id="all-alike"),
        pytest.param("aaabaaaa", [3], id="one-differs"),
        pytest.param("baaaaaaa", [0], id="the-first-differs"),
        pytest.param("aabbccaa", [2, 3, 4, 5], id="three-versions"),
        pytest.param("aaaabbbb", [4, 5, 6, 7], id="a-draw"),
        pytest.param("aaa.aaaa", [], id="one-not-told"),
    ],
)
def test_the_firmware_of_the_minority_is_named(versions: str, odd: list[int]) -> None:
    look = reading()
    for index, version in enumerate(versions):
        facts = replace(look.gpus[index].facts, vbios=version.strip("."))
        look = with_gpu(look, index, facts=facts)
    assert found(look) == [("vbios-mismatch", D, Action.INSPECT, index) for index in odd]


def test_gpus_of_two_products_may_differ_in_firmware() -> None:
    look = reading(2)
    other = replace(look.gpus[1].facts, product="NVIDIA L4", vbios="95.04")
    assert found(with_gpu(look, 1, facts=other)) == []


@pytest.mark.parametrize(
    ("links", "down"),
    [
        pytest.param([(1, 1)] * 8, [], id="all-up"),
        pytest.param([(0, 0)] * 8, [], id="cards-without-bridges"),
        pytest.param([(0, 0)] + [(1, 1)] * 7, [0], id="one-gpu-has-none"),
        pytest.param([(0, 1)] * 8, list(range(8)), id="the-same-link-on-all"),
    ],
)
def test_links_are_judged_where_links_are_in_use(
    links: list[tuple[int, ...]], down: list[int]
) -> None:
    look = reading()
    for index, states in enumerate(links):
        look = with_gpu(look, index, nvlinks=states)
    assert found(look) == [("nvlink-down", D, Action.RESET, index) for index in down]


def test_two_gpus_with_one_uuid_are_a_finding() -> None:
    base = reading()
    assert found(with_gpu(base, 4, facts=base.gpus[1].facts)) == [
        ("inventory-duplicate", D, Action.INSPECT, 4)
    ]


@pytest.mark.parametrize(
    ("error", "code", "action"),
    [
        ("DriverNotLoaded", "nvml-driver-not-loaded", Action.REBOOT),
        ("LibRmVersionMismatch", "nvml-lib-rm-version-mismatch", Action.REBOOT),
        ("LibraryNotFound", "nvml-library-not-found", Action.INSPECT),
        ("Unknown", "nvml-unknown", Action.INSPECT),
    ],
)
def test_a_library_of_no_use_is_fatal_for_the_blade(error: str, code: str, action: Action) -> None:
    look = Reading("boot-1", session_error=error)
    lasting = Past(8, no_session_s=session.RELOAD_S)
    outcomes = checks.run(look, lasting)
    assert found(look, lasting) == [(code, F, action, None)]
    assert {name for name, outcome in outcomes.items() if outcome.unknown} == checks.NAMES - {
        "nvml",
        "xid",
    }


@pytest.mark.parametrize("error", ["NoPermission", "InsufficientResources", "Memory"])
@pytest.mark.parametrize("lasts_s", [0.0, session.RELOAD_S])
def test_a_library_that_refuses_the_agent_says_nothing_of_the_gpus(
    error: str, lasts_s: float
) -> None:
    look = Reading("boot-1", session_error=error)
    outcomes = checks.run(look, Past(8, no_session_s=lasts_s))
    (finding,) = outcomes["nvml"].findings
    assert (finding.severity, finding.action) == (Severity.UNKNOWN, Action.NONE)
    assert {"nvml", "row-remap"} <= {name for name, told in outcomes.items() if told.unknown}


@pytest.mark.parametrize("error", ["NoPermission", "Unknown"])
def test_a_gpu_of_which_nothing_can_be_read_is_unknown(error: str) -> None:
    silent = with_gpu(reading(), 3, **unread(Unsupported(error)))
    code = "nvml-no-permission" if error == "NoPermission" else "nvml-unknown"
    assert found(silent) == [(code, Severity.UNKNOWN, Action.NONE, 3)]
    assert found(with_gpu(silent, 3, temperature_c=41)) == []


@pytest.mark.parametrize(
    ("error", "at_once"),
    [
        ("DriverNotLoaded", (D, Action.DRAIN)),
        ("LibRmVersionMismatch", (D, Action.DRAIN)),
        ("LibraryNotFound", (D, Action.DRAIN)),
        ("Uninitialized", (D, Action.DRAIN)),
        ("Unknown", (F, Action.INSPECT)),
    ],
)
def test_a_driver_may_be_reloaded_and_gets_time_for_it(
    error: str, at_once: tuple[Severity, Action]
) -> None:
    look = Reading("boot-1", session_error=error)
    for seconds in (0.0, session.RELOAD_S - 1):
        ((_, severity, action, gpu),) = found(look, Past(8, no_session_s=seconds))
        assert (severity, action, gpu) == (*at_once, None)


def test_without_a_session_the_kernel_still_tells_what_it_knows() -> None:
    look = replace(reading(), gpus=(), session_error="DriverNotLoaded")
    outcomes = checks.run(look, Past(8))
    unknown = {name for name, outcome in outcomes.items() if outcome.unknown}
    assert unknown == checks.NAMES - checks.WITHOUT_SESSION
    assert {"xid", "sxid", "nvme", "infiniband-state"} <= checks.WITHOUT_SESSION


@pytest.mark.parametrize(
    ("kernel_log", "unknown"), [("", False), ("PermissionError", True)], ids=["read", "unread"]
)
def test_events_that_cannot_be_had_from_either_side_make_the_xid_check_unknown(
    kernel_log: str, *, unknown: bool
) -> None:
    look = reading(events_error="NotSupported")
    assert look.host is not None
    look = replace(look, host=replace(look.host, kernel_log=kernel_log))
    assert checks.run(look, Past())["xid"].unknown is unknown


@pytest.mark.parametrize(
    ("strikes", "severity", "action"),
    [(1, D, Action.DRAIN), (2, D, Action.DRAIN), (3, F, Action.REBOOT), (9, F, Action.REBOOT)],
)
def test_silence_grows_worse_with_each_child(
    strikes: int, severity: Severity, action: Action
) -> None:
    finding = session.unresponsive(Unresponsive(strikes, "silent"))
    assert (finding.code, finding.severity, finding.action) == (
        "nvml-unresponsive",
        severity,
        action,
    )


@pytest.mark.parametrize("name", sorted(checks.NAMES))
def test_a_check_that_is_switched_off_says_nothing(name: str) -> None:
    outcomes = checks.run(lost(reading(), 3), Past(9), frozenset({name}))
    assert set(outcomes) == checks.NAMES - {name}


def test_every_check_names_its_source() -> None:
    assert all(check.source for check in checks.CHECKS)
    assert len(checks.NAMES) == len(checks.CHECKS)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        pytest.param({"a": ("0x10de", "0x030200"), "b": ("0x10de", "0x030200")}, 2, id="two-gpus"),
        pytest.param({"a": ("0x10de", "0x068000"), "b": ("0x8086", "0x030200")}, 0, id="others"),
        pytest.param(None, None, id="no-sysfs"),
    ],
)
def test_gpus_are_counted_on_the_pci_bus(
    tmp_path: Path, devices: dict[str, tuple[str, str]] | None, expected: int | None
) -> None:
    folder = tmp_path / "devices"
    for name, (vendor, kind) in (devices or {}).items():
        (folder / name).mkdir(parents=True)
        (folder / name / "vendor").write_text(f"{vendor}\n")
        (folder / name / "class").write_text(f"{kind}\n")
    assert pci.count_gpus(folder) == expected
