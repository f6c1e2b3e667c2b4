"""row-spares: every bank of memory has spare rows left.

A bank without spares works; the next uncorrectable error in it is a failed remapping, which ends
the GPU (row-remap). Time to order a new one, not to stop.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, RowSpares

MAX_BANKS_WITHOUT = 0


def _judge(gpu: GpuReading, banks: RowSpares) -> Iterator[Finding]:
    if banks.none > MAX_BANKS_WITHOUT:
        yield from on(
            gpu,
            "row-spares-exhausted",
            Severity.INFO,
            Action.INSPECT,
            f"{banks.none} memory banks have no spare row left",
        )


CHECK = per_gpu(
    "row-spares",
    "NVML RowRemapperHistogram, exported by SuperBench; no peer acts on it",
    lambda gpu: gpu.row_spares,
    _judge,
)
