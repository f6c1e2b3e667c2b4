"""Find the bad blades of a group that failed together: which groups to run next. Pure.

A collective test needs at least two blades and speaks of all of them at once: a pass clears each,
a failure says only that one of them is bad. The plan follows from the tests so far and from
nothing else, so a new operator goes on where the last one stopped.

What the tests say of a blade, from the first row that holds:

| tests                                                          | the blade is          |
|----------------------------------------------------------------|-----------------------|
| in a group that passed                                         | cleared               |
| in a group that failed, all others of which are cleared, or    |                       |
| have passed since                                              | condemned             |
| in a group that failed, and no condemned blade, no smaller set |                       |
| of suspects and no blade that is gone explains that            | suspect, in that set  |
| the same, but it has a good name                               | doubted               |
| has a good name                                                | cleared               |
| anything else                                                  | not tested            |

A good name has a blade that passed once and works since. It is no proof: neither a blade that went
bad meanwhile nor a checker that fails everybody must condemn good ones one after the other. So one
who has it is a partner, and doubted where its group fails; then it vouches for nobody until a test
explains that. Two doubted ones who pass together explain it: where no test passes, nobody is
condemned.

A group that failed though all of it is cleared contradicts itself (a fault that comes and goes,
or one between blades): it condemns nobody and is returned for people to look at.

What is run next, all at the same time, each blade in one group at most:

| blades                                     | run                                           |
|--------------------------------------------|-----------------------------------------------|
| a set of suspects, a partner for each      | each with a cleared blade: decides all, where |
|                                            | that is more than a good name                 |
| a set of suspects, fewer partners          | its two halves; one that is alone gets a      |
|                                            | partner, or is left                           |
| not tested                                 | groups of `group_size`, of even sizes         |
| left, while nobody is free to be a partner | pairs that have not met yet, doubted ones too:|
|                                            | one that passes clears two, who are partners  |

With 128 blades in groups of 16 and up to 3 bad ones that is 2 rounds. With partners that have only
a good name it is 3: a bad blade fails with two of them, who then pass together. Two blades of which
one is bad cannot be told apart without a third: they are `undecided`, as is a hall where no pair
passes.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

MIN_GROUP = 2
# Blades that failed with so many different partners, none of them cleared, wait for a person:
# nearly all of a hall being bad is more likely to be the fabric or the checker.
MAX_PAIRINGS = 16


@dataclass(frozen=True, slots=True)
class GroupTest:
    """A test that ended with a verdict; one whose checker broke is not one of these.

    `since`: those of a group that failed who have passed after it.
    """

    group: frozenset[str]
    passed: bool
    since: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run next, and what is proven.

    Attributes:
        groups: disjoint groups to run now, all at the same time; empty at the end.
        condemned: members proven bad.
        cleared: members proven good.
        undecided: members of whom no further group can tell; empty while there are groups.
        contradicted: groups that failed though each of their blades passed elsewhere.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    condemned: frozenset[str] = frozenset()
    cleared: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()
    contradicted: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """What the tests show.

    `suspects`: sets with at least one bad blade each unless a good name is wrong, smallest first.
    """

    cleared: frozenset[str]
    condemned: frozenset[str]
    doubted: frozenset[str]
    suspects: tuple[tuple[str, ...], ...]
    contradicted: tuple[frozenset[str], ...]


def plan(
    members: Sequence[str],
    tests: Iterable[GroupTest],
    group_size: int,
    named: Collection[str] = (),
) -> Plan:
    """Return which groups to run next: O(tests · group_size + members²) at worst.

    Neighbours in `members` are put together, so give them in the order of the racks.

    Args:
        members: blades that can be tested now.
        tests: those that count.
        group_size: the most that are tested together.
        named: blades with a good name, members or not.

    Raises:
        ValueError: groups of fewer than two.
    """
    if group_size < MIN_GROUP:
        raise ValueError(f"group_size: must be {MIN_GROUP} or more (got {group_size})")
    members = tuple(dict.fromkeys(members))
    tests = tuple(tests)
    known = _read(members, tests, frozenset(named))
    groups = tuple(_next_groups(members, tests, known, group_size))
    everybody = frozenset(members)
    unknown = everybody - known.cleared - known.condemned
    return Plan(
        groups=groups,
        condemned=known.condemned & everybody,
        cleared=known.cleared & everybody,
        undecided=frozenset() if groups else unknown,
        contradicted=known.contradicted,
    )


def _read(members: Sequence[str], tests: Sequence[GroupTest], named: frozenset[str]) -> _Known:
    """Return the module's first table."""
    order = {name: place for place, name in enumerate(members)}
    cleared = frozenset[str]().union(*(test.group for test in tests if test.passed))
    failed = dict.fromkeys(
        (test.group, test.group - cleared - test.since) for test in tests if not test.passed
    )
    left = tuple(dict.fromkeys(rest for _, rest in failed))
    condemned = frozenset[str]().union(*(rest for rest in left if len(rest) == 1))
    # A blade that is no member any more may have been the bad one, so its group says nothing.
    unexplained = [
        rest
        for rest in left
        if rest and rest.isdisjoint(condemned) and rest - named <= order.keys()
    ]
    doubted = named & frozenset[str]().union(*unexplained)
    open_ = {
        tuple(sorted(rest - named, key=order.__getitem__)) for rest in unexplained if rest - named
    }
    ordered = sorted(open_, key=lambda one: (len(one), [order[name] for name in one]))
    return _Known(
        cleared=cleared | (named - doubted - condemned),
        condemned=condemned,
        doubted=doubted,
        suspects=tuple(_smallest(ordered)),
        contradicted=tuple(dict.fromkeys(group for group, rest in failed if not rest)),
    )


def _smallest(ordered: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the sets that hold no smaller one: that one explains their failure."""
    kept: dict[str, list[frozenset[str]]] = {}
    for names in ordered:
        whole = frozenset(names)
        parts = (part for name in names for part in kept.get(name, ()))
        if not any(len(part) < len(whole) and part <= whole for part in parts):
            for name in names:
                kept.setdefault(name, []).append(whole)
            yield names


def _next_groups(
    members: Sequence[str], tests: Sequence[GroupTest], known: _Known, group_size: int
) -> Iterator[tuple[str, ...]]:
    """Yield the module's second table."""
    partners = [name for name in members if name in known.cleared]
    partners.reverse()  # taken from the end, the first member first
    done: set[str] = set()
    left: list[str] = []
    # 1. Suspects, the smallest sets first: they are decided soonest, and become partners.
    for suspects in known.suspects:
        if not done.isdisjoint(suspects):
            continue
        done.update(suspects)
        for part in _parts(suspects, len(partners)):
            if len(part) >= MIN_GROUP:
                yield part
            elif partners:
                yield (*part, partners.pop())
            else:
                left += part
    # 2. Who has not been tested, or was in a group that another's fault explains.
    suspected = {name for suspects in known.suspects for name in suspects} | known.doubted
    left += [name for name in members if name in suspected - done]
    decided = known.cleared | known.condemned
    fresh = [name for name in members if name not in suspected and name not in decided]
    for part in _even(fresh, group_size):
        if len(part) >= MIN_GROUP:
            yield part
        elif partners:
            yield (*part, partners.pop())
        else:
            left += part
    # 3. Nobody vouches for those who are left, but they may vouch for each other.
    yield from _pairs(left, tests)


def _parts(suspects: Sequence[str], partners: int) -> Iterator[tuple[str, ...]]:
    """Yield each alone if there are partners enough, else two halves, of which none needs one.

    A pair is always parted: both together have just failed.
    """
    size = len(suspects)
    half = 1 if partners >= size else max((size + 1) // 2, 1)
    for start in range(0, size, half):
        yield tuple(suspects[start : start + half])


def _even(names: Sequence[str], group_size: int) -> Iterator[tuple[str, ...]]:
    """Yield groups of `group_size` or a little fewer: 17 blades are 9 and 8, not 16 and 1."""
    count = -(-len(names) // group_size)
    for place in range(count):
        start, end = (len(names) * edge // count for edge in (place, place + 1))
        yield tuple(names[start:end])


def _pairs(names: Sequence[str], tests: Sequence[GroupTest]) -> Iterator[tuple[str, ...]]:
    """Yield disjoint pairs that have not met, as many as taking the first that fits gives."""
    met: dict[str, set[str]] = {name: set() for name in names}
    for test in tests:
        if not test.passed and len(test.group) == MIN_GROUP:
            one, other = sorted(test.group)
            met.setdefault(one, set()).add(other)
            met.setdefault(other, set()).add(one)
    alone = [name for name in dict.fromkeys(names) if len(met[name]) < MAX_PAIRINGS]
    while alone:
        one = alone.pop(0)
        if strangers := [name for name in alone if name not in met[one]]:
            alone.remove(strangers[0])
            yield (one, strangers[0])
