"""Group the slots of a gang by what they ask, and say which blades may hold their seats.

Slots that ask for the same, or that fit the same blades, are placed together by `pack`; others by
`mixed`. Slices cut across the slots, so a gang with slices, like one with very many different
asks, uses only blades that could serve each of its slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import Ask, GangRecord
from tramontane.scheduler.packing.mixed import MOST_ASKS
from tramontane.scheduler.records import GPU
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Groups:
    """Hold the different asks of a gang, and which of them each slot has."""

    asks: tuple[Ask, ...]
    of_slot: tuple[int, ...]

    def counts(self, per_slot: Sequence[int]) -> list[int]:
        """Return the seats per ask, given those per slot."""
        totals = [0] * len(self.asks)
        for group, count in zip(self.of_slot, per_slot, strict=True):
            totals[group] += count
        return totals


def groups_of(gang: GangRecord) -> Groups:
    """Return the asks of a gang without repetition, in the order of its slots."""
    asks = tuple(dict.fromkeys(slot.ask for slot in gang.slots))
    return Groups(asks, tuple(asks.index(slot.ask) for slot in gang.slots))


def masks_now(snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups) -> list[BoolArray]:
    """Return per ask the pool's rows that take a seat now; one mask where all asks share it."""
    masks = [snapshot.usable(ask, gang.avoid)[pool.rows] for ask in groups.asks]
    return shared(masks, together=bool(gang.slice_size > 1))


def room_now(
    snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups, seats: int
) -> IntArray:
    """Return how many of some seats each of the pool's rows has room for now, of any of the asks.

    More than one only where the gang's seats may share blades. Where asks differ, each seat is
    taken to need the most of each resource that any of them does.
    """
    masks = [snapshot.usable(ask, gang.avoid)[pool.rows] for ask in groups.asks]
    together: BoolArray = np.logical_and.reduce(masks)
    room = together.astype(np.int64)
    if not gang.shares_blades:
        return room
    room *= seats
    for ask in groups.asks:
        for resource, amount in ask.requests:
            if amount and resource in snapshot.free:
                np.minimum(room, snapshot.free[resource][pool.rows] // amount, out=room)
    return np.where(together, room, 0)


def rooms_now(
    snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups, seats: int
) -> list[IntArray]:
    """Return per ask how many of some seats the pool's rows have room for now: see `masks_now`."""
    if gang.shares_blades:
        return [room_now(snapshot, pool, gang, groups, seats)]
    return [mask.astype(np.int64) for mask in masks_now(snapshot, pool, gang, groups)]


def rooms_ever(
    snapshot: Snapshot,
    pool: Pool,
    gang: GangRecord,
    groups: Groups,
    seats: int,
    *,
    healthy: bool = False,
) -> list[IntArray]:
    """Return the same of the pool were all of it empty, and all of it `healthy` as it is or not.

    More than one seat on a row only where the gang's seats may share blades; their asks are equal.
    """
    fleet, rows = snapshot.fleet, pool.rows
    avoided = [row for name in gang.avoid if (row := fleet.row_of.get(name)) is not None]
    masks = []
    for ask in groups.asks:
        mask = fleet.could_hold(ask).copy()
        mask[avoided] = False
        if healthy:
            mask &= fleet.in_service & fleet.tolerated(ask.tolerations)
        masks.append(mask[rows])
    if not gang.shares_blades:
        alike = shared(masks, together=bool(gang.slice_size > 1))
        return [mask.astype(np.int64) for mask in alike]
    room = np.logical_and.reduce(masks).astype(np.int64) * seats
    for ask in groups.asks:
        for resource, amount in ask.requests:
            if amount and resource in fleet.capacity:
                np.minimum(room, fleet.capacity[resource][rows] // amount, out=room)
    return [room]


def shared(masks: list[BoolArray], *, together: bool) -> list[BoolArray]:
    """Return one mask where the asks are to be, or can be, treated as one."""
    if len(masks) > 1 and (together or len(masks) > MOST_ASKS):
        return [np.logical_and.reduce(masks)]
    if all(np.array_equal(masks[0], mask) for mask in masks[1:]):
        return masks[:1]
    return masks


def in_words(asks: Sequence[Ask]) -> str:
    """Return what a blade must have free, for people: the most of each GPU, or of CPU."""
    gpus = max(ask.amount(GPU) for ask in asks)
    if gpus:
        return f"{gpus} GPU" + ("s" if gpus > 1 else "")
    return f"{max(ask.amount('cpu') for ask in asks) / 1000:g} CPU"
