"""persistence: the driver stays loaded while no process uses the GPU.

Without it the first process after a pause waits for seconds, and settings are lost. Only worth
knowing: nothing is broken.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading


def _judge(gpu: GpuReading, on_now: bool) -> Iterator[Finding]:
    if not on_now:
        evidence = "persistence mode is off"
        yield from on(gpu, "persistence-off", Severity.INFO, Action.NONE, evidence)


CHECK = per_gpu(
    "persistence",
    "DCGM_FR_PERSISTENCE_MODE: report; Azure tries to switch it on",
    lambda gpu: gpu.persistence,
    _judge,
)
