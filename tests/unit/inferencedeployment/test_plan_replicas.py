"""Replicas come, start and leave: places, pods, rotation, peers, victims."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.controllers.inferencedeployment.load import Load
from tramontane.controllers.inferencedeployment.revisions import hash_of
from unit.inferencedeployment.builders import (
    NOW,
    a_blade,
    a_deployment,
    a_gang,
    a_pod,
    a_pool,
    a_revision,
    a_status,
    a_world,
    after,
    an_entry,
    planned,
    running,
    states,
)
from unit.inferencedeployment.world_sim import Cluster

FULL = {"phase": "Pending", "reason": "WaitingForCapacity", "message": "needs 16 GPUs (got 15)"}


def starting(**more: Any) -> dict[str, Any]:
    return an_entry(**{"state": "Waiting", "since": clock.micro(NOW - 60), **more})


def test_a_revision_is_stored_before_anything_is_made_from_it() -> None:
    world = a_world(a_deployment(), revisions={}, gangs={}, pods={})
    made = planned(world)
    assert made.store is not None
    assert made.record_first
    assert not made.claims
    assert not made.status.replicas
    made = planned(after(world, made, revisions={made.store.hash: made.store}))
    assert states(made) == {"claims-0": "Waiting"}
    assert [(claim.name, claim.revision) for claim in made.claims] == [
        ("claims-0", hash_of(a_deployment().spec))
    ]
    assert not made.creates


def test_sixteen_gpus_with_fifteen_free_then_all_at_once_in_one_domain() -> None:
    racks = {"b0": "r0", "b1": "r0", "b2": "r1"}
    cluster = Cluster(a_deployment(), racks, free={"b0": 7, "b1": 8, "b2": 7}, load_s=5)
    cluster.run(20)
    status = cluster.deployment.status
    assert not cluster.pods
    assert (status.phase, status.reason) == ("Waiting", "NoCapacity")
    assert "needs 2 blades with 8 free GPUs" in (status.message or "")
    assert "pool hall since" in (status.message or "")
    cluster.free["b0"] = 8
    cluster._dirty = True
    cluster.run(1)
    assert {at for at, _, _ in cluster.creations} == {cluster.creations[0][0]}
    assert sorted(pod.view.node or "" for pod in cluster.pods.values()) == ["b0", "b1"]
    cluster.run(30)
    assert cluster.deployment.status.phase == "Serving"


def test_waiting_says_why() -> None:
    deployment = a_deployment(a_status(starting()))
    made = planned(
        a_world(deployment, gangs={"claims-0": a_gang(deployment, None, None, **FULL)}, pods={})
    )
    assert (made.status.phase, made.status.reason) == ("Waiting", "NoCapacity")
    assert "needs 16 GPUs (got 15)" in (made.status.message or "")
    conditions = {one.type: (one.status, one.reason) for one in made.status.conditions}
    assert conditions["Scheduled"] == ("False", "NoCapacity")
    assert conditions["Ready"] == ("False", "NoCapacity")
    assert not made.creates


def test_quota_is_told_as_it_is() -> None:
    deployment = a_deployment(a_status(starting()))
    gang = a_gang(deployment, None, None, phase="Pending", reason="WaitingForQuota", message="no")
    made = planned(a_world(deployment, gangs={"claims-0": gang}, pods={}))
    assert made.status.reason == "WaitingForQuota"


def test_all_ranks_start_in_one_step_once_the_gang_is_placed() -> None:
    made = planned(a_world(a_deployment(a_status(starting())), pods={}))
    assert states(made) == {"claims-0": "Starting"}
    assert made.record_first
    assert [(one.gang, one.seat, one.blade) for one in made.creates] == [
        ("claims-0", 0, "b0"),
        ("claims-0", 1, "b1"),
    ]


def test_a_placement_of_an_older_spec_is_not_used() -> None:
    deployment = a_deployment(a_status(starting()))
    gang = a_gang(deployment, observedGeneration=1)
    gang = gang.model_copy(update={"metadata": gang.metadata.model_copy(update={"generation": 2})})
    made = planned(a_world(deployment, gangs={"claims-0": gang}, pods={}))
    assert not made.creates


def test_what_a_kill_left_out_is_made_up_for() -> None:
    entry = starting(state="Starting")
    made = planned(a_world(a_deployment(a_status(entry)), pods=(a_pod(ready=False),)))
    assert [one.seat for one in made.creates] == [1]
    assert states(made) == {"claims-0": "Starting"}


def test_nothing_is_made_while_the_api_server_refuses() -> None:
    made = planned(a_world(a_deployment(a_status(starting())), pods={}, refusal="quota"))
    assert not made.creates
    assert (made.status.reason, made.status.message) == ("Misconfigured", "quota")


def test_pods_of_an_earlier_placement_go_before_new_ones_come() -> None:
    deployment = a_deployment(a_status(an_entry()))
    gang = a_gang(deployment, None, ("b0", "b2"))
    made = planned(a_world(deployment, gangs={"claims-0": gang}))
    assert states(made) == {"claims-0": "Waiting"}
    assert len(made.deletes) == 2
    assert not made.creates
    world = a_world(
        a_deployment(a_status(an_entry(state="Waiting"))), gangs={"claims-0": gang}, pods={}
    )
    assert [one.blade for one in planned(world).creates] == ["b0", "b2"]


def test_a_lost_placement_takes_the_pods_with_it() -> None:
    deployment = a_deployment(a_status(an_entry()))
    gang = a_gang(deployment, None, None, **FULL)
    made = planned(a_world(deployment, gangs={"claims-0": gang}))
    assert states(made) == {"claims-0": "Waiting"}
    assert len(made.deletes) == 2
    assert [mark.labels for mark in made.marks] == [{"tramontane.dev/rotation": "out"}]


PODS = {
    "pending": (a_pod(ready=False, rotation="out"), a_pod(seat=1, phase="Pending", ready=False)),
    "seat 0 not ready": (a_pod(ready=False, rotation="out"), a_pod(seat=1)),
}


@pytest.mark.parametrize("pods", PODS.values(), ids=PODS)
def test_who_does_not_answer_is_not_in_rotation(pods: Any) -> None:
    made = planned(a_world(a_deployment(a_status(an_entry(state="Loading"))), pods=pods))
    assert states(made) == {"claims-0": "Loading"}
    assert not made.marks


def test_who_answers_comes_into_rotation() -> None:
    pods = (a_pod(rotation="out"), a_pod(seat=1))
    made = planned(a_world(a_deployment(a_status(an_entry(state="Loading"))), pods=pods))
    assert states(made) == {"claims-0": "Serving"}
    assert [mark.labels for mark in made.marks] == [{"tramontane.dev/rotation": "in"}]


def test_who_stops_answering_goes_out_of_rotation() -> None:
    made = planned(a_world(pods=(a_pod(ready=False), a_pod(seat=1))))
    assert states(made) == {"claims-0": "Loading"}
    assert [mark.labels for mark in made.marks] == [{"tramontane.dev/rotation": "out"}]
    assert made.status.phase == "Loading"


@pytest.mark.parametrize(
    ("told", "marked"),
    [({"tramontane.dev/master": "10.0.0.9"}, 2), ({}, 0)],
    ids=["another address", "told already"],
)
def test_peers_are_told_once(told: dict[str, str], marked: int) -> None:
    pods = (a_pod(annotations=told), a_pod(seat=1, annotations=told))
    made = planned(a_world(pods=pods))
    assert len(made.marks) == marked
    for mark in made.marks:
        assert mark.annotations["tramontane.dev/peers"] == '{"0": "10.0.0.1"}'
        assert mark.annotations["tramontane.dev/master"] == "10.0.0.1"


def test_nobody_is_told_while_seat_0_has_no_address() -> None:
    waits = {"tramontane.dev/master": ""}
    pods = (a_pod(pod_ip=None, ready=False, rotation="out"), a_pod(seat=1, annotations=waits))
    assert not planned(a_world(pods=pods)).marks


def test_an_adapter_is_told_to_the_pods_that_can_see_it() -> None:
    names = ("claims-de", "claims-fr")
    one, other = ({"name": name, "source": {"hostPath": f"/models/{name}"}} for name in names)
    before = a_deployment(model={"adapters": [one]})
    hash_ = hash_of(before.spec)
    entry, known = an_entry(revision=hash_), {"hash": hash_, "verdict": "Accepted"}
    status = {**a_status(entry), "revisions": [known]}
    deployment = a_deployment(status, model={"adapters": [one, other]})
    assert hash_of(deployment.spec) == hash_
    gang = a_gang(deployment, entry)
    pods = (a_pod(revision=hash_), a_pod(seat=1, revision=hash_))
    world = a_world(
        deployment,
        revisions={hash_: a_revision(before)},
        gangs={"claims-0": gang},
        pods=pods,
    )
    marks = planned(world).marks
    assert len(marks) == 2
    for mark in marks:
        assert '"claims-fr"' in mark.annotations["tramontane.dev/adapters"]


def draining(out_s: float | None, **pod: Any) -> Any:
    notes = {} if out_s is None else {"tramontane.dev/out-since": clock.micro(NOW - out_s)}
    rotation = "in" if out_s is None else "out"
    return (a_pod(rotation=rotation, annotations=notes, **pod), a_pod(seat=1))


LEAVING = {
    "still in rotation": (draining(None), 0, 1),
    "out for 2 s": (draining(2), 0, 0),
    "out for 3 s": (draining(3), 2, 0),
    "never was in": ((a_pod(rotation="out"), a_pod(seat=1)), 2, 0),
}


@pytest.mark.parametrize(("pods", "deletes", "marks"), LEAVING.values(), ids=LEAVING)
def test_leaving(pods: Any, deletes: int, marks: int) -> None:
    entry = an_entry(state="Draining", why="scale 2 to 1")
    made = planned(a_world(a_deployment(a_status(entry, wanted=1)), pods=pods))
    assert [one.grace_s for one in made.deletes] == [None] * deletes
    assert len(made.marks) == marks
    assert not made.drops
    if pods is not LEAVING["never was in"][0] and not deletes:
        assert made.after is not None
        assert made.after <= 3


def test_a_gang_goes_once_its_pods_are_gone_and_its_entry_with_it() -> None:
    deployment = a_deployment(a_status(an_entry(state="Draining"), wanted=1))
    made = planned(a_world(deployment, pods={}))
    assert made.drops == ("claims-0",)
    assert states(made)["claims-0"] == "Draining"
    made = planned(a_world(deployment, pods={}, gangs={}))
    assert states(made) == {"claims-0": "Waiting"}  # a new one, of the same name
    assert made.status.replicas[0].why is None


def test_who_waits_waits_anew_once_another_one_is_gone() -> None:
    gone, waits = an_entry(state="Draining"), an_entry(name="claims-1", state="Waiting")
    deployment = a_deployment(a_status(gone, waits, wanted=1))
    gang = a_gang(deployment, {"name": "claims-1"}, None, **FULL)
    made = planned(a_world(deployment, gangs={"claims-1": gang}, pods={}))
    assert [(one.name, one.since) for one in made.status.replicas] == [
        ("claims-1", clock.micro(NOW))
    ]


def two(first: dict[str, Any], second: dict[str, Any], **spec: Any) -> Any:
    """Return a world of two replicas, of which one is too many."""
    deployment = a_deployment(
        a_status(an_entry(**first), an_entry(name="claims-1", **second), wanted=1), **spec
    )
    return a_world(
        deployment,
        gangs={
            "claims-0": a_gang(deployment),
            "claims-1": a_gang(deployment, {"name": "claims-1"}, ("b2", "b3")),
        },
        pods={
            "claims-0": (a_pod(), a_pod(seat=1)),
            "claims-1": (a_pod("claims-1", 0, "b2"), a_pod("claims-1", 1, "b3")),
        },
    )


def test_the_least_loaded_leaves() -> None:
    world = two({}, {})
    loads = {"claims-0": Load(NOW, running=2), "claims-1": Load(NOW, running=5, waiting=1)}
    assert states(planned(replace(world, loads=loads))) == {
        "claims-0": "Draining",
        "claims-1": "Serving",
    }


def test_who_is_on_a_doubted_blade_leaves_before_who_is_not() -> None:
    world = two({}, {})
    loads = {"claims-0": Load(NOW, running=2), "claims-1": Load(NOW, running=5)}
    blades = {**world.blades, "b2": a_blade("b2", "Suspect")}
    made = planned(replace(world, loads=loads, blades=blades))
    assert states(made) == {"claims-0": "Serving", "claims-1": "Draining"}


def test_who_does_not_serve_leaves_before_who_does() -> None:
    world = two({}, {})
    pods = {
        **world.pods,
        "claims-0": (a_pod(ready=False, containers=(running(),)), a_pod(seat=1)),
    }
    made = planned(replace(world, pods=pods))
    assert states(made) == {"claims-0": "Draining", "claims-1": "Serving"}


def test_nobody_leaves_for_one_who_has_just_begun_to_serve() -> None:
    world = two({"since": clock.micro(NOW - 1)}, {"since": clock.micro(NOW - 1)})
    made = planned(world)
    assert states(made) == {"claims-0": "Serving", "claims-1": "Serving"}
    assert made.after == pytest.approx(2)


def test_only_replicas_beyond_the_minimum_may_be_preempted() -> None:
    deployment = a_deployment(
        a_status(an_entry(), an_entry(name="claims-1"), wanted=2),
        capacity={"minReplicas": 1, "maxReplicas": 2},
    )
    made = planned(a_world(deployment, gangs={}, pods={}))
    assert [claim.spec.preemptible for claim in made.claims] == [False, True]


def test_numbers_are_the_lowest_that_nothing_has() -> None:
    deployment = a_deployment(a_status(an_entry(), wanted=3), capacity={"minReplicas": 3})
    orphan = a_pod("claims-1", 0, "b4")
    world = a_world(deployment, pods={"claims-0": (a_pod(), a_pod(seat=1)), "claims-1": (orphan,)})
    made = planned(world)
    assert states(made) == {
        "claims-0": "Serving",
        "claims-1": "Dropping",
        "claims-2": "Waiting",
        "claims-3": "Waiting",
    }


def test_a_lost_status_is_read_from_what_there_is() -> None:
    made = planned(a_world(a_deployment()))
    assert states(made) == {"claims-0": "Serving"}
    assert not made.deletes
    assert not made.creates


def test_a_deleted_deployment_is_left_to_the_garbage_collector() -> None:
    deployment = a_deployment(a_status(an_entry()))
    meta = deployment.metadata.model_copy(update={"deletion_timestamp": clock.utc(NOW)})
    made = planned(a_world(deployment.model_copy(update={"metadata": meta}), pods=(a_pod(),)))
    assert made.status == deployment.status
    assert not made.creates
    assert not made.deletes


def test_gang_of_two_blades_is_packed_and_one_of_one_is_not() -> None:
    deployment = a_deployment(a_status(starting()))
    world = a_world(deployment, gangs={}, pods={})
    topology = planned(world).claims[0].spec.topology
    assert (topology.pack, topology.mode) == ("rack", "Preferred")
    slot = planned(world).claims[0].spec.slots[0]
    assert (slot.name, slot.count, slot.requests) == ("rank", 2, {"nvidia.com/gpu": "8"})
    asked = {"pack": "block", "mode": "Required"}
    deployment = a_deployment(a_status(starting()), topology=asked)
    revision = a_revision(deployment, hash=hash_of(a_deployment().spec))
    world = a_world(
        a_deployment(a_status(starting())), revisions={revision.hash: revision}, gangs={}, pods={}
    )
    assert planned(world).claims[0].spec.topology.to_dict() == asked


def test_gang_has_what_the_template_asks_for() -> None:
    template = {
        "spec": {
            "nodeSelector": {"disk": "nvme"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "containers": [
                {"name": "engine", "resources": {"requests": {"cpu": "16", "memory": "64Gi"}}}
            ],
        }
    }
    deployment = a_deployment(template=template, priorityClassName="serving")
    revision = a_revision(deployment)
    tenant = {"name": "insurers", "namespaces": ["ml"]}
    deployment = a_deployment(
        {
            **a_status(starting(revision=revision.hash)),
            "revisions": [{"hash": revision.hash, "verdict": "Accepted"}],
        },
        template=template,
        priorityClassName="serving",
    )
    world = a_world(deployment, revisions={revision.hash: revision}, gangs={}, pods={}, priority=7)
    spec = planned(replace(world, pools={"hall": a_pool(tenants=[tenant])})).claims[0].spec
    assert spec.slots[0].requests == {
        "cpu": "16",
        "memory": str(64 * 1024**3),
        "nvidia.com/gpu": "8",
    }
    assert spec.slots[0].node_selector == {"disk": "nvme"}
    assert spec.slots[0].tolerations[0].key == "dedicated"
    assert (spec.priority, spec.tenant, spec.grace, spec.preemptible) == (
        7,
        "insurers",
        "10m",
        False,
    )


def test_no_replica_is_wanted_and_none_is_there() -> None:
    status = {**a_status(an_entry(), wanted=0), "scaledAt": clock.utc(NOW - 60)}
    deployment = a_deployment(status, capacity={"minReplicas": 0})
    made = planned(a_world(deployment))
    assert states(made) == {"claims-0": "Draining"}
    empty = a_deployment({**status, "replicas": []}, capacity={"minReplicas": 0})
    made = planned(a_world(empty, gangs={}, pods={}))
    assert (made.status.phase, made.status.ready) == ("ScaledToZero", "0/0")
    made = planned(a_world(empty, gangs={}, pods={}, demand_at=NOW - 1))
    assert states(made) == {"claims-0": "Waiting"}
