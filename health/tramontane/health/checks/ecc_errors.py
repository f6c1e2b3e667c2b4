"""ecc-errors: no uncorrectable memory error since the driver was loaded.

A single uncorrectable error is contained or remapped by the driver, and says so by XID; what
stays is a GPU that wants a reset before it takes new work. Counts over the GPU's life are
ecc-aggregate's, how fast corrected errors come is ecc-rate's.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import EccErrors, GpuReading

# Source: gcm's check of volatile errors (0 uncorrected, 50,000,000 corrected).
MAX_UNCORRECTED = 0
MAX_CORRECTED = 50_000_000


def _judge(gpu: GpuReading, errors: EccErrors) -> Iterator[Finding]:
    if errors.volatile_uncorrected > MAX_UNCORRECTED:
        yield from on(
            gpu,
            "ecc-uncorrected",
            Severity.DEGRADED,
            Action.RESET,
            f"{errors.volatile_uncorrected} uncorrectable errors since the driver was loaded",
        )
    if errors.volatile_corrected > MAX_CORRECTED:
        yield from on(
            gpu,
            "ecc-corrected",
            Severity.INFO,
            Action.INSPECT,
            f"more than {MAX_CORRECTED} corrected errors since the driver was loaded",
        )


CHECK = per_gpu(
    "ecc-errors", "gcm: 0 uncorrected, 50,000,000 corrected", lambda gpu: gpu.ecc_errors, _judge
)
