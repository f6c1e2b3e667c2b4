"""Hold what one reconcile sees: the frozen World that the planner decides upon.

A World is read from caches, overlaid with what this process has written and the caches do not
show yet. It holds no handle to anything: plans made from it can be made again, later or elsewhere.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.names import ANNOTATION_DRAIN, ANNOTATION_EPOCH, LABEL_SEAT
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.controllers.trainingjob.words import LastWords, Slow
from tramontane.kube.views import NodeView, PodView


@dataclass(frozen=True, slots=True)
class World:
    """Show one job and all that bears on it, at one moment.

    Attributes:
        now: Unix seconds.
        job: as the API server has it.
        gang: the Gang of the job's name, or None; maybe somebody else's (`gang_is_foreign`).
        pods: the pods with the job's name on their label, whoever owns them.
        blades: all Blades, by name.
        nodes: all Nodes, by name.
        pools: all NodePools, by name.
        priority: value of the job's PriorityClass; None where the class does not exist.
        marks: what rank 0's log said so far; None before it was read.
        log_alive: whether that log is being read now, or not; `log_since` since when (Unix s).
        words: the end of the logs of pods that the last plans asked for, by pod uid.
        slow: the rank that holds the others up, or None.
        vanished: seats whose pod this process saw go away, and the epoch that it had; until the
            next pod of the seat is there.
        refusal: what the API server said against the last thing we wanted to create, or None.
    """

    now: float
    job: TrainingJob
    gang: Gang | None = None
    pods: tuple[PodView, ...] = ()
    blades: Mapping[str, Blade] = field(default_factory=dict)
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    pools: Mapping[str, NodePool] = field(default_factory=dict)
    priority: int | None = 0
    marks: Marks | None = None
    log_alive: bool = False
    log_since: float = 0.0
    words: Mapping[str, LastWords] = field(default_factory=dict)
    slow: Slow | None = None
    vanished: Mapping[int, int] = field(default_factory=dict)
    refusal: str | None = None

    @property
    def created_s(self) -> float:
        """Return when the job was created (Unix s)."""
        stamp = self.job.metadata.creation_timestamp
        return clock.parse(stamp) if stamp else self.now

    @property
    def own_pods(self) -> tuple[PodView, ...]:
        """Return the pods that this job owns: not those of an older job of the same name."""
        return tuple(pod for pod in self.pods if pod.owner_uid == self.job.metadata.uid)

    @property
    def foreign_pods(self) -> Mapping[int, PodView]:
        """Return the pods that have a seat's name and belong to somebody else, by seat."""
        uid = self.job.metadata.uid
        return {seat_of(pod): pod for pod in self.pods if pod.owner_uid != uid}

    @property
    def gang_is_foreign(self) -> bool:
        """Return whether the Gang of the job's name belongs to somebody else."""
        if self.gang is None:
            return False
        owners = self.gang.metadata.owner_references
        return not any(owner.uid == self.job.metadata.uid for owner in owners)


def seat_of(pod: PodView) -> int:
    """Return the pod's seat; -1 where its label does not say."""
    text = pod.labels.get(LABEL_SEAT, "")
    return int(text) if text.isdecimal() else -1


def epoch_of(pod: PodView) -> int:
    """Return the attempt that the pod belongs to; 0 where it does not say."""
    return _number(pod, ANNOTATION_EPOCH)


def done_in(message: str) -> int | None:
    """Return the attempt that a rank's agent says is done, in its termination message, or None."""
    try:
        told = json.loads(message)
    except ValueError:
        return None
    attempt = told.get("attempt") if isinstance(told, dict) else None
    return attempt if isinstance(attempt, int) and attempt > 0 else None


def drained_of(pod: PodView) -> int:
    """Return the newest attempt whose rank was told to save and end; 0: none was."""
    return _number(pod, ANNOTATION_DRAIN)


def _number(pod: PodView, annotation: str) -> int:
    text = pod.annotations.get(annotation, "")
    return int(text) if text.isdecimal() else 0
