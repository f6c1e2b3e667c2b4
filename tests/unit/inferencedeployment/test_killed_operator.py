"""Kill the operator between any two writes: the end is the same, and nothing breaks on the way."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import pytest

from tramontane.controllers.inferencedeployment.revisions import hash_of
from unit.inferencedeployment.builders import a_deployment, a_job
from unit.inferencedeployment.world_sim import Cluster

ROLLOUT: dict[str, Any] = {"steps": [{"weight": 50, "hold": "20s"}], "drainTimeout": "1m"}
NEWER = "registry.hall/vllm:0.32-newer"
BROKEN = "registry.hall/vllm:0.32-broken"
Scenario = Callable[[Cluster], None]


def a_cluster(blades: int, seed: int | None, *, min_replicas: int = 2, **spec: Any) -> Cluster:
    """Return a cluster of racks of two blades; with a seed its operator dies now and then."""
    deployment = a_deployment(
        capacity={"minReplicas": min_replicas}, **{"rollout": ROLLOUT, **spec}
    )
    racks = {f"b{number:02}": f"r{number // 2}" for number in range(blades)}
    chance = 0.0 if seed is None else 0.12
    return Cluster(deployment, racks, rng=Random(seed or 0), kill_chance=chance, load_s=5.0)


def use(image: str) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        spec["engine"]["image"] = image

    return change


def serve(cluster: Cluster) -> None:
    """Let the first two replicas come, however often their operator dies meanwhile."""
    cluster.run(60)
    while len(cluster.in_rotation) < 2:
        cluster.run(1)


def rollout_beside(cluster: Cluster) -> None:
    cluster.floor = 2
    serve(cluster)
    cluster.spec(use(NEWER))
    cluster.run(60)


def rollout_without_a_spare(cluster: Cluster) -> None:
    cluster.floor = 1
    serve(cluster)
    cluster.spec(use(NEWER))
    cluster.run(60)


def a_revision_that_cannot_start(cluster: Cluster) -> None:
    cluster.floor = 2
    serve(cluster)
    cluster.spec(use(BROKEN))
    cluster.breaks[hash_of(cluster.deployment.spec), "*"] = 1
    cluster.run(60)


def a_third_revision_in_the_middle(cluster: Cluster) -> None:
    cluster.floor = 2
    serve(cluster)
    cluster.spec(use(NEWER))
    cluster.run(12)
    second = hash_of(cluster.deployment.spec)
    while second not in {one.hash for one in cluster.deployment.status.revisions}:
        cluster.run(1)  # an operator that is down has not begun with it yet
    cluster.spec(use(NEWER + "2"))
    cluster.run(60)


def ranks_die(cluster: Cluster) -> None:
    serve(cluster)
    head = cluster.in_rotation[0].name
    cluster.die(head.removesuffix("-0") + "-1")
    cluster.run(25)
    if cluster.in_rotation:
        cluster.vanish(cluster.in_rotation[-1].name)
    cluster.run(30)


def a_blade_breaks(cluster: Cluster) -> None:
    cluster.floor = 1
    serve(cluster)
    cluster.blade("b00", "Quarantined", "Fatal")
    cluster.run(60)


def a_node_dies(cluster: Cluster) -> None:
    cluster.floor = 1
    serve(cluster)
    cluster.node_dies("b01")
    cluster.run(60)


def a_blade_is_doubted(cluster: Cluster) -> None:
    cluster.floor = 2
    serve(cluster)
    cluster.blade("b00", "Suspect", "Degraded")
    cluster.run(60)


def others_need_the_blades(cluster: Cluster) -> None:
    cluster.floor = 1
    serve(cluster)
    name = min(cluster.gangs)
    cluster.preempt(name)
    cluster.run(60)


def serve_the_job(spec: dict[str, Any]) -> None:
    spec["model"]["source"] = {"trainingJob": {"name": "cpt", "path": "/checkpoints/final"}}


def a_job_hands_its_weights_on(cluster: Cluster) -> None:
    cluster.floor = 2
    serve(cluster)
    cluster.trains(a_job(complete=False))
    cluster.spec(serve_the_job)
    cluster.run(30)
    before = {one.revision for one in cluster.deployment.status.replicas}
    assert before == {cluster.deployment.status.revisions[0].hash}, "the job still trains"
    cluster.trains(a_job(complete=True))
    cluster.run(60)


def a_job_hands_broken_weights_on(cluster: Cluster) -> None:
    cluster.floor = 2
    serve(cluster)
    cluster.trains(a_job(complete=True))
    cluster.spec(serve_the_job)
    cluster.breaks[hash_of(cluster.deployment.spec, "job-uid"), "*"] = -65
    cluster.run(60)


SCENARIOS: dict[str, tuple[int, Scenario]] = {
    "rollout, a spare": (6, rollout_beside),
    "rollout, none": (4, rollout_without_a_spare),
    "rejected": (6, a_revision_that_cannot_start),
    "third": (8, a_third_revision_in_the_middle),
    "ranks die": (4, ranks_die),
    "blade": (6, a_blade_breaks),
    "node": (6, a_node_dies),
    "doubted": (6, a_blade_is_doubted),
    "preempted": (4, others_need_the_blades),
    "hand-off": (6, a_job_hands_its_weights_on),
    "hand-off, broken": (6, a_job_hands_broken_weights_on),
}


def play(name: str, seed: int | None) -> Cluster:
    """Play a scenario; at its end nobody is killed any more, until all is quiet."""
    blades, scenario = SCENARIOS[name]
    cluster = a_cluster(blades, seed)
    scenario(cluster)
    cluster.kill_chance = 0.0
    return cluster.run(600)


@cache
def unharmed(name: str) -> Cluster:
    return play(name, None)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_ends_well(name: str) -> None:
    cluster = unharmed(name)
    assert cluster.end()["in"] == 2
    assert cluster.end()["rollout"] is None


@pytest.mark.parametrize(
    ("name", "verdict"), [("hand-off", "Accepted"), ("hand-off, broken", "Rejected")]
)
def test_what_a_job_made_is_judged_like_any_other(name: str, verdict: str) -> None:
    cluster = unharmed(name)
    [made] = [one for one in cluster.deployment.status.revisions if one.training_job == "cpt"]
    assert made.verdict == verdict
    serving = {one.revision for one in cluster.deployment.status.replicas}
    assert (serving == {made.hash}) == (verdict == "Accepted")


@pytest.mark.parametrize("seed", range(50))
def test_a_killed_operator_comes_to_the_same_end(seed: int) -> None:
    names = sorted(SCENARIOS)
    for name in (names[seed % len(names)], names[(seed + 4) % len(names)]):
        cluster = play(name, seed + 1)
        assert cluster.kills, name
        assert cluster.end() == unharmed(name).end(), name
