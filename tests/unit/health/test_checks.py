"""Each check alone: what it finds, what it cannot see, and that its switch works."""

from pathlib import Path
from typing import Any

import pytest

from tramontane.api.blade import Action, Severity
from tramontane.health import checks, pci
from tramontane.health.checks import session
from tramontane.health.checks.base import Past
from tramontane.health.device import (
    EccErrors,
    EccMode,
    Reading,
    RemappedRows,
    Unresponsive,
    Unsupported,
)

from .builders import lost, reading, with_gpu

D, F, INFO = Severity.DEGRADED, Severity.FATAL, Severity.INFO


def found(
    look: Reading, past: Past | None = None
) -> list[tuple[str, Severity, Action, int | None]]:
    outcomes = checks.run(look, past or Past())
    return [
        (finding.code, finding.severity, finding.action, finding.gpu)
        for outcome in outcomes.values()
        for finding in outcome.findings
    ]


def test_a_healthy_blade_has_no_findings_and_nothing_unknown() -> None:
    outcomes = checks.run(reading(), Past(8))
    assert found(reading(), Past(8)) == []
    assert not any(outcome.unknown or outcome.blind for outcome in outcomes.values())


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
    ],
)
def test_a_value_within_its_threshold_is_none(values: dict[str, Any]) -> None:
    assert found(with_gpu(reading(), 5, **values)) == []


def test_a_lost_gpu_is_one_finding_and_makes_no_check_unknown() -> None:
    outcomes = checks.run(lost(reading(), 3), Past(8))
    assert found(lost(reading(), 3)) == [("gpu-lost", F, Action.REBOOT, 3)]
    assert [name for name, outcome in outcomes.items() if outcome.unknown] == []
    assert outcomes["row-remap"].blind == {3}


@pytest.mark.parametrize(
    ("field", "check"),
    [
        ("remapped_rows", "row-remap"),
        ("ecc_mode", "ecc-mode"),
        ("ecc_errors", "ecc-errors"),
        ("sram_threshold_exceeded", "ecc-sram"),
        ("recovery_action", "recovery-action"),
    ],
)
@pytest.mark.parametrize("error", ["NotSupported", "FunctionNotFound", "NoPermission", "Unknown"])
def test_what_cannot_be_read_is_unknown_and_no_finding(field: str, check: str, error: str) -> None:
    look = with_gpu(reading(), 2, **{field: Unsupported(error)})
    outcomes = checks.run(look, Past(8))
    assert found(look) == []
    assert [name for name, outcome in outcomes.items() if outcome.unknown] == [check]
    assert outcomes[check].blind == {2}


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
    outcomes = checks.run(look, Past(8))
    assert found(look, Past(8)) == [(code, F, action, None)]
    assert {name for name, outcome in outcomes.items() if outcome.unknown} == checks.NAMES - {
        "nvml"
    }


def test_events_that_cannot_be_had_make_the_xid_check_unknown() -> None:
    assert checks.run(reading(events_error="NotSupported"), Past())["xid"].unknown


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
