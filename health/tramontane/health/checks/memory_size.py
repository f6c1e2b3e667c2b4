"""memory-size: the kernel has all the memory that it had before.

Memory goes while a machine runs (blocks put offline after errors, a balloon); a module that is
dead at boot is seen only against the blade's own past, which a restart of the agent ends where no
fault is open, and a person's release always. So 5 % less than the most that was seen is a finding,
and nothing is known of what was never seen.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host, told
from tramontane.health.host import HostPast

NAME = "memory-size"
CODE = "memory-missing"
# Source: Azure, memory size ±5 %.
TOLERANCE = 0.05
_GIB = 1 << 30


def _judge(size: int, known: HostPast, past: Past) -> Iterator[Finding]:
    most = max(known.most_memory_bytes / _GIB, told(past, NAME))
    if size / _GIB < (1 - TOLERANCE) * most:
        evidence = f"{size / _GIB:.1f} GiB of memory of {most:.1f} GiB"
        yield Finding(CODE, Severity.DEGRADED, Action.INSPECT, evidence)


CHECK = on_host(
    NAME,
    "Azure: memory size within 5 %; MemTotal of /proc/meminfo",
    lambda host: host.memory_bytes,
    _judge,
)
