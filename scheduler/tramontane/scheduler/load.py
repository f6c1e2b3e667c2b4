"""How a pool is used after a pass, for its metrics: pure, computed when somebody asks."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import PENDING, GangRecord
from tramontane.scheduler.outcome import Pass
from tramontane.scheduler.records import GPU, TenantRecord
from tramontane.scheduler.sharing import gpus_of_seats
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import POOL_LEVEL, BoolArray

WIDEST_LEVEL = POOL_LEVEL + 1


@dataclass(frozen=True, slots=True)
class Load:
    """Hold one pool's figures.

    `gpus` is by use: out of service, allocated, held as spares, free. `placeable` is by domain of
    the widest level how many wholly free blades it has: the largest gang it could take now.
    `fragmented` is the share of free GPUs on blades that are partly in use. `tenants` are by name
    the GPUs used, guaranteed, and at most, where there is a limit. `waiting_since_s` is since when
    the gang waits that has waited longest (Unix seconds); None where none does.
    """

    pool: str
    gpus: dict[str, int]
    placeable: dict[str, int]
    fragmented: float
    largest_waiting: int
    reservations: int
    oddities: int
    tenants: Mapping[str, Mapping[str, int]]
    waiting_since_s: float | None


def loads(done: Pass, gangs: Mapping[str, GangRecord]) -> Iterator[Load]:
    """Return the load of every pool after a pass over these gangs."""
    if done.snapshot is None:
        return
    waiting: dict[str, list[str]] = {}
    used: Counter[tuple[str, str]] = Counter()
    for key, outcome in done.outcomes.items():
        gang = gangs[key]
        if outcome.phase == PENDING:
            waiting.setdefault(gang.pool, []).append(key)
        if outcome.placement is not None and gang.slots:
            gpus = gpus_of_seats(gang, len(outcome.placement.seats))
            used[gang.pool, gang.tenant] += gpus
    for pool in done.snapshot.fleet.pools.values():
        keys = waiting.get(pool.name, ())
        seats = (
            sum(gangs[key].counts(min(gangs[key].wanted_sizes())))
            for key in keys
            if gangs[key].slots
        )
        yield _load(
            done.snapshot,
            pool,
            largest_waiting=max(seats, default=0),
            reservations=sum(done.outcomes[key].reserved_s is not None for key in keys),
            tenants={
                tenant.name: _share(tenant, used[pool.name, tenant.name])
                for tenant in pool.record.tenants
            },
            waiting_since_s=min((_since_s(gangs[key]) for key in keys), default=None),
        )


def _share(tenant: TenantRecord, used: int) -> dict[str, int]:
    limit = {} if tenant.most is None else {"maximum": tenant.most}
    return {"used": used, "guaranteed": tenant.guaranteed, **limit}


def _since_s(gang: GangRecord) -> float:
    since = gang.waiting_since_s()
    return gang.created_s if since is None else since


def _load(
    snapshot: Snapshot,
    pool: Pool,
    *,
    largest_waiting: int,
    reservations: int,
    tenants: Mapping[str, Mapping[str, int]],
    waiting_since_s: float | None,
) -> Load:
    fleet, rows, topology = snapshot.fleet, pool.rows, pool.topology
    serves, held = fleet.in_service[rows], snapshot.held[rows]
    none = np.zeros(len(fleet.names), dtype=np.int64)
    capacity = fleet.capacity.get(GPU, none)[rows]
    free = snapshot.free.get(GPU, none)[rows].clip(0)
    usable: BoolArray = serves & ~held
    whole: BoolArray = usable & (free == capacity) & (capacity > 0)
    counts = topology.count(WIDEST_LEVEL, whole)
    free_gpus = int(free[usable].sum())
    return Load(
        pool=pool.name,
        gpus={
            "out": int(capacity[~serves].sum()),
            "held": int(capacity[serves & held].sum()),
            "free": free_gpus,
            "allocated": int((capacity - free)[usable].sum()),
        },
        placeable={
            topology.domain_name(WIDEST_LEVEL, domain): int(count)
            for domain, count in enumerate(counts)
        }
        if topology.blade_level > WIDEST_LEVEL
        else {topology.domain_name(POOL_LEVEL, 0): int(whole.sum())},
        fragmented=1 - int(free[whole].sum()) / free_gpus if free_gpus else 0.0,
        largest_waiting=largest_waiting,
        reservations=reservations,
        oddities=len(pool.oddities),
        tenants=tenants,
        waiting_since_s=waiting_since_s,
    )
