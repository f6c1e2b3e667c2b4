"""retired-pages: few pages of memory are out of use, and none waits for a reset (before Ampere).

| pages                    | severity | action  |
|--------------------------|----------|---------|
| one or more pending      | Degraded | Reset   |
| more than 15 retired     | Info     | Inspect |
| 63 or more retired       | Fatal    | Replace |
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, RetiredPages

# Source: DCGM's hardware limits, which match NVIDIA's field diagnostic (gcm: more than 10).
SOFT_LIMIT = 15
HARD_LIMIT = 63


def _judge(gpu: GpuReading, pages: RetiredPages) -> Iterator[Finding]:
    retired = pages.single_bit + pages.double_bit
    counts = f"{retired} pages of memory are retired, {pages.double_bit} for double-bit errors"
    if retired >= HARD_LIMIT:
        yield from on(gpu, "retired-pages-limit", Severity.FATAL, Action.REPLACE, counts)
    elif retired > SOFT_LIMIT:
        yield from on(gpu, "retired-pages-many", Severity.INFO, Action.INSPECT, counts)
    if pages.pending:
        yield from on(gpu, "retired-pages-pending", Severity.DEGRADED, Action.RESET, counts)


CHECK = per_gpu(
    "retired-pages",
    "DCGM: 63 retired pages, soft limit 15; gcm: any pending",
    lambda gpu: gpu.retired_pages,
    _judge,
)
