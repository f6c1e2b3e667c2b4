"""mig: the GPU is partitioned as it will be after the next reset.

A change that waits for a reset comes as a surprise with the next one. Whether a GPU should be
partitioned at all is not judged: the count of GPUs would tell.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, MigMode


def _judge(gpu: GpuReading, mode: MigMode) -> Iterator[Finding]:
    if mode.current != mode.pending:
        evidence = f"MIG will be {'on' if mode.pending else 'off'} after a reset"
        yield from on(gpu, "mig-pending", Severity.INFO, Action.INSPECT, evidence)


CHECK = per_gpu("mig", "NVML MigMode, current and pending", lambda gpu: gpu.mig, _judge)
