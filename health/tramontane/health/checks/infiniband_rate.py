"""infiniband-rate: an active port runs at the rate at which it ran before.

A link that trained anew on fewer lanes is active and slow, and a gang is as fast as its slowest
port. While a port is not active it may come back as slow as it was: an open fault stays.
The rate that the pool wants is the operator's to compare (`Report.network`).
"""

import re

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.checks.host import BLIND, UNKNOWN, named, opened, remembered
from tramontane.health.device import Reading, Unsupported

NAME = "infiniband-rate"
CODE = "infiniband-slow"
_BEST = re.compile(r" of (\d+) Gb/s")


def _judge(reading: Reading, past: Past) -> Outcome:
    host = reading.host
    if host is None or isinstance(host.ports, Unsupported):
        return UNKNOWN
    told = _told(past)
    slow: dict[str, list[str]] = {}
    silent = False
    for port, known in remembered(host.ports, host.past):
        best_gbps = max(known.best_gbps, told.get(known.name, 0))
        if port is None or not port.active:
            silent |= best_gbps > 0
        elif port.rate_gbps < best_gbps:
            slow.setdefault(f"at {port.rate_gbps} of {best_gbps} Gb/s", []).append(known.name)
    if not slow:
        return BLIND if silent else Outcome()
    evidence = "; ".join(f"{rate}: {', '.join(names)}" for rate, names in slow.items())
    count = sum(map(len, slow.values()))
    return Outcome((Finding(CODE, Severity.DEGRADED, Action.INSPECT, evidence, count=count),))


def _told(past: Past) -> dict[str, int]:
    """Return the rates of ports that were slow already before the agent's start."""
    parts = [part for fault in opened(past, NAME) for part in (fault.evidence or "").split("; ")]
    return {
        name: int(best[1]) for part in parts if (best := _BEST.search(part)) for name in named(part)
    }


CHECK = Check(
    NAME, "gpud: ports at the rate of the model; /sys/class/infiniband/*/ports/*/rate", _judge
)
