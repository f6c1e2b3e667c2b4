"""nvlink-errors: links carry their traffic without having to be restarted.

| in one link                              | severity | action  |
|------------------------------------------|----------|---------|
| 1 failed recovery in 10 minutes          | Degraded | Reset   |
| 1 recovery in the last minute            | Degraded | None    |
| 2 in 10 minutes, a minute or more apart  | Degraded | Reset   |
| 100 CRC errors a second over one minute  | Degraded | Reset   |
| 1 replay in 10 minutes                   | Info     | Inspect |

One finding per kind and GPU names the links. DCGM fails a GPU for one recovery or replay too. A
replay repairs what it reports and is only worth knowing here; a link that has recovered is well
again, so it asks for no more than to be left alone by new work for a while, until it does so again.
Once a reset is asked for, it is until no link has recovered for 10 minutes.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import GpuReading, NvLinkErrors, Unsupported

# Source: DCGM's hardware limits: 1 error; "CRC errors only matter at rates of 100+ per second".
MAX_CRC_PER_S = 100.0
CRC_OVER_S = 60.0

NAME = "nvlink-errors"
RECOVERED = "nvlink-recovery"
_EVENTS = (
    ("failed", "nvlink-recovery-failed", "failed recoveries", Severity.DEGRADED, Action.RESET),
    ("replays", "nvlink-replay", "replays", Severity.INFO, Action.INSPECT),
)


def _count(kind: str, link: int) -> Callable[[GpuReading], int | Unsupported]:
    def count(gpu: GpuReading) -> int | Unsupported:
        if isinstance(gpu.nvlink_errors, Unsupported):
            return gpu.nvlink_errors
        counts: tuple[int, ...] = getattr(gpu.nvlink_errors, kind)
        return counts[link] if link < len(counts) else Unsupported("NotSupported")

    return count


def _judge(gpu: GpuReading, errors: NvLinkErrors, past: Past) -> Iterator[Finding]:
    for kind, code, words, severity, action in _EVENTS:
        links = _rises(gpu, kind, past)
        if links:
            yield from on(gpu, code, severity, action, f"{words} on NVLink {_listed(links)}")
    yield from _recovered(gpu, past)
    noisy = [
        link
        for link, count in enumerate(errors.crc)
        if count
        and (grown := window.growth(past, gpu, _count("crc", link), CRC_OVER_S)) is not None
        and grown.per_second >= MAX_CRC_PER_S
    ]
    if noisy:
        evidence = f"{MAX_CRC_PER_S:g} CRC errors a second or more on NVLink {_listed(noisy)}"
        yield from on(gpu, "nvlink-crc", Severity.DEGRADED, Action.RESET, evidence)


def _rises(gpu: GpuReading, kind: str, past: Past) -> dict[int, list[float]]:
    """Return the links of which a count has grown, and when, latest first."""
    counts: tuple[int, ...] = getattr(gpu.nvlink_errors, kind)
    found = {
        link: window.rises(past, gpu, _count(kind, link))
        for link, count in enumerate(counts)
        if count
    }
    return {link: times for link, times in found.items() if times}


def _recovered(gpu: GpuReading, past: Past) -> Iterator[Finding]:
    rises = _rises(gpu, "recoveries", past)
    asked = any(
        (fault.code, fault.gpu, fault.action) == (RECOVERED, gpu.index, Action.RESET)
        for fault in past.faults
    )
    again = [link for link, times in rises.items() if asked or _came_again(times)]
    once = [link for link, times in rises.items() if past.at - times[0] <= window.CALM_S]
    if again or once:
        action = Action.RESET if again else Action.NONE
        evidence = f"recoveries on NVLink {_listed(again or once)}"
        yield from on(gpu, RECOVERED, Severity.DEGRADED, action, evidence)


def _came_again(times: list[float]) -> bool:
    return any(later - before >= window.CALM_S for later, before in pairwise(times))


def _listed(links: Iterable[int]) -> str:
    return ", ".join(map(str, links))


CHECK = over_time(
    NAME,
    "DCGM: 1 replay or recovery, 100 CRC errors per second",
    lambda gpu: gpu.nvlink_errors,
    _judge,
    span_s=window.WINDOW_S,
)
