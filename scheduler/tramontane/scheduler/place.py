"""Place a whole gang on a snapshot: a Plan with every seat, or a Refusal.

    1. find the pool, and refuse what no pool can satisfy
    2. for each acceptable size, best first: the first one that fits now is taken
    3. spares near the seats, as many as there are; a gang does not wait for its spares
    4. where no size fits, explain the smallest one

Nothing is written into the snapshot: a plan can be dropped.
"""

from dataclasses import dataclass, replace

import numpy as np

from tramontane.api.reasons import PendingReason
from tramontane.scheduler import explain, explainshared
from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.fit import Groups, groups_of, masks_now, room_now
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.packing.mixed import choose_mixed
from tramontane.scheduler.packing.pack import (
    EXACT_STEPS,
    LEMON_STEPS,
    Choice,
    Wish,
    choose,
    domains_of,
    field_of,
)
from tramontane.scheduler.records import GPU
from tramontane.scheduler.sharedblades import could_ever, place_shared
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray, Topology


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold a place for every seat of a gang; `note` says what is less than asked for."""

    placement: Placement
    note: str = ""


def place(
    snapshot: Snapshot, gang: GangRecord, now_s: float, *, budget: int = EXACT_STEPS
) -> Plan | Refusal:
    """Return where the gang goes now, or why it cannot.

    The best places are found within `budget` elementary steps, beyond that good ones: see `pack`.
    """
    refusal = misconfigured(snapshot, gang)
    if refusal is not None:
        return refusal
    plan = find(snapshot, gang, now_s, budget=budget)
    return why_not(snapshot, gang, now_s) if plan is None else plan


def find(
    snapshot: Snapshot, gang: GangRecord, now_s: float, *, budget: int = EXACT_STEPS
) -> Plan | None:
    """Return where a gang that is not misconfigured goes now, or None: `place` without a reason."""
    pool = snapshot.fleet.pools[gang.pool]
    groups = groups_of(gang)
    for size in gang.wanted_sizes():
        choice = _seats(snapshot, pool, gang, groups, size=size, now_s=now_s, budget=budget)
        if choice is None:
            continue
        rows = choice.rows
        spares = pick_spares(snapshot, gang, rows, gang.spares, now_s)
        names = snapshot.fleet.names
        placement = Placement(
            tuple(names[pool.first + row] for row in rows),
            tuple(names[row] for row in spares),
        )
        notes = (explain.spares_short(gang, len(spares)), _not_exact(pool, gang, choice))
        return Plan(placement, "; ".join(filter(None, notes)))
    return None


def why_not(snapshot: Snapshot, gang: GangRecord, now_s: float) -> Refusal:
    """Return why a gang has no place now, given that `find` found none."""
    pool, groups = snapshot.fleet.pools[gang.pool], groups_of(gang)
    smallest = min(gang.wanted_sizes())
    if gang.shares_blades and len(groups.asks) > 1:
        return _no_room_to_share(snapshot, pool, gang, groups, size=smallest, now_s=now_s)
    top = top_level(pool, gang, now_s)
    slices = slices_of(pool, gang)
    return explain.no_room(snapshot, pool, gang, groups, size=smallest, top=top, slices=slices)


def _no_room_to_share(
    snapshot: Snapshot, pool: Pool, gang: GangRecord, groups: Groups, *, size: int, now_s: float
) -> Refusal:
    """Return why seats that share blades and differ have no place: what could ever hold them."""
    wanted = replace(gang, sizes=(size,), spares=0)
    apart = replace(wanted, required=False)
    top = top_level(pool, gang, now_s)
    where = "" if top == POOL_LEVEL else pool.topology.names[top]
    empty = could_ever(snapshot)
    if find(empty, wanted, now_s) is not None:
        return explainshared.no_room_to_share(pool, gang, groups, size=size)
    best = could_ever(replace(snapshot, fleet=snapshot.fleet.all_healthy()))
    never = find(best, wanted, now_s) is None
    # Without a level to keep to it was asked already.
    loose = bool(where) and find(best if never else empty, apart, now_s) is not None
    if never:
        return explainshared.too_large_to_share(
            pool, gang, groups, size=size, where=where, loose=loose
        )
    return explainshared.too_few_to_share(
        snapshot, pool, gang, groups, size=size, where=where if loose else ""
    )


def misconfigured(snapshot: Snapshot, gang: GangRecord) -> Refusal | None:
    """Return the refusal of a gang that no fleet could place as it is written, or None."""
    if gang.flaw:
        return explain.refuse(gang, PendingReason.MISCONFIGURED, gang.flaw)
    pool = snapshot.fleet.pools.get(gang.pool)
    if pool is None:
        return explain.no_pool(gang, snapshot.fleet.pools)
    if not all(sum(gang.counts(size)) for size in gang.wanted_sizes()):
        return explain.refuse(
            gang, PendingReason.MISCONFIGURED, "spec.slots must ask for at least one seat (got 0)"
        )
    levels = {"pack": gang.pack} if gang.pack else {}
    if gang.slice_size > 1:
        levels["slice.level"] = gang.slice_level
    for name, level in levels.items():
        if pool.topology.level(level) is None:
            return explain.unknown_level(gang, pool, name, level)
    if gang.slice_size > 1 and pool.topology.level(gang.slice_level) == pool.topology.blade_level:
        return explain.refuse(
            gang,
            PendingReason.MISCONFIGURED,
            f"topology.slice.size must be 1 at level blade (got {gang.slice_size}): "
            "each seat has a blade of its own; name a wider level",
        )
    return None


def top_level(pool: Pool, gang: GangRecord, now_s: float) -> int:
    """Return the widest level that may hold the gang: its pack level while that is required."""
    if not gang.required or not gang.pack or gang.relaxed(now_s):
        return POOL_LEVEL
    return pool.topology.level(gang.pack) or POOL_LEVEL


def slices_of(pool: Pool, gang: GangRecord) -> tuple[int, int]:
    """Return (size, level) of the gang's slices; without slices each seat is one, on its blade."""
    level = pool.topology.level(gang.slice_level) if gang.slice_size > 1 else None
    return (1, pool.topology.blade_level) if level is None else (gang.slice_size, level)


def pick_spares(
    snapshot: Snapshot, gang: GangRecord, rows: list[int], count: int, now_s: float
) -> list[int]:
    """Return up to `count` wholly free blades (rows of the fleet) nearest to the seats.

    `rows` are the seats' rows in the pool. Every one of the gang's slots would fit on each spare.
    While packing is required, only blades that keep it are of use.
    """
    pool = snapshot.fleet.pools[gang.pool]
    topology = pool.topology
    if count < 1 or not topology.rows:
        return []
    free = np.logical_and.reduce(
        [snapshot.usable(slot.ask, gang.avoid)[pool.rows] for slot in gang.slots]
    )
    free = free & ~snapshot.busy[pool.rows]
    free[rows] = False
    for _, blade in gang.lost:
        row = snapshot.fleet.row_of.get(blade, -1) - pool.first
        if 0 <= row < topology.rows:
            free[row] = False
    home = common_domain(topology, top_level(pool, gang, now_s), rows)
    if home is not None:
        free &= home
    candidates = np.flatnonzero(free)
    near = np.zeros(topology.rows, dtype=np.int64)
    for level in range(1, topology.blade_level):
        near[np.isin(topology.ids[level], topology.ids[level][rows])] = level
    lemon = np.round(snapshot.fleet.lemon[pool.rows][candidates] * LEMON_STEPS)
    order = np.lexsort((candidates, lemon, -near[candidates]))
    return [int(row) + pool.first for row in candidates[order[:count]]]


def common_domain(topology: Topology, level: int, rows: list[int]) -> BoolArray | None:
    """Return the rows of the one domain of `level` that all of `rows` lie in, or None."""
    domains = set(topology.ids[level][rows].tolist())
    return topology.ids[level] == domains.pop() if len(domains) == 1 else None


def _seats(
    snapshot: Snapshot,
    pool: Pool,
    gang: GangRecord,
    groups: Groups,
    *,
    size: int,
    now_s: float,
    budget: int,
) -> Choice | None:
    """Return the row of each seat in the pool, or None."""
    per_slot, top = gang.counts(size), top_level(pool, gang, now_s)
    masks = masks_now(snapshot, pool, gang, groups)
    lemon = snapshot.fleet.lemon[pool.rows]
    free = snapshot.free.get(GPU, np.zeros(len(snapshot.fleet.names), dtype=np.int64))[pool.rows]
    if len(masks) == 1 or gang.shares_blades:
        room = masks[0].astype(np.int64)
        if gang.shares_blades:
            room = room_now(snapshot, pool, gang, groups, sum(per_slot))
        wish = Wish(sum(per_slot), *slices_of(pool, gang), top, gang.spares)
        choice = choose(field_of(pool.topology, room, lemon, free), wish, budget)
        if choice is not None or len(groups.asks) == 1:
            return choice
        if gang.shares_blades:
            choice = place_shared(snapshot, pool, gang, groups, per_slot=per_slot, top=top)
        if choice is not None or len(masks) == 1:
            return choice
    rank = np.argsort(np.lexsort((free, np.rint(lemon * LEMON_STEPS))))
    counts = groups.counts(per_slot)
    dealt = choose_mixed(
        pool.topology, masks, counts, top, rank=rank, spares=gang.spares, budget=budget
    )
    if dealt is None:
        return None
    rows = _by_slot(groups, per_slot, dealt.rows)
    return Choice(rows, dealt.exact, domains_of(pool.topology, rows), dealt.bound)


def _not_exact(pool: Pool, gang: GangRecord, choice: Choice) -> str:
    """Return how far from the best a choice may be, in words, or nothing."""
    if choice.exact:
        return ""
    levels = zip(pool.topology.names, choice.domains, choice.bound, strict=True)
    more = [
        f"{used} of level {name} ({least} at least)" for name, used, least in levels if used > least
    ]
    if not more:
        return ""
    return (
        f"Gang {gang.key}: the search for the fewest domains was cut short: it uses "
        + ", ".join(more)
    )


def _by_slot(groups: Groups, per_slot: tuple[int, ...], dealt: list[list[int]]) -> list[int]:
    """Return rows in the order of seats, given the rows per ask; slots with one ask share them."""
    seats: list[int] = []
    given = [0] * len(dealt)
    for group, count in zip(groups.of_slot, per_slot, strict=True):
        seats += dealt[group][given[group] : given[group] + count]
        given[group] += count
    return seats
