"""Hold what the planner decides upon: one deployment and what there is of it, at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment, InferenceDeploymentSpec
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.kube.views import NodeView, PodView


@dataclass(frozen=True, slots=True)
class Revision:
    """Hold all that the pods of a revision are made from; stored as a ControllerRevision.

    Attributes:
        hash: of what the weights, the engine and the layout were asked to be (`revisions.py`).
        spec: the whole spec at the time; of it, only the serving part is used.
        digest: of the weights, as the spec gave it; what was recorded later is in the status.
        weights_b: bytes of all weight files, as planned; 0 where unknown.
        job_uid: of the TrainingJob that made the weights; empty where none did.
        job_template: the pod template of that job, in whose volumes the weights lie.
    """

    hash: str
    spec: InferenceDeploymentSpec
    layout: Layout
    digest: str | None = None
    weights_b: int = 0
    job_uid: str = ""
    job_template: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class World:
    """Hold everything that one pass of the planner may know. Times are Unix seconds.

    Attributes:
        revisions: the stored revisions of the deployment, by hash.
        gangs: the Gangs of the deployment, by name: one per replica.
        pods: the pods of each of them, by the Gang's name; pods may outlive their Gang.
        job: the TrainingJob that the source names, None where it names none or there is none.
        templates: the pod templates of the TrainingJobs that made the model and its adapters, by
            name: in their volumes the weights lie.
        priority: value of the PriorityClass; None where the class does not exist.
        loads: what the replicas' engines last said of their load, by the Gang's name.
        watched_since: since when the engines' metrics have been read; 0 always.
        demand_at: when a request last came while no replica served; 0 never.
        trusted: whether the digest's signature was made with a trusted key; None where the spec
            asks for none. `distrust` says why not.
        refusal: what the API server refused lately.
    """

    now: float
    deployment: InferenceDeployment
    revisions: Mapping[str, Revision] = field(default_factory=dict)
    gangs: Mapping[str, Gang] = field(default_factory=dict)
    pods: Mapping[str, tuple[PodView, ...]] = field(default_factory=dict)
    blades: Mapping[str, Blade] = field(default_factory=dict)
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    pools: Mapping[str, NodePool] = field(default_factory=dict)
    job: TrainingJob | None = None
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    priority: int | None = 0
    loads: Mapping[str, Load] = field(default_factory=dict)
    watched_since: float = 0.0
    demand_at: float = 0.0
    trusted: bool | None = None
    distrust: str = ""
    refusal: str | None = None
