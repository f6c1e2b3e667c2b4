"""Read an object, what belongs to it, and their Events, for its timeline."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.cli import happenings, objects, timelineblade
from tramontane.cli.happenings import Happening
from tramontane.kube.client import Client, Forbidden, NotFound
from tramontane.kube.resources import (
    BLADES,
    EVENTS,
    GANGS,
    INFERENCEDEPLOYMENTS,
    NODEPOOLS,
    TRAININGJOBS,
    Resource,
)

Raw = dict[str, Any]

# Where Events about objects in cluster scope live.
_NO_NAMESPACE = "default"
_OF: Mapping[Resource, Callable[[Raw], Iterator[Happening]]] = {
    TRAININGJOBS: lambda raw: happenings.of_job(TrainingJob.model_validate(raw)),
    INFERENCEDEPLOYMENTS: lambda raw: happenings.of_deployment(
        InferenceDeployment.model_validate(raw)
    ),
    GANGS: lambda raw: happenings.of_gang(Gang.model_validate(raw)),
    BLADES: lambda raw: timelineblade.of_blade(Blade.model_validate(raw)),
    NODEPOOLS: lambda raw: happenings.of_pool(NodePool.model_validate(raw)),
}


@dataclass(frozen=True, slots=True)
class Found:
    """Hold an object, the gang that has its name where there is one, and the Events of both."""

    kind: Resource
    raw: Raw
    gang: Raw | None = None
    events: Sequence[Raw] = ()


async def read(client: Client, said: str, namespace: str | None, near: str | None) -> Found:
    """Return the object that is meant, with its Events.

    Raises:
        NoSuchObject: there is none.
    """
    kind, raw = await objects.find_any(client, said, namespace, near)
    gang = await _gang(client, raw) if kind is TRAININGJOBS else None
    wanted = {(kind.kind, raw["metadata"]["name"])}
    if gang is not None:
        wanted.add((GANGS.kind, gang["metadata"]["name"]))
    events = await _events(client, raw["metadata"].get("namespace") or _NO_NAMESPACE, wanted)
    return Found(kind, raw, gang, events)


def told(found: Found) -> Iterator[Happening]:
    """Yield all that is told of it, in no order."""
    own = _OF[found.kind](found.raw)
    if found.gang is not None:
        yield from itertools.islice(own, 1)  # submitted, before it was placed
        yield from itertools.islice(_OF[GANGS](found.gang), 1, None)
    yield from own
    of_events = timelineblade.of_events if found.kind is BLADES else happenings.of_events
    yield from of_events(found.events)


def end_of(found: Found, now: float) -> list[str]:
    """Return the last lines of a job's timeline; none for all else."""
    if found.kind is not TRAININGJOBS:
        return []
    job = TrainingJob.model_validate(found.raw)
    return [one for one in (happenings.now(job, now), happenings.goodput(job)) if one]


def name_of(found: Found) -> str:
    """Return how a person would name the object."""
    return objects.said_of(found.kind, found.raw)


async def _gang(client: Client, raw: Raw) -> Raw | None:
    meta = raw["metadata"]
    try:
        return await client.get(GANGS, meta["name"], meta["namespace"])
    except (NotFound, Forbidden):
        return None


async def _events(client: Client, namespace: str, wanted: set[tuple[str, str]]) -> list[Raw]:
    """Return the Events about these objects, (kind, name); none where one may not read them."""
    found = []
    for kind, name in sorted(wanted):
        fields = f"regarding.kind={kind},regarding.name={name}"
        try:
            listed = await client.list_all(EVENTS, namespace, field_selector=fields)
        except (Forbidden, NotFound):
            continue
        for raw in listed:
            about = raw.get("regarding") or {}
            if (about.get("kind"), about.get("name")) == (kind, name):
                found.append(raw)
    return found
