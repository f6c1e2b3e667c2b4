"""ecc-mode: ECC is on, and stays on after the next reset.

| now | after a reset | code         | severity, action  |
|-----|---------------|--------------|-------------------|
| on  | on            |              |                   |
| on  | off           | ecc-pending  | Info, Inspect     |
| off | on            | ecc-disabled | Degraded, Reset   |
| off | off           | ecc-disabled | Degraded, Inspect |

While it is off, errors go unseen: what the GPU computes cannot be trusted, but what runs is not
ended for it. Where somebody has switched it off, no reset brings it back.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import EccMode, GpuReading


def _judge(gpu: GpuReading, mode: EccMode) -> Iterator[Finding]:
    if not mode.current:
        evidence, action = "ECC is off; a reset leaves it so", Action.INSPECT
        if mode.pending:
            evidence, action = "ECC is off; on after a reset", Action.RESET
        yield from on(gpu, "ecc-disabled", Severity.DEGRADED, action, evidence)
    elif not mode.pending:
        yield from on(
            gpu, "ecc-pending", Severity.INFO, Action.INSPECT, "ECC will be off after a reset"
        )


CHECK = per_gpu(
    "ecc-mode", "DCGM_FR_ECC_DISABLED, DCGM_FR_ECC_PENDING", lambda gpu: gpu.ecc_mode, _judge
)
