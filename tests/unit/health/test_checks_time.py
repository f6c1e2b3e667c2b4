"""Rules about time: what is remembered, how fast counts grow, for how long something holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tramontane.api.blade import Fault
from tramontane.health import checks
from tramontane.health.checks import window
from tramontane.health.checks.base import Past
from tramontane.health.device import (
    EccErrors,
    GpuReading,
    NvLinkErrors,
    OfMax,
    Reading,
    Sample,
    Unsupported,
)

from .builders import NOW, fault, past, reading, with_gpu

GPU = 3
NO = Unsupported("NotSupported")


def found(check: str, look: Reading, before: Past) -> list[str]:
    return [finding.code for finding in checks.run(look, before)[check].findings]


def each(name: str, values: Sequence[Any], **others: Any) -> list[Reading]:
    return [with_gpu(reading(), GPU, **{name: value}, **others) for value in values]


def judged(check: str, looks: Sequence[Reading], every_s: float) -> list[str]:
    """Return what a check finds at the last of looks that are so far apart."""
    return found(check, looks[-1], past(*looks[:-1], every_s=every_s))


class TestRemember:
    def kept(self, times: Sequence[float]) -> list[float]:
        samples: tuple[Sample, ...] = ()
        for at in times:
            samples = window.remember(samples, Sample(at, reading()))
        return [sample.at for sample in samples]

    def test_keeps_ten_minutes_and_what_was_true_at_their_start(self) -> None:
        assert self.kept(range(0, 2000, 100)) == [1300, 1400, 1500, 1600, 1700, 1800, 1900]

    def test_keeps_few_of_many_looks(self) -> None:
        kept = self.kept([look * 0.5 for look in range(4000)])
        assert len(kept) <= window.WINDOW_S / window.GAP_S + 2
        assert kept[-1] == 1999.5
        gaps = [after - before for before, after in pairwise(kept[:-1])]
        assert all(gap >= window.GAP_S for gap in gaps)

    def test_a_single_look_long_ago_is_kept(self) -> None:
        assert self.kept([0.0, 5000.0]) == [0.0, 5000.0]

    def test_begins_anew_when_the_clock_was_set_back(self) -> None:
        assert self.kept([0.0, 10.0, 3600.0, 3610.0, 3400.0, 3410.0]) == [3400.0, 3410.0]

    def test_begins_anew_with_a_boot(self) -> None:
        before = (Sample(0.0, reading(boot="boot-1")),)
        after = window.remember(before, Sample(60.0, reading(boot="boot-2")))
        assert [sample.at for sample in after] == [60.0]


def _replays(gpu: GpuReading) -> int | Unsupported:
    return gpu.pcie_replays


@pytest.mark.parametrize(
    ("counts", "grown"),
    [
        pytest.param([5], None, id="no-history"),
        pytest.param([5, 7], None, id="too-young"),
        pytest.param([5, 7, 9], (4, 60.0), id="over-the-span"),
        pytest.param([1, 5, 7, 9], (4, 60.0), id="not-over-more-than-the-span"),
        pytest.param([50, 7, 9], (9, 60.0), id="began-anew"),
        pytest.param([NO, 7, 9], None, id="not-known-then"),
        pytest.param([5, 7, NO], None, id="not-known-now"),
    ],
)
def test_growth_is_since_the_latest_look_that_is_old_enough(
    counts: list[Any], grown: tuple[int, float] | None
) -> None:
    looks = each("pcie_replays", counts)
    before = past(*looks[:-1], every_s=30.0)
    result = window.growth(before, looks[-1].gpus[GPU], _replays, 60.0)
    assert (result and (result.by, result.seconds)) == grown


@pytest.mark.parametrize(
    ("counts", "ago_s"),
    [
        pytest.param([5], [], id="no-history"),
        pytest.param([5, 5, 6], [0], id="now"),
        pytest.param([5, 6, 6, 6], [60], id="some-time-ago"),
        pytest.param([5, 6, 6, 8, 8, 9], [0, 60, 120], id="again"),
        pytest.param([50, 0, 2], [0], id="since-it-began-anew"),
        pytest.param([50, 2, 2], [30], id="as-it-began-anew"),
        pytest.param([5, 50, 0], [], id="before-it-began-anew"),
        pytest.param([NO, 5, 6], [0], id="not-known-at-first"),
        pytest.param([5, 6, NO], [], id="not-known-now"),
    ],
)
def test_rises_are_told_latest_first(counts: list[Any], ago_s: list[float]) -> None:
    looks = each("pcie_replays", counts)
    before = past(*looks[:-1], every_s=30.0)
    times = window.rises(before, looks[-1].gpus[GPU], _replays)
    assert times == [NOW - ago for ago in ago_s]


def test_rises_from_before_a_release_are_over() -> None:
    looks = each("pcie_replays", [5, 6, 6, 7])
    before = replace(past(*looks[:-1], every_s=30.0), released_at=NOW - 45)
    assert window.rises(before, looks[-1].gpus[GPU], _replays) == [NOW]


@pytest.mark.parametrize(
    ("hot", "every_s", "seconds"),
    [
        pytest.param("", 60.0, 0.0, id="no-history"),
        pytest.param("1", 60.0, 60.0, id="since-the-last-look"),
        pytest.param("0101", 60.0, 120.0, id="now-and-then"),
        pytest.param("1" * 20, 60.0, 600.0, id="no-more-than-the-window"),
        pytest.param("1", 900.0, 0.0, id="what-held-before-the-window"),
        pytest.param("11", 300.0, 2 * window.MAX_HOLD_S, id="nobody-looked-in-between"),
    ],
)
def test_what_holds_is_counted_until_the_next_look(
    hot: str, every_s: float, seconds: float
) -> None:
    looks = each("temperature_c", [99 if one == "1" else 40 for one in hot])
    before = past(*looks, every_s=every_s)
    held = window.seconds_held(before, reading().gpus[GPU], lambda gpu: gpu.temperature_c == 99)
    assert held == seconds


def test_another_gpu_in_the_same_place_has_no_past() -> None:
    old = with_gpu(reading(), GPU, facts=replace(reading().gpus[GPU].facts, uuid="GPU-old"))
    before = past(*[old] * 10, every_s=60.0)
    assert window.seconds_held(before, reading().gpus[GPU], lambda _: True) == 0.0
    assert window.seconds_held(past(reading(GPU)), reading().gpus[GPU], lambda _: True) == 0.0


RULES: list[tuple[str, Callable[[int], list[Reading]], float, int, list[str]]] = [
    # check, looks up to n, seconds between them, the n at which it fires, what it finds
    (
        "ecc-rate",
        lambda n: each(
            "ecc_errors", [EccErrors(volatile_corrected=58_000 * look) for look in range(n)]
        ),
        60.0,
        6,
        ["ecc-corrected-rate"],
    ),
    (
        "pcie-replay",
        lambda n: each("pcie_replays", [5 * look for look in range(n)]),
        30.0,
        3,
        ["pcie-replay"],
    ),
    (
        "pcie-generation",
        lambda n: each("pcie_generation", [OfMax(3, 5)] * n, utilization_pct=50),
        30.0,
        3,
        ["pcie-generation"],
    ),
    (
        "clock-events",
        lambda n: each("clock_reasons", [0x48] * n),
        60.0,
        7,
        ["clock-thermal"],
    ),
    ("thermal", lambda n: each("temperature_c", [88] * n), 30.0, 3, ["thermal-gpu"]),
    ("gpu-idle", lambda n: each("processes", [1] * n), 59.0, 11, ["idle-processes"]),
    (
        "nvlink-errors",
        lambda n: each("nvlink_errors", [NvLinkErrors(crc=(0, 6_000 * look)) for look in range(n)]),
        60.0,
        2,
        ["nvlink-crc"],
    ),
]


@pytest.mark.parametrize(
    ("check", "looks", "every_s", "at", "codes"), RULES, ids=[rule[0] for rule in RULES]
)
def test_a_rule_about_time_fires_at_its_time_and_not_before(
    check: str,
    looks: Callable[[int], list[Reading]],
    every_s: float,
    at: int,
    codes: list[str],
) -> None:
    assert judged(check, looks(at - 1), every_s) == []
    assert judged(check, looks(at), every_s) == codes


@pytest.mark.parametrize(
    ("check", "looks", "every_s"),
    [
        pytest.param(
            "ecc-rate",
            each("ecc_errors", [EccErrors(volatile_corrected=34_000 * n) for n in range(20)]),
            60.0,
            id="corrected-errors-at-a-calm-rate",
        ),
        pytest.param(
            "pcie-replay", each("pcie_replays", [8 * n for n in range(9)]), 60.0, id="8-a-minute"
        ),
        pytest.param(
            "pcie-generation",
            each("pcie_generation", [OfMax(3, 5)] * 9, utilization_pct=49),
            60.0,
            id="slow-without-load",
        ),
        pytest.param(
            "clock-events",
            each("clock_reasons", [0x48, 0x1] * 8),
            60.0,
            id="slowed-down-half-of-the-time",
        ),
        pytest.param(
            "clock-events", each("clock_reasons", [0x4] * 20), 60.0, id="capped-by-software"
        ),
        pytest.param("thermal", each("temperature_c", [87] * 9), 60.0, id="at-its-maximum"),
        pytest.param("thermal", each("temperature_c", [99, 99, 40]), 60.0, id="cool-again"),
        pytest.param(
            "thermal",
            each("memory_temperature_c", [120] * 9, memory_temperature_max_c=NO),
            60.0,
            id="memory-without-a-maximum",
        ),
        pytest.param(
            "thermal", each("memory_temperature_c", [95] * 9), 60.0, id="memory-at-its-maximum"
        ),
        pytest.param(
            "thermal", each("thermal_margin_c", [0] * 9, temperature_max_c=NO), 60.0, id="no-margin"
        ),
        pytest.param(
            "thermal",
            each("temperature_c", [88] * 9, temperature_max_c=0),
            60.0,
            id="a-limit-of-nothing-is-none",
        ),
        pytest.param(
            "gpu-idle",
            each("processes", [1] * 20, utilization_pct=1),
            60.0,
            id="processes-that-work",
        ),
        pytest.param(
            "gpu-idle",
            each("memory_used_bytes", [512 << 20] * 20),
            60.0,
            id="what-a-driver-may-hold",
        ),
        pytest.param(
            "nvlink-errors",
            each("nvlink_errors", [NvLinkErrors((9,), (9,), (900_000,), (9,))] * 20),
            60.0,
            id="errors-of-long-ago",
        ),
        pytest.param(
            "nvlink-errors",
            each("nvlink_errors", [NvLinkErrors(crc=(5_900 * n,)) for n in range(9)]),
            60.0,
            id="crc-errors-at-a-calm-rate",
        ),
    ],
)
def test_what_is_normal_over_time_is_no_finding(
    check: str, looks: list[Reading], every_s: float
) -> None:
    assert judged(check, looks, every_s) == []


@pytest.mark.parametrize(
    ("hot", "other", "code"),
    [
        pytest.param("temperature_c", "memory_temperature_max_c", "thermal-gpu", id="gpu"),
        pytest.param("memory_temperature_c", "temperature_max_c", "thermal-memory", id="memory"),
    ],
)
def test_heat_is_found_where_only_the_other_part_has_no_maximum(
    hot: str, other: str, code: str
) -> None:
    looks = each(hot, [110] * 4, **{other: NO})
    outcome = checks.run(looks[-1], past(*looks[:-1], every_s=30.0))["thermal"]
    assert [finding.code for finding in outcome.findings] == [code]
    assert not outcome.unknown


def test_both_links_that_erred_are_named_once() -> None:
    looks = each("nvlink_errors", [NvLinkErrors((0, 0, 0)), NvLinkErrors((1, 0, 4))])
    (finding,) = checks.run(looks[1], past(looks[0]))["nvlink-errors"].findings
    assert finding.evidence == "replays on NVLink 0, 2"


def test_a_link_that_was_not_counted_before_has_not_grown() -> None:
    looks = each("nvlink_errors", [NvLinkErrors((0,)), NvLinkErrors((0, 4))])
    assert judged("nvlink-errors", looks, 30.0) == []


def test_a_slowdown_without_a_reason_is_named_as_such() -> None:
    assert judged("clock-events", each("clock_reasons", [0x8] * 6), 60.0) == []
    assert judged("clock-events", each("clock_reasons", [0x8] * 7), 60.0) == ["clock-slowdown"]
    both = judged("clock-events", each("clock_reasons", [0xC8] * 8), 60.0)
    assert both == ["clock-thermal", "clock-power"]


@pytest.mark.parametrize("check", sorted({rule[0] for rule in RULES}))
def test_a_young_agent_clears_no_fault_and_is_not_unknown(check: str) -> None:
    outcome = checks.run(reading(), Past(8, NOW))[check]
    assert outcome.blind == set(range(8))
    assert not outcome.unknown


@pytest.mark.parametrize(
    ("looks", "blind"), [(2, True), (3, False)], ids=["too-young", "old-enough"]
)
def test_a_rule_clears_faults_once_it_has_looked_for_its_span(looks: int, *, blind: bool) -> None:
    outcome = checks.run(reading(), past(*[reading()] * (looks - 1), every_s=30.0))["pcie-replay"]
    assert (outcome.blind == set(range(8))) is blind
    assert bool(outcome.blind) is blind


def test_an_idle_gpu_keeps_the_fault_of_its_slow_link() -> None:
    busy = with_gpu(reading(), GPU, utilization_pct=90)
    outcome = checks.run(busy, past(*[busy] * 20, every_s=60.0))["pcie-generation"]
    assert outcome.blind == set(range(8)) - {GPU}


class TestRecoveries:
    """Of an NVLink: looks are 10 s apart, and the report tells a look what those before found."""

    def followed(self, *at_s: float, until_s: float) -> dict[float, tuple[str, ...]]:
        """Return what is asked for at each look, by its time, where that changes."""
        previous: tuple[Sample, ...] = ()
        faults: tuple[Fault, ...] = ()
        told: dict[float, tuple[str, ...]] = {}
        for seconds in range(0, int(until_s) + 1, 10):
            count = sum(at <= seconds for at in at_s)
            look = with_gpu(reading(), GPU, nvlink_errors=NvLinkErrors(recoveries=(0, count)))
            now = Past(8, NOW + seconds, previous, faults=faults)
            findings = checks.run(look, now)["nvlink-errors"].findings
            faults = tuple(
                fault(found.code, gpu=found.gpu, check="nvlink-errors", action=found.action)
                for found in findings
            )
            asks = tuple(found.action.value for found in findings)
            if asks != next(reversed(told.values()), ()):
                told[seconds] = asks
            previous = window.remember(previous, Sample(now.at, look))
        return told

    def test_one_is_soon_over_and_asks_for_nothing(self) -> None:
        assert self.followed(100, until_s=2000) == {100: ("None",), 170: ()}

    def test_a_burst_is_one(self) -> None:
        assert self.followed(100, 101, 130, until_s=2000) == {100: ("None",), 200: ()}

    def test_two_ask_for_a_reset_until_the_last_is_ten_minutes_ago(self) -> None:
        told = self.followed(100, 400, until_s=3000)
        assert told == {100: ("None",), 170: (), 400: ("Reset",), 1010: ()}

    def test_two_that_lie_far_apart_are_one_and_one(self) -> None:
        told = self.followed(100, 900, until_s=3000)
        assert told == {100: ("None",), 170: (), 900: ("None",), 970: ()}


def test_a_gpu_at_full_speed_for_a_minute_is_slowed_down_no_more() -> None:
    slow, fast = (each("clock_reasons", [reasons])[0] for reasons in (0x48, 0x1))
    for minutes, codes in ((0, ["clock-thermal"]), (1, ["clock-thermal"]), (2, [])):
        looks = [slow] * 8 + [fast] * minutes
        assert found("clock-events", fast, past(*looks, every_s=59.0)) == codes


def test_what_is_found_soon_after_the_start_does_not_hide_what_was_found_before() -> None:
    looks = each("nvlink_errors", [NvLinkErrors(replays=(count,)) for count in (0, 1)])
    outcome = checks.run(looks[1], past(looks[0]))["nvlink-errors"]
    assert [finding.code for finding in outcome.findings] == ["nvlink-replay"]
    assert GPU in outcome.blind
