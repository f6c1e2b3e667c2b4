"""Know when what sits on blades ends, and what comes free then.

| what sits there | ends |
|---|---|
| a gang with `maxRuntime`              | when that is over, at the latest |
| a gang without                        | after as long again as it has run, and an hour at least |
| a gang that gives way                 | at its deadline |
| a gang that is over its time          | after as long again as it is, and a minute at least |
| pods of a gang that holds no seats    | in ten minutes |
| pods of nobody's gang                 | never |
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tramontane.scheduler.fleet import FloatArray
from tramontane.scheduler.gangs import GangRecord, Placement
from tramontane.scheduler.records import Requests
from tramontane.scheduler.snapshot import Snapshot
from tramontane.scheduler.topology import IntArray

SOON_S: Final = 60.0
ENDING_S: Final = 600.0
UNLIMITED_S: Final = 3600.0
NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Settled:
    """Hold what sits on rows of the fleet until a time; without `requests` they are spares."""

    end_s: float
    rows: IntArray
    requests: Requests | None


@dataclass(frozen=True, slots=True)
class Releases:
    """Hold, sorted by time, when which row of the fleet gets back what; `held` rows as a whole."""

    times: FloatArray
    rows: IntArray
    amounts: Mapping[str, IntArray]
    held: FloatArray

    def until(self, at_s: float, resource: str) -> IntArray:
        """Return per row of the fleet what it has got back of a resource by a time."""
        count = int(self.times.searchsorted(at_s, side="right"))
        weights = self.amounts[resource][:count]
        sums = np.bincount(self.rows[:count], weights=weights, minlength=len(self.held))
        return sums.astype(np.int64)  # exact: amounts are far below 2^53


def ends_s(gang: GangRecord, now_s: float) -> float:
    """Return when a placed gang is expected to have given its blades back."""
    if gang.told.order is not None:
        return max(gang.told.order.deadline_s, now_s + 1)
    since = placed_since_s(gang)
    if gang.max_runtime_s is None:
        return now_s + max(UNLIMITED_S, now_s - since)
    left_s = since + gang.max_runtime_s - now_s
    return now_s + (left_s if left_s > 0 else max(SOON_S, -left_s))


def placed_since_s(gang: GangRecord) -> float:
    """Return since when a placed gang has its place; older versions did not write it down."""
    told = gang.told
    return next(
        (at for at in (told.placed_s, told.ready_since_s) if at is not None), gang.created_s
    )


def releases_of(snapshot: Snapshot, parts: Iterable[Settled]) -> Releases:
    """Return in arrays when all of these end; what is held now, and by none of them, is for ever.

    O(rows of them · log).
    """
    parts = list(parts)
    held = np.where(snapshot.held, NEVER, -NEVER)
    for one in parts:
        if one.requests is None:
            held[one.rows] = one.end_s
    ending = sorted((one for one in parts if one.requests is not None), key=lambda one: one.end_s)
    lengths = [len(one.rows) for one in ending]

    def per_row(amounts: Sequence[int]) -> IntArray:
        return np.repeat(np.array(amounts, dtype=np.int64), lengths)

    asked = [dict(one.requests or ()) for one in ending]
    return Releases(
        times=np.repeat(np.array([one.end_s for one in ending], dtype=np.float64), lengths),
        rows=np.concatenate([np.zeros(0, dtype=np.int64), *(one.rows for one in ending)]),
        amounts={r: per_row([amounts.get(r, 0) for amounts in asked]) for r in snapshot.free},
        held=held,
    )


def settled(
    row_of: Mapping[str, int], gang: GangRecord, placement: Placement, end_s: float
) -> Iterator[Settled]:
    """Yield the rows of a gang's seats by what they take, and those of its spares."""
    if len(gang.slots) == 1:
        yield Settled(end_s, rows_of(row_of, placement.seats), gang.slots[0].ask.requests)
    else:
        owners = gang.slot_of_seats(len(placement.seats))
        for number, slot in enumerate(gang.slots):
            seats = (n for n, own in zip(placement.seats, owners, strict=False) if own == number)
            yield Settled(end_s, rows_of(row_of, seats), slot.ask.requests)
    if placement.spares:
        yield Settled(end_s, rows_of(row_of, placement.spares), None)


def layers(rows: IntArray) -> Iterator[IntArray]:
    """Yield the positions of each row's first entry, then of each row's second, and so on."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    nth = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    for layer in range(int(nth.max()) + 1 if len(nth) else 0):
        yield order[nth == layer]


def rows_of(row_of: Mapping[str, int], names: Iterable[str]) -> IntArray:
    """Return the rows of the fleet of those blades that are in it."""
    return np.array([row_of[name] for name in names if name in row_of], dtype=np.int64)
