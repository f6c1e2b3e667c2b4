"""ecc-sram: the driver's own threshold for uncorrectable SRAM errors is not exceeded."""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading


def _judge(gpu: GpuReading, exceeded: bool) -> Iterator[Finding]:
    if exceeded:
        yield from on(
            gpu,
            "ecc-sram-threshold",
            Severity.FATAL,
            Action.REPLACE,
            "uncorrectable SRAM errors exceed the threshold for a field diagnosis",
        )


CHECK = per_gpu(
    "ecc-sram",
    "NVML EccSramErrorStatus.bThresholdExceeded: NVIDIA's hint to return the GPU",
    lambda gpu: gpu.sram_threshold_exceeded,
    _judge,
)
