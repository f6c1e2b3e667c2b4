"""Change what a pending gang is up against, and ask again: the what-if behind every way out.

A Case is all that `place` looks at. A Change names what is different: blades, gangs or the gang's
own words. Applying one gives another Case, whose answer comes from the same `place` that decides
in the cluster, so a way out that is named here is one that was tried.
"""

import functools
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tramontane.api.names import TAINT_BLADE
from tramontane.scheduler.explain import Refusal
from tramontane.scheduler.fleet import HEALTHY, IN_SERVICE, Fleet, build_fleet
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.place import Plan, place
from tramontane.scheduler.records import BladeRecord, NodeRecord, Requests, Taint
from tramontane.scheduler.snapshot import Pods, Snapshot, take_snapshot

# Taints that Kubernetes takes off when a node works again.
NODE_TAINTS: Final = "node.kubernetes.io/"


@dataclass(frozen=True)
class Case:
    """Hold a gang without a place, and the world as a pass sees it. Not changed by anything."""

    fleet: Fleet
    gangs: Mapping[str, GangRecord]
    pods: Pods
    gang: GangRecord
    now_s: float

    @functools.cached_property
    def snapshot(self) -> Snapshot:
        """Return what is in use now. O(seats + nodes with pods), once."""
        counted = {k: g for k, g in self.gangs.items() if g.active and k != self.gang.key}
        return take_snapshot(self.fleet, counted, self.pods)

    def answer(self) -> Plan | Refusal:
        """Return where the gang would go, or why it cannot."""
        return place(self.snapshot, self.gang, self.now_s)


@dataclass(frozen=True, slots=True)
class Added:
    """Describe blades that a pool could have more: how many, and what their nodes are like."""

    pool: str
    count: int
    labels: tuple[tuple[str, str], ...]
    capacity: Requests

    def names(self) -> tuple[str, ...]:
        """Return what the new blades are called in a plan."""
        return tuple(f"new-{number}" for number in range(1, self.count + 1))


@dataclass(frozen=True, slots=True)
class Change:
    """Name what is different in another case; what is empty stays as it is.

    | field | then |
    |---|---|
    | back     | these blades are in service, without the taints that went with being out |
    | cleared  | pods of no gang are gone from these blades |
    | ended    | these gangs are gone, with their pods |
    | released | no gang keeps these blades as spares |
    | gang     | the gang asks for this instead |
    | added    | the pool has these blades more |
    """

    back: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    gang: GangRecord | None = None
    added: Added | None = None

    def apply(self, case: Case) -> Case:
        """Return the case as it would be."""
        ended, cleared, released = {*self.ended}, {*self.cleared}, {*self.released}
        gangs, pods = case.gangs, case.pods
        if ended:
            gangs = {key: gang for key, gang in gangs.items() if key not in ended}
            left = {key: of for key, of in pods.of_gang.items() if key not in ended}
            pods = replace(pods, of_gang=left)
        if released:
            gangs = {key: _without_spares(gang, released) for key, gang in gangs.items()}
        if cleared:
            plain = {node: on for node, on in pods.plain.items() if node not in cleared}
            pods = replace(pods, plain=plain, _sums=None)
        fleet = _in_service(case.fleet, self.back)
        if self.added is not None:
            fleet = _grown(fleet, self.added)
        return Case(fleet, gangs, pods, self.gang or case.gang, case.now_s)


class Kind(StrEnum):
    """List the kinds of ways out, in the order in which equally small ones are named."""

    PRIORITY = "Priority"
    LIMIT = "Limit"
    REPAIR = "Repair"
    RELEASE = "Release"
    CLEAR = "Clear"
    WAIT = "Wait"
    END = "End"
    FREE = "Free"
    AVOID = "Avoid"
    PACK = "Pack"
    SLICE = "Slice"
    SIZE = "Size"
    REQUEST = "Request"
    SELECTOR = "Selector"
    TOLERATION = "Toleration"
    POOL = "Pool"
    ADD = "Add"


@dataclass(frozen=True, slots=True)
class WayOut:
    """Hold a change after which the gang has a place, in words and in numbers.

    `things` counts the blades, gangs, seats or entries that it touches. `gpu_hours` is the work
    that is lost where gangs are ended before their time; `at_s` is when those named have reached
    their limits.
    """

    kind: Kind
    words: str
    things: int
    change: Change
    at_s: float | None = None
    gpu_hours: float | None = None

    def apply(self, case: Case) -> Case:
        """Return the case after the change."""
        return self.change.apply(case)


def passing(taint: Taint) -> bool:
    """Return whether a taint goes when its blade is back in service."""
    return taint.key == TAINT_BLADE or taint.key.startswith(NODE_TAINTS)


def _without_spares(gang: GangRecord, released: AbstractSet[str]) -> GangRecord:
    if gang.placement is None or not gang.placement.spares:
        return gang
    left = tuple(name for name in gang.placement.spares if name not in released)
    return replace(gang, placement=Placement(gang.placement.seats, left))


def _in_service(fleet: Fleet, names: Iterable[str]) -> Fleet:
    """Return the fleet with these blades in service."""
    rows = [fleet.row_of[name] for name in names]
    if not rows:
        return fleet
    in_service, out, taints = fleet.in_service.copy(), list(fleet.out), dict(fleet.taints)
    in_service[rows] = True
    for row in rows:
        out[row] = IN_SERVICE
        left = tuple(taint for taint in taints.pop(row, ()) if not passing(taint))
        if left:
            taints[row] = left
    return replace(
        fleet, in_service=in_service, out=tuple(out), taints=taints, _masks={}, _words={}
    )


def _grown(fleet: Fleet, added: Added) -> Fleet:
    """Return the fleet with some blades more, in service and empty. O(blades · log blades)."""
    blades: dict[str, BladeRecord] = {}
    nodes: dict[str, NodeRecord] = {}

    def put(name: str, pool: str, labels: Mapping[str, str], capacity: Requests) -> None:
        blades[name] = BladeRecord(name, pool, HEALTHY, "", 0.0, deleting=False)
        nodes[name] = NodeRecord(
            name, labels, capacity, (), cordoned=False, ready=True, deleting=False
        )

    for pool in fleet.pools.values():
        for row in range(pool.first, pool.end):
            has = tuple((resource, int(of[row])) for resource, of in fleet.capacity.items())
            put(fleet.names[row], pool.name, fleet.labels[row], has)
    for name in added.names():
        put(name, added.pool, dict(added.labels), added.capacity)
    grown = build_fleet(blades, nodes, {name: pool.record for name, pool in fleet.pools.items()})
    # What was there stays as it was; only its row may be another.
    row_of = [grown.row_of[name] for name in fleet.names]
    out, lemon, in_service = list(grown.out), grown.lemon.copy(), grown.in_service.copy()
    lemon[row_of], in_service[row_of] = fleet.lemon, fleet.in_service
    for row, word in zip(row_of, fleet.out, strict=True):
        out[row] = word
    taints = {row_of[row]: taints for row, taints in fleet.taints.items()}
    return replace(
        grown, out=tuple(out), lemon=lemon, in_service=in_service, taints=taints,
        _masks={}, _words={},
    )  # fmt: skip
