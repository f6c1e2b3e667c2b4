"""A revision that keeps failing costs as many starts as are allowed, and no more."""

import pytest

from tramontane.controllers.inferencedeployment.revisions import hash_of
from unit.inferencedeployment.builders import NOW, a_deployment
from unit.inferencedeployment.world_sim import Cluster

RACKS = {f"b{number}": f"r{number // 2}" for number in range(6)}


def starts(cluster: Cluster, until_s: float) -> list[float]:
    """Return when seat 0 of any replica was made, in seconds."""
    return [at - NOW for at, _, seat in cluster.creations if seat == 0 and at - NOW <= until_s]


def test_a_model_that_never_starts() -> None:
    deployment = a_deployment()
    cluster = Cluster(deployment, RACKS, load_s=1)
    cluster.breaks[hash_of(deployment.spec), "*"] = 1
    cluster.run(3600)
    # 10, 20, 40, 80 and 160 s apart, then once elsewhere, then every 10 min.
    assert len(starts(cluster, 600)) == 7
    gaps = [b - a for a, b in zip(starts(cluster, 400), starts(cluster, 400)[1:], strict=False)]
    for gap, wait in zip(gaps, (10, 20, 40, 80, 160), strict=False):
        assert wait <= gap <= wait + 6
    assert len(starts(cluster, 3600)) <= 7 + 6
    status = cluster.deployment.status
    assert (status.phase, status.reason) == ("Degraded", "EngineFailed")
    assert "exit code 1" in (status.message or "")
    assert len(cluster.gangs) == 1


@pytest.mark.parametrize("seed", range(6))
def test_kills_make_no_more_starts(seed: int) -> None:
    deployment = a_deployment(recovery={"restarts": 3, "backoff": {"base": "10s", "max": "10m"}})
    cluster = Cluster(deployment, RACKS, load_s=1, kill_chance=0.1)
    cluster.rng.seed(seed)
    cluster.breaks[hash_of(deployment.spec), "*"] = 1
    cluster.run(900)
    # The first, three restarts, one elsewhere, and one after max.
    assert len(starts(cluster, 900)) <= 6


def test_one_blade_that_breaks_it_costs_a_move() -> None:
    deployment = a_deployment(recovery={"restarts": 2, "backoff": {"base": "1s", "max": "60s"}})
    cluster = Cluster(deployment, RACKS, load_s=1)
    cluster.breaks["*", "b1"] = 137
    cluster.run(120)
    status = cluster.deployment.status
    assert (status.phase, status.ready) == ("Serving", "1/1")
    assert "b1" not in status.replicas[0].blades
    assert len(cluster.gangs) == 1


def test_without_a_spare_it_is_tried_on_where_it_is() -> None:
    deployment = a_deployment(recovery={"restarts": 2, "backoff": {"base": "1s", "max": "60s"}})
    cluster = Cluster(deployment, {"b0": "r0", "b1": "r0"}, load_s=1)
    cluster.breaks["*", "b1"] = 137
    cluster.run(300)
    assert cluster.deployment.status.phase == "Degraded"
    del cluster.breaks["*", "b1"]
    cluster.run(120)
    assert cluster.end()["in"] == 1
    assert cluster.end()["gangs"] == 1
    assert cluster.deployment.status.phase == "Serving"


def test_blades_with_wrong_weights_are_left_one_by_one() -> None:
    cluster = Cluster(a_deployment(), RACKS, load_s=1)
    cluster.run(30)
    assert cluster.deployment.status.phase == "Serving"
    cluster.breaks["*", "b2"] = -65
    cluster.breaks["*", "b3"] = -65

    def grow(spec: dict[str, dict[str, int]]) -> None:
        spec["capacity"]["minReplicas"] = 2

    cluster.spec(grow)
    cluster.run(60)
    status = cluster.deployment.status
    assert (status.phase, status.ready) == ("Serving", "2/2")
    assert "b2" in status.replicas[1].avoid


def test_wrong_weights_everywhere_are_not_tried_again() -> None:
    deployment = a_deployment()
    cluster = Cluster(deployment, RACKS, load_s=1)
    cluster.breaks[hash_of(deployment.spec), "*"] = -65
    cluster.run(3600)
    assert len(starts(cluster, 3600)) == 1
    status = cluster.deployment.status
    assert (status.phase, status.reason) == ("Failed", "ArtifactMismatch")
    assert all(gang.status.placement is None for gang in cluster.gangs.values())
    verified = next(one for one in status.conditions if one.type == "ArtifactVerified")
    assert verified.status == "False"
