"""Revisions follow each other: who makes room, who stays, what is remembered."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.controllers.inferencedeployment.case import Case
from tramontane.controllers.inferencedeployment.converge import Aim, converge
from tramontane.controllers.inferencedeployment.replicas import observe
from tramontane.controllers.inferencedeployment.revisions import (
    from_data,
    hash_of,
    to_data,
)
from tramontane.controllers.inferencedeployment.world import World
from unit.inferencedeployment.builders import (
    NOW,
    a_deployment,
    a_gang,
    a_job,
    a_pod,
    a_revision,
    a_status,
    a_world,
    an_entry,
    planned,
    states,
)
from unit.inferencedeployment.world_sim import Cluster

OLD = hash_of(a_deployment().spec)
NEWER: dict[str, Any] = {
    "engine": {"name": "vllm", "image": "registry.hall/vllm:0.32-newer", "version": "0.32"}
}
NEW = hash_of(a_deployment(**NEWER).spec)
QUICK = {"steps": [{"weight": 50, "hold": "10s"}], "drainTimeout": "1m"}


def halls(count: int) -> dict[str, str]:
    return {f"b{number}": f"r{number // 2}" for number in range(count)}


def newer(spec: dict[str, Any]) -> None:
    spec.update(NEWER)


SAME: dict[str, dict[str, Any]] = {
    "replicas": {"capacity": {"minReplicas": 2, "maxReplicas": 5}},
    "slo": {"slo": {"ttftP95": "1s"}},
    "rollout": {"rollout": {"strategy": "Serial"}},
    "recovery": {"recovery": {"restarts": 9}},
    "egress": {"egress": "Open"},
    "priority": {"priorityClassName": "serving"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "image": NEWER,
    "digest": {"model": {"digest": "sha256:" + "c" * 64}},
    "source": {"model": {"source": {"hostPath": "/models/claims-v8"}}},
    "context": {"capacity": {"contextTokens": 1024}},
    "layout": {"layout": {"mode": "Auto"}},
    "topology": {"topology": {"pack": "block"}},
    "template": {"template": {"spec": {"hostNetwork": True}}},
    "the first adapter": {
        "model": {"adapters": [{"name": "de", "source": {"hostPath": "/models/de"}}]}
    },
}


@pytest.mark.parametrize("spec", SAME.values(), ids=SAME)
def test_the_same_revision(spec: dict[str, Any]) -> None:
    assert hash_of(a_deployment(**spec).spec) == OLD


@pytest.mark.parametrize("spec", OTHERS.values(), ids=OTHERS)
def test_another_revision(spec: dict[str, Any]) -> None:
    assert hash_of(a_deployment(**spec).spec) != OLD


def test_an_adapter_on_another_volume_makes_another_revision() -> None:
    places = ({"hostPath": "/models/de"}, {"hostPath": "/models/fr"}, {"pvc": {"claim": "fr"}})
    first, beside, elsewhere = (
        a_deployment(model={"adapters": [{"name": "a", "source": places[0]}, *more]}).spec
        for more in (
            [],
            [{"name": "b", "source": places[1]}],
            [{"name": "b", "source": places[2]}],
        )
    )
    assert hash_of(first) == hash_of(beside) != hash_of(elsewhere)


def test_directories_below_the_root_are_places_of_their_own() -> None:
    """They are mounted alone, so that an adapter beside the model is not there without its own."""
    adapter = {"name": "a", "source": {"hostPath": "/lora"}}
    alone, both = (
        a_deployment(model={"source": {"hostPath": "/models"}, "adapters": adapters}).spec
        for adapters in ([], [adapter])
    )
    other = a_deployment(
        model={
            "source": {"hostPath": "/models"},
            "adapters": [adapter, {"name": "b", "source": {"hostPath": "/more"}}],
        }
    ).spec
    assert len({hash_of(one) for one in (alone, both, other)}) == 3


def test_a_stored_revision_is_read_as_it_was() -> None:
    job = a_job(complete=True)
    revision = a_revision(
        digest="sha256:" + "d" * 64,
        weights_b=7,
        job_uid="u",
        job_template=job.spec.template,
    )
    assert from_data(revision.hash, to_data(revision)) == revision


def test_the_digest_of_the_first_load_is_recorded() -> None:
    status = {**a_status(an_entry(state="Loading")), "revisions": [{"hash": OLD}]}
    made = planned(a_world(a_deployment(status)))
    assert made.status.revisions[0].digest == "sha256:" + "a" * 64
    assert {one.type: one.status for one in made.status.conditions}["ArtifactVerified"] == "True"


def test_a_revision_that_nothing_needs_is_dropped() -> None:
    other = replace(a_revision(), hash="0ther000")
    world = a_world()
    made = planned(replace(world, revisions={**world.revisions, other.hash: other}))
    assert made.drop_revisions == ("0ther000",)


def a_cluster(blades: int, strategy: str, **capacity: Any) -> Cluster:
    deployment = a_deployment(
        capacity={"minReplicas": 2, **capacity}, rollout={**QUICK, "strategy": strategy}
    )
    return Cluster(deployment, halls(blades), load_s=5).run(30)


@pytest.mark.parametrize(
    ("blades", "strategy", "floor", "phase"),
    [
        (6, "Auto", 2, "Serving"),
        (6, "Surge", 2, "Serving"),
        (6, "Serial", 1, "Serving"),
        (4, "Auto", 1, "Serving"),
        (4, "Serial", 1, "Serving"),
        (4, "Surge", 2, "RollingOut"),
    ],
)
def test_rollout(blades: int, strategy: str, floor: int, phase: str) -> None:
    cluster = a_cluster(blades, strategy)
    cluster.floor = floor
    cluster.spec(newer)
    cluster.run(300)
    status = cluster.deployment.status
    assert status.phase == phase
    assert cluster.lowest == floor
    assert len(cluster.in_rotation) == 2
    if phase == "Serving":
        assert {one.revision for one in status.replicas} == {NEW}
        assert [(one.hash, one.verdict) for one in status.revisions] == [
            (OLD, "Accepted"),
            (NEW, "Accepted"),
        ]
    else:
        assert status.reason == "NoCapacity"


def test_one_replica_without_a_spare_is_replaced_where_it_is() -> None:
    cluster = a_cluster(2, "Auto", minReplicas=1)
    cluster.spec(newer)
    cluster.run(200)
    assert cluster.end()["phase"] == "Serving"
    assert {one.revision for one in cluster.deployment.status.replicas} == {NEW}


def test_a_revert_in_the_middle_keeps_who_serves() -> None:
    cluster = a_cluster(6, "Auto")
    cluster.floor = 2
    before = {pod.uid for pod in cluster.in_rotation}
    image = cluster.deployment.spec.engine.image
    cluster.spec(newer)
    cluster.run(7)

    def older(spec: dict[str, Any]) -> None:
        spec["engine"]["image"] = image

    cluster.spec(older)
    cluster.run(60)
    assert {pod.uid for pod in cluster.in_rotation} == before
    assert cluster.end()["phase"] == "Serving"
    assert cluster.end()["gangs"] == 2


def test_a_revision_that_cannot_start_is_rejected_for_good() -> None:
    cluster = a_cluster(6, "Auto")
    cluster.floor = 2
    cluster.breaks[NEW, "*"] = 1
    cluster.spec(newer)
    cluster.run(120)
    status = cluster.deployment.status
    assert (status.phase, status.ready) == ("RolledBack", "2/2")
    assert status.reason == "EngineFailed"
    assert status.revisions[-1].verdict == "Rejected"
    assert "exit code 1" in (status.message or "")
    assert {one.type: one.status for one in status.conditions}["Stalled"] == "True"
    count = len(cluster.creations)
    cluster.run(3600)
    assert len(cluster.creations) == count


def test_a_candidate_that_is_evicted_is_not_to_blame() -> None:
    cluster = a_cluster(6, "Auto")
    cluster.spec(newer)
    for _ in range(3):
        cluster.run(2)
        for name in [one for one in cluster.pods if one.startswith("claims-2-")]:
            cluster.vanish(name)
        cluster.run(15)
    cluster.run(300)
    assert cluster.deployment.status.revisions[-1].verdict == "Accepted"


def serial(count: int, serving: set[int], min_replicas: int) -> tuple[World, Aim]:
    """Return `count` replicas of which some serve, and the aim to have one fewer of them."""
    entries = [
        an_entry(
            name=f"claims-{number}",
            state="Serving" if number in serving else "Stopping",
            failedAt=clock.utc(NOW),
        )
        for number in range(count)
    ]
    deployment = a_deployment(a_status(*entries), capacity={"minReplicas": min_replicas})
    gangs, pods = {}, {}
    for number in range(count):
        name, seats = f"claims-{number}", (f"b{2 * number}", f"b{2 * number + 1}")
        gangs[name] = a_gang(deployment, {"name": name}, seats)
        if number in serving:
            pods[name] = tuple(a_pod(name, seat, blade) for seat, blade in enumerate(seats))
    world = a_world(deployment, gangs=gangs, pods=pods)
    return world, Aim(wanted=count, targets={NEW: count}, serial=True)


@pytest.mark.parametrize(
    ("count", "serving", "least", "leave"),
    [
        (3, {0, 1, 2}, 3, {"claims-2"}),
        (3, {0, 1}, 3, {"claims-2"}),
        (2, {0}, 2, {"claims-1"}),
        (1, {0}, 1, {"claims-0"}),
    ],
    ids=["all serve", "one does not", "the last one stays", "the only one may go"],
)
def test_who_makes_room(count: int, serving: set[int], least: int, leave: set[str]) -> None:
    world, aim = serial(count, serving, least)
    case = converge(Case.of(world, None, observe(world)), aim)
    assert {one.name for one in case.replicas if one.leaves} == leave


def test_without_serial_nobody_leaves_before_another_serves() -> None:
    world, aim = serial(2, {0, 1}, 2)
    case = converge(Case.of(world, None, observe(world)), replace(aim, serial=False))
    assert not [one for one in case.replicas if one.leaves]


def test_decisions_are_the_last_ten() -> None:
    old = [{"at": clock.utc(NOW - 60), "what": f"number {number}"} for number in range(10)]
    pods = (a_pod(), a_pod(seat=1, phase="Failed", reason="Evicted"))
    made = planned(a_world(a_deployment({**a_status(an_entry()), "decisions": old}), pods=pods))
    assert len(made.status.decisions) == 10
    assert made.status.decisions[-1].what == "restart claims-0 (1)"
    assert states(made) == {"claims-0": "Stopping"}
