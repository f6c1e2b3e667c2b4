"""Find the smallest change of a gang's own spec after which it has a place as things are."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from tramontane.scheduler.fit import groups_of
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.place import misconfigured
from tramontane.scheduler.shortage import fits
from tramontane.scheduler.topology import IntArray
from tramontane.scheduler.unblocking import wording
from tramontane.scheduler.unblocking.whatif import Case, Change, Kind, WayOut
from tramontane.scheduler.unblocking.wording import Rewrite

Fits = Callable[[Rewrite], bool]


def of_the_gang(case: Case, pool: Pool) -> Iterator[WayOut]:
    """Yield one way per kind: the first, or the largest, that has a place as things are."""
    available = {resource: free[pool.rows] for resource, free in case.snapshot.free.items()}
    for kind, rewrite in firsts(case, pool, available, holding(case, pool)):
        yield as_way(kind, rewrite)


def firsts(
    case: Case, pool: Pool, available: Mapping[str, IntArray], fits: Fits
) -> Iterator[tuple[Kind, Rewrite]]:
    """Yield the first rewrite of each kind that fits, as `fits` has it.

    `available` is what the pool's blades have of each resource, for pods that ask for less.
    """
    gang = case.gang
    families: tuple[tuple[Kind, Iterable[Rewrite]], ...] = (
        (Kind.PACK, wording.packings(pool, gang)),
        (Kind.SLICE, wording.slicings(pool, gang)),
        (Kind.SELECTOR, wording.selectors(gang)),
        (Kind.TOLERATION, wording.tolerations(case.fleet, pool, gang)),
    )
    nearer = False
    for kind, rewrites in families:
        first = next(filter(fits, rewrites), None)
        if first is not None:
            nearer |= kind in {Kind.PACK, Kind.SLICE}
            yield kind, first
    if not nearer:
        yield from ((Kind.PACK, one) for one in wording.anywhere(gang) if fits(one))
    most = min(gang.wanted_sizes()) - 1
    size = wording.largest(1, most, lambda seats: fits(wording.smaller(gang, seats)))
    if size is not None:
        yield Kind.SIZE, wording.smaller(gang, size)
    asks = groups_of(gang).asks
    for resource in sorted({resource for ask in asks for resource, _ in ask.requests}):
        if resource in available:
            asked = max(ask.amount(resource) for ask in asks)
            steps = wording.amounts_below(available[resource], asked)
            best = _most(gang, resource, steps, fits)
            if best is not None:
                yield Kind.REQUEST, best


def holding(case: Case, pool: Pool) -> Fits:
    """Return whether a rewritten gang fits a pool as things are, to be asked often."""

    def holds(rewrite: Rewrite) -> bool:
        gang = rewrite.gang
        if misconfigured(case.snapshot, gang) is not None:
            return False
        return fits(case.snapshot, pool, gang, case.now_s)

    return holds


def other_pool(case: Case) -> WayOut | None:
    """Return the first pool by name that has a place for the gang as it is, or None.

    Tenants are a pool's own, so the gang goes there without one.
    """
    for name, pool in sorted(case.fleet.pools.items()):
        moved = Rewrite(replace(case.gang, pool=name, tenant=""), f"pool {name}")
        if name != case.gang.pool and holding(case, pool)(moved):
            return as_way(Kind.POOL, moved)
    return None


def as_way(kind: Kind, rewrite: Rewrite) -> WayOut:
    """Return a rewritten gang as a way out."""
    return WayOut(kind, rewrite.words, rewrite.entries, Change(gang=rewrite.gang))


def _most(gang: GangRecord, resource: str, steps: list[int], fits: Fits) -> Rewrite | None:
    """Return the gang with the most of a resource per pod that fits, of these amounts."""
    lighter = [wording.requests(gang, resource, amount) for amount in steps]
    best = wording.largest(0, len(lighter) - 1, lambda step: fits(lighter[step]))
    return None if best is None else lighter[best]
