"""The checks of the host: what each finds, of whom, and what it leaves as it was."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.blade import Action, Fault, Report, Severity
from tramontane.health import checks, host_past
from tramontane.health.checks import host as on_host
from tramontane.health.checks.base import Outcome, Past
from tramontane.health.device import Reading, Unsupported
from tramontane.health.host import HostPast, HostReading, Port

from .builders import codes, folded, reading
from .hosts import NOW, port

DAY_S = 24 * 3600.0
BLIND = Outcome(blind=frozenset({None}))
UNKNOWN = Outcome(blind=frozenset({None}), unknown=True)
BY_NAME = {check.name: check for check in checks.CHECKS}


def judged(name: str, reading: HostReading | None, now: float, *faults: Fault) -> Outcome:
    return BY_NAME[name].judge(Reading("b", host=reading), Past(at=NOW + now, faults=faults))


def after(*looks: tuple[float, tuple[Port, ...]], **values: Any) -> HostReading:
    """Return the last look of several, each at its time (s)."""
    past: HostPast | None = None
    reading = HostReading()
    before = 0.0
    for at, ports in looks:
        reading = HostReading(ports=ports, **values)
        past = host_past.remember(past, reading, NOW + at, NOW + before)
        before = at
    assert past is not None
    return HostReading(ports=reading.ports, past=past, **values)


UP, DOWN = (port(),), (port(state="DOWN"),)


def found(outcome: Outcome) -> list[tuple[str, Severity, Action, int]]:
    return [(f.code, f.severity, f.action, f.count) for f in outcome.findings]


def test_all_of_them_are_listed() -> None:
    assert on_host.NAMES <= checks.NAMES


@pytest.mark.parametrize("name", sorted(on_host.NAMES))
@pytest.mark.parametrize(
    "reading", [None, HostReading(past=HostPast(since=0.0))], ids=["no-look", "no-value"]
)
def test_what_was_not_read_is_unknown(name: str, reading: HostReading | None) -> None:
    assert judged(name, reading, DAY_S) == UNKNOWN


@pytest.mark.parametrize(
    ("looks", "now", "expected"),
    [
        pytest.param([(0, UP), (5, UP)], 9, Outcome(), id="up"),
        pytest.param([(0, DOWN), (900, DOWN)], 900, Outcome(), id="no-cable"),
        pytest.param([(0, UP), (5, DOWN)], 244, BLIND, id="not-yet"),
    ],
)
def test_a_port_may_be_down_for_a_while(looks: Any, now: float, expected: Outcome) -> None:
    assert judged("infiniband-state", after(*looks), now) == expected


@pytest.mark.parametrize(
    ("then", "evidence"),
    [
        pytest.param(DOWN, "mlx5_0/1 is DOWN, Polling for more than 240 s", id="down"),
        pytest.param((), "mlx5_0/1 is gone for more than 240 s", id="gone"),
        pytest.param(
            (Port("mlx5_0", 1),), "mlx5_0/1 is silent,  for more than 240 s", id="unreadable"
        ),
    ],
)
def test_a_port_that_stays_down_is_a_fault(then: tuple[Port, ...], evidence: str) -> None:
    outcome = judged("infiniband-state", after((0, UP), (5, then)), 245)
    assert found(outcome) == [("infiniband-down", Severity.FATAL, Action.INSPECT, 1)]
    assert outcome.findings[0].evidence == evidence
    assert outcome.blind == frozenset()


def test_ports_that_are_down_are_counted() -> None:
    both = tuple(port(name) for name in ("mlx5_0", "mlx5_1"))
    down = tuple(port(name, state="DOWN") for name in ("mlx5_0", "mlx5_1"))
    outcome = judged("infiniband-state", after((0, both), (5, down)), 600)
    assert found(outcome) == [("infiniband-down", Severity.FATAL, Action.INSPECT, 2)]


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        pytest.param((port(rate_gbps=400),), [], id="as-before"),
        pytest.param(
            (port(rate_gbps=200),),
            [("infiniband-slow", Severity.DEGRADED, Action.INSPECT, 1)],
            id="slower",
        ),
        pytest.param((port(state="DOWN", rate_gbps=10),), [], id="down-is-not-slow"),
        pytest.param((), [], id="gone-is-not-slow"),
    ],
)
def test_a_port_keeps_its_rate(then: tuple[Port, ...], expected: Any) -> None:
    assert found(judged("infiniband-rate", after((0, UP), (5, then)), 9)) == expected


def flapping(times: int) -> HostReading:
    looks: list[tuple[float, tuple[Port, ...]]] = [(0, UP)]
    for number in range(times):
        looks += [(100 * number + 10, DOWN), (100 * number + 40, UP)]
    return after(*looks)


@pytest.mark.parametrize(
    ("times", "now", "expected"),
    [
        pytest.param(2, 300, [], id="twice"),
        pytest.param(
            3,
            300,
            [("infiniband-flapping", Severity.DEGRADED, Action.INSPECT, 1)],
            id="three-times",
        ),
        pytest.param(3, DAY_S + 50, [], id="the-first-is-a-day-ago"),
    ],
)
def test_a_port_does_not_flap(times: int, now: float, expected: Any) -> None:
    assert found(judged("infiniband-flaps", flapping(times), now)) == expected


@pytest.mark.parametrize(
    ("name", "span_s"), [("infiniband-flaps", DAY_S), ("infiniband-counters", 3600.0)]
)
def test_until_it_has_looked_for_long_it_clears_nothing(name: str, span_s: float) -> None:
    def asked(seen_s: float, action: Action = Action.INSPECT) -> Fault:
        at = clock.utc(NOW + seen_s)
        return Fault(code="x", check=name, severity=Severity.DEGRADED, action=action, last_seen=at)

    assert judged(name, after((0, UP)), span_s - 1, asked(0)) == BLIND
    assert judged(name, after((0, UP)), span_s, asked(0)) == Outcome()
    # What the process before this one has not seen for so long is over, however young this one is.
    assert judged(name, after((0, UP)), 60, asked(61 - span_s)) == BLIND
    assert judged(name, after((0, UP)), 60, asked(59 - span_s)) == Outcome()
    assert judged(name, after((0, UP)), 60, asked(0, Action.NONE)) == Outcome()


ERRORS = ("infiniband-errors", Severity.FATAL, Action.INSPECT, 1)
RISING = ("infiniband-errors-rising", Severity.DEGRADED, Action.INSPECT, 1)
ONCE = ("infiniband-errors-rising", Severity.DEGRADED, Action.NONE, 1)


@pytest.mark.parametrize(
    ("values", "in_s", "expected"),
    [
        pytest.param({"excessive_buffer_overrun_errors": 1}, 60, [ERRORS], id="overrun"),
        pytest.param({"local_link_integrity_errors": 1}, 60, [ERRORS], id="integrity"),
        pytest.param({"rnr_nak_retry_err": 1}, 60, [ERRORS], id="retry"),
        pytest.param({"symbol_error": 120}, 60, [], id="symbols-an-hour"),
        pytest.param({"symbol_error": 121}, 60, [ERRORS], id="more-symbols-an-hour"),
        pytest.param({"symbol_error": 110}, 10, [RISING], id="symbols-a-second"),
        pytest.param({"link_downed": 1}, 60, [ONCE], id="link-downed"),
        pytest.param({"link_downed": 2}, 60, [RISING], id="link-downed-again"),
        pytest.param({"port_rcv_errors": 600}, 60, [], id="receive-errors"),
        pytest.param({"port_rcv_errors": 601}, 60, [RISING], id="more-receive-errors"),
        pytest.param({"link_error_recovery": 1}, 5, [], id="one-recovery"),
        pytest.param({"link_error_recovery": 5}, 5, [], id="recoveries"),
        pytest.param({"link_error_recovery": 6}, 5, [RISING], id="more-recoveries"),
        pytest.param({"link_error_recovery": 6}, 1800, [], id="recoveries-of-a-look-that-hung"),
    ],
)
def test_errors_stay_rare(values: dict[str, Any], in_s: float, expected: Any) -> None:
    reading = after((0, UP), (in_s, (port(**values),)))
    assert found(judged("infiniband-counters", reading, in_s)) == expected


def test_errors_from_before_the_start_and_from_an_hour_ago_are_past() -> None:
    reading = after((0, (port(symbol_error=9999),)), (60, (port(symbol_error=9999),)))
    assert judged("infiniband-counters", reading, 3600) == Outcome()
    reading = after((0, UP), (60, (port(link_downed=2),)))
    assert judged("infiniband-counters", reading, 3659) != Outcome()
    assert judged("infiniband-counters", reading, 3660) == Outcome()


@pytest.mark.parametrize(
    "values",
    [{"link_downed": 1}, {"port_rcv_errors": 700}, {"link_error_recovery": 6}],
    ids=["one-outage", "errors", "recoveries"],
)
def test_what_has_ceased_for_a_minute_is_over(values: dict[str, Any]) -> None:
    reading = after((0, UP), (60, (port(**values),)))
    assert judged("infiniband-counters", reading, 119) != Outcome()
    assert judged("infiniband-counters", reading, 120) == Outcome()


HOUR = 3600


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param(lambda at: {"port_rcv_errors": at}, id="errors-all-the-time"),
        pytest.param(lambda at: {"symbol_error": at // 55}, id="65-symbols-an-hour"),
        pytest.param(
            lambda at: {"symbol_error": at // HOUR * 30, "port_rcv_errors": at // 30},
            id="30-symbols-an-hour-beside-others",
        ),
        pytest.param(
            lambda at: {"link_downed": at // (3 * HOUR), "port_rcv_errors": at // 30},
            id="one-outage-three-hours-ago-and-one-now",
        ),
    ],
)
def test_a_trickle_is_no_flood_however_long_it_lasts(counts: Any) -> None:
    now = 6 * HOUR + 90
    looks = [(float(at), (port(**counts(at)),)) for at in range(0, now + 1, 5)]
    assert judged("infiniband-counters", after(*looks), now) == Outcome()


def test_a_flood_is_seen_among_errors_that_never_end() -> None:
    def looks(until: int, at_once: int) -> list[tuple[float, tuple[Port, ...]]]:
        made = [(float(at), (port(port_rcv_errors=at),)) for at in range(0, until, 5)]
        return [*made, (float(until), (port(port_rcv_errors=until + at_once),))]

    now = 2 * HOUR
    assert found(judged("infiniband-counters", after(*looks(now, 40)), now)) == []
    assert found(judged("infiniband-counters", after(*looks(now, 50)), now)) == [RISING]


def test_a_counter_that_began_anew_shows_its_growth() -> None:
    reading = after((0, (port(symbol_error=9999),)), (60, (port(symbol_error=100),)))
    assert judged("infiniband-counters", reading, 3600) == Outcome()
    reading = after((0, (port(symbol_error=9999),)), (60, (port(symbol_error=300),)))
    assert found(judged("infiniband-counters", reading, 60)) == [ERRORS]


ROCE = Port("r", 1, "Ethernet", "ACTIVE", "LinkUp", 200)


def test_lost_carriers_of_roce_count() -> None:
    def roce(changes: int) -> tuple[Port, ...]:
        return (replace(ROCE, counters=(("carrier_changes", changes),)),)

    assert found(judged("infiniband-counters", after((0, roce(4)), (60, roce(6))), 60)) == []
    outcome = judged("infiniband-counters", after((0, roce(4)), (60, roce(7))), 60)
    assert found(outcome) == [RISING]
    assert outcome.findings[0].evidence == "r/1 carrier_changes +3 in 1 h"


@pytest.mark.parametrize(
    ("ports", "unknown"),
    [
        pytest.param((), False, id="no-ports"),
        pytest.param((ROCE,), True, id="no-counter-is-to-be-seen"),
        pytest.param((ROCE, *UP), True, id="of-one-no-counter-is-to-be-seen"),
        pytest.param((replace(ROCE, counters=(("carrier_changes", 4),)),), False, id="counted"),
        pytest.param((replace(ROCE, state="DOWN"),), False, id="no-traffic"),
    ],
)
def test_what_nobody_counts_is_unknown_and_hides_nothing(
    ports: tuple[Port, ...], unknown: bool
) -> None:
    known = Fault(code="x", check="infiniband-counters", severity=Severity.FATAL)
    outcome = judged("infiniband-counters", after((0, ports)), 9, known)
    assert outcome == Outcome(unknown=unknown)
    ill = port("mlx5_9", local_link_integrity_errors=1)
    outcome = judged("infiniband-counters", after((0, (port("mlx5_9"),)), (5, (*ports, ill))), 9)
    assert (found(outcome), outcome.unknown) == ([ERRORS], unknown)


@pytest.mark.parametrize(
    ("name", "field", "values", "expected"),
    [
        pytest.param(
            "nvme",
            "nvme",
            (8, 8, 6),
            ("nvme-missing", Severity.DEGRADED, Action.INSPECT, 2),
            id="drives",
        ),
        pytest.param(
            "memory-size",
            "memory_bytes",
            (1000, 951, 949),
            ("memory-missing", Severity.DEGRADED, Action.INSPECT, 1),
            id="memory",
        ),
        pytest.param(
            "pci-count",
            "pci_gpus",
            (8, 8, 7),
            ("pci-gpu-missing", Severity.FATAL, Action.REBOOT, 1),
            id="gpus",
        ),
    ],
)
def test_nothing_goes_missing(
    name: str, field: str, values: tuple[int, int, int], expected: Any
) -> None:
    most, well, ill = values

    def showing(value: int, **more: Any) -> HostReading:
        return HostReading(**{field: value, **more})

    past = host_past.remember(None, showing(most), NOW, NOW)
    for value, findings in ((well, []), (ill, [expected])):
        assert found(judged(name, showing(value, past=past), 9)) == findings


@pytest.mark.parametrize(
    ("source", "slow"),
    [("tsc", False), ("kvm-clock", False), ("arch_sys_counter", False), ("hpet", True),
     ("acpi_pm", True), ("jiffies", True)],
)  # fmt: skip
def test_the_clock_is_the_processors(source: str, slow: bool) -> None:
    outcome = judged("clocksource", HostReading(clocksource=source), 9)
    expected = [("clocksource-slow", Severity.INFO, Action.INSPECT, 1)] if slow else []
    assert found(outcome) == expected


def test_they_are_judged_while_nvml_is_of_no_use() -> None:
    host = HostReading(clocksource="hpet", nvme=Unsupported("Hung"))
    reading = Reading("b", session_error="DriverNotLoaded", host=host)
    outcomes = checks.run(reading, Past(at=NOW))
    assert found(outcomes["clocksource"]) == [
        ("clocksource-slow", Severity.INFO, Action.INSPECT, 1)
    ]
    assert outcomes["nvme"] == UNKNOWN
    assert outcomes["row-remap"] == checks.BLIND


# A process that starts beside what is broken: all that it has ever seen is the broken value.

SLOW = (port(rate_gbps=200), port("mlx5_1", rate_gbps=400))
BOTH_DOWN = (port(state="DOWN"), port("mlx5_1", state="DOWN"))
LEFT_BROKEN: dict[str, tuple[str, str, HostReading, HostReading]] = {
    # check, evidence of the fault from before, the host as it still is, the host when it is whole
    "nvme": (
        "nvme",
        "7 NVMe drives answer of 8",
        HostReading(nvme=7),
        HostReading(nvme=8),
    ),
    "memory": (
        "memory-size",
        "1024.0 GiB of memory of 2047.9 GiB",
        HostReading(memory_bytes=1 << 40),
        HostReading(memory_bytes=2 << 40),
    ),
    "pci": (
        "pci-count",
        "the PCI bus shows 7 GPUs of 8",
        HostReading(pci_gpus=7),
        HostReading(pci_gpus=8),
    ),
    "rate": (
        "infiniband-rate",
        "mlx5_0/1 at 200 of 400 Gb/s",
        HostReading(ports=SLOW),
        HostReading(ports=(port(), port("mlx5_1"))),
    ),
    "two-rates": (
        "infiniband-rate",
        "at 200 of 400 Gb/s: mlx5_0/1, mlx5_2/1; at 100 of 200 Gb/s: mlx5_1/1, mlx5_3/1, mlx5_",
        HostReading(ports=(port(), port("mlx5_1", rate_gbps=100))),
        HostReading(ports=(port(), port("mlx5_1", rate_gbps=200))),
    ),
    "port": (
        "infiniband-state",
        "mlx5_0/1, mlx5_1/1 are DOWN, Polling for more than 240 s",
        HostReading(ports=BOTH_DOWN),
        HostReading(ports=(port(), port("mlx5_1"))),
    ),
    "one-port-is-back": (
        "infiniband-state",
        "mlx5_0/1 is DOWN, Polling; mlx5_1/1 is gone for more than 240 s",
        HostReading(ports=UP),
        HostReading(ports=(port(), port("mlx5_1"))),
    ),
}


@pytest.mark.parametrize(
    ("name", "evidence", "broken", "whole"), LEFT_BROKEN.values(), ids=LEFT_BROKEN
)
def test_a_restart_forgets_nothing_that_is_still_wrong(
    name: str, evidence: str, broken: HostReading, whole: HostReading
) -> None:
    known = Fault(
        code="x", check=name, severity=Severity.FATAL, action=Action.INSPECT, evidence=evidence
    )

    def at_start(reading: HostReading, *faults: Fault) -> Outcome:
        past = host_past.remember(None, reading, NOW, NOW)
        return judged(name, replace(reading, past=past), 600, *faults)

    before = at_start(broken, known)
    assert len(before.findings) == 1
    # Its own evidence tells it on, look after look and start after start.
    again = known.model_copy(update={"evidence": before.findings[0].evidence})
    assert at_start(broken, again) == before
    assert at_start(whole, known) == Outcome()
    assert at_start(broken) == Outcome()


@pytest.mark.parametrize(
    ("broken", "whole"), [case[2:] for case in LEFT_BROKEN.values()], ids=LEFT_BROKEN
)
def test_a_release_takes_the_blade_as_it_is(broken: HostReading, whole: HostReading) -> None:
    past: HostPast | None = None
    report: Report | None = None

    def look(at: float, host: HostReading, **seen: Any) -> None:
        nonlocal past, report
        past = host_past.remember(past, host, NOW + at, NOW + at - 5)
        report = folded(report, reading(host=replace(host, past=past)), now=NOW + at, **seen)

    for at, host in ((0, whole), (5, broken), (600, broken)):
        look(at, host)
    assert report is not None
    assert past is not None
    assert len(codes(report)) == 1
    past = host_past.forget(past, NOW + 900)
    for at in (900, 905, 2000):
        look(at, broken, released_at=NOW + 900)
        assert codes(report) == []


def test_a_slow_port_is_not_well_because_it_is_down() -> None:
    slow = after((0, UP), (5, (port(rate_gbps=200),)), (10, (port(state="DOWN", rate_gbps=200),)))
    assert judged("infiniband-rate", slow, 15) == BLIND


def test_a_port_without_a_cable_keeps_no_fault_of_another_open() -> None:
    bare = port("mlx5_9", state="DOWN")
    reading = after((0, (bare, *UP)), (5, (bare, *DOWN)), (600, (bare, *UP)))
    assert judged("infiniband-state", reading, 605) == Outcome()


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("infiniband-flaps", flapping(3)),
        ("infiniband-counters", after((0, UP), (60, (port(link_downed=5),)))),
    ],
)
def test_a_release_forgives_what_has_happened(name: str, reading: HostReading) -> None:
    look = Reading("b", host=reading)
    for released_at, forgiven in ((NOW, False), (NOW + 400, True)):
        past = Past(at=NOW + 500, released_at=released_at)
        assert (BY_NAME[name].judge(look, past) == Outcome()) is forgiven
