"""row-remap: no remapping of memory rows waits for a reset, and none has failed.

A pending one does no harm to what runs: the job is kept, the GPU is reset at the next boundary.
A failed one means that there is no spare row left: the GPU goes back.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, RemappedRows


def _judge(gpu: GpuReading, rows: RemappedRows) -> Iterator[Finding]:
    counts = (
        f"{rows.uncorrected} rows remapped for uncorrectable errors, {rows.corrected} for others"
    )
    if rows.failure:
        yield from on(gpu, "row-remap-failure", Severity.FATAL, Action.REPLACE, counts)
    if rows.pending:
        yield from on(gpu, "row-remap-pending", Severity.DEGRADED, Action.RESET, counts)


CHECK = per_gpu(
    "row-remap",
    "pending: all peers reset; failure: RMA in gpud, critical in gcm, stop in Azure",
    lambda gpu: gpu.remapped_rows,
    _judge,
)
