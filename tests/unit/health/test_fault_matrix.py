"""The fault matrix: what each fault is called, how bad it is, what ends it, where the blade goes.

Made from the catalogues and the list of checks: an XID, an SXID or a check that is added without
its injection fails here. Each fault is injected where it would appear (the simulated library, a
line of the kernel log, a sysfs tree) and followed through the report and the pool's verdict to
the blade's state, while a job runs on it.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tramontane.api.blade import Action, BladeState, Report, Severity
from tramontane.api.nodepool import NodePool
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool import policy, verdict
from tramontane.controllers.nodepool.state import NodeSign, Prior, Ruling, Signs, decide
from tramontane.health import catalogue, checks, escalation, host, host_past
from tramontane.health.checks import host as on_host
from tramontane.health.checks import sxid, window, xid
from tramontane.health.device import DeviceError, Event, Reading, Sample, Unresponsive
from tramontane.health.host import HostPast
from tramontane.health.nvml import NvmlDevice
from tramontane.health.report import Seen, fold
from tramontane.lab.nvml import NvmlState, StateFile, blade
from tramontane.lab.nvml.injections import INJECTIONS, Injection, looks
from tramontane.lab.nvml.state import ENV_STATE

from . import hosts
from .builders import NOW, folded, reading
from .lines import LOGGED, link_error, nvrm, said

BOOT = "boot-1"
MINUTE = 60.0
POLICY = policy.read(
    NodePool.model_validate(
        {
            "metadata": {"name": "paris", "uid": "u"},
            "spec": {"nodeSelector": {"matchLabels": {"gpu": "h200"}}, "gpu": {"count": 8}},
        }
    )
)
# Where a blade is whose worst fault is so bad, while a job runs on it.
STATES = {
    "None": BladeState.HEALTHY,
    "Info": BladeState.HEALTHY,
    "Degraded": BladeState.SUSPECT,
    "Unknown": BladeState.UNKNOWN,
    "Fatal": BladeState.QUARANTINED,
}
Expected = tuple[str, str, str]


def followed(report: Report) -> tuple[verdict.Finding, BladeState]:
    """Return the pool's verdict and the blade's state."""
    finding = verdict.judge(report, POLICY, NOW, None)
    signs = Signs(
        now=NOW,
        node=NodeSign.READY,
        reported=True,
        reported_at=NOW,
        finding=finding,
        agent_silence_s=1.0,
        seated=True,
        busy=True,
    )
    decision = decide(signs, Prior(BladeState.HEALTHY), POLICY, Ruling.GRANTED)
    return finding, decision.state


def check_report(report: Report, *expected: Expected) -> None:
    """Check that a report has these faults and no others, and what becomes of the blade."""
    got = {(fault.code, fault.severity.value, fault.action.value) for fault in report.faults}
    assert got == set(expected)
    finding, state = followed(report)
    worst = max((severity for _, severity, _ in expected), key=list(STATES).index, default="None")
    assert (finding.severity.value, state) == (worst, STATES[worst])


# 1. XIDs by the library.

XIDS = list(csv.DictReader(catalogue.CSV.read_text(encoding="utf-8").splitlines()))
# What the csv's words ask for, written here a second time.
BY_WORD: dict[str, tuple[str, str] | None] = {
    "IGNORE": ("None", "None"),
    "READ_RECOVERY_ACTION": None,
    "IGNORE_TICKET": ("Info", "Inspect"),
    "IGNORE_IF_PAIRED_ELSE_RESTART_FM": ("Info", "RestartApp"),
    "RESTART_APP": ("Info", "RestartApp"),
    "RESET_GPU_WHEN_IDLE": ("Degraded", "Reset"),
    "RESET_GPU": ("Fatal", "Reset"),
    "REBOOT": ("Fatal", "Reboot"),
    "DRAIN_INSPECT": ("Fatal", "Inspect"),
    "DRAIN_UPDATE_SWFW": ("Fatal", "Inspect"),
    "DECODE_NVLINK5": ("Fatal", "Drain"),
}


@dataclass(slots=True)
class Library:
    """One session with the simulated library; machines are put beneath it."""

    device: NvmlDevice
    file: StateFile
    is_open: bool = False

    def look(self, state: NvmlState) -> Reading:
        self.file.write(state)
        if state.init_error:
            self.device.close()
            self.is_open = False
        try:
            self._open()
            return replace(self.device.read(), boot_id=BOOT)
        except DeviceError as error:
            return Reading(BOOT, session_error=str(error))

    def xid(self, gpu: int, code: int) -> Event:
        """Raise an XID and return the event that the session gives for it."""
        self._open()
        self.file.xid(gpu, code)
        (event,) = self.device.wait(5.0)
        return replace(event, at=NOW)

    def _open(self) -> None:
        if not self.is_open:
            self.device.open()
            self.is_open = True


@pytest.fixture(scope="module")
def simulated(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    file = StateFile(tmp_path_factory.mktemp("matrix") / "blade.nvml")
    file.write(blade("gpu-0001"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_STATE, str(file.path))
        patch.setattr(pynvml, "nvmlLib", None)
        pynvml._nvmlGetFunctionPointer_cache.clear()
        device = NvmlDevice(str(library), often_s=0.0, seldom_s=0.0)
        yield Library(device, file)
        device.close()
        pynvml._nvmlGetFunctionPointer_cache.clear()


@pytest.mark.parametrize("row", XIDS, ids=lambda row: row["xid"])
def test_an_xid_of_the_library(simulated: Library, row: dict[str, str]) -> None:
    code = int(row["xid"])
    event = simulated.xid(code % 8, code)
    report = fold(None, Seen(simulated.device.read(), events=(event,)), NOW, "test")
    asked = None if f"xid-{code}" in escalation.CANCELS else BY_WORD[row["proposed_action"]]
    check_report(report, *([] if asked is None else [(f"xid-{code}", *asked)]))
    assert {fault.gpu for fault in report.faults} <= {code % 8}
    waits = row["proposed_action"] == "RESET_GPU_WHEN_IDLE"
    assert followed(report)[0].waits_for_idle is waits


def test_an_xid_that_the_catalogue_does_not_know(simulated: Library) -> None:
    event = simulated.xid(3, 999)
    report = fold(None, Seen(simulated.device.read(), events=(event,)), NOW, "test")
    check_report(report, ("xid-999", "Degraded", "Inspect"))


# 2. XIDs by the kernel log, where the line says more.


def nvlink5(code: int, words: str, subcode: int, status: int = 0) -> Event:
    return nvrm(code, f"{words} XC0 i0 Link 09 ({subcode << 20:#010x} {status:#010x})")


LINES: dict[str, tuple[Event, Expected]] = {
    "74-the-connection": (link_error(4, register="0x100"), ("xid-74", "Fatal", "Inspect")),
    "74-parity": (link_error(4), ("xid-74", "Fatal", "Reset")),
    "74-follows-another": (
        nvrm(74, "NVLink: fatal error detected on link 4(0x2, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
        ("xid-74", "Fatal", "Reset"),
    ),
    "74-nothing": (
        nvrm(74, "NVLink: fatal error detected on link 4(0x1, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"),
        ("xid-74", "Info", "None"),
    ),
    "94-contained": (
        nvrm(94, "Contained: SM (0x1). RST: No, D-RST: No"),
        ("xid-94", "Info", "RestartApp"),
    ),
    "94-wants-a-reset": (
        nvrm(94, "Contained: SM (0x1). RST: No, D-RST: Yes"),
        ("xid-94", "Degraded", "Reset"),
    ),
    "95-uncontained": (
        nvrm(95, "Uncontained: LTC TAG (0x7,0x0). RST: Yes, D-RST: No"),
        ("xid-95", "Fatal", "Reset"),
    ),
    "144-fatal": (nvlink5(144, "SAW_MVB Fatal", 0, 0x2), ("xid-144", "Fatal", "Reset")),
    "144-harmless": (nvlink5(144, "SAW_MVB Nonfatal", 0, 0x1), ("xid-144", "Info", "None")),
    "145-fatal": (nvlink5(145, "RLW_REMAP Fatal", 0, 0x40), ("xid-145", "Fatal", "Reset")),
    "145-of-the-job": (
        nvlink5(145, "RLW_REMAP Nonfatal", 0, 0x1),
        ("xid-145", "Info", "RestartApp"),
    ),
    "145-lost-a-packet": (
        nvrm(145, "RLW_RXPIPE Nonfatal XC0 i0 Link 09 (0x00000086 0x00000001)"),
        ("xid-145", "Degraded", "Reset"),
    ),
    "146-fatal": (nvlink5(146, "TLW_CTRL Fatal", 0, 0x4), ("xid-146", "Fatal", "Reset")),
    "146-harmless": (nvlink5(146, "TLW_CTRL Nonfatal", 0, 0x1), ("xid-146", "Info", "None")),
    "147-harmless": (nvlink5(147, "TREX Nonfatal", 0, 0x1), ("xid-147", "Info", "None")),
    "147-fatal": (nvlink5(147, "TREX_NEW Fatal", 0, 0x1), ("xid-147", "Fatal", "Reset")),
    "148-harmless": (nvlink5(148, "NVLPW_CTRL Nonfatal", 0, 0x1), ("xid-148", "Info", "None")),
    "148-fatal": (nvlink5(148, "NVLPW_NEW Fatal", 0, 0x1), ("xid-148", "Fatal", "Reset")),
    "149-link-down": (nvlink5(149, "NETIR_LINK_EVT Fatal", 4), ("xid-149", "Fatal", "Reset")),
    "149-on-purpose": (nvlink5(149, "NETIR_LINK_EVT Nonfatal", 38), ("xid-149", "Info", "None")),
    "150-fatal": (nvlink5(150, "MSE_WATCHDOG Fatal", 0), ("xid-150", "Fatal", "Reset")),
    "150-harmless": (nvlink5(150, "MSE_OTHER Nonfatal", 0), ("xid-150", "Info", "None")),
}


@pytest.mark.parametrize(("event", "expected"), LINES.values(), ids=LINES)
def test_an_xid_of_the_kernel_log(event: Event, expected: Expected) -> None:
    check_report(folded(None, LOGGED, event), expected)


def test_every_code_that_the_line_explains_has_a_fatal_and_a_harmless_line() -> None:
    for code in xid.TOLD_BY_LINE:
        asked = {severity for event, (_, severity, _) in LINES.values() if event.data == code}
        assert asked >= {"Fatal", "Info"}, f"xid-{code}"


# 3. What comes back.

AGAIN: dict[str, tuple[Callable[[float], Event], Expected]] = {
    "xid-13": (
        lambda at: nvrm(13, "Graphics Exception on (GPC 1, TPC 2, SM 0): x", at=at),
        ("xid-13", "Degraded", "RestartApp"),
    ),
    "xid-31": (lambda at: nvrm(31, "MMU Fault", at=at), ("xid-31", "Degraded", "RestartApp")),
    "xid-48": (lambda at: nvrm(48, "DBE", at=at), ("xid-48", "Fatal", "Replace")),
    "xid-74": (lambda at: link_error(4, at=at), ("xid-74", "Fatal", "Replace")),
    "xid-94": (lambda at: nvrm(94, "Contained", at=at), ("xid-94", "Fatal", "Reset")),
}


@pytest.mark.parametrize("code", escalation.RECURRENCES)
def test_what_comes_back_is_a_recurring_fault(code: str) -> None:
    event, expected = AGAIN[code]
    first = folded(None, LOGGED, event(NOW - 3600), now=NOW - 3600)
    assert followed(first)[0].reason is not BladeReason.RECURRING_FAULT
    again = folded(first, LOGGED, event(NOW))
    check_report(again, expected)
    assert followed(again)[0].reason is BladeReason.RECURRING_FAULT


def test_the_operator_knows_what_recurs() -> None:
    asked = {code: rule.action for code, rule in escalation.RECURRENCES.items()}
    assert asked == verdict.RECURRED


# 4. SXIDs.

SXIDS = list(csv.DictReader(catalogue.SWITCH_CSV.read_text(encoding="utf-8").splitlines()))
BY_CLASS = {"NOTE": ("Info", "None"), **BY_WORD}


@pytest.mark.parametrize("row", SXIDS, ids=lambda row: row["sxid"])
def test_an_sxid_of_the_kernel_log(row: dict[str, str]) -> None:
    word = "Fatal" if row["nvidia_class"] in {"fatal", "always fatal"} else "Non-fatal"
    text = f"SXid (PCI:0000:05:00.0): {row['sxid']}, {word}, Link 28 {row['description']}"
    report = folded(None, LOGGED, said(f"nvidia-nvswitch0: {text}"))
    code = f"sxid-{row['sxid']}"
    asked = None if code in escalation.CANCELS else BY_CLASS[row["proposed_action"]]
    check_report(report, *([] if asked is None else [(code, *asked)]))


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        pytest.param("Fatal, Link 28 x", ("Fatal", "Reset"), id="fatal"),
        pytest.param("Non-fatal, Link 28 x", ("Info", "None"), id="harmless"),
        pytest.param("x", ("Degraded", "Inspect"), id="not-said"),
    ],
)
def test_an_sxid_that_the_catalogue_does_not_know(word: str, asked: tuple[str, str]) -> None:
    event = said(f"nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 99999, {word}")
    # A line that says nothing of itself is a code, and codes are judged by the catalogue.
    expected = ("sxid-99999", *asked)
    check_report(folded(None, LOGGED, event), expected)


# 5. States that NVML shows.

STATE_CASES = [
    pytest.param(injection, id=f"{name}-{number}-{injection.code}")
    for name, injections in INJECTIONS.items()
    for number, injection in enumerate(injections)
]


@pytest.mark.parametrize("injection", STATE_CASES)
def test_a_state_of_the_library(simulated: Library, injection: Injection) -> None:
    previous: tuple[Sample, ...] = ()
    report: Report | None = None
    for after_s, machine in looks(injection, blade("gpu-0001")):
        sample = Sample(NOW + after_s, simulated.look(machine))
        seen = Seen(sample.reading, previous=previous)
        report = fold(report, seen, sample.at, "test")
        previous = window.remember(previous, sample)
    assert report is not None
    check_report(report, (injection.code, injection.severity.value, injection.action.value))
    assert {fault.gpu for fault in report.faults} == {injection.gpu}


@pytest.mark.parametrize(
    ("strikes", "expected"),
    [
        pytest.param(1, ("nvml-unresponsive", "Degraded", "Drain"), id="once"),
        pytest.param(3, ("nvml-unresponsive", "Fatal", "Reboot"), id="three-times"),
    ],
)
def test_a_library_that_does_not_answer(strikes: int, expected: Expected) -> None:
    silent = Unresponsive(strikes, "no answer from NVML within 5 s", BOOT)
    known = folded(None, reading())
    check_report(folded(known, reading(), unresponsive=silent), expected)


def test_a_library_that_never_answered_says_nothing_of_the_blade() -> None:
    silent = folded(None, None, unresponsive=Unresponsive(1, "silent", BOOT))
    finding, state = followed(silent)
    assert (finding.severity, state) == (Severity.UNKNOWN, BladeState.UNKNOWN)


# 6. States that the kernel shows.


@dataclass(frozen=True, slots=True)
class HostFault:
    """What happens to a sysfs tree, look by look of `every_s`, and what must follow."""

    changes: tuple[Callable[[Path], Any], ...]
    expected: tuple[Expected, ...]
    every_s: float = 5.0


def _write(path: str, text: str) -> Callable[[Path], Any]:
    return lambda root: (root / path).write_text(text + "\n")


def _remove(path: str) -> Callable[[Path], Any]:
    def change(root: Path) -> None:
        for child in (root / path).iterdir():
            child.unlink()
        (root / path).rmdir()

    return change


PORT = "class/infiniband/mlx5_3/ports/1"
UP, DOWN = _write(f"{PORT}/state", "4: ACTIVE"), _write(f"{PORT}/state", "1: DOWN")
ERRORS = f"{PORT}/counters"
HOST_FAULTS: dict[str, tuple[HostFault, ...]] = {
    "infiniband-state": (
        HostFault((DOWN, DOWN), (("infiniband-down", "Fatal", "Inspect"),), 5 * MINUTE),
    ),
    "infiniband-rate": (
        HostFault(
            (_write(f"{PORT}/rate", "200 Gb/sec (2X NDR)"),),
            (("infiniband-slow", "Degraded", "Inspect"),),
        ),
    ),
    "infiniband-flaps": (
        HostFault((DOWN, UP) * 3, (("infiniband-flapping", "Degraded", "Inspect"),), MINUTE),
    ),
    "infiniband-counters": (
        HostFault(
            (_write(f"{ERRORS}/local_link_integrity_errors", "1"),),
            (("infiniband-errors", "Fatal", "Inspect"),),
        ),
        HostFault(
            (_write(f"{ERRORS}/link_downed", "1"),),
            (("infiniband-errors-rising", "Degraded", "None"),),
        ),
        HostFault(
            (_write(f"{ERRORS}/link_downed", "2"),),
            (("infiniband-errors-rising", "Degraded", "Inspect"),),
        ),
    ),
    "nvme": (
        HostFault(
            (_write("class/nvme/nvme1/state", "dead"),), (("nvme-missing", "Degraded", "Inspect"),)
        ),
    ),
    "memory-size": (
        HostFault(
            (_write("meminfo", f"MemTotal: {(2 << 30) * 9 // 10} kB"),),
            (("memory-missing", "Degraded", "Inspect"),),
        ),
    ),
    "clocksource": (
        HostFault(
            (_write("devices/system/clocksource/clocksource0/current_clocksource", "hpet"),),
            (("clocksource-slow", "Info", "Inspect"),),
        ),
    ),
    "pci-count": (
        HostFault(
            (_remove("bus/pci/devices/0000:07:00.0"),), (("pci-gpu-missing", "Fatal", "Reboot"),)
        ),
    ),
}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=f"{name}-{number}")
        for name, faults in HOST_FAULTS.items()
        for number, fault in enumerate(faults)
    ],
)
def test_a_state_of_the_host(fault: HostFault, tmp_path: Path) -> None:
    hosts.machine(tmp_path, ports=8, drives=8, gpus=8)
    report: Report | None = None
    past: HostPast | None = None
    at = looked_at = NOW
    for change in (lambda _root: None, *fault.changes):
        change(tmp_path)
        seen = host.read(tmp_path, tmp_path)
        past = host_past.remember(past, seen, at, looked_at)
        look = replace(reading(), host=replace(seen, boot_id=BOOT, past=past))
        report = fold(report, Seen(look), at, "test")
        at, looked_at = at + fault.every_s, at
    assert report is not None
    check_report(report, *fault.expected)


# 7. Nothing is left out.


def test_every_check_has_an_injection() -> None:
    assert set(INJECTIONS) | set(HOST_FAULTS) | {xid.NAME, sxid.NAME} == checks.NAMES
    assert set(HOST_FAULTS) == on_host.NAMES


def test_every_word_of_the_catalogues_is_expected_here() -> None:
    assert {row["proposed_action"] for row in XIDS} <= set(BY_WORD)
    assert {row["proposed_action"] for row in SXIDS} <= set(BY_CLASS)


def test_what_waits_for_the_jobs_end_is_what_the_agent_can_report() -> None:
    coded = {f"xid-{code}" for code in catalogue.table()}
    shown = {injection.code for faults in INJECTIONS.values() for injection in faults}
    assert coded | shown >= verdict.WAITS_FOR_IDLE
    for faults in INJECTIONS.values():
        for injection in faults:
            if injection.code in verdict.WAITS_FOR_IDLE:
                assert injection.severity is Severity.DEGRADED
                assert injection.action in {Action.RESET, Action.INSPECT}
