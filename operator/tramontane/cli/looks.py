"""Say how a blade looks at a glance: one sign and one colour per kind of state. Pure.

The sign alone tells the kinds apart, so that nothing is lost without colours, or to eyes that see
some of them alike.

| sign | it is                             | states                    |
|------|-----------------------------------|---------------------------|
| ■    | at work                           | Healthy, with a seat      |
| +    | held as a spare                   | Healthy                   |
| □    | free                              | Healthy                   |
| q    | new, on its way to work           | Delivered, Qualifying     |
| s    | doubted: works on, gets no more   | Suspect                   |
| Q    | out                               | Quarantined, Draining     |
| R    | being repaired, or tested again   | Repairing, Requalifying   |
| X    | going back to its maker           | RMA                       |
| ?    | nobody knows                      | Unknown, or no state yet  |
| L    | gone                              | Lost                      |
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import click

from tramontane.api.nodepool import BladeCounts


class Look(Enum):
    """A kind of state: its name for people, its sign, its colour; in the order of bars."""

    IN_USE = ("in use", "■", "green")
    SPARE = ("spare", "+", "cyan")
    FREE = ("free", "□", "green")
    QUALIFYING = ("qualifying", "q", "blue")
    SUSPECT = ("suspect", "s", "yellow")
    QUARANTINED = ("quarantined", "Q", "red")
    REPAIRING = ("repairing", "R", "magenta")
    RMA = ("RMA", "X", "bright_red")
    UNKNOWN = ("unknown", "?", "bright_yellow")
    LOST = ("lost", "L", "bright_red")

    @property
    def words(self) -> str:
        """Return its name."""
        return self.value[0]

    @property
    def sign(self) -> str:
        """Return its sign, coloured."""
        return self.signs(1)

    def signs(self, count: int) -> str:
        """Return its sign some times over, coloured once."""
        return click.style(self.value[1] * count, fg=self.value[2]) if count else ""


_BY_STATE: Mapping[str, Look] = MappingProxyType(
    {
        "Delivered": Look.QUALIFYING,
        "Qualifying": Look.QUALIFYING,
        "Healthy": Look.FREE,
        "Suspect": Look.SUSPECT,
        "Quarantined": Look.QUARANTINED,
        "Draining": Look.QUARANTINED,
        "Repairing": Look.REPAIRING,
        "Requalifying": Look.REPAIRING,
        "RMA": Look.RMA,
        "Lost": Look.LOST,
    }
)
# What a person should look at first comes first.
WORST = ("Lost", "Unknown", "", "Quarantined", "Draining", "RMA", "Repairing", "Requalifying",
         "Suspect", "Qualifying", "Delivered")  # fmt: skip


def look(state: str, *, has_seat: bool, is_spare: bool) -> Look:
    """Return how a blade looks; whether it has work tells only healthy ones apart."""
    found = _BY_STATE.get(state, Look.UNKNOWN)
    if found is not Look.FREE:
        return found
    return Look.IN_USE if has_seat else Look.SPARE if is_spare else Look.FREE


def of_counts(counts: BladeCounts) -> dict[Look, int]:
    """Return a pool's counts by look; healthy blades are in use, kept as spares, or free."""
    free = counts.healthy - counts.in_use
    spare = min(counts.spare, free)
    return {
        Look.IN_USE: counts.in_use,
        Look.SPARE: spare,
        Look.FREE: free - spare,
        Look.QUALIFYING: counts.qualifying,
        Look.SUSPECT: counts.suspect,
        Look.QUARANTINED: counts.quarantined,
        Look.REPAIRING: counts.repairing,
        Look.RMA: counts.rma,
        Look.UNKNOWN: counts.unknown,
        Look.LOST: counts.lost,
    }


def bar(counts: Mapping[Look, int], width: int) -> str:
    """Return a bar of at most `width` signs: all there are, or each kind's share of the width.

    What there is any of has a sign at least, so that one bad blade in ten thousand is seen.
    """
    total = sum(counts.values())
    shares = {one: counts.get(one, 0) for one in Look}
    if total > width:
        shares = {one: max(1, n * width // total) if n else 0 for one, n in shares.items()}
        # The largest gives, or takes, what rounding left.
        largest = max(shares, key=lambda one: shares[one])
        shares[largest] += width - sum(shares.values())
    return "".join(one.signs(count) for one, count in shares.items())


def words(counts: Mapping[Look, int]) -> str:
    """Return the counts that are not nothing, in words."""
    return ", ".join(f"{counts[one]:,} {one.words}" for one in Look if counts.get(one))


def legend() -> str:
    """Return what the signs mean."""
    return "  ".join(f"{one.sign} {one.words}" for one in Look)
