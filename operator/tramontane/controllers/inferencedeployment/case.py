"""Hold a deployment in the middle of its planning: what its steps hand on to each other."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tramontane.api import clock
from tramontane.api.inferencedeployment import InferenceDeploymentSpec
from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.api.nodepool import NodePool
from tramontane.controllers.inferencedeployment.actions import Said
from tramontane.controllers.inferencedeployment.recovery import Outcome
from tramontane.controllers.inferencedeployment.replicas import Replica, State, ordinal_of
from tramontane.controllers.inferencedeployment.world import World


@dataclass(frozen=True, slots=True)
class Successor:
    """Say what a replica that is to come owes to one that went."""

    revision: str
    avoid: tuple[str, ...]
    outcome: Outcome
    of: str


@dataclass(frozen=True, slots=True)
class Case:
    """Hold the replicas as they will be in the status, and what was decided on the way.

    Attributes:
        pool: that new Gangs go into; None where there is none.
        outcomes: what recovery said of each replica, by name.
        successors: replicas that were dropped, and want another one in their place.
        decisions: (what, why), in order.
    """

    world: World
    pool: NodePool | None
    replicas: tuple[Replica, ...]
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    successors: tuple[Successor, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    events: tuple[Said, ...] = ()

    @property
    def now(self) -> float:
        """Return the world's time."""
        return self.world.now

    @property
    def spec(self) -> InferenceDeploymentSpec:
        """Return the deployment's spec."""
        return self.world.deployment.spec

    @property
    def live(self) -> tuple[Replica, ...]:
        """Return the replicas that do not leave."""
        return tuple(one for one in self.replicas if not one.leaves)

    @property
    def relieved(self) -> frozenset[str]:
        """Return the names of replicas whose replacement is there already, if only as a Gang."""
        return frozenset(one.entry.replaces for one in self.live if one.entry.replaces)

    def counted(self, revision: str) -> tuple[Replica, ...]:
        """Return the live replicas that count as the revision's: of two for one, the newer."""
        relieved = self.relieved
        return tuple(
            one for one in self.live if one.revision == revision and one.name not in relieved
        )

    def named(self, name: str | None) -> Replica | None:
        """Return the live replica of that name, or None."""
        return next((one for one in self.live if one.name == name), None)

    def put(self, *changed: Replica) -> "Case":
        """Return the case with replicas changed."""
        news = {one.name: one for one in changed}
        return replace(self, replicas=tuple(news.get(one.name, one) for one in self.replicas))

    def decided(self, what: str, why: str, *events: Said) -> "Case":
        """Return the case with a decision more, and what people are told of it."""
        decisions = (*self.decisions, (what, why))
        return replace(self, decisions=decisions, events=(*self.events, *events))

    def leave(self, replica: Replica, why: str, *, at_once: bool = False) -> "Case":
        """Return the case with a replica on its way out."""
        state = State.DROPPING if at_once else State.DRAINING
        gone = replica.become(state, self.now, why=why, replaces=None)
        return self.put(gone).decided(f"{replica.name} leaves", why)

    def come(self, entry: ReplicaStatus, why: str) -> "Case":
        """Return the case with a replica more, under the lowest number that nothing has."""
        name = f"{self.world.deployment.metadata.name}-{self._number()}"
        update = {"name": name, "state": str(State.WAITING), "since": clock.micro(self.now)}
        new = Replica(entry.model_copy(update=update))
        everybody = sorted((*self.replicas, new), key=lambda one: (one.ordinal, one.name))
        return replace(self, replicas=tuple(everybody)).decided(f"{name} comes", why)

    def _number(self) -> int:
        used = {ordinal_of(name) for name in self._names()}
        return next(number for number in range(len(used) + 1) if number not in used)

    def _names(self) -> Iterable[str]:
        yield from (one.name for one in self.replicas)
        yield from self.world.gangs
        yield from (name for name, pods in self.world.pods.items() if pods)
