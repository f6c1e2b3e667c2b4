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
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tramontane.api.reasons import PendingReason
from tramontane.scheduler.fit import Groups, in_words, masks_ever, masks_now
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import Ask, GangRecord
from tramontane.scheduler.packing.mixed import most_seats, types_of
from tramontane.scheduler.snapshot import Snapshot
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
    return (
        f"Gang {gang.key}: holds {spares} of {gang.spares} spares; "
        "more are taken as soon as blades near it are free"
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
    snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups, *, size: int, top: int
) -> Refusal:
    """Return why `size` seats of the first slot, and those of the others, have no place now."""
    counts = groups.counts(gang.counts(size))
    need = sum(counts)
    ever = masks_ever(snapshot, pool, gang, groups)
    healthy = [m & _healthy(snapshot, pool, groups) for m in ever]
    now = masks_now(snapshot, pool, gang, groups)
    what = f"{need} {'free ' if need else ''}blades of {in_words(groups.asks)}"
    if len(gang.wanted_sizes()) > 1:
        what += f" at the smallest of sizes {', '.join(map(str, gang.wanted_sizes()))}"
    tally = _tally(snapshot, pool, gang, groups)
    if (could := _seats(ever, counts)) < need:
        got = f"got {could} in pool {pool.name}{_list(tally, only=(AVOIDED,))}"
        return refuse(
            gang,
            PendingReason.EXCEEDS_POOL,
            f"needs {what.replace('free ', '')} ({got}); "
            "make the gang smaller, or add blades to the pool",
        )
    free = _seats(now, counts)
    got = f"got {free} of {could} in pool {pool.name}{_list(tally)}"
    if (fit := _seats(healthy, counts)) < need:
        return refuse(
            gang,
            PendingReason.HEALTH_HOLD,
            f"needs {what} ({got}); it cannot start before {need - fit} more "
            f"{'is' if need - fit == 1 else 'are'} back in service, or make the gang smaller",
        )
    if free < need:
        return refuse(
            gang,
            PendingReason.WAITING_FOR_CAPACITY,
            f"needs {what} ({got}); it starts when {need - free} more "
            f"{'is' if need - free == 1 else 'are'} free, or make the gang smaller",
        )
    return _no_domain(pool, gang, counts, ever=ever, now=now, top=top)


def no_room_to_share(pool: Pool, gang: GangRecord, groups: Groups, *, size: int) -> Refusal:
    """Return why seats that share blades and ask for different things have no place now."""
    counts = groups.counts(gang.counts(size))
    each = ", ".join(
        f"{count} of {in_words([ask])}" for ask, count in zip(groups.asks, counts, strict=True)
    )
    return refuse(
        gang,
        PendingReason.WAITING_FOR_CAPACITY,
        f"needs room for {sum(counts)} pods together: {each} (got less in pool {pool.name} now); "
        "it starts when enough is free, or make the gang smaller",
    )


def _no_domain(
    pool: Pool,
    gang: GangRecord,
    counts: Sequence[int],
    *,
    ever: Sequence[BoolArray],
    now: Sequence[BoolArray],
    top: int,
) -> Refusal:
    """Return the refusal of a gang that the pool has room for, but no domain has."""
    topology, need = pool.topology, sum(counts)
    where = topology.names[top]
    sliced = gang.slice_size > 1 and (level := topology.level(gang.slice_level)) and level >= top
    if sliced and level:
        size = gang.slice_size
        slices = -(-need // size)
        have = _slices(pool, now, level, top, size)
        at_most = _slices(pool, ever, level, top, size)
        best = int(have.argmax())
        inside = "" if top == POOL_LEVEL else f" and all in one {where}"
        place = "the pool" if top == POOL_LEVEL else f"{where} {topology.domain_name(top, best)}"
        text = (
            f"needs {slices} slices of {size} blades, each in one {gang.slice_level}{inside} "
            f"(got room for {have[best]} whole ones in {place}, "
            f"{at_most.max()} at most were all blades free)"
        )
        way_out = "wait, make the slices smaller, or name a wider slice level"
    else:
        have = _per_domain(pool, now, counts, top)
        at_most = _per_domain(pool, ever, counts, top)
        best = int(have.argmax())
        text = (
            f"needs {need} free blades in one {where} (got {have[best]} of {at_most[best]} in the "
            f"best, {topology.domain_name(top, best)}; the largest has {at_most.max()})"
        )
        way_out = "pack at a wider level, or use mode Preferred"
        if at_most.max() >= need:
            way_out = f"wait, {way_out}"
    return refuse(gang, PendingReason.TOPOLOGY_PLACEMENT_FAILED, f"{text}; {way_out}")


def _slices(pool: Pool, masks: Sequence[BoolArray], level: int, top: int, size: int) -> IntArray:
    units = pool.topology.count(level, masks[0]) // size
    for above in range(level - 1, top - 1, -1):
        units = pool.topology.roll_up(above, units)
    return units


def _per_domain(
    pool: Pool, masks: Sequence[BoolArray], counts: Sequence[int], level: int
) -> IntArray:
    """Return how many seats each domain of a level has blades for."""
    topology = pool.topology
    if len(masks) == 1:
        return topology.count(level, masks[0])
    types = types_of(masks)
    bounds = topology.bounds[level]
    return np.array(
        [most_seats(types[first:end], counts) for first, end in itertools.pairwise(bounds)]
    )


def _seats(masks: Sequence[BoolArray], counts: Sequence[int]) -> int:
    """Return how many seats there are blades for, wherever they are."""
    if len(masks) == 1:
        return int(masks[0].sum())
    return most_seats(types_of(masks), counts)


def _healthy(snapshot: Snapshot, pool: Pool, groups: Groups) -> BoolArray:
    tolerated = [snapshot.fleet.tolerated(ask.tolerations)[pool.rows] for ask in groups.asks]
    return snapshot.fleet.in_service[pool.rows] & _any(tolerated)


def _any(masks: Sequence[BoolArray]) -> BoolArray:
    """Return the rows of at least one mask."""
    union: BoolArray = np.logical_or.reduce(masks)
    return union


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
