"""List what a plan can ask for; `reconcile` carries it out, in this order."""

from dataclasses import dataclass, field

from tramontane.api.gang import GangSpec
from tramontane.api.inferencestatus import InferenceDeploymentStatus
from tramontane.controllers.gangpods.actions import Delete, Said
from tramontane.controllers.inferencedeployment.world import Revision
from tramontane.kube.views import PodView


@dataclass(frozen=True, slots=True)
class Claim:
    """Apply the Gang of a replica."""

    name: str
    revision: str
    spec: GangSpec


@dataclass(frozen=True, slots=True)
class Create:
    """Create the pod of a seat of a replica on its blade."""

    gang: str
    revision: str
    seat: int
    blade: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Patch labels and annotations of a pod: whether it gets requests, who its peers are."""

    pod: PodView
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what is to be done now.

    Attributes:
        status: the whole status; `record_first` writes it before anything else.
        store: a revision that is not stored yet.
        drop_revisions: hashes of stored revisions that nothing needs any more.
        claims: Gangs to apply; `drops`: names of Gangs to delete, whose pods are all gone.
        after: seconds after which to look again, whatever happens.
    """

    status: InferenceDeploymentStatus
    record_first: bool = False
    store: Revision | None = None
    drop_revisions: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    drops: tuple[str, ...] = ()
    creates: tuple[Create, ...] = ()
    deletes: tuple[Delete, ...] = ()
    marks: tuple[Mark, ...] = ()
    events: tuple[Said, ...] = ()
    after: float | None = None
