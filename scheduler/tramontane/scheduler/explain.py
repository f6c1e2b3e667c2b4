"""Say why a gang has no place: a reason of the closed list, numbers, and a way out.

A blade of the pool is counted once, by the first line that fits:

| line | counted as |
|---|---|
| too small, or without the node labels asked for | not at all: no blade for this gang |
| the gang avoids it              | avoided |
| the operator or Kubernetes has it out | quarantined, unknown, lost, cordoned, not ready, … |
| it carries a taint that is not tolerated | tainted |
| another gang keeps it as a spare | held as spares |
| something runs or will run there | in use |
| else                            | free |

The reason follows from how many blades would do:

| blades that would do | are fewer than needed | reason |
|---|---|---|
| were all healthy and empty | ExceedsPool: it can never start |
| of these, healthy now      | HealthHold: it cannot start before a blade is repaired |
| of these, free now         | WaitingForCapacity |
| inside one domain          | TopologyPlacementFailed |

The first two lines are about a domain that the gang must lie in just as about the pool: where none
would hold it, were all healthy and empty, no blade that comes free or back ever lets it start
(`toolarge`). Only a gang whose packing is not required for ever, by `relaxAfter`, waits then.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import toolarge
from tramontane.scheduler.fit import Groups, in_words, rooms_ever, rooms_now
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import Ask, GangRecord
from tramontane.scheduler.packing.mixed import most_seats, types_of
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.together import Rooms, Together
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray, IntArray

AVOIDED = "avoided"
TAINTED = "tainted"
HELD = "held as spares"
IN_USE = "in use"
MOST_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Refusal:
    """Hold why a gang has no place."""

    reason: PendingReason
    message: str


def counted(count: int, word: str) -> str:
    """Return a number of things in words."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def refuse(gang: GangRecord, reason: PendingReason, text: str) -> Refusal:
    """Return a refusal whose message names the gang."""
    return Refusal(reason, f"Gang {gang.key}: {text}")


def no_pool(gang: GangRecord, pools: Iterable[str]) -> Refusal:
    """Return the refusal of a gang whose pool does not exist."""
    known = ", ".join(sorted(pools)) or "none"
    return refuse(
        gang,
        PendingReason.NO_MATCHING_POOL,
        f'spec.pool must be a NodePool (got "{gang.pool}"; there are: {known}); '
        "create the pool or name another one",
    )


def unknown_level(gang: GangRecord, pool: Pool, name: str, level: str) -> Refusal:
    """Return the refusal of a topology level that the pool does not have."""
    known = ", ".join(n for n in pool.topology.names[1:] if n)
    return refuse(
        gang,
        PendingReason.MISCONFIGURED,
        f"topology.{name} must be a level of pool {pool.name}: {known} "
        f'(got "{level}"); name one of these, or add the level to the pool',
    )


def spares_short(gang: GangRecord, spares: int) -> str:
    """Return the note for fewer spares than asked for, or nothing."""
    if spares >= gang.spares:
        return ""
    stays = gang.required and gang.pack and gang.relax_after_s is None
    where = f"of its {gang.pack}" if stays else "near it"
    return (
        f"Gang {gang.key}: holds {spares} of {gang.spares} spares; "
        f"more are taken as soon as blades {where} are free"
    )


def lost_seats_wait(gang: GangRecord, waiting: Sequence[tuple[int, str]]) -> str:
    """Return the message of a placed gang some of whose lost seats have no new blade."""
    assert gang.placement is not None
    seats = ", ".join(
        f"{seat} (on {gang.placement.seats[seat]})" for seat, _ in waiting[:MOST_SHOWN]
    )
    if len(waiting) > MOST_SHOWN:
        seats += f" and {len(waiting) - MOST_SHOWN} more"
    plural = "s" if len(waiting) > 1 else ""
    return (
        f"Gang {gang.key}: lost seat{plural} {seats} must move to another blade "
        f"(got 0 for {len(waiting)}: {waiting[0][1]}); "
        "it moves as soon as one is free; the other seats stay as they are"
    )


def no_room(
    snapshot: Snapshot,
    pool: Pool,
    gang: GangRecord,
    groups: Groups,
    *,
    size: int,
    top: int,
    slices: tuple[int, int],
) -> Refusal:
    """Return why `size` seats of the first slot, and those of the others, have no place now.

    They must lie in one domain of level `top`, in `slices` of (size, level). O(rows).
    """
    counts = groups.counts(gang.counts(size))
    need = sum(counts)
    ever = rooms_ever(snapshot, pool, gang, groups, need)
    shape = Together(pool.topology, _alike(counts, ever), *slices, top)
    tally = _tally(snapshot, pool, gang, groups)
    asked = _Asked(gang, groups, need, several=max(int(room.max(initial=0)) for room in ever) > 1)
    if (could := _seats(ever, counts)) < need:
        return refuse(
            gang,
            PendingReason.EXCEEDS_POOL,
            f"needs {asked.of_any} (got {could} in pool {pool.name}{_list(tally, only=(AVOIDED,))})"
            "; make the gang smaller, or add blades to the pool",
        )
    if not shape.fits(ever):
        return _no_domain_ever(gang, shape, ever, asked=asked, avoided=tally.get(AVOIDED, 0))
    healthy = rooms_ever(snapshot, pool, gang, groups, need, healthy=True)
    now = rooms_now(snapshot, pool, gang, groups, need)
    free = _seats(now, counts)
    got = f"got {free} of {could} in pool {pool.name}{_list(tally)}"
    health = replace(shape, counts=_alike(counts, healthy))
    if not health.fits(healthy):
        back = _back(shape, ever, healthy, asked=asked, lack=need - _seats(healthy, counts))
        if until := _relaxes(gang, health, healthy):
            back += f"; or {until}"
        return refuse(
            gang,
            PendingReason.HEALTH_HOLD,
            f"needs {asked.free}{_together(shape)} ({got}); it cannot start before {back}, "
            "or make the gang smaller",
        )
    if free < need:
        present = replace(shape, counts=_alike(counts, now))
        comes = _comes(present, health, healthy, now, asked=asked, lack=need - free)
        return refuse(
            gang,
            PendingReason.WAITING_FOR_CAPACITY,
            f"needs {asked.free}{_together(shape)} ({got}); {comes}, or make the gang smaller",
        )
    return _no_domain(gang, shape, counts, ever=ever, now=now)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Say what a gang asks for; `several` where blades hold more than one of its seats."""

    gang: GangRecord
    groups: Groups
    need: int
    several: bool

    @property
    def of_any(self) -> str:
        """Return what is asked for, whether it is free or not."""
        return self._in_words("")

    @property
    def free(self) -> str:
        """Return the free blades that are asked for."""
        return self._in_words("free ")

    def more(self, count: int) -> str:
        """Return `3 more are`, or what it is where blades are shared."""
        if self.several:
            return f"room for {count} more is"
        return f"{count} more {'is' if count == 1 else 'are'}"

    def _in_words(self, free: str) -> str:
        each, sizes = in_words(self.groups.asks), self.gang.wanted_sizes()
        text = f"{self.need} {free}blades of {each}"
        if self.several:
            text = f"room for {self.need} pods of {each}"
        if len(sizes) > 1:
            text += f" at the smallest of sizes {', '.join(map(str, sizes))}"
        return text


def _no_domain_ever(
    gang: GangRecord, shape: Together, ever: Rooms, *, asked: _Asked, avoided: int
) -> Refusal:
    """Return the refusal of a gang that no domain could hold were all blades healthy and empty.

    Where its packing is required for a while only, it waits for the end of that.
    """
    aside = f"; {counted(avoided, 'blade')} avoided" if avoided else ""
    text = toolarge.in_words(shape, ever, asked.of_any, aside=aside)
    ways = toolarge.ways_out(shape, ever)
    if until := _relaxes(gang, shape, ever):
        return refuse(
            gang, PendingReason.TOPOLOGY_PLACEMENT_FAILED, f"{text}; {until}; sooner: {ways}"
        )
    return refuse(gang, PendingReason.EXCEEDS_POOL, f"{text}; waiting does not help: {ways}")


def _relaxes(gang: GangRecord, shape: Together, rooms: Rooms) -> str:
    """Return in words when the gang may lie further apart, if that is enough; or nothing."""
    if shape.top == POOL_LEVEL or not shape.anywhere().fits(rooms):
        return ""
    return toolarge.relaxes(gang, shape.topology.names[shape.top])


def _together(shape: Together) -> str:
    """Return in words where the seats must lie, or nothing."""
    names = shape.topology.names
    text = f" in slices of {shape.size}, each in one {names[shape.level]}" if shape.sliced else ""
    if shape.top > POOL_LEVEL:
        text += f"{' and all' if text else ''} in one {names[shape.top]}"
    return text


def _back(shape: Together, ever: Rooms, healthy: Rooms, *, asked: _Asked, lack: int) -> str:
    """Return what must be back in service first: no less will do."""
    if shape.sliced:
        more = asked.more(lack) if lack > 0 else "more of those that are out are"
        return f"{more} back in service"
    if shape.top == POOL_LEVEL:
        return f"{asked.more(lack)} back in service"
    count, domain = _least(shape, shape.room(ever), healthy)
    where, name = shape.topology.names[shape.top], shape.topology.domain_name(shape.top, domain)
    return f"{asked.more(count)} back in service in one {where}, such as {name}"


def _comes(
    shape: Together, health: Together, healthy: Rooms, now: Rooms, *, asked: _Asked, lack: int
) -> str:
    """Return what must be free for the gang to start: exactly so without slices, at least with."""
    if shape.sliced:
        return f"it cannot start before {asked.more(lack)} free, and whole slices of them"
    if shape.top == POOL_LEVEL:
        return f"it starts when {asked.more(lack)} free"
    count, domain = _least(shape, health.room(healthy), now)
    where, name = shape.topology.names[shape.top], shape.topology.domain_name(shape.top, domain)
    return f"it starts when {asked.more(count)} free in {where} {name}"


def _least(shape: Together, could: IntArray, now: Rooms) -> tuple[int, int]:
    """Return how many seats the domain lacks that lacks least, of those that could hold all."""
    lacks = np.where(could >= shape.parts, shape.parts - shape.room(now), shape.parts + 1)
    domain = int(lacks.argmin())
    return int(lacks[domain]), domain


def _no_domain(
    gang: GangRecord, shape: Together, counts: Sequence[int], *, ever: Rooms, now: Rooms
) -> Refusal:
    """Return the refusal of a gang that the pool has room for, but no domain has now.

    Some domain would have, were its healthy blades empty.
    """
    topology, top = shape.topology, shape.top
    where = topology.names[top]
    have = replace(shape, counts=_alike(counts, now)).room(now)
    at_most = shape.room(ever)
    best = int(have.argmax())
    if shape.sliced:
        inside = "" if top == POOL_LEVEL else f" and all in one {where}"
        place = "the pool" if top == POOL_LEVEL else f"{where} {topology.domain_name(top, best)}"
        text = (
            f"needs {shape.parts} slices of {shape.size} blades, each in one {gang.slice_level}"
            f"{inside} (got room for {have[best]} whole ones in {place}, "
            f"{at_most.max()} at most were all blades free)"
        )
        way_out = "make the slices smaller, or name a wider slice level"
    else:
        text = (
            f"needs {shape.seats} free blades in one {where} (got {have[best]} of {at_most[best]} "
            f"in the best, {topology.domain_name(top, best)}; the largest has {at_most.max()})"
        )
        way_out = "pack at a wider level, or use mode Preferred"
    return refuse(gang, PendingReason.TOPOLOGY_PLACEMENT_FAILED, f"{text}; wait, {way_out}")


def _alike(counts: Sequence[int], rooms: Rooms) -> tuple[int, ...]:
    """Return the seats per ask, or of all asks where these are counted as one."""
    return tuple(counts) if len(rooms) > 1 else (sum(counts),)


def _seats(rooms: Rooms, counts: Sequence[int]) -> int:
    """Return how many seats there is room for, wherever it is."""
    if len(rooms) == 1:
        return int(rooms[0].sum())
    return most_seats(types_of([room > 0 for room in rooms]), counts)


def _any(masks: Sequence[BoolArray]) -> BoolArray:
    """Return the rows of at least one mask."""
    union: BoolArray = np.logical_or.reduce(masks)
    return union


def what_keeps_out(snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups) -> str:
    """Return `: 100 in use, 3 quarantined` of the blades that are not free, or nothing."""
    return _list(_tally(snapshot, pool, gang, groups))


def _tally(snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups) -> dict[str, int]:
    """Return how many blades are not free, by what keeps them: see the table above."""
    fleet, rows = snapshot.fleet, pool.rows

    def any_ask(mask_of: Callable[[Ask], BoolArray]) -> BoolArray:
        return _any([mask_of(ask)[rows] for ask in groups.asks])

    avoided = np.isin(np.array(fleet.names[rows]), list(gang.avoid)) if gang.avoid else False
    lines = {
        AVOIDED: avoided,
        **{word: out[rows] for word, out in fleet.out_of_service_as().items()},
        TAINTED: ~any_ask(lambda ask: fleet.tolerated(ask.tolerations)),
        HELD: snapshot.held[rows],
        IN_USE: ~any_ask(snapshot.has_room),
    }
    left = any_ask(fleet.could_hold)
    words: dict[str, int] = {}
    for word, mask in lines.items():
        if count := int((left & mask).sum()):
            words[word] = count
        left = left & ~np.asarray(mask)
    return words


def _list(tally: Mapping[str, int], only: tuple[str, ...] = ()) -> str:
    """Return `: 100 in use, 3 quarantined`, most first, or nothing."""
    shown = sorted(
        ((count, word) for word, count in tally.items() if not only or word in only),
        key=lambda pair: (-pair[0], pair[1]),
    )
    return ": " + ", ".join(f"{count} {word}" for count, word in shown) if shown else ""
