"""Say which adapters the pods are to have loaded, and how each of them is served.

| an adapter | pods are told of it | why it is not served |
|---|---|---|
| lies in a volume of the revision | yes | |
| lies elsewhere | no | its revision is still to come |
| lies where none can look (a job's own files) | no | what is wrong with the source |
| was made by a TrainingJob that is not Complete, or gone | only those that were before | that |
| the engine loads none while it runs | as the first row says | that |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tramontane.api.inferencedeployment import Adapter
from tramontane.api.inferencestatus import AdapterStatus
from tramontane.api.names import ANNOTATION_ADAPTERS
from tramontane.controllers.inferencedeployment.ends import Verified
from tramontane.controllers.inferencedeployment.engines.catalogue import engine_of
from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.replicas import Replica, State
from tramontane.controllers.inferencedeployment.sources import (
    Templates,
    adapters_of,
    adapters_text,
    place_of,
)
from tramontane.controllers.inferencedeployment.world import World
from tramontane.kube.views import PodView


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say what pods are to have loaded.

    Attributes:
        texts: the adapters annotation, by revision.
        unknown: adapters of whose place nothing is known now: a pod that has one keeps it.
    """

    texts: Mapping[str, str]
    unknown: frozenset[str] = frozenset()

    def of(self, revision: str, pod: PodView) -> str | None:
        """Return the annotation that a pod is to have; None where it is to keep its own."""
        text = self.texts.get(revision)
        if text is None or not self.unknown:
            return text
        kept = {name: path for name, path in _told(pod).items() if name in self.unknown}
        every = {**{one["name"]: one["path"] for one in json.loads(text)}, **kept}
        return json.dumps([{"name": name, "path": path} for name, path in sorted(every.items())])


def wanted(world: World) -> Wanted:
    """Return what the pods of each revision are to have loaded."""
    templates = _templates(world)
    return Wanted(
        {
            hash_: adapters_text(adapters_of(world.deployment, revision, templates))
            for hash_, revision in world.revisions.items()
        },
        frozenset(
            one.name
            for one in world.deployment.spec.model.adapters
            if _job_of(one) and _job_of(one) not in templates
        ),
    )


def statuses(
    world: World, replicas: tuple[Replica, ...], verified: Mapping[str, tuple[Verified, ...]]
) -> tuple[AdapterStatus, ...]:
    """Return how each adapter is served: by whom that serves, or why by nobody.

    Seat 0 is ready only once it has loaded all that it was told.
    """
    adapters = world.deployment.spec.model.adapters
    if not adapters:
        return ()
    before = {one.name: one.digest for one in world.deployment.status.adapters}
    digests: dict[str, str] = {}
    for every in verified.values():
        for one in every:
            digests = {**one.adapters, **digests}
    serving = [one for one in replicas if one.state is State.SERVING]
    told = [_told(pod) for one in serving if (pod := one.by_seat.get(0)) is not None]
    found = []
    for adapter in sorted(adapters, key=lambda one: one.name):
        name = adapter.name
        having = sum(name in names for names in told)
        found.append(
            AdapterStatus(
                name=name,
                digest=adapter.digest or before.get(name) or digests.get(name),
                ready=f"{having}/{len(serving)}",
                why=_problem(world, adapter) or (None if having or not serving else _LATER),
            )
        )
    return tuple(found)


_LATER = "no volume of what serves holds it; it comes with the next revision"


def _problem(world: World, adapter: Adapter) -> str | None:
    job, templates = _job_of(adapter), _templates(world)
    if job and job not in templates:
        return f"TrainingJob {job} must be Complete (got none that is); it is served then"
    place = place_of(adapter.source, templates, adapter.digest)
    if isinstance(place, str):
        return f"source.{place}"
    engine = engine_of(world.deployment.spec.engine)
    if not isinstance(engine, Refusal) and engine.lora == "none":
        return f"engine {engine.name} loads no adapter while it runs; merge it into the weights"
    return None


def _job_of(adapter: Adapter) -> str:
    job = adapter.source.training_job
    return job.name if job is not None else ""


def _templates(world: World) -> Templates:
    """Return the pod templates of all jobs that made something, by name; the model's, too."""
    own = {
        one.spec.model.source.training_job.name: one.job_template
        for one in world.revisions.values()
        if one.spec.model.source.training_job is not None
    }
    job = world.job
    return {**own, **world.templates, **({job.metadata.name: job.spec.template} if job else {})}


def _told(pod: PodView) -> dict[str, str]:
    """Return the adapters that a pod was told of, and where they lie."""
    try:
        listed = json.loads(pod.annotations.get(ANNOTATION_ADAPTERS, "[]"))
        return {one["name"]: one["path"] for one in listed}
    except (ValueError, KeyError, TypeError):
        return {}
