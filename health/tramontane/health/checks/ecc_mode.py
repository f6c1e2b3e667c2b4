"""ecc-mode: ECC is on, and stays on after the next reset."""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import EccMode, GpuReading


def _judge(gpu: GpuReading, mode: EccMode) -> Iterator[Finding]:
    if not mode.current:
        # Errors go unseen: what the GPU computes cannot be trusted. What runs is not ended for it.
        evidence = f"ECC is off{'; on after a reset' if mode.pending else ''}"
        yield from on(gpu, "ecc-disabled", Severity.DEGRADED, Action.RESET, evidence)
    elif not mode.pending:
        yield from on(
            gpu, "ecc-pending", Severity.INFO, Action.INSPECT, "ECC will be off after a reset"
        )


CHECK = per_gpu(
    "ecc-mode", "DCGM_FR_ECC_DISABLED, DCGM_FR_ECC_PENDING", lambda gpu: gpu.ecc_mode, _judge
)
