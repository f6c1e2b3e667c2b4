"""ecc-rate: corrected memory errors do not come in a storm.

Each is harmless; millions an hour slow the memory down and come before uncorrectable ones.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import EccErrors, GpuReading, Unsupported

# Source: gcm's limit since the driver was loaded, taken for a day: our choice, as is the span.
MAX_PER_DAY = 50_000_000
OVER_S = 300.0


def _count(gpu: GpuReading) -> int | Unsupported:
    errors = gpu.ecc_errors
    return errors if isinstance(errors, Unsupported) else errors.volatile_corrected


def _judge(gpu: GpuReading, _errors: EccErrors, past: Past) -> Iterator[Finding]:
    grown = window.growth(past, gpu, _count, OVER_S)
    if grown is not None and grown.per_second > MAX_PER_DAY / 86_400:
        yield from on(
            gpu,
            "ecc-corrected-rate",
            Severity.INFO,
            Action.INSPECT,
            f"corrected errors come faster than {MAX_PER_DAY} a day",
        )


CHECK = over_time(
    "ecc-rate",
    "gcm: 50,000,000 corrected errors, taken per day; NVML event type 0x200 (storm)",
    lambda gpu: gpu.ecc_errors,
    _judge,
    span_s=OVER_S,
)
