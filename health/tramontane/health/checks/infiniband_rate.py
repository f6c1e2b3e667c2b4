"""infiniband-rate: an active port runs at the rate at which it ran before.

A link that trained anew on fewer lanes is active and slow, and a gang is as fast as its slowest
port. The rate that the pool wants is the operator's to compare (`Report.network`).
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding
from tramontane.health.checks.host import on_host, remembered
from tramontane.health.host import HostPast, Port

CODE = "infiniband-slow"


def _judge(ports: tuple[Port, ...], past: HostPast, _now: float) -> Iterator[Finding]:
    slow = [
        f"{port.name} at {port.rate_gbps} of {known.best_gbps} Gb/s"
        for port, known in remembered(ports, past)
        if port is not None and port.active and port.rate_gbps < known.best_gbps
    ]
    if slow:
        yield Finding(CODE, Severity.DEGRADED, Action.INSPECT, "; ".join(slow), count=len(slow))


CHECK = on_host(
    "infiniband-rate",
    "gpud: ports at the rate of the model; /sys/class/infiniband/*/ports/*/rate",
    lambda host: host.ports,
    _judge,
)
