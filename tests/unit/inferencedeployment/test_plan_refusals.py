"""What cannot be served starts nothing; what serves goes on."""

from typing import Any

import pytest

from tramontane.controllers.inferencedeployment.revisions import hash_of
from unit.inferencedeployment.builders import (
    CONFIG,
    a_deployment,
    a_job,
    a_revision,
    a_status,
    a_world,
    an_entry,
    planned,
    states,
)

FROM_JOB = {"source": {"trainingJob": {"name": "cpt", "path": "/checkpoints/final"}}}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "unknown version": (
        {"engine": {"name": "vllm", "image": "i:1", "version": "0.1"}},
        {},
        "Misconfigured",
        "spec.engine.version",
    ),
    "refused argument": (
        {
            "engine": {
                "name": "vllm",
                "image": "i:1",
                "version": "0.32",
                "extraArgs": ["--no-such-flag"],
            }
        },
        {},
        "Misconfigured",
        "--no-such-flag",
    ),
    "context beyond the model's": (
        {"capacity": {"contextTokens": 1_000_000}},
        {},
        "Misconfigured",
        "131,072",
    ),
    "tensor does not divide": (
        {"layout": {"mode": "Fixed", "tensor": 7}},
        {},
        "Misconfigured",
        "tensor",
    ),
    "does not fit": (
        {"layout": {"mode": "Fixed", "tensor": 1}},
        {},
        "DoesNotFit",
        "GiB",
    ),
    "empty config": ({"model": {"config": {}}}, {}, "Misconfigured", "config"),
    "huge config": (
        {"model": {"config": {**CONFIG, "num_hidden_layers": 10**12}}},
        {},
        "Misconfigured",
        "num_hidden_layers",
    ),
    "minReplicas over maxReplicas": (
        {"capacity": {"minReplicas": 3, "maxReplicas": 2}},
        {},
        "Misconfigured",
        "minReplicas",
    ),
    "no such pool": ({"nodePool": "paris"}, {}, "NoMatchingPool", '"paris"'),
    "no such priority": (
        {"priorityClassName": "gold"},
        {"priority": None},
        "Misconfigured",
        '"gold"',
    ),
    "not signed": (
        {},
        {"trusted": False, "distrust": "the signature is not valid"},
        "ArtifactMismatch",
        "the signature is not valid",
    ),
    "no training job": ({"model": FROM_JOB}, {}, "SourceMissing", "no such job"),
    "a job that still runs": (
        {"model": FROM_JOB},
        {"job": a_job(complete=False)},
        "SourceMissing",
        "Running",
    ),
}


@pytest.mark.parametrize(("spec", "given", "reason", "words"), REFUSED.values(), ids=REFUSED)
def test_nothing_starts(
    spec: dict[str, Any], given: dict[str, Any], reason: str, words: str
) -> None:
    world = a_world(a_deployment(**spec), revisions={}, gangs={}, pods={}, **given)
    made = planned(world)
    status = made.status
    assert status.phase == ("Planning" if reason == "SourceMissing" else "Failed")
    assert str(status.reason) == reason
    assert words in (status.message or "")
    assert (status.message or "").startswith("InferenceDeployment ml/claims: ")
    assert {one.type: one.status for one in status.conditions}["Planned"] == "False"
    assert not any((made.store, made.claims, made.creates, status.replicas))
    assert [event.reason for event in made.events] == [reason]


@pytest.mark.parametrize(("spec", "given", "reason", "words"), REFUSED.values(), ids=REFUSED)
def test_what_serves_goes_on(
    spec: dict[str, Any], given: dict[str, Any], reason: str, words: str
) -> None:
    revision = a_revision()
    deployment = a_deployment(a_status(an_entry()), **spec)
    made = planned(a_world(deployment, revisions={revision.hash: revision}, **given))
    assert states(made)["claims-0"] == "Serving"
    assert str(made.status.reason) == reason
    assert words in (made.status.message or "")
    assert not any((made.store, made.deletes, made.drops, made.creates, made.drop_revisions))
    assert made.status.revisions[0].verdict == "Accepted"


def test_an_slo_below_one_token_starts_nothing() -> None:
    world = a_world(a_deployment(slo={"itlP95": "1us"}), revisions={}, gangs={}, pods={})
    made = planned(world)
    assert (made.status.phase, made.status.reason) == ("Failed", "Misconfigured")
    assert "itlP95" in (made.status.message or "")


def test_an_slo_is_no_part_of_a_revision() -> None:
    world = a_world(a_deployment(a_status(an_entry()), slo={"itlP95": "1us"}))
    made = planned(world)
    assert states(made) == {"claims-0": "Serving"}
    assert made.store is None


def test_serving_starts_by_itself_once_the_job_is_complete() -> None:
    world = a_world(
        a_deployment(model=FROM_JOB), revisions={}, gangs={}, pods={}, job=a_job(complete=True)
    )
    made = planned(world)
    assert made.store is not None
    assert made.store.job_uid == "job-uid"
    assert made.store.job_template == a_job(complete=True).spec.template
    assert made.store.hash == hash_of(world.deployment.spec, "job-uid")


JOBS: dict[str, tuple[Any, str]] = {
    "the same": (a_job(complete=True), "job-uid"),
    "deleted since": (None, "job-uid"),
    "running anew": (a_job(complete=False, uid="newer"), "job-uid"),
    "made anew": (a_job(complete=True, uid="newer"), "newer"),
}


@pytest.mark.parametrize(("job", "uid"), JOBS.values(), ids=JOBS)
def test_weights_of_which_job(job: Any, uid: str) -> None:
    spec = a_deployment(model=FROM_JOB).spec
    hash_ = hash_of(spec, "job-uid")
    stored = a_revision(
        a_deployment(model=FROM_JOB),
        hash=hash_,
        job_uid="job-uid",
        job_template=a_job(complete=True).spec.template,
    )
    known = {"hash": hash_, "verdict": "Accepted"}
    status = {**a_status(an_entry(revision=hash_)), "revisions": [known]}
    deployment = a_deployment(status, model=FROM_JOB)
    made = planned(a_world(deployment, revisions={hash_: stored}, job=job))
    assert states(made)["claims-0"] == "Serving"
    assert (made.store.job_uid if made.store else "job-uid") == uid
    assert made.status.reason is None


def test_a_refusal_is_told_once() -> None:
    world = a_world(a_deployment(nodePool="paris"), revisions={}, gangs={}, pods={})
    made = planned(world)
    again = a_deployment(made.status.to_dict(), nodePool="paris")
    made = planned(a_world(again, revisions={}, gangs={}, pods={}))
    assert not made.events
    assert not made.record_first
