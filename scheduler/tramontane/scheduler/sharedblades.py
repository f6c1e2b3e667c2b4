"""Place the seats of a gang that may share blades and do not all ask for the same.

One ask after another, the largest first, each as near together as there is room, in the first
domain that takes them all: fullest first, since a launcher fits beside a worker, not the other
way round. Not exact: with three or more sizes another order might find room where this one does
not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from tramontane.scheduler.fit import Groups, room_now
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import Ask, GangRecord
from tramontane.scheduler.packing.field import Wish, field_of
from tramontane.scheduler.packing.pack import Choice, choose, domains_of
from tramontane.scheduler.records import CPU, GPU
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray


def place_shared(
    snapshot: Snapshot,
    pool: Pool,
    gang: GangRecord,
    groups: Groups,
    *,
    per_slot: Sequence[int],
    top: int,
) -> Choice | None:
    """Return the pool's row of each seat, or None where this order finds no room."""
    counts = groups.counts(per_slot)
    order = sorted(range(len(counts)), key=lambda i: _size(groups.asks[i]), reverse=True)
    for inside in _domains(snapshot, pool, top):
        rows = _one_by_one(
            snapshot, pool, gang, groups.asks, counts=counts, order=order, inside=inside
        )
        if rows is None:
            continue
        given, seats = [0] * len(counts), []
        for group, count in zip(groups.of_slot, per_slot, strict=True):
            seats += rows[group][given[group] : given[group] + count]
            given[group] += count
        domains = domains_of(pool.topology, seats)
        return Choice(seats, exact=False, domains=domains, bound=domains)
    return None


def could_ever(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot were nothing in use: what a gang could get if it waited."""
    fleet = snapshot.fleet
    nothing = np.zeros(len(fleet.names), dtype=np.bool_)
    free = {resource: amounts.copy() for resource, amounts in fleet.capacity.items()}
    return replace(snapshot, free=free, busy=nothing, held=nothing.copy(), spare_of={}, _usable={})


def _one_by_one(
    snapshot: Snapshot,
    pool: Pool,
    gang: GangRecord,
    asks: Sequence[Ask],
    *,
    counts: Sequence[int],
    order: Sequence[int],
    inside: BoolArray,
) -> list[list[int]] | None:
    """Return the rows per ask, ascending, inside a domain, or None."""
    free = {resource: amounts.copy() for resource, amounts in snapshot.free.items()}
    trial = replace(snapshot, free=free, busy=snapshot.busy.copy(), _usable={})
    lemon, none = snapshot.fleet.lemon[pool.rows], np.zeros(len(inside), dtype=np.int64)
    rows: list[list[int]] = [[] for _ in asks]
    for i in order:
        alone = Groups((asks[i],), (0,))
        room = np.where(inside, room_now(trial, pool, gang, alone, counts[i]), 0)
        gpus = free[GPU][pool.rows] if GPU in free else none
        wish = Wish(counts[i], 1, pool.topology.blade_level)
        choice = choose(field_of(pool.topology, room, lemon, gpus), wish)
        if choice is None:
            return None
        rows[i] = choice.rows
        trial.take([row + pool.first for row in choice.rows], asks[i].requests)
    return rows


def _domains(snapshot: Snapshot, pool: Pool, top: int) -> Iterator[BoolArray]:
    """Yield the rows of each domain that may hold the gang, the fullest first."""
    topology = pool.topology
    if top == POOL_LEVEL:
        yield np.ones(topology.rows, dtype=np.bool_)
        return
    gpus = snapshot.free.get(GPU, np.zeros(len(snapshot.fleet.names), dtype=np.int64))[pool.rows]
    free = np.bincount(topology.ids[top], weights=gpus.clip(0))
    for domain in np.argsort(free, kind="stable").tolist():
        yield topology.ids[top] == domain


def _size(ask: Ask) -> tuple[int, int]:
    return ask.amount(GPU), ask.amount(CPU)
