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
| link_error_recovery             | 5 in 1 min   | infiniband-errors-rising | Degraded, Inspect |

One difference from the source: there any `link_downed` is fatal. A switch's restart counts one on
every blade beneath it; here the first keeps new work away until it has been calm for a while and
asks for no more, the second within the hour takes the blade out; a link that stays down is
infiniband-state's to condemn. Errors a second are those of the worst look of the last minute:
errors that have ceased are no reason to take a blade out.

Growth from before a person's release is forgiven. An Ethernet port that carries traffic and shows
no counter makes the check unknown, and hides nothing that others count: so it is where the agent
sees no network devices of the host's (host.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host, opened, remembered
from tramontane.health.host import INFINIBAND, HostPast, Port, Rise
from tramontane.health.host_past import COUNT_FOR_S, LATELY_S

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
RISING_PER_MINUTE: Mapping[str, int] = MappingProxyType({"link_error_recovery": 5})
RISING_PER_SECOND: Mapping[str, int] = MappingProxyType({"symbol_error": 10, "port_rcv_errors": 10})
ONCE: Mapping[str, int] = MappingProxyType({"link_downed": 0})
# A rate is the growth between two looks; one made in a shorter time says too much.
_LEAST_S = 1.0


def _judge(ports: tuple[Port, ...], host: HostPast, past: Past) -> Iterator[Finding]:
    fatal: list[str] = []
    rising: list[str] = []
    once: list[str] = []
    hour, minute = (max(past.at - back_s, past.released_at) for back_s in (COUNT_FOR_S, LATELY_S))
    for _, known in remembered(ports, host):
        within_hour = [rise for rise in known.rises if rise.at > hour]
        lately = [rise for rise in known.rises if rise.at > minute]
        grown, just_now = _growth(within_hour), _growth(lately)
        fatal += _beyond(known.name, grown, FATAL_PER_HOUR, "in 1 h")
        rising += _beyond(known.name, grown, RISING_PER_HOUR, "in 1 h")
        rising += _fast(known.name, _fastest(lately), RISING_PER_SECOND, "a second")
        rising += _fast(known.name, _a_minute(lately), RISING_PER_MINUTE, "a minute")
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


def _growth(rises: Iterable[Rise]) -> Mapping[str, int]:
    grown: Counter[str] = Counter()
    for rise in rises:
        grown.update(dict(rise.grown))
    return grown


def _a_minute(rises: Iterable[Rise]) -> Mapping[str, float]:
    """Return the growth of a minute: of a look that took longer to come, a minute's share."""
    grown: dict[str, float] = defaultdict(float)
    for rise in rises:
        share = LATELY_S / max(rise.seconds, LATELY_S)
        for name, by in rise.grown:
            grown[name] += by * share
    return grown


def _fastest(rises: Iterable[Rise]) -> Mapping[str, float]:
    """Return how fast each counter grew at most between two looks (per s)."""
    fastest: dict[str, float] = {}
    for rise in rises:
        for name, by in rise.grown:
            rate = by / max(rise.seconds, _LEAST_S)
            fastest[name] = max(fastest.get(name, 0.0), rate)
    return fastest


def _beyond(
    port: str, values: Mapping[str, int], limits: Mapping[str, int], per: str
) -> Iterator[str]:
    for name, limit in limits.items():
        if values.get(name, 0) > limit:
            yield f"{port} {name} +{values[name]} {per}"


def _fast(
    port: str, values: Mapping[str, float], limits: Mapping[str, int], per: str
) -> Iterator[str]:
    """Yield what is too fast; by its limit, because rates differ from look to look."""
    for name, limit in limits.items():
        if values.get(name, 0) > limit:
            yield f"{port} {name} more than {limit} {per}"


def _uncounted(ports: tuple[Port, ...]) -> bool:
    """Return whether traffic goes through an Ethernet port of which no counter is to be seen."""
    return any(
        port.active and port.link_layer != INFINIBAND and not port.counters for port in ports
    )


CHECK = on_host(
    NAME,
    "NVSentinel NIC monitor; /sys/class/infiniband/*/ports/*/counters",
    lambda host: host.ports,
    _judge,
    span_s=COUNT_FOR_S,
    partly=_uncounted,
)
