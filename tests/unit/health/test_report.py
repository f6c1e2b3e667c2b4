"""The fold: what opens, keeps and ends a fault, and what is worth a write."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.blade import (
    MAX_FAULTS,
    Action,
    Blade,
    BladeState,
    Network,
    Report,
    Severity,
)
from tramontane.health import checks, events
from tramontane.health.checks import host
from tramontane.health.device import (
    Event,
    GpuFacts,
    Reading,
    RemappedRows,
    Sample,
    Unresponsive,
    Unsupported,
    unread,
)
from tramontane.health.host import HostPast, HostReading
from tramontane.health.report import Seen, Urgency, fold, settles_in, urgency

from .builders import NOW, codes, fault, folded, lost, reading, with_gpu, xid
from .hosts import port
from .test_false_alarms import state_of

HOUR = 3600.0
PENDING = with_gpu(reading(), 3, remapped_rows=RemappedRows(0, 1, pending=True))
HANG = Unresponsive(1, "silent", "boot-1")


def through_the_api(report: Report) -> Report:
    raw = {
        "metadata": {"name": "b"},
        "spec": {"pool": "p"},
        "status": {"report": report.to_dict()},
    }
    back = Blade.model_validate(raw).status.report
    assert back is not None
    return back


def test_a_healthy_blade_reports_its_inventory_and_no_fault() -> None:
    report = folded(None, reading())
    assert report.faults == ()
    assert [gpu.index for gpu in report.gpus] == list(range(8))
    assert (report.gpus[0].product, report.gpus[0].memory) == ("NVIDIA-H200", "141Gi")
    assert (report.agent.boot_id, report.agent.driver, report.agent.cuda) == (
        "boot-1",
        "580.95.05",
        "13.0",
    )
    assert (report.checks.run, report.checks.unknown) == (len(checks.CHECKS), ())
    assert {(gpu.nvlinks, gpu.gsp_firmware) for gpu in report.gpus} == {(18, "580.95.05")}
    assert report.network == Network(ports=8, rate=400)


@pytest.mark.parametrize(
    ("size", "text"),
    [(141 << 30, "141Gi"), (143771 << 20, "143771Mi"), (5 << 10, "5Ki"), (1025, "1025")],
)
def test_memory_is_a_quantity_without_loss(size: int, text: str) -> None:
    base = reading(1)
    facts = replace(base.gpus[0].facts, memory_bytes=size)
    assert folded(None, with_gpu(base, 0, facts=facts)).gpus[0].memory == text


class TestStates:
    def test_begin_and_end_with_the_state(self) -> None:
        open_ = folded(None, PENDING)
        assert codes(open_) == ["row-remap-pending"]
        assert codes(folded(open_, reading(), now=NOW + 1)) == []

    def test_keep_their_first_time_and_are_not_touched_by_looking(self) -> None:
        first = folded(None, PENDING)
        again = folded(first, PENDING, now=NOW + 60)
        assert again.faults == first.faults
        assert urgency(first, again) is Urgency.NONE

    def test_have_a_new_last_time_when_their_evidence_changes(self) -> None:
        first = folded(None, PENDING)
        more = with_gpu(reading(), 3, remapped_rows=RemappedRows(0, 2, pending=True))
        (changed,) = folded(first, more, now=NOW + 60).faults
        assert (changed.first_seen, changed.last_seen) == (clock.utc(NOW), clock.utc(NOW + 60))

    @pytest.mark.parametrize(
        "look",
        [
            pytest.param(
                with_gpu(reading(), 3, remapped_rows=Unsupported("FunctionNotFound")), id="unknown"
            ),
            pytest.param(lost(reading(), 3), id="gpu-lost"),
            pytest.param(Reading("boot-1", session_error="DriverNotLoaded"), id="no-driver"),
            pytest.param(
                Reading("boot-2", session_error="DriverNotLoaded"), id="no-driver-rebooted"
            ),
        ],
    )
    def test_are_not_ended_by_what_cannot_be_seen(self, look: Reading) -> None:
        assert "row-remap-pending" in codes(folded(folded(None, PENDING), look))

    def test_are_ended_when_another_gpu_cannot_be_seen(self) -> None:
        look = with_gpu(reading(), 2, remapped_rows=Unsupported("FunctionNotFound"))
        assert codes(folded(folded(None, PENDING), look)) == []

    def test_end_when_their_check_is_switched_off(self) -> None:
        report = folded(folded(None, PENDING), PENDING, disabled=frozenset({"row-remap"}))
        assert codes(report) == []


class TestSilence:
    def test_is_a_fault_and_ends_no_other(self) -> None:
        report = folded(folded(None, PENDING), PENDING, unresponsive=HANG)
        assert codes(report) == ["nvml-unresponsive", "row-remap-pending"]
        assert len(report.gpus) == 8
        seeing = {"nvml", "xid", "sxid"} | host.NAMES
        assert report.checks.run == len(seeing)
        assert set(report.checks.unknown) == checks.NAMES - seeing

    def test_of_nvml_does_not_hide_what_the_host_shows(self) -> None:
        host_before = reading().host
        assert host_before is not None
        gone = replace(host_before, pci_gpus=7, past=HostPast(most_pci_gpus=8))
        silent = folded(None, replace(reading(), host=gone), xid(79), unresponsive=HANG)
        assert codes(silent) == ["pci-gpu-missing", "xid-79", "nvml-unresponsive"]

    def test_ends_with_the_next_reading(self) -> None:
        silent = folded(folded(None, reading()), None, unresponsive=HANG)
        assert codes(silent) == ["nvml-unresponsive"]
        assert codes(folded(silent, reading())) == []

    def test_is_reported_of_a_blade_that_never_gave_a_reading(self) -> None:
        report = folded(None, None, unresponsive=HANG)
        assert (codes(report), report.agent.boot_id) == (["nvml-unresponsive"], "boot-1")


class TestReload:
    gone = Reading("boot-1", session_error="DriverNotLoaded")
    other = Reading("boot-1", session_error="LibRmVersionMismatch")

    def after(self, *looks: tuple[float, Reading]) -> list[tuple[str, str]]:
        report = folded(None, reading())
        for seconds, look in looks:
            report = through_the_api(folded(report, look, now=NOW + seconds))
        return [(fault.code, fault.severity.value) for fault in report.faults]

    def test_of_the_driver_is_no_fault_to_act_on(self) -> None:
        assert self.after((1, self.gone), (60, self.gone)) == [
            ("nvml-driver-not-loaded", "Degraded")
        ]
        assert self.after((1, self.gone), (60, self.gone), (61, reading())) == []

    def test_that_does_not_end_is_fatal_whatever_the_agent_remembers(self) -> None:
        assert self.after((1, self.gone), (301, self.gone)) == [("nvml-driver-not-loaded", "Fatal")]
        again = ((302, self.gone), (303, self.other))
        assert self.after((1, self.gone), (301, self.gone), *again) == [
            ("nvml-lib-rm-version-mismatch", "Fatal")
        ]

    def test_that_was_over_has_its_time_anew(self) -> None:
        looks = ((1, self.gone), (301, self.gone), (302, reading()), (400, self.gone))
        assert self.after(*looks) == [("nvml-driver-not-loaded", "Degraded")]

    def test_after_a_reboot_is_a_load_and_has_its_time_anew(self) -> None:
        booted = replace(self.gone, boot_id="boot-2")
        looks = [(1, self.gone), (301, self.gone), (400, booted), (410, booted)]
        assert self.after(*looks) == [("nvml-driver-not-loaded", "Degraded")]
        assert self.after(*looks, (700, booted)) == [("nvml-driver-not-loaded", "Fatal")]

    def test_has_its_time_anew_when_the_clock_was_set_back(self) -> None:
        looks = ((3601, self.gone), (0, self.gone), (299, self.gone))
        assert self.after(*looks) == [("nvml-driver-not-loaded", "Degraded")]
        assert self.after(*looks, (301, self.gone)) == [("nvml-driver-not-loaded", "Fatal")]

    def test_that_nobody_looks_at_is_not_judged_again_and_again(self) -> None:
        left = replace(self.gone, session_error="Left")
        held = folded(folded(None, self.gone), left, now=NOW + 400)
        assert codes(held) == ["nvml-driver-not-loaded"]
        assert settles_in(held, NOW + 400) is None

    def test_is_judged_again_in_time_without_news(self) -> None:
        report = folded(folded(None, reading()), self.gone)
        waits = settles_in(report, NOW + 100)
        assert waits == 200.0
        assert settles_in(folded(report, self.gone, now=NOW + 300), NOW + 300) is None


class TestRefusal:
    """Of the agent by NVML: nobody can tell how the GPUs are."""

    refused = Reading("boot-1", session_error="NoPermission")

    @pytest.mark.parametrize("before", [None, reading()], ids=["at-first", "later"])
    def test_keeps_new_work_off_and_takes_nothing_out(self, before: Reading | None) -> None:
        known = None if before is None else folded(None, before)
        report = folded(known, self.refused, now=NOW + HOUR)
        assert state_of(report, NOW + HOUR) is BladeState.UNKNOWN

    def test_of_one_gpu_is_of_the_blade(self) -> None:
        look = with_gpu(reading(), 3, **unread(Unsupported("Unknown")))
        assert state_of(folded(None, look), NOW) is BladeState.UNKNOWN
        assert codes(folded(folded(None, look), reading())) == []

    def test_clears_no_fault_and_is_no_reload(self) -> None:
        gone = replace(self.refused, session_error="DriverNotLoaded")
        held = folded(folded(None, gone), self.refused, now=NOW + 10)
        assert codes(held) == ["nvml-no-permission", "nvml-driver-not-loaded"]
        late = folded(folded(None, self.refused), gone, now=NOW + HOUR)
        assert [(f.code, f.severity) for f in late.faults] == [
            ("nvml-driver-not-loaded", Severity.DEGRADED)
        ]


class TestNetwork:
    @pytest.mark.parametrize(
        ("ports", "expected"),
        [
            pytest.param((port(), port("mlx5_1", rate_gbps=200)), (2, 200), id="lowest-rate"),
            pytest.param((port(), port("mlx5_1", state="DOWN", rate_gbps=10)), (1, 400), id="down"),
            pytest.param((port(state="DOWN"),), (0, None), id="none-active"),
            pytest.param((), (0, None), id="no-ports"),
            pytest.param(Unsupported("FileNotFoundError"), None, id="no-infiniband"),
        ],
    )
    def test_is_what_the_kernel_shows(
        self, ports: Any, expected: tuple[int, int | None] | None
    ) -> None:
        shown = folded(None, replace(reading(), host=HostReading(ports=ports))).network
        assert (None if shown is None else (shown.ports, shown.rate)) == expected

    def test_is_as_last_known_where_the_kernel_was_not_asked(self) -> None:
        before = folded(None, reading())
        assert folded(before, replace(reading(), host=None)).network == before.network


@pytest.mark.parametrize(
    ("released_at", "left"),
    [
        pytest.param(None, ["nvme-missing"], id="nobody-has-looked"),
        pytest.param(NOW - 1, ["nvme-missing"], id="before-it"),
        pytest.param(NOW + 60, [], id="as-it-is"),
    ],
)
def test_what_is_missing_is_so_for_the_next_process_until_a_person_releases_the_blade(
    released_at: float | None, left: list[str]
) -> None:
    whole = reading(host=HostReading(nvme=8, past=HostPast(most_nvme=8)))
    broken = reading(host=HostReading(nvme=7, past=HostPast(most_nvme=8)))
    report = folded(folded(None, whole), broken)
    assert codes(report) == ["nvme-missing"]
    started = reading(host=HostReading(nvme=7, past=HostPast(most_nvme=7)))
    for at in (NOW + 100, NOW + 200):
        report = folded(through_the_api(report), started, now=at, released_at=released_at)
        assert codes(report) == left


def test_a_rule_about_time_sees_the_readings_before() -> None:
    slow = with_gpu(reading(), 3, clock_reasons=0x48)
    earlier = tuple(Sample(NOW + 60.0 * minute, slow) for minute in range(8))
    report = fold(None, Seen(slow, previous=earlier), NOW + 480, "test")
    assert codes(report) == ["clock-thermal"]
    assert codes(folded(None, slow, now=NOW + 480)) == []


def test_a_rule_about_time_begins_anew_when_the_clock_was_set_back() -> None:
    looks = [with_gpu(reading(), 3, pcie_replays=count) for count in (0, 20, 40)]
    earlier = tuple(Sample(NOW + 60.0 * n, look) for n, look in enumerate(looks))
    more = with_gpu(reading(), 3, pcie_replays=60)
    assert codes(fold(None, Seen(more, previous=earlier), NOW + 180, "test")) == ["pcie-replay"]
    assert codes(fold(None, Seen(more, previous=earlier), NOW + 90, "test")) == []


def test_active_links_are_not_known_of_a_gpu_that_cannot_be_asked() -> None:
    before = folded(None, reading())
    after = folded(before, lost(reading(), 3))
    assert [gpu.nvlinks for gpu in after.gpus] == [18, 18, 18, None, 18, 18, 18, 18]
    assert after.gpus[3].serial == before.gpus[3].serial


class TestCount:
    def test_a_missing_gpu_stays_missing_over_restarts_and_reboots(self) -> None:
        full = folded(None, reading(8))
        short = through_the_api(folded(full, reading(7)))
        for look in (reading(7), reading(7, boot="boot-2"), reading(7)):
            short = through_the_api(folded(short, look))
            assert [(f.code, f.count) for f in short.faults] == [("gpu-count", 1)]
        assert codes(folded(short, reading(8))) == []

    def test_faults_of_a_missing_gpu_stay_and_those_of_a_replaced_one_go(self) -> None:
        last = reading().gpus[7]
        bad = with_gpu(reading(), 7, remapped_rows=RemappedRows(failure=True))
        broken = folded(None, bad, xid(64, 7))
        gone = folded(broken, reading(7))
        assert codes(gone) == ["gpu-count", "row-remap-failure", "xid-64"]
        facts = GpuFacts(uuid="GPU-new", product=last.facts.product)
        swapped = folded(gone, with_gpu(reading(8), 7, facts=facts))
        assert codes(swapped) == []


class TestEvents:
    def test_open_a_fault_with_identity_and_evidence(self) -> None:
        (opened,) = folded(None, reading(), xid(79)).faults
        assert opened.to_dict() == {
            "code": "xid-79",
            "check": "xid",
            "gpu": 3,
            "uuid": reading().gpus[3].facts.uuid,
            "severity": "Fatal",
            "action": "Reboot",
            "count": 1,
            "firstSeen": clock.utc(NOW),
            "lastSeen": clock.utc(NOW),
            "bootID": "boot-1",
            "evidence": "XID 79: GPU not reachable over PCIe (fallen off the bus)",
        }

    def test_are_counted_on_one_fault(self) -> None:
        report = folded(None, reading(), *(xid(95, at=NOW + 20 * i) for i in range(5)))
        report = folded(report, reading(), xid(95, at=NOW + 100), now=NOW + 100)
        (only,) = report.faults
        assert (only.count, only.first_seen, only.last_seen) == (
            6,
            clock.utc(NOW),
            clock.utc(NOW + 100),
        )

    def test_outlive_the_agent(self) -> None:
        before = folded(None, reading(), xid(79), xid(94, 5))
        after = folded(through_the_api(before), reading(), now=NOW + 60)
        assert after.faults == before.faults
        assert urgency(before, after) is Urgency.NONE

    def test_of_a_gpu_that_cannot_be_asked_have_the_uuid_that_was_known(self) -> None:
        known = folded(None, reading())
        nameless = with_gpu(lost(reading(), 3), 3, facts=GpuFacts())
        report = folded(known, nameless, Event(3, "", 8, 79, NOW))
        assert {f.uuid for f in report.faults} == {reading().gpus[3].facts.uuid}
        assert report.gpus[3].uuid == reading().gpus[3].facts.uuid

    def test_without_a_gpu_are_the_blades(self) -> None:
        (opened,) = folded(None, reading(), Event(-1, "", 8, 79, NOW)).faults
        assert (opened.gpu, opened.uuid) == (None, None)

    def test_that_another_check_tells_are_no_faults(self) -> None:
        assert codes(folded(None, reading(), xid(154))) == []

    def test_of_other_types_are_no_faults(self) -> None:
        assert codes(folded(None, reading(), Event(3, "u", 0x8000, 1, NOW))) == []

    @pytest.mark.parametrize(
        ("code", "reboot_ends"),
        [
            pytest.param(79, True, id="reboot"),
            pytest.param(95, True, id="reset"),
            pytest.param(94, True, id="restart-app"),
            pytest.param(1, False, id="inspect"),
        ],
    )
    def test_end_with_the_boot_unless_somebody_must_look(
        self, code: int, reboot_ends: bool
    ) -> None:
        before = folded(None, reading(), xid(code))
        after = folded(through_the_api(before), reading(boot="boot-2"), now=NOW + HOUR)
        assert codes(after) == ([] if reboot_ends else [f"xid-{code}"])

    @pytest.mark.parametrize(
        ("code", "hours", "open_"),
        [
            pytest.param(94, 23.9, True, id="a-day-is-not-over"),
            pytest.param(94, 24.1, False, id="a-day-is-over"),
            pytest.param(1, 1000.0, True, id="inspect-waits-for-people"),
            pytest.param(63, 1000.0, True, id="a-reset-waits-for-the-job"),
            pytest.param(95, 1000.0, True, id="a-reset-waits-for-the-breaker"),
            pytest.param(79, 1000.0, True, id="so-does-a-reboot"),
        ],
    )
    def test_end_with_time_unless_somebody_must_act(
        self, code: int, hours: float, open_: bool
    ) -> None:
        after = folded(folded(None, reading(), xid(code)), reading(), now=NOW + hours * HOUR)
        assert bool(after.faults) is open_

    @pytest.mark.parametrize(
        ("released", "open_"), [(NOW - 1, True), (NOW, False), (NOW + 60, False)]
    )
    def test_end_when_a_person_released_the_blade_after_them(
        self, released: float, open_: bool
    ) -> None:
        after = folded(folded(None, reading(), xid(1)), reading(), released_at=released)
        assert bool(after.faults) is open_

    def test_end_with_the_reset_that_the_driver_asked_for(self) -> None:
        asking = with_gpu(reading(), 3, recovery_action=1)
        report = folded(None, asking, xid(95), xid(79), xid(95, 5))
        assert "recovery-gpu-reset" in codes(report)
        report = folded(report, reading())
        assert [(f.code, f.gpu) for f in report.faults] == [("xid-79", 3), ("xid-95", 5)]

    def test_end_with_the_reset_that_the_gpu_waited_for(self) -> None:
        silent = {"recovery_action": Unsupported("NotSupported")}
        waiting = with_gpu(reading(), 3, reset_required=True, **silent)
        report = folded(None, waiting, xid(95), xid(95, 5))
        after = folded(report, with_gpu(reading(), 3, **silent))
        assert [(f.code, f.gpu) for f in after.faults] == [("xid-95", 5)]

    def test_end_with_a_state_that_only_a_reset_ends(self) -> None:
        report = folded(None, PENDING, xid(63), xid(63, 5))
        assert [(f.code, f.gpu) for f in folded(report, reading()).faults] == [("xid-63", 5)]

    def test_do_not_end_with_a_state_that_nobody_looks_at_any_more(self) -> None:
        report = folded(None, PENDING, xid(63))
        after = folded(report, reading(), disabled=frozenset({"row-remap"}))
        assert codes(after) == ["xid-63"]

    def test_do_not_end_while_the_gpu_still_waits_for_its_reset(self) -> None:
        report = folded(None, with_gpu(reading(), 3, recovery_action=1), xid(95))
        waiting = with_gpu(reading(), 3, recovery_action=0, reset_required=True)
        assert codes(folded(report, waiting)) == ["gpu-reset-required", "xid-95"]

    def test_do_not_end_when_the_driver_cannot_be_asked_again(self) -> None:
        report = folded(None, with_gpu(reading(), 3, recovery_action=1), xid(95))
        assert codes(folded(report, lost(reading(), 3))) == [
            "gpu-lost",
            "recovery-gpu-reset",
            "xid-95",
        ]

    def test_162_cancels_163_on_its_gpu_only(self) -> None:
        report = folded(None, reading(), xid(163, 2), xid(163, 3), xid(162, 3))
        assert [(f.code, f.gpu) for f in report.faults] == [("xid-163", 2)]
        assert codes(folded(None, reading(), xid(162))) == []

    @pytest.mark.parametrize(
        ("batch", "expected"),
        [
            pytest.param((xid(45),), ["xid-45"], id="alone"),
            pytest.param((xid(31), xid(45, at=NOW + 5)), ["xid-31"], id="after-its-cause"),
            pytest.param((xid(45), xid(31, at=NOW + 5)), ["xid-31"], id="before-its-cause"),
            pytest.param((xid(31), xid(45, at=NOW + 61)), ["xid-31", "xid-45"], id="much-later"),
            pytest.param((xid(31, 2), xid(45, 3)), ["xid-31", "xid-45"], id="on-another-gpu"),
            pytest.param((xid(45), xid(45, at=NOW + 1)), ["xid-45"], id="never-its-own-cause"),
        ],
    )
    def test_45_counts_only_when_alone(self, batch: tuple[Event, ...], expected: list[str]) -> None:
        assert codes(folded(None, reading(), *batch)) == expected

    def test_are_dropped_when_the_check_is_switched_off(self) -> None:
        assert codes(folded(None, reading(), xid(79), disabled=frozenset({"xid"}))) == []


def test_a_new_boot_is_written_into_a_state_that_goes_on() -> None:
    before = folded(None, PENDING)
    (after,) = folded(before, replace(PENDING, boot_id="boot-2"), now=NOW + 60).faults
    assert (after.boot_id, after.first_seen) == ("boot-2", clock.utc(NOW))


def test_faults_are_at_most_32_and_the_worst_come_first() -> None:
    batch = [xid(code, gpu) for gpu in range(8) for code in (94, 31, 63, 95, 79)]
    report = folded(None, reading(), *batch)
    ranks = [fault.severity for fault in report.faults]
    assert len(report.faults) == MAX_FAULTS
    assert ranks[:16] == [Severity.FATAL] * 16
    assert ranks[16:24] == [Severity.DEGRADED] * 8
    assert len(str(report.to_dict())) < 16_000


def test_of_too_many_equal_faults_the_latest_are_kept() -> None:
    batch = [
        xid(code, gpu, at=NOW + number)
        for number, code in enumerate((8, 11, 25, 32, 39))
        for gpu in range(8)
    ]
    assert {fault.code for fault in folded(None, reading(), *batch).faults} == {
        f"xid-{code}" for code in (11, 25, 32, 39)
    }


def test_faults_are_counted_per_gpu() -> None:
    report = folded(None, PENDING, xid(79), xid(94, 5))
    assert [gpu.faults for gpu in report.gpus] == [0, 0, 0, 2, 0, 1, 0, 0]


class TestUrgency:
    base = folded(None, reading(), xid(94))

    def test_nothing_published_is_now(self) -> None:
        assert urgency(None, self.base) is Urgency.NOW

    def test_time_alone_is_none(self) -> None:
        assert urgency(self.base, folded(self.base, reading(), now=NOW + 5)) is Urgency.NONE

    def test_a_repeat_is_later(self) -> None:
        repeat = folded(self.base, reading(), xid(94, at=NOW + 5), now=NOW + 5)
        assert urgency(self.base, repeat) is Urgency.LATER

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param(folded(base, reading(), xid(79)), id="another-fault"),
            pytest.param(folded(base, reading(), released_at=NOW), id="a-fault-less"),
            pytest.param(folded(base, reading(boot="boot-2")), id="another-boot"),
            pytest.param(folded(base, reading(driver="590.10")), id="another-driver"),
            pytest.param(
                folded(base, with_gpu(reading(), 0, ecc_mode=Unsupported("NotSupported"))),
                id="a-check-became-unknown",
            ),
        ],
    )
    def test_everything_else_is_now(self, changed: Report) -> None:
        assert urgency(self.base, changed) is Urgency.NOW


def test_nothing_seen_keeps_what_was_reported() -> None:
    before = folded(None, PENDING, xid(79))
    assert fold(before, Seen(), NOW, "test").faults == before.faults


def test_a_fault_without_a_time_does_not_end_by_age() -> None:
    ending = events.Ending(now=NOW, released_at=NOW - 1)
    timeless = fault(last_seen=None, action=Action.REBOOT)
    assert events.surviving([timeless], ending) == [timeless]
