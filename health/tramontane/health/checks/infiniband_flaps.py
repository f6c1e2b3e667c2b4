"""infiniband-flaps: a port does not go down and come back again and again.

A flap is down for 25 s or more and then active (host_past.FLAP_S); a switch that restarts makes
one on every blade beneath it, a bad transceiver makes many on one. Those from before a person's
release are forgiven.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host, remembered
from tramontane.health.host import HostPast, Port
from tramontane.health.host_past import RETURNS_FOR_S

CODE = "infiniband-flapping"
# Source: gpud, InfiniBand flap.
FLAPS = 3


def _judge(ports: tuple[Port, ...], host: HostPast, past: Past) -> Iterator[Finding]:
    flapping = []
    since = max(past.at - RETURNS_FOR_S, past.released_at)
    for _, known in remembered(ports, host):
        returns = sum(at >= since for at in known.returns)
        if returns >= FLAPS:
            flapping.append(f"{known.name} came back {returns} times")
    if flapping:
        evidence = f"{'; '.join(flapping)} in 24 h"
        count = len(flapping)
        yield Finding(CODE, Severity.DEGRADED, Action.INSPECT, evidence, count=count)


CHECK = on_host(
    "infiniband-flaps",
    "gpud: flap = down for 25 s then active, 3 times; Azure: window of 24 h",
    lambda host: host.ports,
    _judge,
    span_s=RETURNS_FOR_S,
)
