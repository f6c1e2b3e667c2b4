"""Say what a placed gang would give back if its run ended, what that would lose, and count it.

Its seats, its pods (also those that are not on its seats) and its spares come free together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tramontane.scheduler.gangs import GangRecord
from tramontane.scheduler.records import GPU, Requests
from tramontane.scheduler.releases import placed_since_s
from tramontane.scheduler.sharing import gpus_of_seats
from tramontane.scheduler.snapshot import Snapshot, count_pods, count_seats, whole_blades


@dataclass(frozen=True, slots=True)
class Leaving:
    """Hold what a gang would give back, in rows of the fleet, and what it would lose.

    `spares` are the blades that it holds whole.
    """

    key: str
    gpu_hours: float
    holds: tuple[tuple[Requests, list[int]], ...]
    spares: tuple[int, ...]


def leaving(snapshot: Snapshot, gang: GangRecord, now_s: float) -> Leaving:
    """Return what a placed gang would give back. O(its seats and pods)."""
    row_of = snapshot.fleet.row_of
    rows: dict[Requests, list[int]] = {}
    count_seats(row_of, gang, rows)
    count_pods(row_of, gang, snapshot.pods.of_gang.get(gang.key, {}).values(), rows)
    return Leaving(
        gang.key,
        gpu_hours_lost(gang, now_s),
        tuple(rows.items()),
        tuple(row for name in whole_blades(gang) if (row := row_of.get(name)) is not None),
    )


def gpu_hours_lost(gang: GangRecord, now_s: float) -> float:
    """Return what ending a gang's run loses: since its last checkpoint, or since it was placed.

    Where nobody says when it last saved, it may never have.
    """
    if gang.lost_work is not None:
        return max(0.0, gang.lost_work)
    seats = len(gang.placement.seats) if gang.placement else 0
    return gpus_of_seats(gang, seats) * max(0.0, now_s - placed_since_s(gang)) / 3600


def without(snapshot: Snapshot, gone: Iterable[Leaving]) -> Snapshot:
    """Return the snapshot as it will be when these gangs and their pods are gone."""
    later = replace(
        snapshot,
        free={resource: amounts.copy() for resource, amounts in snapshot.free.items()},
        busy=snapshot.busy.copy(),
        held=snapshot.held.copy(),
        spare_of=dict(snapshot.spare_of),
        _usable={},
    )
    for one in gone:
        give_back(later, one)
    return later


def spares_held(snapshot: Snapshot, one: Leaving) -> list[int]:
    """Return the rows of its spares that are kept for the gang, and for nobody else."""
    return [row for row in one.spares if snapshot.spare_of.get(row) == one.key]


def give_back(snapshot: Snapshot, one: Leaving) -> None:
    """Count in the snapshot that a gang is gone."""
    gpus, of_gpus = snapshot.free.get(GPU), snapshot.fleet.capacity.get(GPU)
    for requests, rows in one.holds:
        snapshot.take(rows, tuple((resource, -amount) for resource, amount in requests))
        if gpus is not None and of_gpus is not None:
            snapshot.busy[rows] = gpus[rows] < of_gpus[rows]
    for row in spares_held(snapshot, one):
        snapshot.let_go(row)


def take_back(snapshot: Snapshot, one: Leaving, spares: Sequence[int]) -> None:
    """Count in the snapshot that a gang is there after all, with these spares."""
    for requests, rows in one.holds:
        snapshot.take(rows, requests)
    for row in spares:
        snapshot.hold(row, one.key)
