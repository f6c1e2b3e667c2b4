"""Name the smallest changes that would let a pending gang run, each tried before it is named.

For each kind of change there is at most one way out, the smallest of its kind; of End two, where
the fewest gangs are not those that lose least:

| kind | the change | smallest |
|---|---|---|
| Repair  | blades back in service                            | fewest blades |
| Release | spares of other gangs given up                    | fewest blades |
| Clear   | pods of no gang gone from blades                  | fewest blades |
| Wait    | gangs gone whose limits pass next                 | earliest moment |
| End     | gangs ended, whatever their limits                | fewest gangs; least work lost |
| Free    | all of these on some blades; where no one kind does | fewest blades |
| Avoid   | blades that the gang avoids, taken after all      | fewest blades |
| Pack, Slice | a wider level, Preferred, smaller slices      | lowest level |
| Size    | fewer seats                                       | fewest given up |
| Request | less of one resource per pod                      | least given up |
| Selector, Toleration | an entry less, a taint more accepted | one entry, else all |
| Pool    | another pool, in which it fits as it is           | first by name |
| Add     | more blades in the pool; where nothing else does  | fewest blades |

The first way out is the smallest: it touches the fewest blades, gangs, seats or entries; among as
few, the first in this table. Where the gang is too large for the pool even if all of it were
free, there is one way out of two steps: ask for what the pool has, then the first way of that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tramontane.scheduler.explain import MOST_SHOWN
from tramontane.scheduler.fleet import Pool
from tramontane.scheduler.leaving import gpu_hours_lost
from tramontane.scheduler.place import Plan, misconfigured
from tramontane.scheduler.shortage import fewest
from tramontane.scheduler.unblocking.ends import (
    blades_of,
    cheapest_ends,
    fewest_ends,
    holders_of,
    next_ends,
)
from tramontane.scheduler.unblocking.growth import more_blades
from tramontane.scheduler.unblocking.rewrites import firsts, of_the_gang, other_pool
from tramontane.scheduler.unblocking.whatif import Case, Change, Kind, WayOut
from tramontane.scheduler.unblocking.wording import Rewrite

_ORDER = {kind: number for number, kind in enumerate(Kind)}


def ways_out(case: Case) -> tuple[WayOut, ...]:
    """Return what would let the gang run, the smallest first; nothing where it fits as it is.

    Nothing either where no change of this list helps: a spec that cannot be read, an empty pool.
    """
    gang = case.gang
    if gang.flaw or not gang.slots or isinstance(case.answer(), Plan):
        return ()
    pool = case.fleet.pools.get(gang.pool)
    found = [] if (moved := other_pool(case)) is None else [moved]
    if pool is not None:
        if misconfigured(case.snapshot, gang) is None:
            found += _of_the_fleet(case, pool)
        found += of_the_gang(case, pool)
        found = found or [*_in_two_steps(case, pool)] or [*more_blades(case, pool)]
    tried = [way for way in found if isinstance(way.apply(case).answer(), Plan)]
    return tuple(sorted(tried, key=lambda way: (way.things, _ORDER[way.kind])))


def _of_the_fleet(case: Case, pool: Pool) -> Iterator[WayOut]:
    """Yield what may change around the gang, and which blades it need not avoid."""
    fleet, gang, spare_of = case.fleet, case.gang, case.snapshot.spare_of
    every = fleet.names[pool.rows]
    out = {name: word for name, word in zip(every, fleet.out[pool.rows], strict=True) if word}
    held = {name: spare_of[row] for row, name in enumerate(every, pool.first) if row in spare_of}
    found = []
    if blades := _fewest(case, pool, Change(back=tuple(out))):
        words = f"{_count(blades, 'blade')} back in service: {_list(blades, out)}"
        found.append(WayOut(Kind.REPAIR, words, len(blades), Change(back=blades)))
    if blades := _fewest(case, pool, Change(released=tuple(held))):
        words = f"{_count(blades, 'spare')} given up: {_list(blades, held)}"
        found.append(WayOut(Kind.RELEASE, words, len(blades), Change(released=blades)))
    if blades := _fewest(case, pool, Change(cleared=every)):
        words = f"pods of no gang gone from {_count(blades, 'blade')}: {_list(blades)}"
        found.append(WayOut(Kind.CLEAR, words, len(blades), Change(cleared=blades)))
    found += _ending(case, pool)
    yield from found or _freeing(case, pool)
    if blades := _fewest(case, pool, Change(gang=replace(gang, avoid=frozenset()))):
        words = f"not avoiding {_count(blades, 'blade')}: {_list(blades)}"
        changed = replace(gang, avoid=gang.avoid - {*blades})
        yield WayOut(Kind.AVOID, words, len(blades), Change(gang=changed))


def _ending(case: Case, pool: Pool) -> Iterator[WayOut]:
    """Yield the gangs that reach their limits next, and those that could end before that."""
    if (soon := next_ends(case, pool)) is not None:
        keys, at_s = soon
        whose = "its" if len(keys) == 1 else "their"
        words = f"{_count(keys, 'gang')} at the end of {whose} time: {_list(keys)}"
        yield WayOut(Kind.WAIT, words, len(keys), Change(ended=keys), at_s=at_s)
    fewest_gangs, least_work = fewest_ends(case, pool), cheapest_ends(case, pool)
    cheaper = _gpu_hours(case, least_work) < _gpu_hours(case, fewest_gangs)
    for keys in (fewest_gangs, least_work if cheaper else ()):
        if keys:
            words = f"{_count(keys, 'gang')} ended: {_list(keys)}"
            hours = _gpu_hours(case, keys)
            yield WayOut(Kind.END, words, len(keys), Change(ended=keys), gpu_hours=hours)


def _freeing(case: Case, pool: Pool) -> Iterator[WayOut]:
    """Yield the fewest blades that would have to be free, by whatever means."""
    everything = _everything(case, pool)
    blades = _fewest(case, pool, everything)
    if not blades:
        return
    on = {*blades}
    ended = tuple(key for key in everything.ended if on & blades_of(case, key))
    change = Change(
        back=tuple(name for name in everything.back if name in on),
        cleared=blades,
        ended=ended,
        released=blades,
    )
    words = f"{_count(blades, 'blade')} in service and empty: {_list(blades)}"
    if ended:
        words += f"; that ends {_list(ended)}"
    things, hours = len(blades) + len(ended), _gpu_hours(case, ended)
    yield WayOut(Kind.FREE, words, things, change, gpu_hours=hours)


def _in_two_steps(case: Case, pool: Pool) -> Iterator[WayOut]:
    """Yield what the pool could ever hold, and the first way to that."""
    empty = _everything(case, pool)

    def could(rewrite: Rewrite) -> bool:
        changed = replace(case, gang=rewrite.gang)
        sound = misconfigured(case.snapshot, rewrite.gang) is None
        return sound and isinstance(empty.apply(changed).answer(), Plan)

    capacity = {resource: there[pool.rows] for resource, there in case.fleet.capacity.items()}
    for kind, first in firsts(case, pool, capacity, could):
        for then in ways_out(replace(case, gang=first.gang))[:1]:
            change = replace(then.change, gang=then.change.gang or first.gang)
            words, things = f"{first.words}, and {then.words}", first.entries + then.things
            yield WayOut(kind, words, things, change, then.at_s, then.gpu_hours)
            return


def _everything(case: Case, pool: Pool) -> Change:
    """Return the change after which all of the pool is in service and empty."""
    every = case.fleet.names[pool.rows]
    out = tuple(name for name in every if case.fleet.out[case.fleet.row_of[name]])
    return Change(back=out, cleared=every, ended=holders_of(case, pool).keys, released=every)


def _fewest(case: Case, pool: Pool, all_of_them: Change) -> tuple[str, ...]:
    """Return the fewest blades on which that change would do, or none."""
    changed = all_of_them.apply(case)
    rows = fewest(
        case.snapshot,
        changed.snapshot,
        pool,
        case.gang,
        then=changed.gang,
        now_s=case.now_s,
    )
    return tuple(case.fleet.names[pool.first + row] for row in rows or ())


def _gpu_hours(case: Case, keys: Iterable[str]) -> float:
    return sum(gpu_hours_lost(case.gangs[key], case.now_s) for key in keys if key in case.gangs)


def _count(things: tuple[str, ...], word: str) -> str:
    return f"{len(things)} {word}" + ("s" if len(things) != 1 else "")


def _list(names: tuple[str, ...], why: dict[str, str] | None = None) -> str:
    """Return the first names, each with its why in brackets, and how many more there are."""
    shown = [f"{name} ({why[name]})" if why else name for name in names[:MOST_SHOWN]]
    more = len(names) - MOST_SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
