"""Count who is out, so that no quarantine takes more of a pool than its owner allows.

*Out* is what could work and may not:

| state                                        | out                                             |
|----------------------------------------------|-------------------------------------------------|
| Quarantined, Draining, Repairing, RMA, Lost  | yes                                             |
| Requalifying                                 | yes: it was capacity, and is not back yet       |
| Delivered, Qualifying                        | no: it is no capacity yet                       |
| Unknown, and has reported at least once      | yes, but for the next row                       |
| Unknown because its quarantine was refused   | no: two of them would block each other          |
| Unknown, and has never reported              | no: it is no capacity yet                       |
| Healthy, Suspect                             | no: what runs there runs on                     |

A new blade that fails its qualification goes from Qualifying to Quarantined, and is out then. A
person's hold is never refused, but what it takes counts.

The ledger holds decisions, not what the API shows: it is changed at the moment of deciding, with
no await between question and answer, so that two workers cannot both take the last place.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tramontane.api.blade import Blade, BladeState
from tramontane.api.reasons import BladeReason

_OUT = frozenset(
    {
        BladeState.QUARANTINED,
        BladeState.DRAINING,
        BladeState.REPAIRING,
        BladeState.REQUALIFYING,
        BladeState.RMA,
        BladeState.LOST,
    }
)
# Why a blade that must go is still there: only if it never worked is it Unknown.
_REFUSED = frozenset({BladeReason.BUDGET_EXHAUSTED, BladeReason.BREAKER_OPEN})


def is_out(state: BladeState | None, reason: BladeReason | None, *, reported: bool) -> bool:
    """Return whether a blade in that state counts as unavailable."""
    if state is BladeState.UNKNOWN:
        return reported and reason not in _REFUSED
    return state in _OUT


@dataclass(slots=True)
class Ledger:
    """Every blade's pool, and whether it is out. All methods are O(1)."""

    _entries: dict[str, tuple[str, bool]] = field(default_factory=dict)
    _total: Counter[str] = field(default_factory=Counter)
    _out: Counter[str] = field(default_factory=Counter)
    _refused: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))

    def note(self, blade: str, pool: str, *, out: bool) -> bool:
        """Record a blade's state; return whether room was made in the pool's budget."""
        before = self._entries.get(blade)
        if before == (pool, out):
            return False
        freed = self.forget(blade)
        self._entries[blade] = (pool, out)
        self._total[pool] += 1
        self._out[pool] += out
        return freed and not out

    def note_blade(self, blade: Blade) -> None:
        """Record a blade as the API has it."""
        status = blade.status
        out = is_out(status.state, status.reason, reported=status.report is not None)
        self.note(blade.metadata.name, blade.spec.pool, out=out)

    def forget(self, blade: str) -> bool:
        """Drop a blade that is no more; return whether it was out."""
        pool, out = self._entries.pop(blade, ("", False))
        if not pool:
            return False
        self._total[pool] -= 1
        self._out[pool] -= out
        self._refused[pool].pop(blade, None)
        return out

    def total(self, pool: str) -> int:
        """Return how many blades the pool has."""
        return self._total[pool]

    def out(self, pool: str) -> int:
        """Return how many of them are out."""
        return self._out[pool]

    def grants(self, blade: str, pool: str, limit: int) -> bool:
        """Return whether `blade` may be out too; a refusal is remembered for `refused`."""
        _, is_already = self._entries.get(blade, ("", False))
        if self._out[pool] - is_already + 1 <= limit:
            self._refused[pool].pop(blade, None)
            return True
        self._refused[pool][blade] = None
        return False

    def withdraw(self, blade: str, pool: str) -> None:
        """Forget that `blade` was refused: it asks for nothing any more."""
        self._refused[pool].pop(blade, None)

    def refused(self, pool: str) -> tuple[str, ...]:
        """Return the blades that were refused and still ask, in the order of asking."""
        return tuple(self._refused[pool])
