"""Remember of the host what a check needs to judge a change: folded look by look, pure.

A reading shows a link that is down; that it was up this morning, since when it is down, and how
often it came back, are here. The agent's process keeps it and nothing else does: a restart begins
anew, and until there is enough to judge by, the checks are blind rather than content.

It is part of the HostReading and holds times, not ages, so that it changes only when something
happens.
"""

from collections.abc import Iterable
from dataclasses import replace

from tramontane.health.device import Unsupported
from tramontane.health.host import HostPast, HostReading, Mark, Port, PortPast

# Down for this long and then active again is a flap. Source: gpud, InfiniBand flap.
FLAP_S = 25.0
# Source: NVSentinel counts symbol errors per hour; our choice for the rest.
COUNT_FOR_S = 3600.0
# Source: Azure counts lost carriers over 24 hours.
RETURNS_FOR_S = 24 * 3600.0
_MAX_MARKS = 64
_MAX_RETURNS = 16


def remember(past: HostPast | None, reading: HostReading, at: float, looked_at: float) -> HostPast:
    """Return what is known after a look at `at`; the look before it was at `looked_at`."""
    old = past or HostPast(since=at)
    return replace(
        old,
        ports=old.ports
        if isinstance(reading.ports, Unsupported)
        else tuple(
            _port(before, port, at, looked_at) for before, port in _paired(old.ports, reading.ports)
        ),
        most_nvme=_most(old.most_nvme, reading.nvme),
        most_memory_bytes=_most(old.most_memory_bytes, reading.memory_bytes),
        most_pci_gpus=_most(old.most_pci_gpus, reading.pci_gpus),
    )


def _most(before: int, now: int | Unsupported) -> int:
    return before if isinstance(now, Unsupported) else max(before, now)


def _paired(
    known: Iterable[PortPast], ports: Iterable[Port]
) -> Iterable[tuple[PortPast, Port | None]]:
    """Pair what is known with what is there; a port that is gone is remembered, and is down."""
    there = {port.name: port for port in ports}
    before = {past.name: past for past in known}
    for name in sorted(before.keys() | there.keys()):
        yield before.get(name) or PortPast(name), there.get(name)


def _port(old: PortPast, port: Port | None, at: float, looked_at: float) -> PortPast:
    """Return what is known of one port.

    | was active | is active | then                                             |
    |------------|-----------|--------------------------------------------------|
    | yes        | no        | it is down since now                             |
    | no         | yes       | it has come back, if it was down for `FLAP_S`    |
    | never      | no        | nothing: a port without a cable is no fault      |
    """
    best_gbps, down_since, returns = old.best_gbps, old.down_since, old.returns
    if port is not None and port.active:
        best_gbps = max(best_gbps, port.rate_gbps)
        if down_since is not None and at - down_since >= FLAP_S:
            returns = (*(t for t in returns if at - t <= RETURNS_FOR_S), at)[-_MAX_RETURNS:]
        down_since = None
    elif best_gbps and down_since is None:
        down_since = at
    marks = old.marks if port is None else _marks(old.marks, port, at, looked_at)
    return PortPast(old.name, best_gbps, down_since, returns, marks)


def _marks(marks: tuple[Mark, ...], port: Port, at: float, looked_at: float) -> tuple[Mark, ...]:
    """Return the counts of the last hour, where they changed, and the last ones before it."""
    if not port.counters or (marks and marks[-1].counters == port.counters):
        return marks
    kept = [*marks, Mark(at, max(0.0, at - looked_at), port.counters)]
    while len(kept) > 1 and kept[1].at <= at - COUNT_FOR_S:
        kept.pop(0)
    if len(kept) > _MAX_MARKS:
        del kept[1]
    return tuple(kept)
