"""power: the GPU tells what it draws, and may draw what it was built for.

| what                          | code             | severity | action  |
|-------------------------------|------------------|----------|---------|
| draws 0 W, as nothing does    | power-unreadable | Degraded | Reboot  |
| limit below the default one   | power-limit      | Info     | Inspect |

A call that fails is no reading of 0 W: it makes the check unknown. Where the limit cannot be read,
power alone is judged.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, Unsupported


def _judge(gpu: GpuReading, power_mw: int) -> Iterator[Finding]:
    if power_mw == 0:
        evidence = "the GPU says that it draws 0 W"
        yield from on(gpu, "power-unreadable", Severity.DEGRADED, Action.REBOOT, evidence)
    limit = gpu.power_limit
    if not isinstance(limit, Unsupported) and limit.enforced_mw < limit.default_mw:
        watts = f"{limit.enforced_mw // 1000} W of {limit.default_mw // 1000} W"
        evidence = f"the power limit is {watts}"
        yield from on(gpu, "power-limit", Severity.INFO, Action.INSPECT, evidence)


CHECK = per_gpu(
    "power",
    "DCGM_FR_POWER_UNREADABLE: reboot; the limit: our choice",
    lambda gpu: gpu.power_mw,
    _judge,
)
