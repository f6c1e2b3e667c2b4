"""Adapters are told to pods that can see them; the status says of the others why they wait."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tramontane.controllers.inferencedeployment.revisions import hash_of
from tramontane.controllers.inferencedeployment.world import World
from unit.inferencedeployment.builders import (
    a_deployment,
    a_gang,
    a_job,
    a_pod,
    a_revision,
    a_status,
    a_world,
    an_entry,
    planned,
)

LYING: dict[str, Any] = {"name": "claims-de", "source": {"hostPath": "/models/claims-de"}}
MADE: dict[str, Any] = {
    "name": "claims-fr",
    "source": {"trainingJob": {"name": "cpt", "path": "/checkpoints/lora"}},
}
TEMPLATES = {"cpt": a_job(complete=True).spec.template}
NOTE = "tramontane.dev/adapters"


def serving(
    *adapters: dict[str, Any], first: int | None = None, told: Any = (), **spec: Any
) -> Any:
    """Return a world that serves the revision with the `first` adapters; pods know `told`."""
    before = a_deployment(model={"adapters": adapters[:first]}, **spec)
    hash_ = hash_of(before.spec)
    entry = an_entry(revision=hash_)
    status = {**a_status(entry), "revisions": [{"hash": hash_, "verdict": "Accepted"}]}
    deployment = a_deployment(status, model={"adapters": list(adapters)}, **spec)
    notes = {NOTE: json.dumps([{"name": name, "path": path} for name, path in told])}
    pods = tuple(a_pod(seat=seat, revision=hash_, annotations=notes) for seat in (0, 1))
    stored = {hash_: replace(a_revision(before), hash=hash_)}
    gangs = {"claims-0": a_gang(deployment, entry)}
    return a_world(deployment, revisions=stored, gangs=gangs, pods=pods)


def told(world: World) -> list[str]:
    """Return the names of the adapters that seat 0 is to have."""
    marks = [mark for mark in planned(world).marks if mark.pod.name == "claims-0-0"]
    text = marks[0].annotations[NOTE] if marks else world.pods["claims-0"][0].annotations[NOTE]
    return [one["name"] for one in json.loads(text)]


def test_what_a_job_made_is_told_once_its_template_is_known() -> None:
    world = serving(LYING, MADE)
    assert told(world) == ["claims-de"]
    world = replace(world, templates=TEMPLATES)
    assert told(world) == ["claims-de", "claims-fr"]


def test_a_job_that_is_gone_takes_nothing_from_the_pods() -> None:
    there = (("claims-fr", "/tramontane/volumes/1/lora"), ("gone", "/tramontane/volumes/0/gone"))
    assert told(serving(LYING, MADE, told=there)) == ["claims-de", "claims-fr"]


DE = (("claims-de", "/tramontane/volumes/0/claims-de"),)
WHY: dict[str, tuple[World, str, str | None]] = {
    "loaded": (serving(LYING, told=DE), "1/1", None),
    "not told yet": (
        serving(LYING),
        "0/1",
        "no volume of what serves holds it; it comes with the next revision",
    ),
    "its job is not done": (
        serving(MADE),
        "0/1",
        "TrainingJob cpt must be Complete (got none that is); it is served then",
    ),
    "the engine takes none": (
        serving(LYING, engine={"name": "sglang", "image": "registry.hall/sglang:0.5.23"}, told=DE),
        "1/1",
        "engine sglang loads no adapter while it runs; merge it into the weights",
    ),
}


@pytest.mark.parametrize(("world", "ready", "why"), WHY.values(), ids=WHY)
def test_the_status_says_why_an_adapter_is_not_served(
    world: World, ready: str, why: str | None
) -> None:
    (found,) = planned(world).status.adapters
    assert (found.ready, found.why) == (ready, why)
