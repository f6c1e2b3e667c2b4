"""Which GPU a line means, and whether it is news to this process."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.blade import AgentInfo, GpuInventory, Report
from tramontane.health import sources
from tramontane.health.device import SXID_EVENT, XID_EVENT, Event, GpuFacts, Reading
from tramontane.health.sources import Gpu

from .builders import BOOT, NOW, reading, with_gpu

LINE = Event(-1, "", XID_EVENT, 79, NOW, source="kmsg", pci="0000:40:00")


def report(**values: Any) -> Report:
    gpu = GpuInventory(index=3, uuid="u3", pci_bus_id="00000000:40:00.0")
    return Report(agent=AgentInfo(boot_id=BOOT, time=clock.utc(NOW)), gpus=(gpu,), **values)


@pytest.mark.parametrize(
    ("old", "look", "expected"),
    [
        pytest.param(None, None, None, id="nothing-known"),
        pytest.param(report(), None, Gpu(3, "u3"), id="as-reported"),
        pytest.param(report(), Reading(BOOT, session_error="x"), Gpu(3, "u3"), id="no-session"),
        pytest.param(None, reading(), Gpu(3, reading().gpus[3].facts.uuid), id="as-read"),
        pytest.param(
            report(), reading(), Gpu(3, reading().gpus[3].facts.uuid), id="reading-is-newer"
        ),
        pytest.param(
            report(), with_gpu(reading(), 3, facts=GpuFacts()), Gpu(3, "u3"), id="gpu-is-lost"
        ),
    ],
)
def test_an_address_means_a_gpu(old: Report | None, look: Reading | None, expected: Any) -> None:
    assert sources.addresses(old, look).get("0:40:0") == expected


def test_an_event_gets_its_gpu() -> None:
    gpus = sources.addresses(report(), None)
    assert sources.located(LINE, gpus) == replace(LINE, gpu=3, uuid="u3")
    assert sources.located(replace(LINE, pci="0000:99:00"), gpus).gpu == -1
    assert sources.located(replace(LINE, pci=""), gpus).gpu == -1
    assert sources.located(replace(LINE, type=SXID_EVENT), gpus).gpu == -1


def test_what_the_driver_called_it_holds_where_nobody_else_knows() -> None:
    gpus = {"0:40:0": Gpu(3, "")}
    assert sources.located(replace(LINE, uuid="u"), gpus).uuid == "u"


@pytest.mark.parametrize(
    ("at", "source", "boot", "released_at", "expected"),
    [
        pytest.param(-50, "kmsg", BOOT, None, False, id="in-the-report"),
        pytest.param(0.9, "kmsg", BOOT, None, False, id="in-its-last-second"),
        pytest.param(1, "kmsg", BOOT, None, True, id="after-it"),
        pytest.param(-50, "kmsg", "boot-2", None, True, id="the-report-is-of-another-boot"),
        pytest.param(-50, "nvml", BOOT, None, True, id="nvml-tells-nothing-twice"),
        pytest.param(60, "kmsg", BOOT, 60.0, False, id="a-person-has-seen-it"),
        pytest.param(61, "kmsg", BOOT, 60.0, True, id="after-the-release"),
    ],
)
def test_a_line_is_news_once(
    at: float, source: Any, boot: str, released_at: float | None, expected: bool
) -> None:
    event = replace(LINE, at=NOW + at, source=source)
    release = None if released_at is None else NOW + released_at
    assert sources.is_news(event, report(), boot, release, NOW + 3600) is expected


def test_what_is_said_to_this_process_is_news_though_the_report_is_of_the_future() -> None:
    # The clock was ahead when the process before this one reported, and has been set back.
    began_at = NOW - 600
    for at, expected in ((began_at - 1, False), (began_at, True), (NOW, True)):
        event = replace(LINE, at=at)
        assert sources.is_news(event, report(), BOOT, None, began_at) is expected
    assert not sources.is_news(LINE, report(), BOOT, NOW, began_at)


@pytest.mark.parametrize("old", [None, Report()], ids=["no-report", "a-report-without-time"])
def test_without_a_report_all_of_the_ring_is_news(old: Report | None) -> None:
    assert sources.is_news(replace(LINE, at=NOW - 9999), old, BOOT, None, NOW)
