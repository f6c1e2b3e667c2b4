"""Judge what the kernel shows beside NVML: what the host's checks have in common.

They are judged whether NVML answers or not, and are of the whole blade. Without a look at the
host, or where a value is not there, a check is unknown and holds its faults open.

What a process remembers begins with its start (host_past.py), and what is broken then looks as if
it had never been better. But a fault that is open knows: its evidence says what there was. Both
count until the blade has it again, or a person has released the blade as it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from tramontane.api import clock
from tramontane.api.blade import Action, Fault
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Reading, Unsupported
from tramontane.health.host import HostPast, HostReading, Port, PortPast

# Checks that need no session with NVML.
NAMES = frozenset(
    {
        "infiniband-state",
        "infiniband-rate",
        "infiniband-flaps",
        "infiniband-counters",
        "nvme",
        "memory-size",
        "clocksource",
        "pci-count",
    }
)
UNKNOWN = Outcome(blind=frozenset({None}), unknown=True)
BLIND = Outcome(blind=frozenset({None}))
_PORT = re.compile(r"[^\s,;]+/\d+")
_OF = re.compile(r" of (\d+(?:\.\d+)?)")

T = TypeVar("T")


def on_host(
    name: str,
    source: str,
    value: Callable[[HostReading], T | Unsupported],
    judge: Callable[[T, HostPast, Past], Iterable[Finding]],
    *,
    span_s: float = 0.0,
    partly: Callable[[T], bool] = lambda _: False,
) -> Check:
    """Return a check that judges one value of the host, what is remembered of it, and the rest.

    Until the agent has looked for `span_s`, a fault stays open whose evidence has changed within
    that time: what the process before this one has seen, this one cannot. Where the value is only
    `partly` there, the check is unknown, but what it says of the rest holds.
    """

    def run(reading: Reading, past: Past) -> Outcome:
        host = reading.host
        if host is None or isinstance(seen := value(host), Unsupported):
            return UNKNOWN
        findings = tuple(judge(seen, host.past, past))
        young = past.at - host.past.since < span_s
        if young and any(past.at - _changed_at(fault) < span_s for fault in opened(past, name)):
            return Outcome(findings, BLIND.blind, partly(seen))
        return Outcome(findings, unknown=partly(seen))

    return Check(name, source, run)


def opened(past: Past, name: str) -> Iterator[Fault]:
    """Yield the open faults of a check that ask for something: the others pass by themselves."""
    return (f for f in past.faults if f.check == name and f.action is not Action.NONE)


def told(past: Past, name: str) -> float:
    """Return what there was by a fault's evidence, such as `7 NVMe drives answer of 8`; else 0."""
    found = (_OF.search(fault.evidence or "") for fault in opened(past, name))
    return max((float(one[1]) for one in found if one), default=0.0)


def named(evidence: str) -> list[str]:
    """Return the ports that an evidence names."""
    return _PORT.findall(evidence)


def _changed_at(fault: Fault) -> float:
    return clock.parse(fault.last_seen) if fault.last_seen else 0.0


def remembered(ports: Iterable[Port], past: HostPast) -> Iterator[tuple[Port | None, PortPast]]:
    """Yield every port that there is or was, with what is remembered of it."""
    there: Mapping[str, Port] = {port.name: port for port in ports}
    for known in past.ports:
        yield there.get(known.name), known
