"""Watch a cluster and say which invariant of docs/architecture.md was broken, when, and by whom.

The checks are pure functions over what was seen; `Watcher` (in watcher.py) feeds them from
informers. They are written against the API objects only, so they hold whatever the operator and
the scheduler are doing inside, and they run in the demo, the benchmarks and the plane tests alike.

Informers of different kinds run some milliseconds apart. A seat given to a blade that turned
unhealthy in that very moment is a race that nobody can win, so health is judged with `SLACK_S`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SLACK_S = 1.0

FINISHED = frozenset({"Succeeded", "Failed"})
# States into which only something that is wrong brings a blade.
CONDEMNED = frozenset({"Suspect", "Quarantined", "Draining", "Repairing", "Requalifying", "RMA"})


@dataclass(frozen=True, slots=True)
class SeenPod:
    """A pod of a gang, as far as the invariants need it."""

    uid: str
    name: str
    job: str
    seat: int
    node: str
    gpus: int
    phase: str
    epoch: int


@dataclass(frozen=True, slots=True)
class SeenGang:
    """A gang's placement; `seats` is empty while it has none."""

    name: str
    count: int
    sizes: tuple[int, ...]
    seats: tuple[str, ...]
    spares: tuple[str, ...]
    epoch: int
    lost: frozenset[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class SeenBlade:
    """A blade's state and since when the observer has seen it so (s, the observer's clock)."""

    name: str
    state: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant, with what was seen."""

    invariant: str
    evidence: str
    at_s: float

    def __str__(self) -> str:
        return f"{self.invariant}: {self.evidence}"


def gpus_given_twice(
    pods: Iterable[SeenPod], capacity: Mapping[str, int], at_s: float
) -> list[Violation]:
    """Return the nodes whose unfinished pods hold more GPUs than the node has."""
    used: dict[str, list[SeenPod]] = defaultdict(list)
    for pod in pods:
        if pod.phase not in FINISHED:
            used[pod.node].append(pod)
    return [
        Violation(
            "no GPU given twice",
            f"{node} has {capacity[node]} GPUs (pods hold {held}: "
            f"{', '.join(sorted(pod.name for pod in there))})",
            at_s,
        )
        for node, there in sorted(used.items())
        if node in capacity and (held := sum(pod.gpus for pod in there)) > capacity[node]
    ]


def seats_given_twice(gangs: Iterable[SeenGang], at_s: float) -> list[Violation]:
    """Return the blades that are a seat or a spare more than once, in one gang or in two.

    Gangs here take whole blades, as in every scenario of the lab.
    """
    holders: dict[str, list[str]] = defaultdict(list)
    for gang in gangs:
        for blade in (*gang.seats, *gang.spares):
            holders[blade].append(gang.name)
    return [
        Violation("no seat given twice", f"{blade} is held by {', '.join(names)}", at_s)
        for blade, names in sorted(holders.items())
        if len(names) > 1
    ]


def partly_placed(gang: SeenGang, at_s: float) -> list[Violation]:
    """Return a violation where a gang holds some of its seats, or an empty one."""
    if not gang.seats:
        return []
    allowed = {gang.count, *gang.sizes}
    if len(gang.seats) in allowed and all(gang.seats):
        return []
    filled = sum(1 for seat in gang.seats if seat)
    return [
        Violation(
            "no gang partly placed",
            f"{gang.name} must hold {' or '.join(map(str, sorted(allowed)))} seats (got {filled})",
            at_s,
        )
    ]


def seated_on_sick_blades(
    before: SeenGang | None, after: SeenGang, blades: Mapping[str, SeenBlade], at_s: float
) -> list[Violation]:
    """Return the seats newly given to a blade that had not been Healthy for a while."""
    old = before.seats if before is not None else ()
    found = []
    for seat, blade in enumerate(after.seats):
        if seat < len(old) and old[seat] == blade:
            continue
        seen = blades.get(blade)
        state = seen.state if seen is not None else "absent"
        if state != "Healthy" and (seen is None or at_s - seen.since_s > SLACK_S):
            found.append(
                Violation(
                    "no seat on a blade that is not Healthy at placement",
                    f"{after.name} seat {seat} went to {blade} (state {state})",
                    at_s,
                )
            )
    return found


def survivors_moved(before: SeenGang | None, after: SeenGang, at_s: float) -> list[Violation]:
    """Return the seats that changed blade although they were not lost.

    A gang that gives up its whole placement and gets another one has no survivors.
    """
    if before is None or not before.seats or len(before.seats) != len(after.seats):
        return []
    lost = before.lost | after.lost
    return [
        Violation(
            "survivors untouched by another's loss",
            f"{after.name} seat {seat} moved from {old} to {new} and was not lost",
            at_s,
        )
        for seat, (old, new) in enumerate(zip(before.seats, after.seats, strict=True))
        if old != new and (seat, old) not in lost
    ]


@dataclass(slots=True)
class Recorded:
    """What a job's status says about its restarts, gathered over time."""

    incidents: set[tuple[str, tuple[int, ...]]] = field(default_factory=set)

    def explains(self, seat: int) -> bool:
        """Return whether some incident names this seat."""
        return any(seat in seats for _, seats in self.incidents)


def restarted_without_cause(
    removed: Iterable[SeenPod], recorded: Mapping[str, Recorded], at_s: float
) -> list[Violation]:
    """Return the pods that went away while their job ran on and no incident names their seat."""
    return [
        Violation(
            "never restarted without a recorded cause",
            f"pod {pod.name} on {pod.node} is gone and no incident of {pod.job} names seat "
            f"{pod.seat}",
            at_s,
        )
        for pod in removed
        if not recorded.get(pod.job, Recorded()).explains(pod.seat)
    ]


def condemned_without_cause(blade: SeenBlade, sick: frozenset[str], at_s: float) -> list[Violation]:
    """Return a violation where a blade is condemned with which nothing was ever wrong."""
    if blade.state not in CONDEMNED or blade.name in sick:
        return []
    evidence = f"{blade.name} is {blade.state}, and has no fault"
    return [Violation("no healthy blade condemned", evidence, at_s)]
