"""infiniband-counters: the errors that a port counts stay rare.

| counter                         | more than    | code                     | severity, action  |
|---------------------------------|--------------|--------------------------|-------------------|
| excessive_buffer_overrun_errors | 0 in 1 h     | infiniband-errors        | Fatal, Inspect    |
| local_link_integrity_errors     | 0 in 1 h     | infiniband-errors        | Fatal, Inspect    |
| rnr_nak_retry_err               | 0 in 1 h     | infiniband-errors        | Fatal, Inspect    |
| symbol_error                    | 120 in 1 h   | infiniband-errors        | Fatal, Inspect    |
| link_downed                     | 0 in 1 min   | infiniband-errors-rising | Degraded, None    |
| link_downed                     | 1 in 1 h     | infiniband-errors-rising | Degraded, Inspect |
| carrier_changes                 | 2 in 1 h     | infiniband-errors-rising | Degraded, Inspect |
| symbol_error, port_rcv_errors   | 10 a second  | infiniband-errors-rising | Degraded, Inspect |
| link_error_recovery             | 5 a minute   | infiniband-errors-rising | Degraded, Inspect |

One difference from the source: there any `link_downed` is fatal. A switch's restart counts one on
every blade beneath it; here the first keeps new work away until it has been calm for a while and
asks for no more, the second within the hour takes the blade out; a link that stays down is
infiniband-state's to condemn. Rates are those of the last minute: errors that have ceased are no
reason to take a blade out.

A counter that fell began anew; what it shows then is the growth. Growth from before a person's
release is forgiven.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host, opened, remembered
from tramontane.health.host import HostPast, Mark, Port
from tramontane.health.host_past import COUNT_FOR_S

NAME = "infiniband-counters"
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
RISING_PER_HOUR: Mapping[str, int] = MappingProxyType({"link_downed": 1, "carrier_changes": 2})
RISING_PER_MINUTE: Mapping[str, float] = MappingProxyType(
    {"symbol_error": 600.0, "port_rcv_errors": 600.0, "link_error_recovery": 5.0}
)
ONCE: Mapping[str, int] = MappingProxyType({"link_downed": 0})
# A rate is the growth between two looks; one made in a shorter time says too much.
_LEAST_S = 1.0


def _judge(ports: tuple[Port, ...], host: HostPast, past: Past) -> Iterator[Finding]:
    fatal: list[str] = []
    rising: list[str] = []
    once: list[str] = []
    hour, minute = (
        max(past.at - back_s, past.released_at) for back_s in (COUNT_FOR_S, window.CALM_S)
    )
    for _, known in remembered(ports, host):
        grown, _ = _growth(known.marks, hour)
        just_now, fastest = _growth(known.marks, minute)
        fatal += _beyond(known.name, grown, FATAL_PER_HOUR, "in 1 h")
        rising += _beyond(known.name, grown, RISING_PER_HOUR, "in 1 h")
        rising += _fast(known.name, fastest)
        once += _beyond(known.name, just_now, ONCE, "just now")
    if fatal:
        yield Finding(
            FATAL_CODE, Severity.FATAL, Action.INSPECT, "; ".join(fatal), count=len(fatal)
        )
    found = rising or once
    if found:
        asked = any(fault.code == RISING_CODE for fault in opened(past, NAME))
        action = Action.INSPECT if rising or asked else Action.NONE
        yield Finding(RISING_CODE, Severity.DEGRADED, action, "; ".join(found), count=len(found))


def _growth(
    marks: tuple[Mark, ...], since: float
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return by how much each counter grew since then, and how fast at most (per s)."""
    grown: dict[str, float] = {}
    fastest: dict[str, float] = {}
    for before, mark in pairwise(marks):
        if mark.at <= since:
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


def _fast(port: str, per_s: Mapping[str, float]) -> Iterator[str]:
    for name, limit in RISING_PER_MINUTE.items():
        if per_s.get(name, 0) * 60 > limit:
            yield f"{port} {name} more than {limit:g} a minute"


CHECK = on_host(
    NAME,
    "NVSentinel NIC monitor; /sys/class/infiniband/*/ports/*/counters",
    lambda host: host.ports,
    _judge,
    span_s=COUNT_FOR_S,
)
