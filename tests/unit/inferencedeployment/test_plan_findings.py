"""What two things at once come to: a doubted hall, an SLO that cannot be, an operator's absence."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.inferencedeployment import Rollout
from tramontane.api.inferencestatus import Revision as Known
from tramontane.api.inferencestatus import RolloutStatus
from tramontane.controllers.inferencedeployment.actions import Plan
from tramontane.controllers.inferencedeployment.checks import plan_status
from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Sizing
from tramontane.controllers.inferencedeployment.rollout import Rolled, Standing, roll
from unit.inferencedeployment.builders import (
    NOW,
    a_blade,
    a_deployment,
    a_node,
    a_pod,
    a_status,
    a_world,
    an_entry,
    planned,
    states,
)
from unit.inferencedeployment.loads import a_load, alike
from unit.inferencedeployment.test_plan_rollout import a_cluster, newer
from unit.inferencedeployment.world_sim import Cluster

SOON = {"slo": {"itlP95": "1ms"}}


def test_a_replacement_avoids_all_that_is_doubted() -> None:
    bad = {name: a_blade(name, "Suspect", "Degraded") for name in ("b1", "b3", "b4")}
    drained = {"b5": a_node("b5", unschedulable=True)}
    made = planned(a_world(blades=bad, nodes=drained))
    new = made.status.replicas[1]
    assert (new.replaces, new.avoid) == ("claims-0", ("b1", "b3", "b4", "b5"))


def test_two_drained_nodes_do_not_hand_a_replica_to_and_fro() -> None:
    racks = {f"b{number}": f"r{number // 2}" for number in range(4)}
    cluster = Cluster(a_deployment(), racks, load_s=5).run(30)
    for name in ("b1", "b3"):
        cluster.nodes[name] = a_node(name, unschedulable=True)
    cluster._dirty = True
    # This scheduler gives such nodes away, as one does to a pod that tolerates it.
    cluster.run(3600)
    assert len(cluster.creations) == 2
    assert len(cluster.in_rotation) == 1
    assert states_of(cluster) == {"claims-0": "Serving", "claims-1": "Waiting"}


def states_of(cluster: Cluster) -> dict[str, str]:
    return {one.name: str(one.state) for one in cluster.deployment.status.replicas}


def test_an_slo_below_a_token_is_explained_and_what_serves_goes_on() -> None:
    made = planned(a_world(a_deployment(a_status(an_entry()), **SOON)))
    assert states(made) == {"claims-0": "Serving"}
    assert not made.store
    found = {one.type: one for one in made.status.conditions}
    assert (found["Planned"].status, found["Planned"].reason) == ("False", "Misconfigured")
    assert "slo.itlP95 must be at least" in (found["Planned"].message or "")
    assert made.status.reason == "Misconfigured"
    assert (found["Ready"].status, made.status.phase) == ("True", "Serving")


@pytest.mark.parametrize(
    ("slo", "wanted"), [("1ms", 1), ("1s", 2)], ids=["cannot be kept", "can be kept"]
)
def test_replicas_do_not_make_up_for_an_slo_that_cannot_be_kept(slo: str, wanted: int) -> None:
    deployment = a_deployment(
        a_status(an_entry()), slo={"ttftP95": slo}, capacity={"maxReplicas": 4}
    )
    loads = {"claims-0": a_load(alike(3.0, 100))}
    assert planned(a_world(deployment, loads=loads)).status.replicas_wanted == wanted


def test_zero_with_a_spec_that_was_refused_is_still_zero() -> None:
    engine = {"name": "vllm", "image": "registry.hall/vllm:9.9", "version": "9.9"}
    status = a_status(wanted=0, scaledAt=clock.utc(NOW - 60))
    deployment = a_deployment(status, capacity={"minReplicas": 0}, engine=engine)
    stored = a_world().revisions
    world = a_world(deployment, gangs={}, pods={}, revisions=stored)
    made = planned(world)
    assert (made.status.phase, made.status.reason) == ("ScaledToZero", "Misconfigured")
    woken = planned(replace(world, demand_at=NOW))
    assert woken.status.replicas[0].revision in stored


def rolled(watched_for_s: float, held_s: float, hold: str) -> Rolled:
    """Return what follows of a candidate that has held for so long, and been watched."""
    spec = Rollout.model_validate({"steps": [{"weight": 50, "hold": hold}]})
    state = RolloutStatus(from_="old", to="new", since=clock.utc(NOW - held_s))
    known = (Known(hash="old", verdict="Accepted"), Known(hash="new", verdict="Observing"))
    standings = {
        name: Standing(name, live=count, serving=count) for name, count in (("old", 2), ("new", 1))
    }
    return roll(NOW, "new", 2, spec, None, known, state, standings, NOW - watched_for_s)


WATCHED: dict[str, tuple[float, float, str, int, float | None]] = {
    "the operator has been there": (700, 601, "10m", 1, None),
    "it has just come back": (0, 601, "10m", 0, 84),
    "it has been back for a window": (84, 601, "10m", 1, None),
    "a short hold is watched for as long": (0, 601, "10s", 0, 10),
    "the hold is not over anyway": (500, 300, "10m", 0, 300),
}


@pytest.mark.parametrize(
    ("watched_s", "held_s", "hold", "step", "after"), WATCHED.values(), ids=WATCHED
)
def test_no_step_is_taken_unseen(
    watched_s: float, held_s: float, hold: str, step: int, after: float | None
) -> None:
    found = rolled(watched_s, held_s, hold)
    assert found.rollout is not None
    assert (found.rollout.step, found.after) == (step, after)


def test_the_cpu_is_called_so() -> None:
    sizing = Sizing(CPU_ONLY, 1, 1, 1, 1, fits=True, why="")
    assert plan_status(sizing).layout == "CPU"


STEPS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "fewer": [{"weight": 10, "hold": "5s"}],
    "more": [{"weight": number, "hold": "5s"} for number in (1, 10, 50, 90)],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("at_s", [1, 8, 19])
def test_steps_that_change_on_the_way_lose_nothing(
    steps: list[dict[str, Any]], at_s: float
) -> None:
    cluster = a_cluster(6, "Auto")
    # A candidate that gets a smaller part than before is out of rotation at times.
    cluster.floor = 1
    cluster.spec(newer)
    cluster.run(at_s)

    def change(spec: dict[str, Any]) -> None:
        spec["rollout"]["steps"] = steps

    cluster.spec(change)
    cluster.run(200)
    assert cluster.deployment.status.revisions[-1].verdict == "Accepted"
    assert cluster.end()["phase"] == "Serving"
    assert len(cluster.gangs) == 2


def test_a_process_that_cannot_be_ended_keeps_no_replica_waiting() -> None:
    def stopped(since_s: float) -> Plan:
        since = clock.micro(NOW - since_s)
        entry = an_entry(state="Stopping", since=since, failedAt=since, restarts=1)
        return planned(a_world(a_deployment(a_status(entry)), pods=(a_pod(seat=1, deleting=True),)))

    early, late = stopped(100), stopped(121)
    assert states(early) == {"claims-0": "Stopping"}
    assert early.after == pytest.approx(20, abs=0.01)
    assert states(late) == {"claims-0": "Dropping", "claims-1": "Waiting"}
    assert late.status.replicas[1].avoid == ("b1",)


def test_weights_that_others_verified_later_give_a_failed_replica_another_blade() -> None:
    cluster = Cluster(
        a_deployment(capacity={"minReplicas": 2}),
        {f"b{number}": f"r{number // 2}" for number in range(6)},
        load_s=5,
    )
    cluster.breaks["*", "b1"] = -65
    cluster.run(2)
    # The replica with the bad disk is the first to say so.
    cluster.pods["claims-0-1"].ready_at = cluster.now
    cluster.run(0.2)
    assert states_of(cluster) == {"claims-0": "Failed", "claims-1": "Loading"}
    cluster.run(60)
    assert (cluster.end()["phase"], cluster.end()["ready"]) == ("Serving", "2/2"), cluster.tell()
    assert len(cluster.gangs) == 2


@pytest.mark.parametrize("heard", [False, True], ids=["nobody is heard", "another node is"])
def test_who_hears_nobody_drops_nobody(heard: bool) -> None:
    names = [f"b{number}" for number in range(6)]
    nodes = {name: a_node(name, ready=None, since=NOW - 60) for name in names}
    nodes["b5"] = a_node("b5", ready=True if heard else None, since=NOW - 60)
    pods = (a_pod(ready=False), a_pod(seat=1, ready=False))
    made = planned(a_world(nodes=nodes, pods=pods))
    assert states(made)["claims-0"] == ("Dropping" if heard else "Loading")
    assert bool(made.deletes) is heard
