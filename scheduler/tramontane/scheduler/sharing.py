"""Share a pool between its tenants: who comes first, who may use how much, who gives way to whom.

A tenant has a *guarantee*, a *maximum* and a *weight*. Gangs come in the order of their rank:

1. gangs within their tenant's guarantee before all others. Of each tenant's active gangs, by
   priority and then age, those are within it whose GPUs together do not exceed it; one that does
   not fit into what is left of the guarantee is passed over, so that a gang too big for it does
   not make it void for the rest
2. then higher priority
3. at equal rank the tenant that uses least per weight, then the older gang

What a tenant does not use others may borrow. It is given back as whole gangs:

| the gang that is in the way | must give way |
|---|---|
| ranks as high or higher, or is not preemptible         | no |
| is the same tenant's, or the pool has no tenants       | where its priority is lower |
| is another tenant's, within that tenant's guarantee    | no |
| is another tenant's, beyond it (borrowed)              | yes |

A rank follows from what gangs ask for, not from what is placed: placing a gang, or ending one's
run, changes no rank. That is what rules out preemption in circles; see `victims`.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tramontane.api.reasons import PendingReason
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.records import GPU, PoolRecord, TenantRecord


class Rank(NamedTuple):
    """Hold what a gang is entitled to against others; the larger one comes first."""

    guaranteed: bool
    priority: int

    def over(self, lower: "Rank") -> str:
        """Return in words why this rank is above a lower one."""
        if self.guaranteed and not lower.guaranteed:
            return "within its tenant's guarantee"
        return f"priority {self.priority} over {lower.priority}"


@dataclass(slots=True)
class Shares:
    """Hold a pool's tenants, the ranks of its gangs, and the GPUs each tenant uses now."""

    pool: PoolRecord
    used: dict[str, int]
    _tenants: Mapping[str, TenantRecord]
    _guaranteed: frozenset[str]

    def rank(self, gang: GangRecord) -> Rank:
        """Return the gang's rank."""
        return Rank(gang.key in self._guaranteed, gang.priority)

    def may_preempt(self, gang: GangRecord, other: GangRecord) -> bool:
        """Return whether a placed gang must give way: see the table in the module's story.

        One that gives way already, or is being deleted, is not asked again.
        """
        if not other.preemptible or other.deleting or other.told.order is not None:
            return False
        if self.rank(other) >= self.rank(gang):
            return False
        if not self._tenants or other.tenant == gang.tenant:
            return other.priority < gang.priority
        return other.key not in self._guaranteed

    def order(self, pending: Iterable[GangRecord]) -> Iterator[GangRecord]:
        """Yield waiting gangs, most entitled first. `took` counts from the next one on.

        O(gangs · tenants): within a tenant the order is fixed, so only the heads are compared.
        """
        queues: dict[str, deque[GangRecord]] = defaultdict(deque)
        for gang in sorted(pending, key=self._turn):
            queues[gang.tenant if self._tenants else ""].append(gang)

        def head(tenant: str) -> tuple[tuple[int, int], float, float, str]:
            first, created_s, key = self._turn(queues[tenant][0])
            return first, self.share(queues[tenant][0]), created_s, key

        while queues:
            tenant = min(queues, key=head)
            yield queues[tenant].popleft()
            if not queues[tenant]:
                del queues[tenant]

    def share(self, gang: GangRecord) -> float:
        """Return the GPUs per weight that the gang's tenant would use with half of the gang.

        Half, as in the Webster method of apportionment: without, tenants of small weight get more
        than theirs in the long run; with the whole gang, less. Who uses nothing has 0, so that a
        tenant whose share is less than one gang does not starve.
        """
        tenant, used = self._tenants.get(gang.tenant), self.used.get(gang.tenant, 0)
        if not self._tenants or not used:
            return 0.0
        half = gpus_of(gang, gang.wanted_sizes()[0]) / 2 if gang.slots else 0.0
        return (used + half) / (max(1, tenant.weight) if tenant else 1)

    def took(self, gang: GangRecord, seats: int) -> None:
        """Count a gang that was placed on so many seats."""
        self.used[gang.tenant] = self.used.get(gang.tenant, 0) + gpus_of_seats(gang, seats)

    def grew(self, gang: GangRecord, gpus: int) -> None:
        """Count GPUs that a placed gang has more than before."""
        self.used[gang.tenant] = self.used.get(gang.tenant, 0) + gpus

    def room(self, gang: GangRecord) -> int | None:
        """Return the GPUs left below the maximum of the gang's tenant; None without a maximum."""
        tenant = self._tenants.get(gang.tenant)
        if tenant is None or tenant.most is None:
            return None
        return max(0, tenant.most - self.used.get(gang.tenant, 0))

    def within(self, gang: GangRecord) -> GangRecord:
        """Return an elastic gang with only the sizes that its tenant's maximum leaves room for.

        It is the gang itself where that is all of them, or none: `refusal` says so then.
        """
        room = self.room(gang)
        if room is None or not gang.sizes:
            return gang
        sizes = tuple(size for size in gang.sizes if gpus_of(gang, size) <= room)
        return replace(gang, sizes=sizes) if sizes and sizes != gang.sizes else gang

    def refusal(self, gang: GangRecord) -> tuple[PendingReason, str] | None:
        """Return why the gang may not start whatever is free, in words that do not name it yet.

        | the gang, at its smallest size | reason |
        |---|---|
        | names no tenant of a pool that has some      | Misconfigured |
        | alone is above its tenant's maximum          | ExceedsMaxQuota |
        | is above it with what the tenant uses now    | WaitingForQuota |
        """
        if not self._tenants or not gang.slots:
            return None
        tenant, pool = self._tenants.get(gang.tenant), self.pool.name
        if tenant is None:
            known = ", ".join(sorted(self._tenants))
            text = (
                f'spec.tenant must be a tenant of pool {pool}: {known} (got "{gang.tenant}"); '
                "name one of these, or add the tenant to the pool"
            )
            return PendingReason.MISCONFIGURED, text
        room = self.room(gang)
        need = min(gpus_of(gang, size) for size in gang.wanted_sizes())
        if tenant.most is None or room is None or need <= room:
            return None
        smallest = " at the smallest of its sizes" if len(gang.wanted_sizes()) > 1 else ""
        if need > tenant.most:
            text = (
                f"must ask for at most {tenant.most} GPUs, all that tenant {tenant.name} may use "
                f"of pool {pool} (got {need}{smallest}); make the gang smaller, or raise the "
                "tenant's maxGPUs"
            )
            return PendingReason.EXCEEDS_MAX_QUOTA, text
        text = (
            f"needs {need} GPUs{smallest} of the {tenant.most} that tenant {tenant.name} may use "
            f"of pool {pool} (got {room}: it uses {self.used[gang.tenant]}); it starts when the "
            f"tenant uses {need - room} less, or raise its maxGPUs"
        )
        return PendingReason.WAITING_FOR_QUOTA, text

    def _turn(self, gang: GangRecord) -> tuple[tuple[int, int], float, str]:
        """Return a sort key: rank from above, age, name."""
        rank = self.rank(gang)
        return (-rank.guaranteed, -rank.priority), gang.created_s, gang.key


def shares_of(pool: PoolRecord, gangs: Iterable[GangRecord]) -> Shares:
    """Return the shares of a pool, given all gangs. O(gangs · log gangs)."""
    tenants = {tenant.name: tenant for tenant in pool.tenants}
    used: dict[str, int] = {}
    contenders: dict[str, list[GangRecord]] = defaultdict(list)
    for gang in gangs:
        if gang.pool != pool.name or not gang.active or not gang.slots:
            continue
        if gang.placement is not None:
            gpus = gpus_of_seats(gang, len(gang.placement.seats))
            used[gang.tenant] = used.get(gang.tenant, 0) + gpus
        if gang.tenant in tenants and not gang.deleting:
            contenders[gang.tenant].append(gang)
    guaranteed = frozenset(
        key for name, own in contenders.items() for key in _within_guarantee(tenants[name], own)
    )
    return Shares(pool, used, tenants, guaranteed)


def gpus_of(gang: GangRecord, size: int) -> int:
    """Return the GPUs of all seats where the first slot has `size` of them."""
    counts = zip(gang.slots, gang.counts(size), strict=True)
    return sum(count * slot.ask.amount(GPU) for slot, count in counts)


def gpus_of_seats(gang: GangRecord, seats: int) -> int:
    """Return the GPUs of a placement with so many seats."""
    return gpus_of(gang, gang.size_of(seats))


def _within_guarantee(tenant: TenantRecord, gangs: Iterable[GangRecord]) -> Iterator[str]:
    """Yield the gangs whose GPUs, at their best sizes, fit into the guarantee together.

    A gang without GPUs needs none of it and is not within it: it ranks by its priority.
    """
    left = tenant.guaranteed
    for gang in sorted(gangs, key=lambda gang: (-gang.priority, gang.created_s, gang.key)):
        gpus = gpus_of(gang, gang.wanted_sizes()[0])
        if 0 < gpus <= left:
            left -= gpus
            yield gang.key
