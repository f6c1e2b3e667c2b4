"""Lay the fleet out in arrays: one row per blade, sorted by pool, topology and name.

A Fleet is what Blades, Nodes and NodePools say, without what runs where. It is replaced as a
whole where a blade comes, goes or moves in the topology; a change of health or capacity only
rewrites the rows concerned, in new arrays.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from tramontane.scheduler.affinity import satisfies
from tramontane.scheduler.gangs import Ask, Toleration
from tramontane.scheduler.records import (
    GOOD_SEVERITIES,
    BladeRecord,
    NodeRecord,
    PoolRecord,
    Taint,
)
from tramontane.scheduler.topology import (
    BoolArray,
    IntArray,
    Path,
    Topology,
    build_topology,
    natural,
    oddities,
    path_of,
)

FloatArray = npt.NDArray[np.float64]
HEALTHY: Final = "Healthy"
IN_SERVICE: Final = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """Hold a pool's run of rows, `first` to `end`, its topology over them, and its record.

    `oddities` are lines for people on labels that contradict each other or are missing.
    """

    name: str
    first: int
    end: int
    topology: Topology
    record: PoolRecord
    oddities: tuple[str, ...] = ()

    @property
    def rows(self) -> slice:
        """Return the run of rows."""
        return slice(self.first, self.end)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Hold the blades of all pools.

    `out[row]` says in a word why a blade takes nothing new ("quarantined", "cordoned"); it is
    empty for a blade in service. `taints` has only rows that carry a hard taint.
    """

    names: tuple[str, ...]
    row_of: Mapping[str, int]
    pools: Mapping[str, Pool]
    capacity: Mapping[str, IntArray]
    out: tuple[str, ...]
    in_service: BoolArray
    lemon: FloatArray
    labels: tuple[Mapping[str, str], ...]
    taints: Mapping[int, tuple[Taint, ...]]
    _masks: dict[object, BoolArray] = field(default_factory=dict, repr=False, compare=False)
    _words: dict[str, BoolArray] = field(default_factory=dict, repr=False, compare=False)

    def matching(self, selector: tuple[tuple[str, str], ...]) -> BoolArray:
        """Return the rows whose node has all these labels; remembered per fleet."""
        if selector not in self._masks:
            wanted = dict(selector).items()
            self._masks[selector] = np.array(
                [wanted <= labels.items() for labels in self.labels], dtype=np.bool_
            )
        return self._masks[selector]

    def selected(self, ask: Ask) -> BoolArray:
        """Return the rows whose node has the labels that an ask wants; remembered per fleet."""
        mask = self.matching(ask.selector)
        if not ask.affinity:
            return mask
        key = ("affinity", ask.affinity)
        if key not in self._masks:
            self._masks[key] = np.array(
                [satisfies(labels, ask.affinity) for labels in self.labels], dtype=np.bool_
            )
        return mask & self._masks[key]

    def tolerated(self, tolerations: tuple[Toleration, ...]) -> BoolArray:
        """Return the rows all of whose hard taints are tolerated; remembered per fleet."""
        key = ("tolerated", tolerations)
        if key not in self._masks:
            mask = np.ones(len(self.names), dtype=np.bool_)
            for row, taints in self.taints.items():
                mask[row] = all(any(tolerates(by, t) for by in tolerations) for t in taints)
            self._masks[key] = mask
        return self._masks[key]

    def out_of_service_as(self) -> Mapping[str, BoolArray]:
        """Return the rows that are out of service, per word for it; remembered per fleet."""
        if not self._words:
            words = np.array(self.out, dtype=np.str_)
            self._words.update({str(word): words == word for word in np.unique(words) if word})
            self._words.setdefault(IN_SERVICE, self.in_service)
        return {word: rows for word, rows in self._words.items() if word}

    def all_healthy(self) -> "Fleet":
        """Return the fleet were every blade in service, and without taints."""
        everywhere = np.ones(len(self.names), dtype=np.bool_)
        out = (IN_SERVICE,) * len(self.names)
        # What was found out about labels and capacity holds; what taints let in does not.
        masks = {
            key: mask
            for key, mask in self._masks.items()
            if not (isinstance(key, tuple) and key[:1] == ("tolerated",))
        }
        return replace(self, in_service=everywhere, out=out, taints={}, _masks=masks, _words={})

    def could_hold(self, ask: Ask) -> BoolArray:
        """Return the rows that an empty, healthy fleet could put a pod with this ask on."""
        key = ("could hold", ask)
        if key not in self._masks:
            mask = self.selected(ask).copy()
            for resource, amount in ask.requests:
                capacity = self.capacity.get(resource)
                mask &= False if capacity is None else capacity >= amount
            self._masks[key] = mask
        return self._masks[key]


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether a toleration matches a taint, as Kubernetes has it."""
    if toleration.effect not in {"", taint.effect}:
        return False
    if not toleration.key:
        return toleration.operator == "Exists"
    same_value = toleration.operator == "Exists" or toleration.value == taint.value
    return toleration.key == taint.key and same_value


def build_fleet(
    blades: Mapping[str, BladeRecord],
    nodes: Mapping[str, NodeRecord],
    pools: Mapping[str, PoolRecord],
) -> Fleet:
    """Return the fleet of all blades whose pool exists. O(blades · log blades)."""
    placed: list[tuple[str, Path, str]] = []
    for blade in blades.values():
        pool = pools.get(blade.pool)
        if pool is not None:
            placed.append((pool.name, _path(pool, blade, nodes), blade.name))
    placed.sort(key=lambda p: (p[0], tuple(map(natural, p[1])), natural(p[2]), p[2]))
    names = tuple(name for _, _, name in placed)
    bare = Fleet(
        names=names,
        row_of={name: row for row, name in enumerate(names)},
        pools=_pools(placed, pools),
        capacity={
            resource: np.zeros(len(names), dtype=np.int64)
            for resource in sorted({r for node in nodes.values() for r, _ in node.capacity})
        },
        out=(IN_SERVICE,) * len(names),
        in_service=np.zeros(len(names), dtype=np.bool_),
        lemon=np.zeros(len(names)),
        labels=({},) * len(names),
        taints={},
    )
    return _fill(bare, range(len(names)), blades, nodes)


def refresh(
    fleet: Fleet,
    changed: Iterable[str],
    blades: Mapping[str, BladeRecord],
    nodes: Mapping[str, NodeRecord],
    pools: Mapping[str, PoolRecord],
) -> Fleet:
    """Return the fleet after changes of these blades or their nodes.

    Same rows and same topology: only their values are written anew, O(changed); else all of it is.
    """
    rows: list[int] = []
    for name in changed:
        blade, row = blades.get(name), fleet.row_of.get(name)
        known = blade is not None and blade.pool in pools
        if row is None and not known:
            continue
        if (
            row is None
            or blade is None
            or not known
            or not _same_place(fleet, row, blade, nodes, pools)
        ):
            return build_fleet(blades, nodes, pools)
        node = nodes.get(name)
        if node is not None and any(r not in fleet.capacity for r, _ in node.capacity):
            return build_fleet(blades, nodes, pools)
        rows.append(row)
    return _fill(fleet, rows, blades, nodes) if rows else fleet


def out_of_service(blade: BladeRecord, node: NodeRecord | None) -> str:
    """Return in a word why a blade takes nothing new, or nothing.

    | what is seen, first match | word |
    |---|---|
    | the Blade or its Node is being deleted | being removed |
    | the state is not Healthy               | the state: quarantined, unknown, lost, … |
    | the verdict is Degraded, Fatal, Unknown | faulty |
    | there is no Node                       | without a node |
    | the Node is not Ready                  | not ready |
    | the Node is cordoned                   | cordoned |
    """
    if blade.deleting or (node is not None and node.deleting):
        return "being removed"
    if blade.state != HEALTHY:
        return "in RMA" if blade.state == "RMA" else blade.state.lower()
    if blade.severity not in GOOD_SEVERITIES:
        return "faulty"
    if node is None:
        return "without a node"
    if not node.ready:
        return "not ready"
    return "cordoned" if node.cordoned else IN_SERVICE


def _path(pool: PoolRecord, blade: BladeRecord, nodes: Mapping[str, NodeRecord]) -> Path:
    node = nodes.get(blade.name)
    return path_of(pool.levels, node.labels if node else {}, blade.name)


def _pools(
    placed: Sequence[tuple[str, Path, str]], pools: Mapping[str, PoolRecord]
) -> dict[str, Pool]:
    rows: dict[str, list[tuple[Path, str]]] = {name: [] for name in sorted(pools)}
    for pool, path, blade in placed:
        rows[pool].append((path, blade))
    views: dict[str, Pool] = {}
    first = 0
    for name, of_pool in rows.items():
        levels = [level for level, _ in pools[name].levels]
        paths, blades = [path for path, _ in of_pool], [blade for _, blade in of_pool]
        views[name] = Pool(
            name,
            first,
            first + len(of_pool),
            build_topology(levels, paths, blades),
            pools[name],
            oddities(levels, paths, blades),
        )
        first += len(of_pool)
    return views


def _same_place(
    fleet: Fleet,
    row: int,
    blade: BladeRecord,
    nodes: Mapping[str, NodeRecord],
    pools: Mapping[str, PoolRecord],
) -> bool:
    view = fleet.pools.get(blade.pool)
    if view is None or not view.first <= row < view.end:
        return False
    pool, labels = pools[blade.pool], fleet.labels[row]
    return path_of(pool.levels, labels, blade.name) == _path(pool, blade, nodes)


def _fill(
    fleet: Fleet,
    rows: Iterable[int],
    blades: Mapping[str, BladeRecord],
    nodes: Mapping[str, NodeRecord],
) -> Fleet:
    """Return a fleet with these rows written anew from their records."""
    capacity = {resource: array.copy() for resource, array in fleet.capacity.items()}
    lemon, in_service = fleet.lemon.copy(), fleet.in_service.copy()
    out, labels, taints = list(fleet.out), list(fleet.labels), dict(fleet.taints)
    for row in rows:
        name = fleet.names[row]
        blade, node = blades[name], nodes.get(name)
        out[row] = out_of_service(blade, node)
        in_service[row] = out[row] == IN_SERVICE
        lemon[row] = blade.lemon
        labels[row] = node.labels if node else {}
        for array in capacity.values():
            array[row] = 0
        for resource, amount in node.capacity if node else ():
            capacity[resource][row] = amount
        taints.pop(row, None)
        if node and node.taints:
            taints[row] = node.taints
    return replace(
        fleet,
        capacity=capacity,
        out=tuple(out),
        in_service=in_service,
        lemon=lemon,
        labels=tuple(labels),
        taints=taints,
        _masks={},
        _words={},
    )
