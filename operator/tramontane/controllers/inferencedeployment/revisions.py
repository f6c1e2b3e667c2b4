"""Name revisions: a hash over what the pods are made from, and what is stored under it.

A change of anything else (replicas, SLO, rollout, recovery, egress) makes no new revision: it holds
for what runs already. So does an adapter that lies where the pods can see it already: it is loaded
into the engines that run.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from tramontane.api.conditions import ConditionType, holds
from tramontane.api.inferencedeployment import InferenceDeploymentSpec, ModelSource
from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.mounts import around_host_path
from tramontane.controllers.inferencedeployment.world import Revision, World

Raw = dict[str, Any]

# `<deployment>-<hash>` is the name of a Service: at most 63 characters.
HASH_LENGTH: Final = 8

_PARTS: Final = frozenset({"model", "engine", "capacity", "layout", "topology", "template"})
# How many replicas there are, and whom one trusts, changes nothing in a pod.
_LEFT_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("verify", "adapters"),
    "capacity": ("minReplicas", "maxReplicas"),
}


def hash_of(spec: InferenceDeploymentSpec, job_uid: str = "") -> str:
    """Return the hash of the serving part of a spec, and of the job that made its weights.

    What is left at its default does not count, so that a newer operator, which knows more fields,
    finds the same revisions.
    """
    body = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude_none=True, include=set(_PARTS)
    )
    for part, names in _LEFT_OUT.items():
        for name in names:
            body.get(part, {}).pop(name, None)
    if spec.model.adapters:
        body["adaptersIn"] = _adapter_places(spec)
    text = json.dumps([body, job_uid], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def _adapter_places(spec: InferenceDeploymentSpec) -> list[str]:
    """Return what the pods must mount or fetch for their adapters, besides what the model needs."""
    model = _place(spec.model.source)
    return sorted({_place(adapter.source) for adapter in spec.model.adapters} - {model})


def _place(source: ModelSource) -> str:
    """Return what brings a source into a pod: sources of one place come together (`mounts.py`)."""
    if source.pvc is not None:
        return f"pvc:{source.pvc.claim}"
    if source.host_path is not None:
        return f"hostPath:{around_host_path(source.host_path)}"
    return source.model_dump_json(exclude_none=True)


def job_is_missing(world: World) -> bool:
    """Return whether the weights are to come from a TrainingJob that has not made them (yet)."""
    named = world.deployment.spec.model.source.training_job
    if named is None:
        return False
    job = world.job
    return job is None or not holds(job.status.conditions, ConditionType.COMPLETE)


def wanted_hash(world: World) -> str | None:
    """Return the hash of the revision that the spec asks for; None where its weights do not exist.

    | source | job | wanted |
    |---|---|---|
    | no TrainingJob | | the spec |
    | a TrainingJob | complete | the spec, with the weights of this job |
    | a TrainingJob | running again, failed, or deleted since | what it made before, if stored |
    | a TrainingJob | never complete | None |
    """
    spec = world.deployment.spec
    if spec.model.source.training_job is None:
        return hash_of(spec)
    if world.job is not None and not job_is_missing(world):
        return hash_of(spec, world.job.metadata.uid or "")
    stored = world.revisions
    made = [hash_ for hash_, one in stored.items() if hash_ == hash_of(spec, one.job_uid)]
    order = {one.hash: index for index, one in enumerate(world.deployment.status.revisions)}
    return max(made, key=lambda hash_: (order.get(hash_, -1), hash_), default=None)


def to_data(revision: Revision) -> Raw:
    """Return what is stored of a revision, as the data of a ControllerRevision."""
    return {
        "spec": revision.spec.to_dict(),
        "layout": asdict(revision.layout),
        "digest": revision.digest or "",
        "weightsBytes": revision.weights_b,
        "jobUID": revision.job_uid,
        "jobTemplate": dict(revision.job_template),
    }


def from_data(hash_: str, data: Mapping[str, Any]) -> Revision:
    """Return the revision that was stored as `to_data` says."""
    return Revision(
        hash=hash_,
        spec=InferenceDeploymentSpec.model_validate(data["spec"]),
        layout=Layout(**data["layout"]),
        digest=data.get("digest") or None,
        weights_b=int(data.get("weightsBytes", 0)),
        job_uid=data.get("jobUID", ""),
        job_template=data.get("jobTemplate") or {},
    )
