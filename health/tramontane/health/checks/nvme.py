"""nvme: as many NVMe drives answer as before.

Judged against the most that were seen since the agent's start; how many a blade of this model
must have (Azure: 8) differs from hall to hall. Degraded: what runs may not need the drive that
died, new work should not find out.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding
from tramontane.health.checks.host import on_host
from tramontane.health.host import HostPast

CODE = "nvme-missing"


def _judge(drives: int, past: HostPast, _now: float) -> Iterator[Finding]:
    missing = past.most_nvme - drives
    if missing > 0:
        evidence = f"{drives} NVMe drives answer of {past.most_nvme}"
        yield Finding(CODE, Severity.DEGRADED, Action.INSPECT, evidence, count=missing)


CHECK = on_host(
    "nvme", "Azure and gcm: count of NVMe drives; /sys/class/nvme", lambda host: host.nvme, _judge
)
