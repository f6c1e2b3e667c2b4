"""Say of a gang that no domain of its pool could hold, were all blades healthy and empty, why.

The pool has blades enough for it, so only what must lie together is too much. That no blade comes
free, or back, would change it: the message names what the largest domain has, and only those ways
out after which an empty, healthy pool would hold the gang, each of them counted.
"""

from collections.abc import Iterator
from dataclasses import replace

from tramontane.api.quantity import format_duration
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.together import Rooms, Together
from tramontane.scheduler.topology import POOL_LEVEL


def in_words(shape: Together, ever: Rooms, what: str, *, aside: str = "") -> str:
    """Return what must lie together, and what the largest domain has; `aside` follows that."""
    topology = shape.topology
    where = topology.names[shape.top]
    room = shape.room(ever)
    best = int(room.argmax())
    if not shape.sliced:
        largest = topology.domain_name(shape.top, best)
        return f"needs {what} in one {where} (the largest, {largest}, has {room[best]}{aside})"
    of_slice = topology.names[shape.level]
    inside = "" if shape.top == POOL_LEVEL else f" and all in one {where}"
    slices = "1 slice" if shape.parts == 1 else f"{shape.parts} slices"
    text = f"needs {what} in {slices} of {shape.size}, each in one {of_slice}{inside}"
    most = replace(shape.unsliced(), top=shape.level).room(ever)
    if most.max() < min(shape.size, shape.seats):
        largest = topology.domain_name(shape.level, int(most.argmax()))
        return f"{text} (the largest {of_slice}, {largest}, has {most.max()}{aside})"
    place = "the pool" if shape.top == POOL_LEVEL else topology.domain_name(shape.top, best)
    return f"{text} (at most {room[best]} of these have room, in {place}{aside})"


def ways_out(shape: Together, ever: Rooms) -> str:
    """Return what the gang's owner could ask for instead, in words; there is always something."""
    *others, last = *_wider(shape, ever), *_smaller(shape, ever)
    return f"{', '.join(others)}, or {last}" if others else last


def relaxes(gang: GangRecord, where: str) -> str:
    """Return in words when the gang need not stay in one domain any more, or nothing."""
    if gang.relax_after_s is None:
        return ""
    after = format_duration(gang.relax_after_s)
    return f"it may leave the {where} once it has waited for {after} (relaxAfter)"


def _wider(shape: Together, ever: Rooms) -> Iterator[str]:
    """Yield what may lie further apart: the lowest wider level that is enough, and no level."""
    topology = shape.topology
    loose = shape.anywhere()
    if shape.top > POOL_LEVEL and loose.fits(ever):
        yield "use mode Preferred"
    for level in range(shape.top - 1, POOL_LEVEL, -1):
        if replace(shape, top=level).fits(ever):
            yield f"pack at level {topology.names[level]}"
            break
    if not shape.sliced:
        return
    for level in range(shape.level - 1, POOL_LEVEL, -1):
        if replace(shape, level=level).fits(ever):
            yield f"name {topology.names[level]} as slice level"
            break
    if shape.unsliced().fits(ever):
        yield "do without slices"
    elif not loose.fits(ever):
        yield "use mode Preferred and no slices"


def _smaller(shape: Together, ever: Rooms) -> Iterator[str]:
    """Yield how large the gang may be, or its slices."""
    most = int(shape.room(ever).max())
    if shape.sliced:
        sizes = (size for size in range(shape.size - 1, 1, -1) if shape.size % size == 0)
        size = next((s for s in sizes if replace(shape, size=s).fits(ever)), None)
        if size is not None:
            yield f"make its slices smaller ({size} instead of {shape.size})"
        whole = replace(shape, counts=(shape.size,))  # a job has no slice that is not whole
        most = int(whole.room(ever).max()) * shape.size
    if most and len(ever) == 1:
        yield f"make the gang smaller ({most} at most)"
    elif most:
        yield "make the gang smaller"
