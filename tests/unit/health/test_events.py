"""Events beside each other: bursts, units, companions, two tellers, and floods."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.blade import Action, BladeRepair, Report
from tramontane.health import report
from tramontane.health.checks import sxid as sxid_check
from tramontane.health.device import Event, Reading, Unsupported

from .builders import NOW, codes, folded, with_gpu, xid
from .lines import LOGGED, UNLOGGED, burst, exception, link_error, nvrm, said

HOUR = 3600.0


def asked(after: Report) -> list[tuple[str, str, str]]:
    return [(fault.code, fault.severity.value, fault.action.value) for fault in after.faults]


def one_by_one(*events: Event, look: Reading = LOGGED) -> Report:
    """Fold each event when it comes, as the agent does."""
    after: Report | None = None
    for event in events:
        after = folded(after, look, event, now=event.at)
    assert after is not None
    return after


@pytest.fixture(params=["together", "one-by-one"])
def fold_all(request: pytest.FixtureRequest) -> Any:
    """Fold all events at once, or each for itself: the report must be the same."""
    if request.param == "one-by-one":
        return one_by_one
    return lambda *events: folded(None, LOGGED, *events, now=events[-1].at)


class TestRecurrence:
    @pytest.mark.parametrize(
        ("batch", "expected"),
        [
            pytest.param(
                (xid(94), xid(94, at=NOW + HOUR)), ("xid-94", "Fatal", "Reset"), id="94-twice"
            ),
            pytest.param(
                (xid(94), xid(94, at=NOW + 10), xid(94, at=NOW + 20)),
                ("xid-94", "Info", "RestartApp"),
                id="94-one-burst",
            ),
            pytest.param(
                (xid(94), xid(94, at=NOW + 24.5 * HOUR)),
                ("xid-94", "Info", "RestartApp"),
                id="94-a-day-apart",
            ),
            pytest.param(
                (xid(48), xid(48, at=NOW + HOUR)), ("xid-48", "Fatal", "Replace"), id="48-twice"
            ),
            pytest.param(
                (xid(31), xid(31, at=NOW + 181)),
                ("xid-31", "Degraded", "RestartApp"),
                id="31-twice",
            ),
            pytest.param(
                (xid(31), xid(31, at=NOW + 179), xid(31, at=NOW + 350)),
                ("xid-31", "Info", "RestartApp"),
                id="31-one-burst",
            ),
            pytest.param(
                (exception(1, 3), exception(1, 3, at=NOW + 60)),
                ("xid-13", "Degraded", "RestartApp"),
                id="13-twice-on-one-tpc",
            ),
            pytest.param(
                (exception(1, 3), exception(1, 3, at=NOW + 14)),
                ("xid-13", "Info", "RestartApp"),
                id="13-one-burst",
            ),
            pytest.param(
                (exception(1, 3), exception(2, 3, at=NOW + 60)),
                ("xid-13", "Info", "RestartApp"),
                id="13-on-another-tpc",
            ),
            pytest.param(
                (
                    exception(1, 3),
                    exception(1, 4, at=NOW + 1),
                    exception(1, 3, at=NOW + 60),
                ),
                ("xid-13", "Info", "RestartApp"),
                id="13-after-a-burst-over-many",
            ),
            pytest.param(
                (
                    exception(1, 3),
                    exception(1, 3, at=NOW + 60),
                    exception(1, 4, at=NOW + 61),
                ),
                ("xid-13", "Info", "RestartApp"),
                id="13-in-a-burst-over-many",
            ),
            pytest.param(
                (link_error(4), link_error(4, at=NOW + HOUR)),
                ("xid-74", "Fatal", "Replace"),
                id="74-twice-on-one-link",
            ),
            pytest.param(
                (link_error(4), link_error(5, at=NOW + HOUR)),
                ("xid-74", "Fatal", "Reset"),
                id="74-on-two-links",
            ),
        ],
    )
    def test_is_another_burst_within_a_day_on_the_same_part(
        self, batch: tuple[Event, ...], expected: tuple[str, str, str], fold_all: Any
    ) -> None:
        assert asked(fold_all(*batch)) == [expected]

    @pytest.mark.parametrize(
        ("units", "severity", "evidence"),
        [
            pytest.param([(1, 3), (1, 3)], "Degraded", "GPC 1, TPC 3", id="one-tpc"),
            pytest.param([(1, 3), (2, 3)], "Info", "GPC 2, TPC 3", id="another-tpc"),
        ],
    )
    def test_of_13_is_seen_although_a_burst_ends_with_a_line_that_names_no_part(
        self, units: list[tuple[int, int]], severity: str, evidence: str, fold_all: Any
    ) -> None:
        lines = [
            line
            for number, unit in enumerate(units)
            for line in burst(*unit, at=NOW + number * HOUR)
        ]
        (fault,) = fold_all(*lines).faults
        assert (fault.severity, fault.count) == (severity, len(units))
        assert evidence in (fault.evidence or "")

    def test_of_13_on_several_parts_is_told_as_such_to_the_end(self, fold_all: Any) -> None:
        (fault,) = fold_all(*burst(1, 3), *burst(2, 4, at=NOW + 1)).faults
        assert (fault.evidence or "").startswith("on several units: NVRM: Xid")

    def test_a_part_that_is_named_late_is_one_part(self, fold_all: Any) -> None:
        (fault,) = fold_all(*reversed(burst(1, 3))).faults
        assert (fault.evidence or "").startswith("NVRM: Xid")

    @pytest.mark.parametrize("code", [13, 31])
    def test_is_none_where_another_gpu_had_it_too(self, code: int, fold_all: Any) -> None:
        batch = (xid(code, 2), xid(code, 3, at=NOW + HOUR), xid(code, 3, at=NOW + 2 * HOUR))
        assert {severity for _, severity, _ in asked(fold_all(*batch))} == {"Info"}

    def test_is_taken_back_when_the_other_gpus_of_the_job_follow(self, fold_all: Any) -> None:
        first = (xid(31, 3), xid(31, 3, at=NOW + HOUR))
        assert ("xid-31", "Degraded", "RestartApp") in asked(fold_all(*first))
        crash = fold_all(*first, xid(31, 4, at=NOW + HOUR + 2))
        assert {severity for _, severity, _ in asked(crash)} == {"Info"}

    def test_stays_when_the_other_gpus_follow_much_later(self, fold_all: Any) -> None:
        batch = (xid(31, 3), xid(31, 3, at=NOW + HOUR), xid(31, 4, at=NOW + 3 * HOUR))
        assert asked(fold_all(*batch)) == [
            ("xid-31", "Degraded", "RestartApp"),
            ("xid-31", "Info", "RestartApp"),
        ]

    def test_stays_with_what_comes_after(self, fold_all: Any) -> None:
        batch = (xid(94), xid(94, at=NOW + HOUR), xid(94, at=NOW + HOUR + 1))
        assert asked(fold_all(*batch)) == [("xid-94", "Fatal", "Reset")]


class TestCount:
    """`count` is what `health.rules` go by: occurrences, not lines."""

    @pytest.mark.parametrize(
        ("code", "seconds", "count"),
        [
            pytest.param(94, (0, 1, 2), 1, id="one-error-in-three-lines"),
            pytest.param(94, (0, 14, 28, 42), 1, id="lines-that-follow-each-other"),
            pytest.param(94, (0, 1, 60, 61, 3600), 3, id="three-errors"),
            pytest.param(31, (0, 170, 340), 1, id="a-longer-burst"),
            pytest.param(31, (0, 181), 2, id="beyond-the-longer-burst"),
            pytest.param(119, (0, 1, 14, 30), 2, id="a-code-without-a-rule-of-its-own"),
            pytest.param(43, (0, 1, 60), 2, id="an-ignored-code"),
        ],
    )
    def test_is_of_occurrences(
        self, code: int, seconds: tuple[int, ...], count: int, fold_all: Any
    ) -> None:
        after = fold_all(*(xid(code, at=NOW + second) for second in seconds))
        assert [fault.count for fault in after.faults] == [count]

    def test_does_not_let_a_mild_line_undo_a_bad_one_of_the_burst(self, fold_all: Any) -> None:
        bad = nvrm(94, "Contained: SM (0x1). RST: No, D-RST: Yes")
        mild = nvrm(94, "Contained: SM (0x1). RST: No, D-RST: No", at=NOW + 8)
        after = fold_all(bad, xid(94, at=NOW + 7), mild)
        assert asked(after) == [("xid-94", "Degraded", "Reset")]


class TestClockSetBack:
    """By an hour, as NTP does it after a start with a wrong time: nothing is of the future."""

    BACK = NOW - HOUR

    def test_an_error_that_comes_again_is_one_that_came_again(self) -> None:
        after = folded(one_by_one(xid(48)), LOGGED, now=self.BACK)
        assert after.faults[0].last_seen == clock.utc(self.BACK)
        again = nvrm(48, "DBE, partition 1, subpartition 0", at=self.BACK + 600)
        after = folded(after, LOGGED, again, now=again.at)
        assert [(fault.action, fault.count) for fault in after.faults] == [("Replace", 2)]

    def test_a_line_is_not_taken_for_one_that_was_told_before(self) -> None:
        before = one_by_one(nvrm(94, "Contained: SM (0x1). RST: No, D-RST: No"))
        bad = nvrm(94, "Contained: SM (0x1). RST: No, D-RST: Yes", at=self.BACK)
        assert asked(folded(before, LOGGED, bad, now=self.BACK)) == [
            ("xid-94", "Degraded", "Reset")
        ]

    def test_a_doubted_error_waits_no_longer_for_its_line(self) -> None:
        doubted = folded(folded(None, LOGGED, xid(149)), LOGGED, now=self.BACK)
        assert report.settles_in(doubted, self.BACK) == 3.0
        settled = folded(doubted, LOGGED, now=self.BACK + 3)
        assert asked(settled) == [("xid-149", "Fatal", "Drain")]


class TestIgnored:
    """Codes that the catalogue ignores are noted for `health.rules`, and nothing is wrong."""

    def test_are_noted_without_harm(self) -> None:
        after = folded(None, LOGGED, xid(43), xid(43, at=NOW + 60), now=NOW + 60)
        (fault,) = after.faults
        assert asked(after) == [("xid-43", "None", "None")]
        assert (fault.count, fault.evidence) == (2, "XID 43: GPU stopped processing")
        assert [gpu.faults for gpu in after.gpus] == [0] * 8

    def test_are_in_no_hurry(self) -> None:
        before = folded(None, LOGGED)
        noted = folded(before, LOGGED, xid(43))
        assert report.urgency(before, noted) is report.Urgency.LATER
        assert report.urgency(noted, before) is report.Urgency.LATER
        assert report.urgency(before, folded(noted, LOGGED, xid(79))) is report.Urgency.NOW

    def test_are_few_and_the_latest_per_gpu(self) -> None:
        batch = [
            xid(code, gpu, at=NOW + number)
            for number, code in enumerate((43, 44, 66, 92))
            for gpu in range(8)
        ]
        after = folded(None, LOGGED, *batch, xid(79, 2))
        assert codes(after) == ["xid-79", *["xid-66", "xid-92"] * 8]
        assert len(str(after.to_dict())) < 10_000

    def test_never_push_a_real_one_out(self) -> None:
        real = [xid(code, gpu) for gpu in range(8) for code in (94, 31, 63, 95)]
        noted = [xid(43, gpu, at=NOW + 9) for gpu in range(8)]
        assert "xid-43" not in codes(folded(None, LOGGED, *real, *noted))

    @pytest.mark.parametrize(
        ("hours", "boot"), [(24.1, "boot-1"), (1, "boot-2")], ids=["a-day", "a-boot"]
    )
    def test_end_by_themselves(self, hours: float, boot: str) -> None:
        noted = folded(None, LOGGED, xid(43))
        after = folded(noted, replace(LOGGED, boot_id=boot), now=NOW + hours * HOUR)
        assert codes(after) == []


class TestCompanions:
    @pytest.mark.parametrize("batch", [(171, 48), (48, 171)], ids=str)
    def test_171_says_that_48_was_in_dram(self, batch: tuple[int, int], fold_all: Any) -> None:
        after = fold_all(*(xid(code, at=NOW + i) for i, code in enumerate(batch)))
        assert asked(after) == [("xid-48", "Fatal", "Reset")]
        assert (after.faults[0].evidence or "").startswith("in DRAM (XID 171); XID 48")

    def test_172_says_that_48_was_in_sram_once(self, fold_all: Any) -> None:
        after = fold_all(xid(48), xid(172, at=NOW + 1), xid(172, at=NOW + 2))
        assert (after.faults[0].evidence or "").count("in SRAM") == 1

    @pytest.mark.parametrize(
        "batch",
        [
            pytest.param((xid(171),), id="alone"),
            pytest.param((xid(48, 2), xid(171, 3)), id="on-another-gpu"),
            pytest.param((xid(48), xid(171, at=NOW + 61)), id="much-later"),
        ],
    )
    def test_171_is_a_fault_of_its_own_elsewhere(
        self, batch: tuple[Event, ...], fold_all: Any
    ) -> None:
        assert ("xid-171", "Fatal", "Reset") in asked(fold_all(*batch))

    @pytest.mark.parametrize("order", [(48, 0), (0, 48)], ids=["48-first", "48-last"])
    @pytest.mark.parametrize(
        ("other", "severity"), [(63, "Degraded"), (94, "Degraded"), (64, "Fatal"), (95, "Fatal")]
    )
    def test_48_is_as_bad_as_what_comes_with_it(
        self, other: int, severity: str, order: tuple[int, int], fold_all: Any
    ) -> None:
        batch = [xid(code or other, at=NOW + i) for i, code in enumerate(order)]
        assert ("xid-48", severity, "Reset") in asked(fold_all(*batch))

    def test_48_again_is_not_softened(self, fold_all: Any) -> None:
        batch = (xid(48), xid(63), xid(48, at=NOW + HOUR), xid(63, at=NOW + HOUR))
        assert ("xid-48", "Fatal", "Replace") in asked(fold_all(*batch))

    @pytest.mark.parametrize("batch", [(43, 45), (45, 43), (154, 45), (45, 154)], ids=str)
    def test_45_beside_an_ignored_xid_is_nothing(self, batch: tuple[int, int]) -> None:
        after = folded(None, LOGGED, *(xid(code, at=NOW + i) for i, code in enumerate(batch)))
        assert codes(after) == ["xid-43"] * (43 in batch)

    def test_672_of_45_in_three_hours_are_one_harmless_fault(self) -> None:
        after = one_by_one(*(xid(45, at=NOW + i * 16) for i in range(672)))
        assert asked(after) == [("xid-45", "Info", "RestartApp")]

    def test_a_cool_switch_ends_its_thermal_event(self, fold_all: Any) -> None:
        hot = said("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 10004, Non-fatal, Link 0 Hot")
        cool = said("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 10005, Non-fatal, Link 0 Cool")
        assert asked(fold_all(hot)) == [("sxid-10004", "Info", "Inspect")]
        assert asked(fold_all(hot, replace(cool, at=NOW + 9))) == []


class TestTellers:
    line = nvrm(95, "Uncontained: LTC TAG (0x7,0x0). RST: Yes, D-RST: No", at=NOW + 0.3)

    @pytest.mark.parametrize(
        "batch",
        [
            pytest.param((xid(95), line), id="nvml-first"),
            pytest.param((line, xid(95, at=NOW + 0.4)), id="log-first"),
            pytest.param((xid(95), line, xid(95, at=NOW + 4)), id="nvml-again-at-once"),
        ],
    )
    def test_of_one_event_make_one_fault_with_the_line(
        self, batch: tuple[Event, ...], fold_all: Any
    ) -> None:
        (fault,) = fold_all(*batch).faults
        assert (fault.count, fault.evidence) == (1, self.line.line)

    @pytest.mark.parametrize(("seconds", "count"), [(14, 1), (16, 2)])
    def test_apart_are_two_occurrences(self, seconds: int, count: int, fold_all: Any) -> None:
        (fault,) = fold_all(xid(95), replace(self.line, at=NOW + seconds)).faults
        assert (fault.count, fault.evidence) == (count, self.line.line)

    def test_of_a_flood_are_one_occurrence_however_often_they_are_told(self, fold_all: Any) -> None:
        flood = [replace(self.line, at=NOW + i, count=1000) for i in range(60)]
        (fault,) = fold_all(*flood).faults
        assert (fault.count, fault.last_seen) == (1, clock.utc(flood[-1].at))

    def test_a_line_that_was_there_before_is_not_counted_again(self) -> None:
        old, late = self.line, replace(self.line, at=NOW + HOUR)
        before = one_by_one(old, late)
        again = folded(before, LOGGED, old, now=NOW + HOUR + 60)
        assert again.faults == before.faults

    def test_a_line_of_yesterday_opens_nothing_that_would_have_ended(self) -> None:
        late = folded(None, LOGGED, self.line, now=NOW + 25 * HOUR)
        assert codes(late) == []
        looked_at = folded(None, LOGGED, nvrm(78, "vGPU"), now=NOW + 25 * HOUR)
        assert codes(looked_at) == ["xid-78"]

    def test_of_a_switch_speak_of_the_blade(self) -> None:
        text = "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"
        (fault,) = folded(None, LOGGED, said(text)).faults
        assert (fault.code, fault.check, fault.gpu) == ("sxid-20034", sxid_check.NAME, None)
        assert (fault.severity, fault.action, fault.evidence) == ("Fatal", "Reset", text)

    def test_of_a_switch_are_not_heard_when_their_check_is_off(self) -> None:
        text = "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"
        off = folded(None, LOGGED, said(text), xid(79), disabled=frozenset({"sxid"}))
        assert codes(off) == ["xid-79"]


class TestSubCodes:
    harmless = nvrm(
        149, "NETIR_LINK_EVT  Nonfatal  XC0 i0 Link 09 (0x02600000 0x00000000)", at=NOW + 0.4
    )
    fatal = nvrm(
        149, "NETIR_LINK_EVT  Fatal     XC0 i0 Link 09 (0x004505c6 0x00000000)", at=NOW + 0.4
    )

    def test_without_a_log_nvmls_word_is_all_there_is(self) -> None:
        assert asked(folded(None, UNLOGGED, xid(149))) == [("xid-149", "Fatal", "Drain")]

    def test_with_a_log_nothing_is_ended_before_the_line_is_there(self) -> None:
        doubted = folded(None, LOGGED, xid(149), now=NOW)
        assert asked(doubted) == [("xid-149", "Degraded", "Drain")]
        assert report.settles_in(doubted, NOW) == 3.0

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            pytest.param(harmless, [("xid-149", "Info", "None")], id="harmless"),
            pytest.param(fatal, [("xid-149", "Fatal", "Reset")], id="fatal"),
        ],
    )
    def test_the_line_decides(
        self, line: Event, expected: list[tuple[str, str, str]], fold_all: Any
    ) -> None:
        after = fold_all(xid(149), line)
        assert asked(after) == expected
        assert report.settles_in(after, NOW) is None
        assert asked(fold_all(line, xid(149, at=NOW + 0.6))) == expected
        assert asked(fold_all(line, xid(149, at=NOW + 60))) == expected

    def test_a_line_that_does_not_come_makes_it_the_worst(self) -> None:
        doubted = folded(None, LOGGED, xid(149), now=NOW)
        assert asked(folded(doubted, LOGGED, now=NOW + 1)) == asked(doubted)
        settled = folded(doubted, LOGGED, now=NOW + 3)
        assert asked(settled) == [("xid-149", "Fatal", "Drain")]
        assert settled.faults[0].count == 1

    def test_a_fatal_link_outweighs_a_harmless_one(self, fold_all: Any) -> None:
        later = replace(self.harmless, at=NOW + 60)
        assert asked(fold_all(self.fatal, later)) == [("xid-149", "Fatal", "Reset")]

    def test_registers_of_74_that_mean_nothing_are_no_fault_to_act_on(self) -> None:
        words = "NVLink: fatal error detected on link 4(0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"
        assert asked(folded(None, LOGGED, nvrm(74, words))) == [("xid-74", "Info", "None")]

    def test_a_contained_error_whose_line_wants_a_reset_waits_for_it(self) -> None:
        line = nvrm(94, "Contained: SM (0x1). RST: No, D-RST: Yes")
        assert asked(folded(None, LOGGED, line)) == [("xid-94", "Degraded", "Reset")]


class TestRecoveryAction:
    words = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
    unasked = with_gpu(LOGGED, 3, recovery_action=Unsupported("NotSupported"))

    def test_is_read_where_the_driver_tells_it(self) -> None:
        assert codes(folded(None, LOGGED, nvrm(154, self.words))) == []

    @pytest.mark.parametrize(
        ("new", "expected"),
        [
            pytest.param("0x0 (None)", [], id="none"),
            pytest.param("0x1 (GPU Reset Required)", [("xid-154", "Fatal", "Reset")], id="reset"),
            pytest.param("0x2 (Node Reboot Required)", [("xid-154", "Fatal", "Reboot")], id="boot"),
            pytest.param("0x3 (Drain P2P)", [("xid-154", "Degraded", "Drain")], id="drain"),
            pytest.param(
                "0x4 (Drain and Reset)", [("xid-154", "Degraded", "Reset")], id="drain-and-reset"
            ),
        ],
    )
    def test_is_taken_from_the_line_where_it_does_not(
        self, new: str, expected: list[tuple[str, str, str]]
    ) -> None:
        words = f"GPU recovery action changed from 0x7 (System Reboot) to {new}"
        assert asked(folded(None, self.unasked, nvrm(154, words))) == expected

    def test_without_a_line_says_nothing(self) -> None:
        assert codes(folded(None, self.unasked, xid(154))) == []


class TestRepairs:
    @pytest.mark.parametrize(
        ("gpu", "seconds", "left"),
        [
            pytest.param(3, 60, ["xid-95"], id="that-gpu"),
            pytest.param(None, 60, [], id="all"),
            pytest.param(2, 60, ["xid-95", "xid-95"], id="another-gpu"),
            pytest.param(3, -60, ["xid-95", "xid-95"], id="before-the-fault"),
        ],
    )
    def test_end_what_they_came_after(self, gpu: int | None, seconds: int, left: list[str]) -> None:
        before = folded(None, LOGGED, xid(95, 3), xid(95, 5), xid(79, 3))
        done = BladeRepair(action=Action.RESET, gpu=gpu, repaired_at=clock.utc(NOW + seconds))
        after = folded(before, LOGGED, now=NOW + 90, repair=done)
        assert [code for code in codes(after) if code != "xid-79"] == left
        assert "xid-79" in codes(after)

    @pytest.mark.parametrize(
        "repair",
        [
            pytest.param(BladeRepair(action=Action.RESET, attempts=1), id="not-done"),
            pytest.param(
                BladeRepair(action=Action.REBOOT, repaired_at=clock.utc(NOW + 60)), id="a-reboot"
            ),
        ],
    )
    def test_that_reset_nothing_end_nothing(self, repair: BladeRepair) -> None:
        before = folded(None, LOGGED, xid(95))
        assert codes(folded(before, LOGGED, now=NOW + 90, repair=repair)) == ["xid-95"]
