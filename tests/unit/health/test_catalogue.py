"""The catalogues: every row is read, the codes on which the field disagrees, the rules as data."""

import csv

import pytest

from tramontane.api.blade import Action, Severity
from tramontane.health import catalogue, escalation
from tramontane.health.catalogue import Xid

CSV_ROWS = list(csv.DictReader(catalogue.CSV.read_text(encoding="utf-8").splitlines()))
SWITCH_ROWS = list(csv.DictReader(catalogue.SWITCH_CSV.read_text(encoding="utf-8").splitlines()))


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


def test_every_sxid_of_the_csv_has_a_meaning() -> None:
    assert len(catalogue.switch_table()) == len(SWITCH_ROWS) == 93


@pytest.mark.parametrize("row", SWITCH_ROWS, ids=lambda row: row["sxid"])
def test_an_sxid_is_as_bad_as_nvidia_says(row: dict[str, str]) -> None:
    mapped = catalogue.look_up_switch(int(row["sxid"]))
    fatal = row["nvidia_class"] in {"fatal", "always fatal"}
    assert (mapped.severity is Severity.FATAL) == fatal
    assert (mapped.action in {Action.RESET, Action.REBOOT}) >= fatal


@pytest.mark.parametrize(
    ("code", "severity", "action"),
    [
        pytest.param(11012, Severity.INFO, Action.NONE, id="corrected"),
        pytest.param(11004, Severity.INFO, Action.INSPECT, id="wrong-partition"),
        pytest.param(19084, Severity.DEGRADED, Action.RESET, id="heartbeat"),
        pytest.param(20034, Severity.FATAL, Action.RESET, id="a-link-went-down"),
        pytest.param(23001, Severity.FATAL, Action.REBOOT, id="always-fatal"),
        pytest.param(10005, Severity.NONE, Action.NONE, id="cool-again"),
        pytest.param(99999, Severity.DEGRADED, Action.INSPECT, id="newer-than-the-catalogue"),
    ],
)
def test_what_an_sxid_asks_for(code: int, severity: Severity, action: Action) -> None:
    row = catalogue.look_up_switch(code)
    assert (row.severity, row.action) == (severity, action)


FATAL_ROW = Xid(1, "", Severity.FATAL, Action.DRAIN)
INFO_ROW = Xid(1, "", Severity.INFO, Action.RESTART_APP)


@pytest.mark.parametrize(
    ("row", "fatal", "wanted", "severity", "action"),
    [
        pytest.param(FATAL_ROW, None, None, "Fatal", "Drain", id="says-nothing"),
        pytest.param(FATAL_ROW, True, None, "Fatal", "Drain", id="fatal"),
        pytest.param(FATAL_ROW, True, "Reset", "Fatal", "Reset", id="fatal-wants-reset"),
        pytest.param(INFO_ROW, True, None, "Fatal", "Reset", id="fatal-though-harmless"),
        pytest.param(INFO_ROW, True, "None", "Fatal", "Reset", id="fatal-and-wants-nothing"),
        pytest.param(FATAL_ROW, False, None, "Info", "None", id="not-fatal"),
        pytest.param(FATAL_ROW, False, "None", "Info", "None", id="not-fatal-wants-nothing"),
        pytest.param(FATAL_ROW, False, "RestartApp", "Info", "RestartApp", id="restart"),
        pytest.param(FATAL_ROW, False, "Reset", "Degraded", "Reset", id="not-fatal-wants-reset"),
        pytest.param(INFO_ROW, False, "None", "Info", "RestartApp", id="as-mild-as-the-code"),
        pytest.param(INFO_ROW, None, "Reset", "Degraded", "Reset", id="wants-reset"),
        pytest.param(FATAL_ROW, None, "Reset", "Fatal", "Reset", id="wants-the-stronger"),
        pytest.param(FATAL_ROW, None, "None", "Info", "None", id="wants-nothing"),
    ],
)
def test_the_line_of_the_log_counts(
    row: Xid, fatal: bool | None, wanted: str | None, severity: str, action: str
) -> None:
    told = catalogue.decoded(row, fatal, Action(wanted) if wanted else None)
    assert (told.severity, told.action) == (severity, action)


def test_every_rule_is_about_a_code_of_the_catalogue_and_has_its_source() -> None:
    known = {f"xid-{code}" for code in catalogue.table()}
    known |= {f"sxid-{code}" for code in catalogue.switch_table()}
    named = set(escalation.FOLLOWERS) | set(escalation.CANCELS) | set(escalation.DETAILS)
    named |= set(escalation.SOFTENED) | set(escalation.RECURRENCES)
    named |= {code for codes in escalation.CANCELS.values() for code in codes}
    named |= {detail.of for detail in escalation.DETAILS.values()}
    named |= {code for rule in escalation.SOFTENED.values() for code in rule.by}
    assert named <= known
    assert all(rule.source for rule in escalation.RECURRENCES.values())


@pytest.mark.parametrize(("code", "rule"), escalation.RECURRENCES.items())
def test_what_comes_back_asks_for_more(code: str, rule: escalation.Recurrence) -> None:
    alone = catalogue.look_up(int(code.removeprefix("xid-")))
    again = catalogue.rank(rule.severity, rule.action)
    assert again > catalogue.rank(alone.severity, alone.action)
    assert rule.burst_s < rule.window_s
