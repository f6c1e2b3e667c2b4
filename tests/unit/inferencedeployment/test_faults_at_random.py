"""Let anything happen at any time, the operator's death too; once it stops, all is served again."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from unit.inferencedeployment.builders import a_blade, a_deployment, a_node
from unit.inferencedeployment.world_sim import Cluster

ROLLOUT = {"steps": [{"weight": 50, "hold": "15s"}], "drainTimeout": "1m"}
RECOVERY = {"restarts": 2, "backoff": {"base": "1s", "max": "20s"}}


def a_hall(blades: int, rng: Random, strategy: str) -> Cluster:
    deployment = a_deployment(
        capacity={"minReplicas": 2},
        rollout={**ROLLOUT, "strategy": strategy},
        recovery=RECOVERY,
    )
    racks = {f"b{number:02}": f"r{number // 2}" for number in range(blades)}
    return Cluster(deployment, racks, rng=rng, kill_chance=0.05, load_s=5.0)


def _die(cluster: Cluster) -> None:
    if cluster.pods:
        cluster.die(cluster.rng.choice(sorted(cluster.pods)))


def _vanish(cluster: Cluster) -> None:
    if cluster.pods:
        cluster.vanish(cluster.rng.choice(sorted(cluster.pods)))


def _break(cluster: Cluster) -> None:
    state, severity = cluster.rng.choice(
        [("Quarantined", "Fatal"), ("Suspect", "Degraded"), ("Draining", "Degraded"), ("RMA", "")]
    )
    cluster.blade(cluster.rng.choice(sorted(cluster.racks)), state, severity)


def _repair(cluster: Cluster) -> None:
    for name in sorted(cluster.racks):
        cluster.blades[name], cluster.nodes[name] = a_blade(name), a_node(name)
    cluster._dirty = True


def _silence(cluster: Cluster) -> None:
    cluster.node_dies(cluster.rng.choice(sorted(cluster.racks)))


def _preempt(cluster: Cluster) -> None:
    placed = [name for name, gang in cluster.gangs.items() if gang.status.placement]
    if placed:
        cluster.preempt(cluster.rng.choice(sorted(placed)))


def _release(cluster: Cluster) -> None:
    number = cluster.rng.randrange(4)

    def change(spec: dict[str, Any]) -> None:
        spec["engine"]["image"] = f"registry.hall/vllm:0.32-{number}"

    cluster.spec(change)


def _resize(cluster: Cluster) -> None:
    count = cluster.rng.choice([1, 2, 2, 3])

    def change(spec: dict[str, Any]) -> None:
        spec["capacity"]["minReplicas"] = min(2, count)
        spec["capacity"]["maxReplicas"] = count

    cluster.spec(change)


EVENTS: list[Callable[[Cluster], None]] = [
    _die,
    _die,
    _vanish,
    _break,
    _repair,
    _silence,
    _preempt,
    _release,
    _release,
    _resize,
]


@pytest.mark.parametrize("seed", range(24))
def test_after_all_that_it_is_served_again(seed: int) -> None:
    rng = Random(seed)
    cluster = a_hall(rng.choice([4, 5, 6, 8]), rng, rng.choice(["Auto", "Serial"]))
    cluster.run(30)
    for _ in range(12):
        rng.choice(EVENTS)(cluster)
        cluster.run(rng.choice([0.5, 3.0, 12.0, 40.0]))
    _repair(cluster)

    def change(spec: dict[str, Any]) -> None:
        # Two failed starts reject a revision; this one has had none.
        spec["engine"]["image"] = "registry.hall/vllm:0.32-last"
        spec["capacity"] = {**spec["capacity"], "minReplicas": 2, "maxReplicas": 2}

    cluster.spec(change)
    cluster.kill_chance = 0.0
    cluster.run(900)

    end = cluster.end()
    newest = cluster.deployment.status.revisions[-1]
    assert (end["phase"], end["ready"], end["in"]) == ("Serving", "2/2", 2), cluster.tell()
    assert (end["gangs"], len(end["pods"]), end["rollout"]) == (2, 4, None), cluster.tell()
    assert {one[1] for one in end["replicas"]} == {newest.hash}
    assert newest.verdict == "Accepted"
    assert len(cluster.revisions) == 1
