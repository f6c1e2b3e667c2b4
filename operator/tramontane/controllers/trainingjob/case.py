"""Hold what the steps of `placed` hand on to each other."""

from dataclasses import dataclass

from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import JobIncident, RestartCounts
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.seats import Seat


@dataclass(frozen=True, slots=True)
class Case:
    """Hold a placed job in the middle of its planning.

    Attributes:
        gpus: per pod.
        attempt, incidents, restarts: as they will be in the status.
        begins_anew: whether these are not in the status yet, and must be before anything is done.
        held_until: when the restart may begin (Unix s).
    """

    world: World
    pool: NodePool
    seats: tuple[Seat, ...]
    gpus: int
    attempt: int
    incidents: tuple[JobIncident, ...]
    restarts: RestartCounts | None
    begins_anew: bool
    held_until: float = 0.0

    @property
    def now(self) -> float:
        """Return the world's time."""
        return self.world.now

    @property
    def is_held(self) -> bool:
        """Return whether a restart waits for its back-off."""
        return self.now < self.held_until
