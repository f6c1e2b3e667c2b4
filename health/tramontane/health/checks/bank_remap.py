"""bank-remap: no remapping of a memory bank waits for a reset, and spare banks are left.

As with rows (row-remap, row-spares): a pending one keeps the job and asks for a reset at the next
boundary, used-up spares are worth knowing.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import BankRemap, GpuReading


def _judge(gpu: GpuReading, banks: BankRemap) -> Iterator[Finding]:
    if banks.pending:
        evidence = f"a bank waits for its spare; {banks.active} have theirs"
        yield from on(gpu, "bank-remap-pending", Severity.DEGRADED, Action.RESET, evidence)
    if banks.exhausted:
        evidence = f"{banks.exhausted} groups of banks have no spare left"
        yield from on(gpu, "bank-spares-exhausted", Severity.INFO, Action.INSPECT, evidence)


CHECK = per_gpu(
    "bank-remap", "NVML BankRemapperStatus; no peer uses it", lambda gpu: gpu.bank_remap, _judge
)
