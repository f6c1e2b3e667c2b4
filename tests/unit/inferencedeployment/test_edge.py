"""The profile Edge: one Deployment, and its status in the words of ours."""

from typing import Any

import pytest

from tramontane.controllers.inferencedeployment import edge
from tramontane.controllers.inferencedeployment.world import World
from unit.inferencedeployment.builders import CONFIG, NOW, a_deployment, a_node, a_pool

Raw = dict[str, Any]
GIB = 2**30
# About three thousand million parameters: 6 GiB in bfloat16.
SMALL: Raw = {
    **CONFIG,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
}
LLAMACPP: Raw = {"name": "llamacpp", "image": "registry.hall/llama.cpp:0.5", "version": "0.5"}


def a_world(ram_gib: int = 64, status: Raw | None = None, **spec: Any) -> World:
    given: Raw = {
        "profile": "Edge",
        "nodePool": None,
        "engine": LLAMACPP,
        "layout": {"mode": "Auto"},
        "model": {"config": SMALL},
        "capacity": {"contextTokens": 8192, "concurrentRequests": 1},
        **spec,
    }
    nodes = {"box": a_node("box", memory_b=ram_gib * GIB, gpus=0)}
    return World(NOW, a_deployment(status, **given), nodes=nodes)


def applied(world: World, **status: Any) -> Raw:
    """Return the Deployment that the world's plan asks for, with a status."""
    body = edge.plan(world, None).body
    assert body is not None
    meta = {**body["metadata"], "generation": 2}
    return {**body, "metadata": meta, "status": {"observedGeneration": 2, **status}}


READY = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
LATE = {
    "conditions": [{"type": "Progressing", "status": "False", "message": "has timed out"}],
    "replicas": 1,
    "updatedReplicas": 1,
    "unavailableReplicas": 1,
}
PHASES: dict[str, tuple[Raw, str]] = {
    "serves": (READY, "Serving"),
    "the new one is not there yet": ({**READY, "observedGeneration": 1}, "RollingOut"),
    "the old one is there still": ({**READY, "replicas": 2}, "RollingOut"),
    "loads": ({"replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1}, "Loading"),
    "does not come up": (LATE, "Degraded"),
}


@pytest.mark.parametrize("case", PHASES)
def test_the_deployment_s_status_becomes_ours(case: str) -> None:
    given, phase = PHASES[case]
    world = a_world()
    found = edge.plan(world, applied(world, **given))
    assert found.status.phase == phase
    assert found.status.ready == ("1/1" if given.get("readyReplicas") else "0/1")
    assert found.after == (30.0 if phase == "Serving" else 5.0)


def test_a_deployment_of_somebody_else_is_not_taken_for_ours() -> None:
    world = a_world()
    other = applied(world, **READY)
    other["metadata"]["ownerReferences"] = [{"uid": "another"}]
    status = edge.plan(world, other).status
    assert (status.phase, status.ready, status.revisions) == ("Loading", "0/1", ())


def test_the_pod_is_that_of_a_replica_but_restarts_and_always_has_its_turn() -> None:
    body = edge.plan(a_world(), None).body
    assert body is not None
    template = body["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert labels["tramontane.dev/rotation"] == "in"
    assert "tramontane.dev/gang" not in labels
    assert template["spec"]["restartPolicy"] == "Always"
    assert "nodeName" not in template["spec"]
    assert body["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert template["spec"]["containers"][0]["command"][2] == "llama-server"


@pytest.mark.parametrize(
    ("ram_gib", "memory", "strategy"),
    [
        (64, None, "RollingUpdate"),
        (10, None, "Recreate"),
        (64, "32Gi", "RollingUpdate"),
        (64, "40Gi", "Recreate"),
    ],
    ids=["twice fits", "twice does not fit", "a limit fits twice", "a limit does not"],
)
def test_the_new_pod_comes_beside_the_old_one_only_where_both_fit(
    ram_gib: int, memory: str | None, strategy: str
) -> None:
    container: Raw = {"name": "engine"}
    if memory:
        container["resources"] = {"limits": {"memory": memory}}
    world = a_world(ram_gib, template={"spec": {"containers": [container]}})
    body = edge.plan(world, None).body
    assert body is not None
    assert body["spec"]["strategy"]["type"] == strategy


def test_what_does_not_fit_is_refused_and_what_serves_serves_on() -> None:
    small, serving = a_world(4), a_world()
    refused = edge.plan(small, None)
    assert refused.body is None
    assert (refused.status.phase, refused.status.reason) == ("Failed", "DoesNotFit")
    assert "GiB" in (refused.status.message or "")

    refused = edge.plan(small, applied(serving, **READY))
    assert refused.body is None
    assert (refused.status.phase, refused.status.reason) == ("Serving", "DoesNotFit")
    planned = next(one for one in refused.status.conditions if one.type == "Planned")
    assert planned.status == "False"


def test_it_stays_on_the_nodes_of_its_pool() -> None:
    world = a_world(nodePool="hall")
    expression = {"key": "disk", "operator": "In", "values": ["nvme"]}
    selector = {"matchLabels": {"gpu": "h200"}, "matchExpressions": [expression]}
    pool = a_pool(nodeSelector=selector)
    planned = edge.plan(World(NOW, world.deployment, pools={"hall": pool}), None)
    assert planned.body is not None
    spec = planned.body["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"gpu": "h200"}
    affinity = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert affinity["nodeSelectorTerms"] == [{"matchExpressions": [expression]}]


def test_a_pool_that_is_not_there_is_said() -> None:
    planned = edge.plan(a_world(nodePool="rome"), None)
    assert planned.body is None
    assert planned.status.reason == "NoMatchingPool"


def test_weights_that_nobody_trusted_has_signed_are_not_served() -> None:
    world = a_world()
    distrusted = World(NOW, world.deployment, nodes=world.nodes, trusted=False, distrust="no key")
    planned = edge.plan(distrusted, None)
    assert planned.body is None
    assert planned.status.reason == "ArtifactMismatch"


def test_the_same_plan_makes_the_same_status() -> None:
    world = a_world()
    raw = applied(world, **READY)
    first = edge.plan(world, raw).status
    again = a_world(status=first.to_dict())
    assert edge.plan(World(NOW + 60, again.deployment, nodes=again.nodes), raw).status == first
