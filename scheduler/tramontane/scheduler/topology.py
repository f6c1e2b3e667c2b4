"""Turn the labels of a pool's blades into a tree of domains, in arrays.

Rows are the pool's blades, sorted along the topology, so that every domain is a run of rows and
the domains inside a domain are a run of numbers. Level 0 is the whole pool, then come the pool's
levels, widest first, and the last level is the blade itself.

A blade without a level's label shares that level with nobody: it is a domain of its own.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BLADE_LEVEL: Final = "blade"
POOL_LEVEL: Final = 0
_ALONE: Final = "~"
_MOST_NAMED: Final = 3
_DIGITS = re.compile(r"(\d+)")

NaturalKey = tuple[str | int, ...]
Path = tuple[str, ...]


@functools.lru_cache(maxsize=65536)
def natural(text: str) -> NaturalKey:
    """Return a sort key in which `rack-9` comes before `rack-10`.

    Text and numbers alternate, beginning with text, so that two keys always compare.
    """
    return tuple(int(p) if i % 2 else p for i, p in enumerate(_DIGITS.split(text)))


def path_of(levels: Sequence[tuple[str, str]], labels: Mapping[str, str], blade: str) -> Path:
    """Return the domain of a blade at each level, widest first."""
    return tuple(labels.get(label) or f"{_ALONE}{blade}" for _, label in levels)


def oddities(
    level_names: Sequence[str], paths: Sequence[Path], blades: Sequence[str]
) -> tuple[str, ...]:
    """Return in words what is wrong with the labels of a pool's blades, one line per level.

    | what | is treated as |
    |---|---|
    | a blade without a level's label      | a domain of its own |
    | one name inside several wider domains | as many domains: names count within the wider one |
    """
    found = []
    for level, name in enumerate(level_names):
        alone = [b for b, path in zip(blades, paths, strict=True) if path[level][:1] == _ALONE]
        if alone:
            found.append(
                f"{len(alone)} blades must have a label for level {name} (got none: "
                f"{_some(alone)}); each is a {name} of its own until it has"
            )
        if not level:
            continue
        inside: dict[str, set[str]] = {}
        for path in paths:
            inside.setdefault(path[level], set()).add(path[level - 1])
        torn = sorted((d for d, wider in inside.items() if len(wider) > 1), key=natural)
        if torn:
            found.append(
                f"each {name} must lie in one {level_names[level - 1]} (several have {len(torn)}: "
                f"{_some(torn)}); each part is a {name} of its own"
            )
    return tuple(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


@dataclass(frozen=True, slots=True)
class Topology:
    """Hold the domains of a pool's rows per level; level 0 is the pool, the last one the blade.

    `ids[l][row]` is the domain of a row, ascending along the rows. `bounds[l]` are the first rows
    of the domains of level `l`, and the number of rows at the end. `children[l][d]` is the first
    domain of level `l + 1` inside domain `d`, with the number of domains of `l + 1` at the end.
    """

    names: tuple[str, ...]
    ids: tuple[IntArray, ...]
    bounds: tuple[IntArray, ...]
    children: tuple[IntArray, ...]
    labels: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> int:
        """Return the number of blades."""
        return len(self.ids[0])

    @property
    def blade_level(self) -> int:
        """Return the number of the last level."""
        return len(self.names) - 1

    def level(self, name: str) -> int | None:
        """Return the number of a named level, or None; `blade` is one where the pool has none."""
        return self.names.index(name, 1) if name in self.names[1:] else None

    def domain_name(self, level: int, domain: int) -> str:
        """Return what people call a domain: its labels from the widest level down."""
        return self.labels[level][domain]

    def count(self, level: int, ok: BoolArray) -> IntArray:
        """Return how many rows of `ok` each domain of a level has."""
        return np.bincount(self.ids[level][ok], minlength=len(self.bounds[level]) - 1)

    def roll_up(self, level: int, amounts: IntArray) -> IntArray:
        """Return amounts per domain of `level`, given those per domain of `level + 1`."""
        sums = np.concatenate(([0], np.cumsum(amounts)))
        edges = self.children[level]
        return sums[edges[1:]] - sums[edges[:-1]]

    def nearness(self, row: int) -> IntArray:
        """Return per row the deepest level that it shares with `row`: more is nearer."""
        near = np.zeros(self.rows, dtype=np.int64)
        for level in range(1, self.blade_level + 1):
            near[self.ids[level] == self.ids[level][row]] = level
        return near


def build_topology(
    level_names: Sequence[str], paths: Sequence[Path], blades: Sequence[str] = ()
) -> Topology:
    """Return the tree of paths that are sorted already; `blades` names them. O(blades · levels)."""
    rows = len(paths)
    blade = () if BLADE_LEVEL in level_names else (BLADE_LEVEL,)
    names = ("pool", *level_names, *(blade or ("",)))
    ids: list[IntArray] = [np.zeros(rows, dtype=np.int64)]
    labels: list[tuple[str, ...]] = [("the pool",)]
    fresh = np.zeros(rows, dtype=np.bool_)
    for level in range(len(level_names)):
        changed = [i == 0 or paths[i][level] != paths[i - 1][level] for i in range(rows)]
        fresh = fresh | np.array(changed, dtype=np.bool_)
        ids.append(np.cumsum(fresh, dtype=np.int64) - 1)
        firsts = np.flatnonzero(fresh)
        labels.append(tuple("/".join(paths[i][: level + 1]) for i in firsts.tolist()))
    ids.append(np.arange(rows, dtype=np.int64))
    labels.append(tuple(blades))
    bounds = tuple(
        np.append(np.flatnonzero(np.diff(level_ids, prepend=-1)), rows) for level_ids in ids
    )
    if not rows:
        bounds = tuple(np.zeros(1, dtype=np.int64) for _ in ids)
    children = tuple(
        np.append(ids[level + 1][bounds[level][:-1]], len(bounds[level + 1]) - 1)
        for level in range(len(ids) - 1)
    )
    return Topology(names, tuple(ids), bounds, children, tuple(labels))
