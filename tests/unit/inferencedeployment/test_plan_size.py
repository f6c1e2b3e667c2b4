"""A plan costs what its replicas cost, not their square: counted in calls, which no clock moves."""

import cProfile
import pstats
from typing import Any

import pytest

from tramontane.controllers.inferencedeployment.plan import plan
from tramontane.controllers.inferencedeployment.world import World
from unit.inferencedeployment.builders import (
    a_blade,
    a_deployment,
    a_gang,
    a_node,
    a_pod,
    a_revision,
    a_status,
    a_world,
    an_entry,
    ended,
)

NEWER: dict[str, Any] = {
    "engine": {"name": "vllm", "image": "registry.hall/vllm:0.32-newer", "version": "0.32"}
}


def a_hall(count: int, wanted: int, *, broken: bool = False, **spec: Any) -> World:
    """Return `count` replicas that serve, and as many wanted as asked; all break if so told."""
    names = [f"claims-{number}" for number in range(count)]
    status = a_status(*(an_entry(name=name) for name in names))
    capacity = {"minReplicas": wanted, "maxReplicas": wanted}
    deployment = a_deployment(status, capacity=capacity, **spec)
    revisions = {one.hash: one for one in (a_revision(), a_revision(deployment))}
    how = {"phase": "Failed", "containers": (ended(1),)} if broken else {}
    gangs, pods = {}, {}
    blades: dict[str, Any] = {}
    nodes: dict[str, Any] = {}
    for number, name in enumerate(names):
        seats = (f"b{2 * number}", f"b{2 * number + 1}")
        gangs[name] = a_gang(deployment, {"name": name}, seats)
        pods[name] = (a_pod(name, 0, seats[0]), a_pod(name, 1, seats[1], **how))
        blades |= {blade: a_blade(blade) for blade in seats}
        nodes |= {blade: a_node(blade) for blade in seats}
    return a_world(
        deployment, revisions=revisions, gangs=gangs, pods=pods, blades=blades, nodes=nodes
    )


def calls(world: World) -> int:
    """Return how many calls a plan takes, once what is read the first time has been read."""
    plan(world)
    profile = cProfile.Profile()
    profile.runcall(plan, world)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


CASES: dict[str, Any] = {
    "calm": lambda count: a_hall(count, count),
    "scale out": lambda count: a_hall(count // 2, count),
    "scale in": lambda count: a_hall(count, 1),
    "all break": lambda count: a_hall(count, count, broken=True),
    "rollout": lambda count: a_hall(count, count, **NEWER),
}


@pytest.mark.parametrize("made", CASES.values(), ids=CASES)
def test_the_cost_grows_with_the_replicas(made: Any) -> None:
    assert calls(made(240)) < 8 * calls(made(40))
    assert calls(made(240)) < 240 * 1000
