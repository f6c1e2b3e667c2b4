"""Prepare the kernel log's events for the fold: which GPU they mean, and whether they are news.

Pure. That NVML tells most XIDs as well is for events.py, which counts each once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tramontane.api import clock
from tramontane.api.blade import Report
from tramontane.health.device import XID_EVENT, Event, Reading
from tramontane.health.kernel_lines import slot

# A report's time is cut to whole seconds.
_CUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """Which GPU sits at an address."""

    index: int
    uuid: str


def addresses(report: Report | None, reading: Reading | None) -> dict[str, Gpu]:
    """Return GPUs by PCI slot: as read, and where that is not possible as last reported."""
    known = {
        slot(gpu.pci_bus_id): Gpu(gpu.index, gpu.uuid or "")
        for gpu in (report.gpus if report else ())
        if gpu.pci_bus_id
    }
    return known | {
        slot(gpu.facts.pci_bus_id): Gpu(gpu.index, gpu.facts.uuid)
        for gpu in (reading.gpus if reading else ())
        if gpu.facts.pci_bus_id
    }


def located(event: Event, gpus: Mapping[str, Gpu]) -> Event:
    """Return the event with the GPU that its address means; a switch's has none."""
    if event.type != XID_EVENT or not event.pci:
        return event
    gpu = gpus.get(slot(event.pci))
    return event if gpu is None else replace(event, gpu=gpu.index, uuid=gpu.uuid or event.uuid)


def is_news(
    event: Event,
    report: Report | None,
    boot_id: str,
    released_at: float | None,
    began_at: float,
) -> bool:
    """Return whether an event is not yet in the report that this process began with.

    At its start the agent reads all that the ring still holds. What was said in this boot up to
    the report's last change has been judged by the process before this one; it may even have
    ended since, by a reset or by a person's release. What was said since `began_at`, when this
    process began by the clock as it goes now, is news whatever the clock was at that change.
    """
    if event.source != "kmsg":
        return True
    if released_at is not None and event.at <= released_at:
        return False
    if event.at >= began_at:
        return True
    if report is None or report.agent.time is None or report.agent.boot_id != boot_id:
        return True
    return event.at >= clock.parse(report.agent.time) + _CUT_S
