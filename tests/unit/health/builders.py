"""Readings, events and faults for the table tests: healthy unless told otherwise."""

from dataclasses import replace
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Action, Fault, Report, Severity
from tramontane.health.checks.base import Past
from tramontane.health.device import (
    XID_EVENT,
    Event,
    GpuReading,
    Reading,
    Sample,
    Unsupported,
    unread,
)
from tramontane.health.fake import FakeDevice
from tramontane.health.report import Seen, fold

NOW = 1_790_000_000.0
BOOT = "boot-1"


def reading(count: int = 8, boot: str = BOOT, **changes: Any) -> Reading:
    return replace(FakeDevice("b", gpus=count).reading, boot_id=boot, **changes)


def with_gpu(base: Reading, index: int, **values: Any) -> Reading:
    gpus = list(base.gpus)
    gpus[index] = replace(gpus[index], **values)
    return replace(base, gpus=tuple(gpus))


def lost(base: Reading, index: int) -> Reading:
    return with_gpu(base, index, lost=True, **unread(Unsupported("GpuIsLost")))


def past(*readings: Reading, every_s: float = 10.0, at: float = NOW, gpus: int = 8) -> Past:
    """Return the past of a look at `at`: earlier readings, the last one `every_s` before it."""
    samples = tuple(
        Sample(at - every_s * (len(readings) - number), look)
        for number, look in enumerate(readings)
    )
    return Past(gpus, at, samples)


def gpu(**values: Any) -> GpuReading:
    return replace(reading(1).gpus[0], **values)


def xid(code: int, index: int = 3, at: float = NOW, count: int = 8) -> Event:
    return Event(index, reading(count).gpus[index].facts.uuid, XID_EVENT, code, at)


def fault(code: str = "xid-79", **values: Any) -> Fault:
    given: dict[str, Any] = {
        "code": code,
        "check": "xid",
        "gpu": 3,
        "uuid": "u3",
        "severity": Severity.FATAL,
        "action": Action.RESET,
        "first_seen": clock.utc(NOW),
        "last_seen": clock.utc(NOW),
        "boot_id": BOOT,
    }
    return Fault(**{**given, **values})


def folded(
    previous: Report | None, look: Reading | None, /, *events: Event, now: float = NOW, **seen: Any
) -> Report:
    return fold(previous, Seen(reading=look, events=events, **seen), now, "test")


def codes(report: Report) -> list[str]:
    return [fault.code for fault in report.faults]
