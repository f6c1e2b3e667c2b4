"""Keep the counts of every pool current, one blade at a time.

Counting 12,500 blades anew takes a tenth of a second, in which no quarantine could start. So each
blade is entered when it is reconciled, and a gang's seats when its placement changes; what a
pool's status says is then there to be read.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor

from tramontane.api.blade import BladeState
from tramontane.api.gang import Gang
from tramontane.api.names import GPU_RESOURCE
from tramontane.api.quantity import parse_quantity
from tramontane.controllers.nodepool.history import WINDOW_S

_MINUTE_S = 60.0
_DAY_S = 86_400.0
_DAYS = WINDOW_S / _DAY_S


@dataclass(frozen=True, slots=True)
class Member:
    """One blade of a pool, as far as it is counted.

    Attributes:
        takes_work: Healthy with a verdict of None or Info, on a Node that is not cordoned.
        tranche: value of the pool's tranche label; empty where the Node has none.
        lacks: topology labels that its Node should have and has not.
        first_try: whether it passed its qualification at once; None: it has not ended.
        failures: how often it failed at work in the last 28 days (history.failures).
        since: when it was made, Unix seconds; None: its days are not counted.
    """

    pool: str
    state: BladeState | None
    takes_work: bool
    tranche: str = ""
    lacks: tuple[str, ...] = ()
    first_try: bool | None = None
    failures: int = 0
    since: float | None = None


@dataclass(slots=True)
class Counts:
    """The sums over one pool.

    Attributes:
        states: blades by state.
        tranches: the same by tranche.
        used: Healthy blades with a seat or as a spare.
        free: blades that would take work and have none.
        used_gpus: GPUs of seats and spares; `busy_gpus`: those of Healthy blades.
        lacking: topology label to the Nodes without it.
        tries: by tranche, how many passed at the first try, and how many did not.
        failures: at work, in the last 28 days.
        births: minute of the epoch to the blades that were made in it.
    """

    states: Counter[BladeState | None] = field(default_factory=Counter)
    tranches: dict[str, Counter[BladeState | None]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    used: int = 0
    free: int = 0
    used_gpus: int = 0
    busy_gpus: int = 0
    lacking: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tries: dict[str, Counter[bool]] = field(default_factory=lambda: defaultdict(Counter))
    failures: int = 0
    births: Counter[int] = field(default_factory=Counter)

    def blade_days(self, now: float) -> float:
        """Return for how long the blades were seen, 28 days each at most.

        O(minutes in which blades were made): they come in tranches.
        """
        age = ((now - minute * _MINUTE_S) / _DAY_S for minute in self.births)
        return sum(
            blades * min(max(days, 0.0), _DAYS)
            for days, blades in zip(age, self.births.values(), strict=True)
        )

    @property
    def total(self) -> int:
        """Return how many blades there are."""
        return self.states.total()


class Tally:
    """Counts by pool. Every change is O(1), of a gang O(its seats)."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._gpus: Counter[str] = Counter()
        self._gangs: dict[str, Mapping[str, int]] = {}
        self._pools: dict[str, Counts] = defaultdict(Counts)

    def of(self, pool: str) -> Counts:
        """Return the sums over a pool; they are live, read them at once."""
        return self._pools[pool]

    def enter(self, blade: str, member: Member | None) -> bool:
        """Count a blade as it is now, None where it is no more; return whether that was news."""
        old = self._members.get(blade)
        if old == member:
            return False
        if old is not None:
            self._add(blade, old, -1)
            del self._members[blade]
        if member is not None:
            self._members[blade] = member
            self._add(blade, member, 1)
        return True

    def place(self, key: str, gang: Gang | None) -> None:
        """Count what a gang holds now; None: it is no more."""
        before, after = self._gangs.pop(key, {}), gpus_of(gang) if gang is not None else {}
        if after:
            self._gangs[key] = after
        for blade in before.keys() | after.keys():
            change = after.get(blade, 0) - before.get(blade, 0)
            if not change:
                continue
            member = self._members.get(blade)
            if member is not None:
                self._add(blade, member, -1)
            self._gpus[blade] += change
            if not self._gpus[blade]:
                del self._gpus[blade]
            if member is not None:
                self._add(blade, member, 1)

    def _add(self, blade: str, member: Member, sign: int) -> None:
        counts, gpus = self._pools[member.pool], self._gpus.get(blade, 0)
        counts.states[member.state] += sign
        if member.tranche:
            tranche = counts.tranches[member.tranche]
            tranche[member.state] += sign
            if member.first_try is not None:
                counts.tries[member.tranche][member.first_try] += sign
            if not tranche.total():
                del counts.tranches[member.tranche]
                counts.tries.pop(member.tranche, None)
        counts.failures += sign * member.failures
        if member.since is not None:
            minute = floor(member.since / _MINUTE_S)
            counts.births[minute] += sign
            if not counts.births[minute]:
                del counts.births[minute]
        counts.used_gpus += sign * gpus
        if gpus and member.state is BladeState.HEALTHY:
            counts.used += sign
            counts.busy_gpus += sign * gpus
        if member.takes_work and not gpus:
            counts.free += sign
        for label in member.lacks:
            if sign > 0:
                counts.lacking[label].add(blade)
            else:
                counts.lacking[label].discard(blade)


def gpus_of(gang: Gang) -> Mapping[str, int]:
    """Return the GPUs that a gang's placement holds, by blade; a spare holds a seat's most."""
    placement = gang.status.placement
    if placement is None:
        return {}
    each = [int(parse_quantity(slot.requests.get(GPU_RESOURCE, 0))) for slot in gang.spec.slots]
    # The first slot may have another size than asked for.
    counts = [placement.size, *(slot.count for slot in gang.spec.slots[1:])]
    seats = [gpus for gpus, count in zip(each, counts, strict=True) for _ in range(count)]
    held: Counter[str] = Counter()
    for blade, gpus in zip(placement.seats, seats, strict=False):
        held[blade] += gpus
    for blade in placement.spares:
        held[blade] += max(each)
    return dict(held)
