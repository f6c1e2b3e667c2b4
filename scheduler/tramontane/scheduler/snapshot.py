"""Hold what is in use on the fleet now, and what this pass has given away already.

What a blade has in use is counted from API objects alone, so a restart counts the same:

| on a blade | counts |
|---|---|
| a seat of a gang's placement                      | what its slot asks for |
| the pod of that very seat (gang and seat label)   | only what it takes beyond the seat |
| any other unfinished pod, also a terminating one  | what it asks for |
| a spare of a gang's placement                     | the whole blade |

So a gang that is gone keeps its blades until its last pod is gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tramontane.scheduler.fleet import Fleet
from tramontane.scheduler.gangs import Ask, GangRecord
from tramontane.scheduler.records import GPU, PodRecord, Requests
from tramontane.scheduler.topology import BoolArray, IntArray


@dataclass(slots=True)
class Pods:
    """Keep the sums of pods per node, and the pods of gangs one by one.

    Fed with each change, so that a pass does not walk through every pod of the cluster.
    """

    plain: dict[str, dict[str, int]] = field(default_factory=dict)
    of_gang: dict[str, dict[str, PodRecord]] = field(default_factory=dict)
    _sums: tuple[Mapping[str, int], Mapping[str, IntArray]] | None = None

    def change(self, key: str, old: PodRecord | None, new: PodRecord | None) -> None:
        """Replace the record of a pod; None is a pod that is not there."""
        if old is not None:
            self._remove(key, old)
        if new is not None and new.node:
            self._add(key, new)

    def live_seats(self, gang: str) -> dict[int, str]:
        """Return seat → node of a gang's pods that are not being deleted."""
        pods = self.of_gang.get(gang, {}).values()
        return {p.seat: p.node for p in pods if p.seat >= 0 and not p.deleting}

    def plain_on(self, fleet: Fleet) -> Mapping[str, IntArray]:
        """Return what pods of no gang take, per resource and row; remembered until one changes."""
        if self._sums is None or self._sums[0] is not fleet.row_of:
            sums = {resource: np.zeros_like(array) for resource, array in fleet.capacity.items()}
            for node, taken in self.plain.items():
                if (row := fleet.row_of.get(node)) is not None:
                    for resource in taken.keys() & sums.keys():
                        sums[resource][row] = taken[resource]
            self._sums = fleet.row_of, sums
        return self._sums[1]

    def _add(self, key: str, pod: PodRecord) -> None:
        if pod.gang:
            self.of_gang.setdefault(pod.gang, {})[key] = pod
            return
        self._sums = None
        sums = self.plain.setdefault(pod.node, {})
        for resource, amount in pod.requests:
            sums[resource] = sums.get(resource, 0) + amount

    def _remove(self, key: str, pod: PodRecord) -> None:
        if pod.gang:
            pods = self.of_gang.get(pod.gang, {})
            pods.pop(key, None)
            if not pods:
                self.of_gang.pop(pod.gang, None)
            return
        self._sums = None
        sums = self.plain.get(pod.node, {})
        for resource, amount in pod.requests:
            sums[resource] = sums.get(resource, 0) - amount
            if not sums[resource]:
                del sums[resource]
        if not sums:
            self.plain.pop(pod.node, None)


@dataclass(slots=True)
class Snapshot:
    """Hold the fleet and what is free on it; `take` and `hold` assume a plan into it.

    `busy` rows carry a seat, a gang's pod or any GPU in use. `spare_of` names the gang that a
    whole blade is kept for. Free amounts may be negative where more was given than there is
    (placements edited by hand): such a blade is simply full.
    """

    fleet: Fleet
    pods: Pods
    free: dict[str, IntArray]
    busy: BoolArray
    held: BoolArray
    spare_of: dict[int, str]
    version: int = 0
    _usable: dict[object, BoolArray] = field(default_factory=dict, repr=False)

    def take(self, rows: Sequence[int], requests: Requests) -> None:
        """Count a seat on each of these rows; a row given twice counts twice."""
        self._changed()
        self.busy[rows] = True
        for resource, amount in requests:
            if resource in self.free:
                np.subtract.at(self.free[resource], rows, amount)

    def hold(self, row: int, gang: str) -> None:
        """Keep a whole blade for a gang."""
        self._changed()
        self.held[row] = True
        self.spare_of.setdefault(row, gang)

    def let_go(self, row: int) -> None:
        """Keep a blade no longer: it becomes a seat, or free."""
        self._changed()
        self.held[row] = False
        self.spare_of.pop(row, None)

    def has_room(self, ask: Ask) -> BoolArray:
        """Return the rows whose free amounts hold a pod with this ask."""
        room = np.ones(len(self.fleet.names), dtype=np.bool_)
        for resource, amount in ask.requests:
            free = self.free.get(resource)
            room &= False if free is None else free >= amount
        return room

    def usable(self, ask: Ask, avoid: frozenset[str] = frozenset()) -> BoolArray:
        """Return the rows that take a pod with this ask now: healthy, matching, not full.

        Remembered until something is taken, since many pending gangs ask for the same. The
        caller must not write into it.
        """
        key = (ask, avoid)
        if key not in self._usable:
            fleet = self.fleet
            mask = fleet.in_service & ~self.held & self.has_room(ask)
            mask &= fleet.selected(ask)
            if fleet.taints:
                mask &= fleet.tolerated(ask.tolerations)
            mask[[row for name in avoid if (row := fleet.row_of.get(name)) is not None]] = False
            self._usable[key] = mask
        return self._usable[key]

    def _changed(self) -> None:
        """Forget what was derived; `version` tells two states of one snapshot apart."""
        self.version += 1
        self._usable.clear()


def take_snapshot(fleet: Fleet, gangs: Mapping[str, GangRecord], pods: Pods) -> Snapshot:
    """Return what is in use on the fleet. O(seats + nodes with pods)."""
    snapshot = Snapshot(
        fleet=fleet,
        pods=pods,
        free={resource: capacity.copy() for resource, capacity in fleet.capacity.items()},
        busy=np.zeros(len(fleet.names), dtype=np.bool_),
        held=np.zeros(len(fleet.names), dtype=np.bool_),
        spare_of={},
    )
    for resource, taken in pods.plain_on(fleet).items():
        snapshot.free[resource] -= taken
        if resource == GPU:
            snapshot.busy |= taken > 0
    rows_by_requests: dict[Requests, list[int]] = {}
    row_of = fleet.row_of
    for gang in gangs.values():
        for name in whole_blades(gang):
            if (row := row_of.get(name)) is not None:
                snapshot.hold(row, gang.key)
        count_seats(row_of, gang, rows_by_requests)
    for key, of_gang in pods.of_gang.items():
        count_pods(row_of, gangs.get(key), of_gang.values(), rows_by_requests)
    for requests, rows in rows_by_requests.items():
        snapshot.take(rows, requests)
    return snapshot


def whole_blades(gang: GangRecord) -> Sequence[str]:
    """Return the blades that a gang keeps whole: its spares.

    Of a spec that cannot be read nobody knows what its seats take: these are kept whole, too.
    """
    placement = gang.placement
    if placement is None:
        return ()
    return placement.spares if gang.slots else (*placement.seats, *placement.spares)


def count_seats(
    row_of: Mapping[str, int], gang: GangRecord, rows_by_requests: dict[Requests, list[int]]
) -> None:
    """Note the rows of a gang's seats by what they take.

    A seat beyond the slots of the spec is the first slot's.
    """
    placement = gang.placement
    if placement is None or not gang.slots:
        return
    if len(gang.slots) == 1:
        rows = [row_of[name] for name in placement.seats if name in row_of]
        rows_by_requests.setdefault(gang.slots[0].ask.requests, []).extend(rows)
        return
    owners = gang.slot_of_seats(len(placement.seats))
    for seat, name in enumerate(placement.seats):
        if (row := row_of.get(name)) is not None:
            slot = gang.slots[owners[seat] if seat < len(owners) else 0]
            rows_by_requests.setdefault(slot.ask.requests, []).append(row)


def count_pods(
    row_of: Mapping[str, int],
    gang: GangRecord | None,
    pods: Iterable[PodRecord],
    rows_by_requests: dict[Requests, list[int]],
) -> None:
    """Note the rows of a gang's pods by what they take beyond the seats that are counted."""
    seats = gang.placement.seats if gang and gang.placement else ()
    owners = gang.slot_of_seats(len(seats)) if gang and gang.slots else ()
    for pod in pods:
        row = row_of.get(pod.node)
        if row is None:
            continue
        beyond = pod.requests
        if gang is not None and 0 <= pod.seat < len(owners) and seats[pod.seat] == pod.node:
            counted = gang.slots[owners[pod.seat]].ask.requests
            if pod.requests == counted:
                continue
            already = dict(counted)
            beyond = tuple((r, max(0, n - already.get(r, 0))) for r, n in pod.requests)
        rows_by_requests.setdefault(beyond, []).append(row)
