"""Observe the replicas: what the status remembers of each, its Gang, its pods, its load.

| state | what it is doing |
|---|---|
| Waiting | its Gang has no place |
| Starting | it has a place; its pods are being made, all in one step |
| Loading | all pods are there, and it does not answer (yet) |
| Serving | every rank runs, and seat 0 is ready |
| Stopping | it failed: its pods go, then it waits its back-off |
| Draining | it leaves: no new requests, then its pods end with their grace |
| Dropping | it leaves at once |
| Failed | it will not be tried again; its Gang holds nothing |

The state is written before anything is done about it, and says which life the pods belong to:
in Starting a missing pod has not been made yet, in Loading and Serving it has vanished.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from tramontane.api import clock
from tramontane.api.gang import Gang, GangPhase
from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.api.names import LABEL_REVISION, LABEL_SEAT
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.world import World
from tramontane.kube.views import PodView


class State(StrEnum):
    """Say what a replica is doing; see the module."""

    WAITING = "Waiting"
    STARTING = "Starting"
    LOADING = "Loading"
    SERVING = "Serving"
    STOPPING = "Stopping"
    DRAINING = "Draining"
    DROPPING = "Dropping"
    FAILED = "Failed"


_STATES: Final[Mapping[str, State]] = {str(state): state for state in State}
LEAVING: Final = frozenset({State.DRAINING, State.DROPPING})
#: Its pods, as far as there are any, are those of its present life.
ALIVE: Final = frozenset({State.STARTING, State.LOADING, State.SERVING})

# From when a pod is ready until every node leads requests to it.
HEARD_OF_S: Final = 3.0
_WHY_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class Replica:
    """Hold one replica; `entry` is what the status remembers of it."""

    entry: ReplicaStatus
    gang: Gang | None = None
    pods: tuple[PodView, ...] = ()
    load: Load | None = None

    @property
    def name(self) -> str:
        """Return the name of it and its Gang."""
        return self.entry.name

    @property
    def revision(self) -> str:
        """Return the hash of its revision."""
        return self.entry.revision or ""

    @property
    def state(self) -> State:
        """Return what it is doing; a word of another version means that it is to be looked at."""
        return _STATES.get(self.entry.state or "", State.WAITING)

    @property
    def ordinal(self) -> int:
        """Return its number."""
        return ordinal_of(self.name)

    @property
    def leaves(self) -> bool:
        """Return whether it is on its way out."""
        return self.state in LEAVING

    @property
    def placed(self) -> bool:
        """Return whether its Gang has its seats, for the spec as it is."""
        gang = self.gang
        if gang is None or gang.metadata.deletion_timestamp is not None:
            return False
        seen, written = gang.status.observed_generation, gang.metadata.generation
        # A status that is older than the spec may speak of blades that are given to others by now.
        if not self.pods and seen is not None and written is not None and seen < written:
            return False
        return (
            gang.status.phase in {GangPhase.PLACED, GangPhase.PREEMPTING}
            and gang.status.placement is not None
            and gang.spec.active
        )

    @property
    def seats(self) -> tuple[str, ...]:
        """Return the blade of each seat, or nothing."""
        gang = self.gang
        if gang is None or gang.status.placement is None:
            return ()
        return gang.status.placement.seats

    @property
    def blades(self) -> tuple[str, ...]:
        """Return all blades that it is on: of its seats and of its pods, each once."""
        there = (*self.seats, *(pod.node for pod in self.pods if pod.node))
        return tuple(dict.fromkeys(there))

    @property
    def by_seat(self) -> Mapping[int, PodView]:
        """Return its pods by seat."""
        return {seat_of(pod): pod for pod in self.pods}

    @property
    def missing(self) -> tuple[int, ...]:
        """Return the seats without a pod."""
        there = self.by_seat
        return tuple(seat for seat in range(len(self.seats)) if seat not in there)

    @property
    def answers(self) -> bool:
        """Return whether every rank runs and seat 0 is ready."""
        there = self.by_seat
        whole = self.placed and not self.missing and 0 in there
        running = all(pod.phase == "Running" and not pod.deleting for pod in self.pods)
        return whole and running and there[0].ready

    @property
    def ready_ranks(self) -> int:
        """Return how many ranks are ready."""
        return sum(pod.ready and not pod.deleting for pod in self.pods)

    @property
    def requests(self) -> float:
        """Return how many requests it has, as far as is known."""
        return 0.0 if self.load is None else self.load.running + self.load.waiting

    def since_s(self, now: float) -> float:
        """Return for how long it has been doing this."""
        return now - clock.parse(self.entry.since) if self.entry.since else 0.0

    def takes_over(self, now: float) -> bool:
        """Return whether it serves, and has for so long that another one may leave."""
        return self.state is State.SERVING and self.since_s(now) >= HEARD_OF_S

    def become(self, state: State, now: float, **update: Any) -> "Replica":
        """Return the replica in another state, from now on; further fields as given."""
        if state is not self.state:
            update["since"] = clock.micro(now)
        return self.noted(state=str(state), **update)

    def noted(self, **update: Any) -> "Replica":
        """Return the replica with fields of its entry changed."""
        if update.get("why") is not None:
            update["why"] = update["why"][:_WHY_LENGTH]
        return replace(self, entry=self.entry.model_copy(update=update))


def observe(world: World) -> tuple[Replica, ...]:
    """Return all replicas by number, each in the state that its Gang and pods show.

    What the status does not know, because it was lost, is taken in: a Gang goes on with the pods
    that it has; pods without a Gang leave.
    """
    known = {entry.name: entry for entry in world.deployment.status.replicas}
    found = {name for name in world.pods if world.pods[name]} | set(world.gangs)
    names = sorted({*known, *found}, key=lambda name: (ordinal_of(name), name))
    replicas = (
        Replica(
            known.get(name) or _found(world, name),
            world.gangs.get(name),
            world.pods.get(name, ()),
            world.loads.get(name),
        )
        for name in names
    )
    return tuple(_looked_at(replica, world.now) for replica in replicas)


def seat_of(pod: PodView) -> int:
    """Return the pod's seat; -1 where its label does not say."""
    text = pod.labels.get(LABEL_SEAT, "")
    return int(text) if text.isdecimal() else -1


def ordinal_of(name: str) -> int:
    """Return the number in a replica's name; -1 where there is none."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _found(world: World, name: str) -> ReplicaStatus:
    gang, pods = world.gangs.get(name), world.pods.get(name, ())
    labels = gang.metadata.labels if gang is not None else pods[0].labels
    state = State.DROPPING if gang is None else State.STARTING if pods else State.WAITING
    return ReplicaStatus(
        name=name,
        state=str(state),
        revision=labels.get(LABEL_REVISION),
        since=clock.micro(world.now),
        avoid=gang.spec.avoid if gang is not None else (),
    )


def _looked_at(replica: Replica, now: float) -> Replica:
    """Return the replica in the state that follows from what is seen of it.

    | state | seen | state then |
    |---|---|---|
    | Waiting | placed, no pod of an earlier placement left | Starting |
    | Starting, Loading, Serving | not placed | Waiting |
    | Starting, Loading, Serving | a pod on another blade than its seat's | Waiting |
    | Starting | every seat has its pod | Loading |
    | Loading | it answers | Serving |
    | Serving | it does not | Loading |
    """
    if replica.leaves or replica.state in {State.STOPPING, State.FAILED}:
        return replica
    if not replica.placed or _is_misplaced(replica):
        return replica.become(State.WAITING, now)
    if replica.state is State.WAITING:
        return replica if replica.pods else replica.become(State.STARTING, now)
    if replica.state is State.STARTING and replica.missing:
        return replica
    return replica.become(State.SERVING if replica.answers else State.LOADING, now)


def _is_misplaced(replica: Replica) -> bool:
    seats = dict(enumerate(replica.seats))
    return any(
        pod.node is not None and pod.node != seats.get(seat)
        for seat, pod in replica.by_seat.items()
    )
