"""nvme: as many NVMe drives answer as before.

Judged against the most that were seen since the agent's start or a person's release, or that an
open fault tells of; how many a blade of this model must have (Azure: 8) differs from hall to hall.
Volumes that are reached over a network are none of its drives (host.py). Degraded: what runs may
not need the drive that died, new work should not find out.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host, told
from tramontane.health.host import HostPast

NAME = "nvme"
CODE = "nvme-missing"


def _judge(drives: int, known: HostPast, past: Past) -> Iterator[Finding]:
    most = max(known.most_nvme, int(told(past, NAME)))
    missing = most - drives
    if missing > 0:
        evidence = f"{drives} NVMe drives answer of {most}"
        yield Finding(CODE, Severity.DEGRADED, Action.INSPECT, evidence, count=missing)


CHECK = on_host(
    NAME, "Azure and gcm: count of NVMe drives; /sys/class/nvme", lambda host: host.nvme, _judge
)
