"""Write a gang otherwise: the smallest change of its own spec that would let it run.

Each function yields gangs that ask for less, the least change first, each with the words for it.
Whether one of them fits is for the caller to try.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tramontane.scheduler.fleet import Fleet, Pool
from tramontane.scheduler.gangs import Ask, GangRecord, Slot, Toleration
from tramontane.scheduler.records import CPU, GPU
from tramontane.scheduler.unblocking.whatif import passing

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Hold a gang that asks for something else, the words for it, and how many entries differ."""

    gang: GangRecord
    words: str
    entries: int = 1


def packings(pool: Pool, gang: GangRecord) -> Iterator[Rewrite]:
    """Yield the gang packed at one wider level, the lowest first; then wherever there is room.

    A level that the pool does not have counts as the narrowest.
    """
    known = pool.topology.level(gang.pack)
    if not gang.pack or (known is not None and not gang.required):
        return
    for name in _wider(pool, gang.pack):
        yield Rewrite(replace(gang, pack=name), f"topology.pack: {name} instead of {gang.pack}")
    if known is None:
        yield Rewrite(replace(gang, pack="", required=False), "no topology.pack")
    else:
        yield Rewrite(replace(gang, required=False), "topology.mode: Preferred")


def slicings(pool: Pool, gang: GangRecord) -> Iterator[Rewrite]:
    """Yield the gang with slices at a wider level, then with parts of its slices, then without."""
    if gang.slice_size <= 1:
        return
    for name in _wider(pool, gang.slice_level):
        words = f"topology.slice.level: {name} instead of {gang.slice_level}"
        yield Rewrite(replace(gang, slice_level=name), words)
    for size in range(gang.slice_size // 2, 1, -1):
        if gang.slice_size % size == 0:
            words = f"topology.slice.size: {size} instead of {gang.slice_size}"
            yield Rewrite(replace(gang, slice_size=size), words)
    yield Rewrite(replace(gang, slice_size=0, slice_level=""), "no topology.slice")


def anywhere(gang: GangRecord) -> Iterator[Rewrite]:
    """Yield the gang with neither a level to keep to nor slices, where it has both."""
    if gang.pack and gang.required and gang.slice_size > 1:
        free = replace(gang, required=False, slice_size=0, slice_level="")
        yield Rewrite(free, "topology.mode: Preferred, and no topology.slice", 2)


def smaller(gang: GangRecord, size: int) -> Rewrite:
    """Return the gang with that count of its first slot, and no other."""
    slots = (replace(gang.slots[0], count=size), *gang.slots[1:])
    smallest = min(gang.wanted_sizes())
    what = f"slot {gang.slots[0].name}" if len(gang.slots) > 1 else "the gang"
    words = f"{size} instead of {smallest} seats in {what}"
    return Rewrite(replace(gang, slots=slots, sizes=()), words, smallest - size)


def selectors(gang: GangRecord) -> Iterator[Rewrite]:
    """Yield the gang without one entry of its node selectors, then without any."""
    entries = sorted({entry for slot in gang.slots for entry in slot.ask.selector})
    for entry in entries:
        without = _selecting(gang, functools.partial(operator.ne, entry))
        yield Rewrite(without, f"no nodeSelector {_eq(entry)}")
    if len(entries) > 1:
        words = "no nodeSelector (" + ", ".join(map(_eq, entries)) + ")"
        yield Rewrite(_selecting(gang, lambda _: False), words, len(entries))


def tolerations(fleet: Fleet, pool: Pool, gang: GangRecord) -> Iterator[Rewrite]:
    """Yield the gang with a toleration of one taint more, then of all that the pool has."""
    mine = [slot.ask.tolerations for slot in gang.slots]
    taints = sorted(
        {
            (taint.key, taint.value, taint.effect)
            for row, of_row in fleet.taints.items()
            for taint in of_row
            if pool.first <= row < pool.end and not passing(taint)
        }
    )
    new = [Toleration(key, "Equal", value, effect) for key, value, effect in taints]
    new = [one for one in new if any(one not in of_slot for of_slot in mine)]
    for one in new:
        yield Rewrite(_tolerating(gang, [one]), f"a toleration of {_taint(one)}")
    if len(new) > 1:
        words = "tolerations of " + ", ".join(map(_taint, new))
        yield Rewrite(_tolerating(gang, new), words, len(new))


def requests(gang: GangRecord, resource: str, most: int) -> Rewrite:
    """Return the gang with at most so much of a resource per pod."""
    slots = tuple(replace(slot, ask=_at_most(slot.ask, resource, most)) for slot in gang.slots)
    asked = max(slot.ask.amount(resource) for slot in gang.slots)
    words = (
        f"{amount_in_words(resource, most)} instead of {amount_in_words(resource, asked)} per pod"
    )
    return Rewrite(replace(gang, slots=slots), words)


def largest(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """Return the largest number of a range that fits, where all below it fit as well."""
    if high < low or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def least(most: int, enough: Callable[[int], bool]) -> int | None:
    """Return the least number from 1 to `most` that is enough, where more is enough, too."""
    if most < 1 or not enough(most):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def amounts_below(free: Sequence[int] | np.ndarray, asked: int) -> list[int]:
    """Return the different amounts above nothing that are less than what is asked, ascending."""
    array = np.asarray(free)
    found: list[int] = np.unique(array[(array > 0) & (array < asked)]).tolist()
    return found


def _wider(pool: Pool, level: str) -> list[str]:
    """Return the names of the levels above one, the lowest first."""
    topology = pool.topology
    at = topology.level(level)
    named = topology.names[1 : topology.blade_level if at is None else at]
    return [name for name in reversed(named) if name]


def _with_asks(gang: GangRecord, change: Callable[[Ask], Ask]) -> GangRecord:
    slots: tuple[Slot, ...] = tuple(replace(s, ask=change(s.ask)) for s in gang.slots)
    return replace(gang, slots=slots)


def _selecting(gang: GangRecord, keeps: Callable[[tuple[str, str]], bool]) -> GangRecord:
    return _with_asks(gang, lambda ask: replace(ask, selector=tuple(filter(keeps, ask.selector))))


def _tolerating(gang: GangRecord, new: list[Toleration]) -> GangRecord:
    return _with_asks(gang, lambda ask: replace(ask, tolerations=(*ask.tolerations, *new)))


def _at_most(ask: Ask, resource: str, most: int) -> Ask:
    return replace(
        ask,
        requests=tuple((r, min(n, most) if r == resource else n) for r, n in ask.requests),
    )


def _eq(entry: tuple[str, str]) -> str:
    return "=".join(entry)


def _taint(one: Toleration) -> str:
    return f"{one.key}={one.value}:{one.effect}" if one.value else f"{one.key}:{one.effect}"


def amount_in_words(resource: str, amount: int) -> str:
    """Return an amount for people; in the units of `records`."""
    if resource == GPU:
        return f"{amount} GPU" + ("s" if amount > 1 else "")
    if resource == CPU:
        return f"{amount / 1000:g} CPU"
    if resource == "memory":
        return f"{amount / GIB:g} GiB of memory"
    return f"{amount} {resource}"
