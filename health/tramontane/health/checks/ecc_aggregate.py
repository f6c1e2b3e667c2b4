"""ecc-aggregate: on-chip memory has shown no uncorrectable error over the GPU's life.

DRAM errors leave a remapped row behind and are row-remap's. On-chip memory has no spares, so the
count itself is the wear; below the driver's own threshold (ecc-sram) it is only worth knowing.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, SramErrors

# Source: Azure's GPU ECC check: any uncorrectable SRAM error, volatile or aggregate.
MAX_SRAM_UNCORRECTED = 0


def _judge(gpu: GpuReading, errors: SramErrors) -> Iterator[Finding]:
    if errors.aggregate > MAX_SRAM_UNCORRECTED:
        yield from on(
            gpu,
            "ecc-sram-aggregate",
            Severity.INFO,
            Action.INSPECT,
            f"{errors.aggregate} uncorrectable errors of on-chip memory over the GPU's life",
        )


CHECK = per_gpu(
    "ecc-aggregate",
    "Azure: any uncorrectable SRAM error, volatile or aggregate",
    lambda gpu: gpu.sram_errors,
    _judge,
)
