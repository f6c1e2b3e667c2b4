"""nvlink-errors: links carry their traffic without having to be restarted.

| in one link                              | severity | action  |
|------------------------------------------|----------|---------|
| 1 failed recovery in 10 minutes          | Degraded | Reset   |
| 1 recovery in 10 minutes                 | Degraded | Reset   |
| 100 CRC errors a second over one minute  | Degraded | Reset   |
| 1 replay in 10 minutes                   | Info     | Inspect |

One finding per kind and GPU names the links. DCGM fails a GPU for one replay too; as a replay
repairs what it reports, it is only worth knowing here.
"""

from collections.abc import Callable, Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import GpuReading, NvLinkErrors, Unsupported

# Source: DCGM's hardware limits: 1 error; "CRC errors only matter at rates of 100+ per second".
MAX_CRC_PER_S = 100.0
CRC_OVER_S = 60.0

_EVENTS = (
    ("failed", "nvlink-recovery-failed", "failed recoveries", Severity.DEGRADED, Action.RESET),
    ("recoveries", "nvlink-recovery", "recoveries", Severity.DEGRADED, Action.RESET),
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
        links = [
            link
            for link, count in enumerate(getattr(errors, kind))
            if count and window.most_growth(past, gpu, _count(kind, link))
        ]
        if links:
            yield from on(gpu, code, severity, action, f"{words} on NVLink {_listed(links)}")
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


def _listed(links: list[int]) -> str:
    return ", ".join(map(str, links))


CHECK = over_time(
    "nvlink-errors",
    "DCGM: 1 replay or recovery, 100 CRC errors per second",
    lambda gpu: gpu.nvlink_errors,
    _judge,
    span_s=window.WINDOW_S,
)
