"""Hold a deployment in the middle of its planning: what its steps hand on to each other."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

from tramontane.api import clock
from tramontane.api.inferencedeployment import InferenceDeploymentSpec
from tramontane.api.inferencestatus import ReplicaStatus
from tramontane.api.nodepool import NodePool
from tramontane.controllers.gangpods.actions import Said
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


@dataclass(frozen=True)  # no slots: what all steps ask for is found out once
class Case:
    """Hold the replicas as they will be in the status, and what was decided on the way.

    Attributes:
        pool: that new Gangs go into; None where there is none.
        by_name: the replicas, by their numbers.
        outcomes: what recovery said of each replica, by name.
        successors: replicas that were dropped, and want another one in their place.
        decisions: (what, why), in order.
    """

    world: World
    pool: NodePool | None
    by_name: Mapping[str, Replica]
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    successors: tuple[Successor, ...] = ()
    decisions: tuple[tuple[str, str], ...] = ()
    events: tuple[Said, ...] = ()

    @classmethod
    def of(cls, world: World, pool: NodePool | None, replicas: Iterable[Replica]) -> "Case":
        """Return the case in which nothing is decided yet; `replicas` by their numbers."""
        return cls(world, pool, {one.name: one for one in replicas})

    @cached_property
    def replicas(self) -> tuple[Replica, ...]:
        """Return all replicas, by their numbers."""
        return tuple(self.by_name.values())

    @property
    def now(self) -> float:
        """Return the world's time."""
        return self.world.now

    @property
    def spec(self) -> InferenceDeploymentSpec:
        """Return the deployment's spec."""
        return self.world.deployment.spec

    @cached_property
    def live(self) -> tuple[Replica, ...]:
        """Return the replicas that do not leave."""
        return tuple(one for one in self.by_name.values() if not one.leaves)

    @cached_property
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
        found = self.by_name.get(name) if name is not None else None
        return None if found is None or found.leaves else found

    def put(self, *changed: Replica) -> "Case":
        """Return the case with replicas changed."""
        news = {one.name: one for one in changed}
        assert self.by_name.keys() >= news.keys()
        return replace(self, by_name={**self.by_name, **news})

    def decided(self, what: str, why: str, *events: Said) -> "Case":
        """Return the case with a decision more, and what people are told of it."""
        decisions = (*self.decisions, (what, why))
        return replace(self, decisions=decisions, events=(*self.events, *events))

    def leave(self, replica: Replica, why: str, *, at_once: bool = False) -> "Case":
        """Return the case with a replica on its way out."""
        state = State.DROPPING if at_once else State.DRAINING
        gone = replica.become(state, self.now, why=why, replaces=None)
        return self.put(gone).decided(f"{replica.name} leaves", why)

    def come(self, *wanted: tuple[ReplicaStatus, str]) -> "Case":
        """Return the case with replicas more, each under the lowest number that nothing has.

        Each is given as what is to be remembered of it, and why it comes.
        """
        numbers = self._free_numbers()
        found, decisions = list(self.by_name.values()), list(self.decisions)
        for entry, why in wanted:
            name = f"{self.world.deployment.metadata.name}-{next(numbers)}"
            update = {"name": name, "state": str(State.WAITING), "since": clock.micro(self.now)}
            found.append(Replica(entry.model_copy(update=update)))
            decisions.append((f"{name} comes", why))
        found.sort(key=lambda one: (one.ordinal, one.name))
        by_name = {one.name: one for one in found}
        return replace(self, by_name=by_name, decisions=tuple(decisions))

    def _free_numbers(self) -> Iterator[int]:
        used = {ordinal_of(name) for name in self._names()}
        return (number for number in count() if number not in used)

    def _names(self) -> Iterable[str]:
        yield from self.by_name
        yield from self.world.gangs
        yield from (name for name, pods in self.world.pods.items() if pods)
