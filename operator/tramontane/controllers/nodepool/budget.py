"""Count who is out, so that no quarantine takes more of a pool than its owner allows.

*Out* are blades that are Quarantined, Lost, or Unknown after they have reported at least once. A
new blade whose agent has never spoken is no capacity yet, so it does not use the budget up; nor
does one that is Unknown because its quarantine was refused, or two of them would block each other.
A person's hold is never refused, but what it takes counts.

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


def is_out(state: BladeState | None, reason: BladeReason | None, *, reported: bool) -> bool:
    """Return whether a blade in that state counts as unavailable."""
    if state is BladeState.UNKNOWN:
        return reported and reason is not BladeReason.BUDGET_EXHAUSTED
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
