"""List what a plan can ask for; `reconcile` carries it out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tramontane.api.gang import GangSpec
from tramontane.api.trainingjob import TrainingJobStatus
from tramontane.controllers.gangpods.actions import Delete, Said
from tramontane.kube.views import PodView


@dataclass(frozen=True, slots=True)
class Create:
    """Create the pod of a seat on its blade."""

    seat: int
    blade: str


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise the epoch on a survivor, which makes its agent restart the rank."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Tell a rank to save a checkpoint and end; its pod stays."""

    name: str
    uid: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Life:
    """Say what all pods of an attempt have in common, and where its seats are."""

    attempt: int
    gpus: int  # per pod
    seats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold all that is to be done for a job now, in the order in which it is done.

    Attributes:
        record_first: write the status before anything else: it holds a new incident or attempt,
            and nobody may be restarted without a recorded cause.
        gang: the Gang to apply, or None where it is as it should be.
        life: of the pods to create; with it the Service and the ConfigMap are kept.
        lighthouse: whether the pod that replica groups agree with is to be made.
        peers: addresses of replaced seats, for those in `raises`.
        delete_job: the job's time to live is over.
        status: to be written at the end, if it differs.
        events: said once the status was written.
        drains: ranks to be told to save a checkpoint and end.
        ask: pods whose last words are wanted before more can be decided.
        follow: rank 0's pod, whose log is to be read, or None.
        after: look again in so many seconds; None: only when something changes.
    """

    status: TrainingJobStatus
    record_first: bool = False
    gang: GangSpec | None = None
    life: Life | None = None
    creates: tuple[Create, ...] = ()
    deletes: tuple[Delete, ...] = ()
    raises: tuple[Raise, ...] = ()
    drains: tuple[Drain, ...] = ()
    peers: Mapping[int, str] = field(default_factory=dict)
    lighthouse: bool = False
    ask: tuple[PodView, ...] = ()
    delete_job: bool = False
    events: tuple[Said, ...] = ()
    follow: PodView | None = None
    after: float | None = None
