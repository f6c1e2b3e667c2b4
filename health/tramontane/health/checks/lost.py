"""gpu-lost: every GPU answers.

NVML says "GPU is lost" of one that fell off the bus, and "GPU requires reset" of one that the
driver has given up; both at the first call, whatever the call was.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading


def _judge(gpu: GpuReading, _index: int) -> Iterator[Finding]:
    if gpu.lost:
        yield from on(
            gpu, "gpu-lost", Severity.FATAL, Action.REBOOT, "NVML: GPU is lost (error 15)"
        )
    elif gpu.reset_required:
        yield from on(
            gpu,
            "gpu-reset-required",
            Severity.FATAL,
            Action.RESET,
            "NVML: GPU requires reset (error 16)",
        )


CHECK = per_gpu(
    "gpu-lost",
    "NVML return codes 15 and 16; gpud: unhealthy at once",
    lambda gpu: gpu.index,
    _judge,
)
