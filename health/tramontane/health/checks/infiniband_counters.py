"""infiniband-counters: the errors that a port counts stay rare.

| counter                                | more than  | code                     | severity |
|----------------------------------------|------------|--------------------------|----------|
| excessive_buffer_overrun_errors        | 0 in 1 h   | infiniband-errors        | Fatal    |
| local_link_integrity_errors            | 0 in 1 h   | infiniband-errors        | Fatal    |
| rnr_nak_retry_err                      | 0 in 1 h   | infiniband-errors        | Fatal    |
| symbol_error                           | 120 in 1 h | infiniband-errors        | Fatal    |
| link_downed                            | 0 in 1 h   | infiniband-errors-rising | Degraded |
| symbol_error, port_rcv_errors          | 10 a second| infiniband-errors-rising | Degraded |
| link_error_recovery                    | 5 a minute | infiniband-errors-rising | Degraded |
| carrier_changes                        | 2 in 1 h   | infiniband-errors-rising | Degraded |

One difference from the source: there any `link_downed` is fatal. A switch's restart counts one on
every blade beneath it; here it keeps new work away for an hour, and a link that stays down is
infiniband-state's to condemn.

A counter that fell began anew; what it shows then is the growth.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding
from tramontane.health.checks.host import on_host, remembered
from tramontane.health.host import HostPast, Mark, Port
from tramontane.health.host_past import COUNT_FOR_S

FATAL_CODE = "infiniband-errors"
RISING_CODE = "infiniband-errors-rising"

# Source of all: NVSentinel's NIC monitor; see the table.
FATAL_PER_HOUR: Mapping[str, int] = MappingProxyType(
    {
        "excessive_buffer_overrun_errors": 0,
        "local_link_integrity_errors": 0,
        "rnr_nak_retry_err": 0,
        "symbol_error": 120,
    }
)
RISING_PER_HOUR: Mapping[str, int] = MappingProxyType({"link_downed": 0, "carrier_changes": 2})
RISING_PER_SECOND: Mapping[str, float] = MappingProxyType(
    {"symbol_error": 10.0, "port_rcv_errors": 10.0, "link_error_recovery": 5 / 60}
)
# A rate is the growth between two looks; one made in a shorter time says too much.
_LEAST_S = 1.0


def _judge(ports: tuple[Port, ...], past: HostPast, now: float) -> Iterator[Finding]:
    fatal: list[str] = []
    rising: list[str] = []
    for _, known in remembered(ports, past):
        grown, fastest = _growth(known.marks, now)
        fatal += _beyond(known.name, grown, FATAL_PER_HOUR, "in 1 h")
        rising += _beyond(known.name, grown, RISING_PER_HOUR, "in 1 h")
        rising += _beyond(known.name, fastest, RISING_PER_SECOND, "a second")
    for code, severity, found in (
        (FATAL_CODE, Severity.FATAL, fatal),
        (RISING_CODE, Severity.DEGRADED, rising),
    ):
        if found:
            yield Finding(code, severity, Action.INSPECT, "; ".join(found), count=len(found))


def _growth(marks: tuple[Mark, ...], now: float) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return by how much each counter grew in the last hour, and how fast at most (per s)."""
    grown: dict[str, float] = {}
    fastest: dict[str, float] = {}
    for before, mark in pairwise(marks):
        if mark.at <= now - COUNT_FOR_S:
            continue
        earlier = dict(before.counters)
        for name, value in mark.counters:
            by = value - earlier[name] if name in earlier and value >= earlier[name] else value
            if name not in earlier:
                continue
            grown[name] = grown.get(name, 0) + by
            rate = by / max(mark.seconds, _LEAST_S)
            fastest[name] = max(fastest.get(name, 0.0), rate)
    return grown, fastest


def _beyond(
    port: str, values: Mapping[str, float], limits: Mapping[str, float], per: str
) -> Iterator[str]:
    for name, limit in limits.items():
        if values.get(name, 0) > limit:
            yield f"{port} {name} +{values[name]:g} {per}"


CHECK = on_host(
    "infiniband-counters",
    "NVSentinel NIC monitor; /sys/class/infiniband/*/ports/*/counters",
    lambda host: host.ports,
    _judge,
    span_s=COUNT_FOR_S,
)
