"""Remember of the host what a check needs to judge a change: folded look by look, pure.

A reading shows a link that is down; that it was up this morning, since when it is down, and how
often it came back, are here. The agent's process keeps it and nothing else does: a restart begins
anew, and until there is enough to judge by, the checks are blind rather than content.

It is part of the HostReading and holds times, not ages, so that it changes only when something
happens, or when the clock is set back: nothing that is remembered lies in the future.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from tramontane.health.device import Unsupported
from tramontane.health.host import HostPast, HostReading, Port, PortPast, Rise

# Down for this long and then active again is a flap. Source: gpud, InfiniBand flap.
FLAP_S = 25.0
# Source: NVSentinel counts symbol errors per hour; our choice for the rest.
COUNT_FOR_S = 3600.0
# Source: Azure counts lost carriers over 24 hours.
RETURNS_FOR_S = 24 * 3600.0
# Growth of the last minute is kept look by look, because rates are judged by it.
LATELY_S = 60.0
_MAX_RETURNS = 16

Counters = tuple[tuple[str, int], ...]


def remember(past: HostPast | None, reading: HostReading, at: float, looked_at: float) -> HostPast:
    """Return what is known after a look at `at`; the look before it was at `looked_at`."""
    old = past or HostPast(since=at)
    return replace(
        old,
        since=min(old.since, at),
        ports=old.ports
        if isinstance(reading.ports, Unsupported)
        else tuple(
            _port(before, port, at, looked_at) for before, port in _paired(old.ports, reading.ports)
        ),
        most_nvme=_most(old.most_nvme, reading.nvme),
        most_memory_bytes=_most(old.most_memory_bytes, reading.memory_bytes),
        most_pci_gpus=_most(old.most_pci_gpus, reading.pci_gpus),
    )


def forget(past: HostPast, released_at: float) -> HostPast:
    """Return what is known after a person has released the blade as it is.

    What was better before is not held against it, and what has happened since is not forgiven: a
    release from before this process began, whose past holds nothing older, changes nothing.
    """
    if past.since >= released_at:
        return past
    return replace(
        past,
        ports=tuple(_port_as_it_is(port, released_at) for port in past.ports),
        most_nvme=0,
        most_memory_bytes=0,
        most_pci_gpus=0,
    )


def _port_as_it_is(port: PortPast, released_at: float) -> PortPast:
    if port.down_since is None or port.down_since <= released_at:
        port = replace(port, best_gbps=0, down_since=None)
    return replace(
        port,
        returns=tuple(at for at in port.returns if at > released_at),
        rises=tuple(rise for rise in port.rises if rise.at > released_at),
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
    best_gbps = old.best_gbps
    down_since = None if old.down_since is None else min(old.down_since, at)
    returns = tuple(min(back_at, at) for back_at in old.returns)
    if port is not None and port.active:
        best_gbps = max(best_gbps, port.rate_gbps)
        if down_since is not None and at - down_since >= FLAP_S:
            returns = (*(t for t in returns if at - t <= RETURNS_FOR_S), at)[-_MAX_RETURNS:]
        down_since = None
    elif best_gbps and down_since is None:
        down_since = at
    read = () if port is None else port.counters
    counters = tuple(sorted((dict(old.counters) | dict(read)).items()))
    rises = tuple(rise if rise.at <= at else replace(rise, at=at) for rise in old.rises)
    if grown := _grown(old.counters, counters):
        rises = _kept((*rises, Rise(at, max(0.0, at - looked_at), grown)), at)
    return PortPast(old.name, best_gbps, down_since, returns, counters, rises)


def _grown(before: Counters, now: Counters) -> Counters:
    """Return by how much counters grew; one that fell began anew, and shows its growth."""
    known = dict(before)
    grown = (
        (name, value - known[name] if value >= known[name] else value)
        for name, value in now
        if name in known
    )
    return tuple((name, by) for name, by in grown if by)


def _kept(rises: Iterable[Rise], at: float) -> tuple[Rise, ...]:
    """Return the growth of the last hour: look by look, and what is older by the minute.

    So an hour takes some 70 rises, however much a port counts. A minute has the time of its
    first look: what is over does not come back with what was added to it.
    """
    kept: list[Rise] = []
    for rise in rises:
        if at - rise.at >= COUNT_FOR_S:
            continue
        if kept and at - rise.at >= LATELY_S and rise.at - kept[-1].at < LATELY_S:
            kept[-1] = _together(kept[-1], rise)
        else:
            kept.append(rise)
    return tuple(kept)


def _together(rise: Rise, more: Rise) -> Rise:
    grown = Counter(dict(rise.grown)) + Counter(dict(more.grown))
    return Rise(rise.at, rise.seconds + more.seconds, tuple(sorted(grown.items())))
