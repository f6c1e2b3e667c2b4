"""gpu-repair: no repair of a memory channel or a processing cluster waits for a reset."""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, Repair


def _judge(gpu: GpuReading, repair: Repair) -> Iterator[Finding]:
    for pending, code, what in (
        (repair.channel_pending, "channel-repair-pending", "memory channel"),
        (repair.tpc_pending, "tpc-repair-pending", "processing cluster"),
    ):
        if pending:
            evidence = f"the next reset repairs a {what}"
            yield from on(gpu, code, Severity.DEGRADED, Action.RESET, evidence)


CHECK = per_gpu("gpu-repair", "NVML RepairStatus; no peer uses it", lambda gpu: gpu.repair, _judge)
