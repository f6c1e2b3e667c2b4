"""Hold what the steps of `placed` hand on to each other."""

from dataclasses import dataclass

from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import Growth, Handshake, JobIncident, RestartCounts
from tramontane.controllers.trainingjob.groups import Groups
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.seats import Seat
from tramontane.kube.views import PodView


@dataclass(frozen=True, slots=True)
class Case:
    """Hold a placed job in the middle of its planning.

    Attributes:
        gpus: per pod.
        attempt, incidents, restarts, handshake, growth: as they will be in the status.
        due: the epoch that each seat's pod ought to have.
        begins_anew: whether these are not in the status yet, and must be before anything is done.
        held_until: when the restart may begin (Unix s).
        ask: pods whose last words are needed before more can be decided.
    """

    world: World
    pool: NodePool
    groups: Groups
    seats: tuple[Seat, ...]
    gpus: int
    attempt: int
    incidents: tuple[JobIncident, ...]
    restarts: RestartCounts | None
    begins_anew: bool
    due: tuple[int, ...] = ()
    handshake: Handshake | None = None
    growth: Growth | None = None
    held_until: float = 0.0
    ask: tuple[PodView, ...] = ()

    @property
    def now(self) -> float:
        """Return the world's time."""
        return self.world.now

    @property
    def is_held(self) -> bool:
        """Return whether a restart waits for its back-off."""
        return self.now < self.held_until

    def is_old(self, seat: Seat) -> bool:
        """Return whether the seat's pod belongs to a life that is over."""
        return seat.epoch < self.due[seat.number]
