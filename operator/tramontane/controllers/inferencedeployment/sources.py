"""Say what the init container of a pod is to bring and verify, and where it will lie."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from tramontane.api.inferencedeployment import (
    InferenceDeployment,
    InferenceDeploymentSpec,
    ModelSource,
)
from tramontane.controllers.inferencedeployment.mounts import CACHE_VOLUME, Mounted, mounted
from tramontane.controllers.inferencedeployment.overrides import stores
from tramontane.controllers.inferencedeployment.world import Revision

Raw = dict[str, Any]
#: Pod templates of TrainingJobs, by the job's name.
Templates = Mapping[str, Mapping[str, Any]]

_MAX_LORA_RANK: Final = 16
# Keys of a store's secret, and whether it may lack them.
_AWS: Final = (
    ("AWS_ACCESS_KEY_ID", False),
    ("AWS_SECRET_ACCESS_KEY", False),
    ("AWS_SESSION_TOKEN", True),
    ("AWS_REGION", True),
)


def adapters_of(
    deployment: InferenceDeployment, revision: Revision, templates: Templates | None = None
) -> dict[str, Mounted]:
    """Return the deployment's present adapters that pods of a revision have, and where.

    A revision mounts what its own spec needs. An adapter that came since is there if it lies in
    one of these volumes; in an object store, if it is one that is fetched anyway.
    """
    templates = {**(templates or {}), **own_template(revision)}
    spec = revision.spec.model
    places = [place_of(spec.source, templates, revision.digest)]
    places += [place_of(one.source, templates, one.digest) for one in spec.adapters]
    there = {
        place.path if place.volume["name"] == CACHE_VOLUME else place.volume["name"]
        for place in places
        if isinstance(place, Mounted)
    }
    return {
        name: place
        for name, place in placed_adapters(deployment.spec, templates)
        if {place.path, place.volume["name"]} & there
    }


def placed_adapters(
    spec: InferenceDeploymentSpec, templates: Templates
) -> Iterator[tuple[str, Mounted]]:
    """Yield the adapters that can be mounted, and where; one that cannot keeps nothing waiting."""
    for adapter in spec.model.adapters:
        place = place_of(adapter.source, templates, adapter.digest)
        if isinstance(place, Mounted):
            yield adapter.name, place


def adapters_text(adapters: Mapping[str, Mounted]) -> str:
    """Return the adapters annotation: what seat 0's agent is to have loaded, and from where."""
    listed = [{"name": name, "path": place.path} for name, place in sorted(adapters.items())]
    return json.dumps(listed, ensure_ascii=False)  # all annotations together have 256 KiB


def max_lora_rank(spec: InferenceDeploymentSpec) -> int:
    """Return the largest rank of an adapter that the engine takes, as its arguments say."""
    words = [word for line in spec.engine.extra_args for word in line.replace("=", " ").split()]
    for flag, value in pairwise(words):
        if flag.replace("_", "-") == "--max-lora-rank" and value.isdecimal():
            return int(value)
    return _MAX_LORA_RANK


def weights_of(
    deployment: InferenceDeployment,
    revision: Revision,
    model: Mounted,
    adapters: Mapping[str, Mounted],
) -> Raw:
    """Return what the init container is to fetch and verify."""
    recorded = {one.name: one.digest for one in deployment.status.adapters}
    listed = [
        {
            "name": one.name,
            **_sourced(one.source, adapters[one.name].path, one.digest or recorded.get(one.name)),
        }
        for one in deployment.spec.model.adapters
        if one.name in adapters
    ]
    digest = digest_of(deployment, revision)
    return {
        "model": _sourced(revision.spec.model.source, model.path, digest),
        "adapters": listed,
        "engine": str(revision.spec.engine.name),
    }


def _sourced(source: ModelSource, path: str, digest: str | None) -> Raw:
    found: Raw = {"path": path, "digest": digest}
    if source.s3 is not None:
        store = source.s3
        found["s3"] = {"endpoint": store.endpoint, "bucket": store.bucket, "prefix": store.prefix}
    return found


def digest_of(deployment: InferenceDeployment, revision: Revision) -> str | None:
    """Return the digest that the weights must have: given, or recorded from the first load."""
    recorded = (one.digest for one in deployment.status.revisions if one.hash == revision.hash)
    return revision.digest or revision.spec.model.digest or next(recorded, None)


def place_of(source: ModelSource, templates: Templates, digest: str | None) -> Mounted | str:
    """Return where a source's files lie in a pod, or what is wrong with it."""
    job = source.training_job
    return mounted(source, templates.get(job.name) if job is not None else None, digest)


def own_template(revision: Revision) -> Templates:
    """Return the template of the TrainingJob that made the model, by its name, if one did."""
    job = revision.spec.model.source.training_job
    return {job.name: revision.job_template} if job is not None else {}


def credentials(*specs: InferenceDeploymentSpec) -> Iterator[Raw]:
    """Yield the variables that sign requests to the object store; no other container has them."""
    secret = next((store.secret for spec in specs for store in stores(spec) if store.secret), None)
    if secret is None:
        return
    for name, optional in _AWS:
        reference: Raw = {"name": secret, "key": name} | ({"optional": True} if optional else {})
        yield {"name": name, "valueFrom": {"secretKeyRef": reference}}
