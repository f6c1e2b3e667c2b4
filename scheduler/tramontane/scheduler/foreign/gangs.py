"""Make gangs of the pods of other controllers that name this scheduler.

Pods of a group become a gang when all of them are there:

| of the group's pods | then |
|---|---|
| none is bound, too few may be scheduled | no gang yet; gated pods do not count |
| none is bound, enough are there         | a gang that waits for its place |
| some are bound (we died in between, or a pod was made anew) | a placed gang: up to its size, \
what is not bound are lost seats, to be moved near the others |
| more than the size are there            | those beyond it are gangs of one |

Seats are numbered by ask, then by name in natural order, so that ranks lie along the topology. Of
such a gang there is no Gang object: where it sits is what its pods say. We never delete a pod of
others, so these gangs are not preemptible.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tramontane.api.names import ANNOTATION_GANG_SIZE, LABEL_POOL
from tramontane.api.reasons import PendingReason
from tramontane.scheduler.foreign.groups import ALONE, WHOLE, Sizes
from tramontane.scheduler.foreign.member import Member
from tramontane.scheduler.gangs import PLACED, Ask, GangRecord, Placement, Slot, Told
from tramontane.scheduler.records import PoolRecord
from tramontane.scheduler.topology import natural


@dataclass(frozen=True, slots=True)
class ForeignGang:
    """Hold a gang of pods: `pods[i]` has seat i.

    `lacking` says in words why the pods are no gang yet; such a one has no place to look for.
    """

    record: GangRecord
    pods: tuple[Member, ...]
    lacking: str = ""


def gangs_of(
    members: Iterable[Member], sizes: Sizes | None, pools: Mapping[str, PoolRecord]
) -> Iterator[ForeignGang]:
    """Yield the gangs of one group's pods. O(pods · log pods).

    `sizes` is what the object says that the group names; None where there is none to be seen.
    """
    live = sorted((m for m in members if not m.deleting), key=lambda m: natural(m.name))
    by_part = bool(sizes) and sizes is not None and WHOLE not in sizes
    parts: dict[str, list[Member]] = {}
    for member in live:
        parts.setdefault(member.group.part if by_part else "", []).append(member)
    for part, of_part in parts.items():
        family = of_part[0].family
        key = f"{family}:{part}" if part and _splits(family) else family
        yield from _gangs(key, of_part, (sizes or {}).get(part), pools)


def _splits(family: str) -> bool:
    """Return whether the parts of a group share its name: those of a JobSet do."""
    return ":jobset:" in family


def _gangs(
    key: str, live: Sequence[Member], counted: int | None, pools: Mapping[str, PoolRecord]
) -> Iterator[ForeignGang]:
    """Yield the gangs of pods that must come together: see the table above."""
    bound = [m for m in live if m.node]
    free = [m for m in live if not m.node and not m.gated]
    size, wrong = _size_of(live, counted)
    if not bound and len(free) < size:
        gated = sum(m.gated for m in live)
        wrong = wrong or (
            f"the group must have {size} pods that may be scheduled (got {len(free)}"
            f"{f', and {gated} that are gated' if gated else ''})"
        )
    if wrong:
        seated, beyond = bound, []
    elif bound:
        missing = max(0, size - len(bound))
        claims, beyond = {m.uid for m in free[:missing]}, free[missing:]
        seated = [m for m in live if m.node or m.uid in claims]
    else:
        seated, beyond = (free, []) if size else ([], free)
    if seated:
        pods = _seats(seated)
        yield ForeignGang(_record(key, pods, size, pools), pods)
    elif wrong and free:
        yield ForeignGang(_record(key, free, size, pools), tuple(free), wrong)
    for member in beyond:
        alone = replace(member, group=ALONE)
        yield ForeignGang(_record(alone.family, (member,), 1, pools), (member,))


def _size_of(live: Sequence[Member], counted: int | None) -> tuple[int, str]:
    """Return how many pods must be there at once, and what is wrong with that in words."""
    said = sorted({m.size for m in live if m.size is not None})
    if len(said) > 1:
        shown = " and ".join(map(str, said))
        return 0, f"all pods must say the same {ANNOTATION_GANG_SIZE} (got {shown}); correct them"
    group = live[0].group
    if said:
        return said[0], ""
    if not group.name:
        return 1, ""
    if counted is not None:
        return counted, ""
    where = f"{group.api} {group.of} is not there" if group.api else "no annotation on its pods"
    return 0, (
        f"the size of the group must be known (got {where}); "
        f"give its pods the annotation {ANNOTATION_GANG_SIZE}"
    )


def _seats(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return the pods in the order of seats: by ask as they first come, then as given."""
    order = {ask: i for i, ask in enumerate(dict.fromkeys(m.ask for m in members))}
    return tuple(sorted(members, key=lambda m: order[m.ask]))


def _record(
    key: str, pods: Sequence[Member], size: int, pools: Mapping[str, PoolRecord]
) -> GangRecord:
    """Return the record of pods in the order of their seats."""
    first = pods[0]
    counts: dict[Ask, int] = {}
    for member in pods:
        counts[member.ask] = counts.get(member.ask, 0) + 1
    slots = tuple(Slot(str(i), count, ask) for i, (ask, count) in enumerate(counts.items()))
    limits = [m.limit_s for m in pods if m.limit_s is not None]
    pool, flaw = _pool(pods, pools)
    fields: dict[str, Any] = {}
    if any(m.node for m in pods):
        # A name that no blade has, until the seat is moved to one.
        names = [m.node or f"({m.name})" for m in pods]
        fields["lost"] = tuple((i, names[i]) for i, m in enumerate(pods) if not m.node)
        fields["placement"] = Placement(tuple(names))
        since = [m.bound_s for m in pods if m.bound_s is not None]
        broken = [m.created_s for m in pods if not m.node]
        fields["told"] = Told(
            phase=PLACED,
            epoch=1,
            reason=PendingReason.WAITING_FOR_SPARE if broken else "",
            ready=not broken,
            ready_since_s=min(broken) if broken else None,
            placed_s=min(since) if since else None,
        )
    elif len(slots) == 1 and 0 < size < len(pods):
        fields["sizes"] = (len(pods), size)
    return GangRecord(
        key=sys.intern(key),
        uid=first.uid,
        created_s=min(m.created_s for m in pods),
        pool=pool,
        slots=slots,
        pack=first.pack,
        required=first.required and bool(first.pack),
        priority=first.priority,
        tenant=_tenant(key, pools.get(pool)),
        preemptible=False,
        max_runtime_s=None if len(limits) < len(pods) else max(limits),
        shares_blades=True,
        flaw=flaw or next((m.flaw for m in pods if m.flaw), ""),
        **fields,
    )


def _pool(pods: Sequence[Member], pools: Mapping[str, PoolRecord]) -> tuple[str, str]:
    """Return the pool of a gang, and what is wrong with it in words."""
    named = sorted({m.pool for m in pods if m.pool})
    if len(named) > 1:
        return named[0], f"all pods must name one NodePool (got {', '.join(named)}); correct them"
    if named:
        return named[0], ""
    if len(pools) == 1:
        return next(iter(pools)), ""
    return "", (
        f"the pods must name a NodePool (got none; there are: {', '.join(sorted(pools)) or 'none'}"
        f"); give them the node selector {LABEL_POOL}"
    )


def _tenant(key: str, pool: PoolRecord | None) -> str:
    """Return the tenant of a pool that a gang's namespace belongs to, or nothing."""
    namespace = key.partition("/")[0]
    tenants = pool.tenants if pool else ()
    return next((tenant.name for tenant in tenants if namespace in tenant.namespaces), "")
