"""The XID catalogue: every row is read, and the codes on which the field disagrees."""

import csv

import pytest

from tramontane.api.blade import Action, Severity
from tramontane.health import catalogue

CSV_ROWS = list(csv.DictReader(catalogue.CSV.read_text(encoding="utf-8").splitlines()))


def test_every_row_of_the_csv_has_a_meaning() -> None:
    assert sorted(catalogue.table()) == list(range(1, 174))
    assert len(CSV_ROWS) == 173


@pytest.mark.parametrize(
    ("code", "severity", "action"),
    [
        pytest.param(13, Severity.INFO, Action.RESTART_APP, id="13-application"),
        pytest.param(14, Severity.NONE, Action.NONE, id="14-unused-but-ignored"),
        pytest.param(31, Severity.INFO, Action.RESTART_APP, id="31-application"),
        pytest.param(43, Severity.NONE, Action.NONE, id="43-ignored"),
        pytest.param(45, Severity.INFO, Action.RESTART_APP, id="45-follows-a-crash"),
        pytest.param(48, Severity.FATAL, Action.RESET, id="48-double-bit"),
        pytest.param(63, Severity.DEGRADED, Action.RESET, id="63-keep-the-job-reset-when-idle"),
        pytest.param(64, Severity.FATAL, Action.RESET, id="64-remap-not-recorded"),
        pytest.param(74, Severity.FATAL, Action.RESET, id="74-nvlink"),
        pytest.param(78, Severity.FATAL, Action.INSPECT, id="78-software-or-firmware"),
        pytest.param(79, Severity.FATAL, Action.REBOOT, id="79-off-the-bus"),
        pytest.param(94, Severity.INFO, Action.RESTART_APP, id="94-contained"),
        pytest.param(95, Severity.FATAL, Action.RESET, id="95-uncontained"),
        pytest.param(108, Severity.NONE, Action.NONE, id="108-unused-but-ignored"),
        pytest.param(109, Severity.FATAL, Action.RESET, id="109-context-switch"),
        pytest.param(119, Severity.FATAL, Action.RESET, id="119-gsp"),
        pytest.param(144, Severity.FATAL, Action.DRAIN, id="144-not-decoded"),
        pytest.param(150, Severity.FATAL, Action.DRAIN, id="150-not-decoded"),
        pytest.param(154, Severity.NONE, Action.NONE, id="154-recovery-action-is-read"),
        pytest.param(160, Severity.NONE, Action.NONE, id="160-nvidia-ignores"),
        pytest.param(162, Severity.NONE, Action.NONE, id="162-good-news"),
        pytest.param(163, Severity.DEGRADED, Action.RESET, id="163-until-162"),
        pytest.param(164, Severity.INFO, Action.INSPECT, id="164-a-ticket"),
        pytest.param(171, Severity.FATAL, Action.RESET, id="171-with-48"),
        pytest.param(173, Severity.FATAL, Action.REBOOT, id="173-c2c"),
        pytest.param(1, Severity.FATAL, Action.INSPECT, id="1-unused"),
        pytest.param(999, Severity.DEGRADED, Action.INSPECT, id="999-newer-than-the-catalogue"),
    ],
)
def test_what_a_code_asks_for(code: int, severity: Severity, action: Action) -> None:
    row = catalogue.look_up(code)
    assert (row.severity, row.action) == (severity, action)


@pytest.mark.parametrize("row", CSV_ROWS, ids=lambda row: row["xid"])
def test_a_code_that_is_not_fatal_in_the_csv_quarantines_nothing(row: dict[str, str]) -> None:
    mapped = catalogue.look_up(int(row["xid"]))
    assert (mapped.severity is Severity.FATAL) == (row["severity"] == "fatal")
