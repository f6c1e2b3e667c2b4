"""Split groups that break: a checker that ends without a verdict says nothing of the blades. Pure.

A blade whose ports reach nobody makes all ranks of its group end with an error. So after three
times in a row the group is not tried as a whole any more:

| the group                               | what is tried in its place                      |
|-----------------------------------------|-------------------------------------------------|
| four or more                            | its halves                                      |
| three                                   | a pair of them that has not broken so           |
| two, or three of which all pairs broke  | each with another blade that is known to be good|
| nobody is there to try them with, or a  | itself, with longer pauses; people are told     |
| blade broke with two good ones          |                                                 |

Halves that pass clear their blades, so the one that breaks stays alone with its trouble. It is not
condemned: nothing was measured of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Members = frozenset[str]

MOST_BREAKS = 3
_PAIR = 2
# A blade that broke with so many different good ones does so with all of them.
_MOST_PARTNERS = 2


@dataclass(frozen=True, slots=True)
class Break:
    """How often a group broke, why it did so last, and whether it must wait for its next try."""

    count: int
    evidence: str = ""
    paused: bool = False


def split(
    groups: Iterable[Sequence[str]],
    broken: Mapping[Members, Break],
    good: Sequence[str],
    cleared: Collection[str] = (),
) -> Iterator[tuple[str, ...]]:
    """Yield disjoint groups to run in place of `groups`: the module's table.

    Args:
        groups: disjoint.
        broken: by the blades that ran together.
        good: blades that are known to be good and idle.
        cleared: blades that passed with others; a group needs not decide about them.
    """
    whole = [tuple(group) for group in groups]
    taken = {name for group in whole for name in group}
    free = [name for name in good if name not in taken]
    for group in whole:
        yield from _parts(group, broken, free, cleared)


def _parts(
    group: tuple[str, ...],
    broken: Mapping[Members, Break],
    free: list[str],
    cleared: Collection[str],
) -> Iterator[tuple[str, ...]]:
    if not _gave_up(group, broken):
        yield group
        return
    if len(group) > _PAIR + 1:
        half = (len(group) + 1) // 2
        for part in (group[:half], group[half:]):
            yield from _parts(part, broken, free, cleared)
        return
    if len(group) > _PAIR:
        whole = next(
            (pair for pair in combinations(group, _PAIR) if not _gave_up(pair, broken)), None
        )
        if whole is not None:
            yield whole
            return
    pairs = []
    for name in group:
        if name in cleared or _is_lonely(name, broken, cleared):
            continue
        partner = next((one for one in free if not _gave_up((name, one), broken)), None)
        if partner is not None:
            free.remove(partner)
            pairs.append((name, partner))
    yield from pairs or (group,)


def trouble(
    groups: Iterable[Sequence[str]], broken: Mapping[Members, Break], cleared: Collection[str]
) -> Iterator[str]:
    """Yield what people must know of the groups that are tried again and again."""
    for group in groups:
        if not _gave_up(group, broken):
            continue
        known = broken[frozenset(group)]
        open_ = [name for name in group if name not in cleared] or list(group)
        yield (
            f"collective: {', '.join(open_)} cannot be tested: the group {', '.join(group)} broke "
            f"{MOST_BREAKS} times and more ({known.evidence}); look at their ports and at the logs "
            "of the pods"
        )


def why(known: Break) -> str:
    """Return what happened to a group, for the message of its blades."""
    return f"broke {known.count} times ({known.evidence}), which says nothing of its blades"


def _gave_up(group: Sequence[str], broken: Mapping[Members, Break]) -> bool:
    known = broken.get(frozenset(group))
    return known is not None and known.count >= MOST_BREAKS


def _is_lonely(name: str, broken: Mapping[Members, Break], cleared: Collection[str]) -> bool:
    """Return whether the blade broke with different good ones: a third changes nothing."""
    tried = [
        members
        for members, known in broken.items()
        if name in members
        and len(members) == _PAIR
        and known.count >= MOST_BREAKS
        and members - {name} <= set(cleared)
    ]
    return len(tried) >= _MOST_PARTNERS
