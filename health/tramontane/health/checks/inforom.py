"""inforom: the GPU's own record of its configuration and its errors is intact."""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading


def _judge(gpu: GpuReading, valid: bool) -> Iterator[Finding]:
    if not valid:
        yield from on(
            gpu,
            "inforom-corrupt",
            Severity.DEGRADED,
            Action.RESET,
            "NVML: corrupted InfoROM (error 14)",
        )


CHECK = per_gpu(
    "inforom",
    "NVML return code 14 of nvmlDeviceValidateInforom; DCGM_FR_CORRUPT_INFOROM: reset",
    lambda gpu: gpu.inforom_valid,
    _judge,
)
