"""Judge what the kernel shows beside NVML: what the host's checks have in common.

They are judged whether NVML answers or not, and are of the whole blade. Without a look at the
host, or where a value is not there, a check is unknown and holds its faults open.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

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

T = TypeVar("T")


def on_host(
    name: str,
    source: str,
    value: Callable[[HostReading], T | Unsupported],
    judge: Callable[[T, HostPast, float], Iterable[Finding]],
    span_s: float = 0.0,
) -> Check:
    """Return a check that judges one value of the host, what is remembered of it, and the time.

    Until the agent has looked for `span_s`, finding nothing does not clear a fault from before.
    """

    def run(reading: Reading, past: Past) -> Outcome:
        host = reading.host
        if host is None or isinstance(seen := value(host), Unsupported):
            return UNKNOWN
        findings = tuple(judge(seen, host.past, past.at))
        if not findings and past.at - host.past.since < span_s:
            return BLIND
        return Outcome(findings)

    return Check(name, source, run)


def remembered(ports: Iterable[Port], past: HostPast) -> Iterator[tuple[Port | None, PortPast]]:
    """Yield every port that there is or was, with what is remembered of it."""
    there: Mapping[str, Port] = {port.name: port for port in ports}
    for known in past.ports:
        yield there.get(known.name), known
