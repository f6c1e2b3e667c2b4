"""The controller over an API server in memory: what it writes, and that a kill does no harm."""

import random
from collections import Counter
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.kube.errors import ApiError, Forbidden, Invalid
from tramontane.kube.resources import BLADES, CONFIGMAPS, GANGS, PODS, SERVICES, TRAININGJOBS
from unit.trainingjob.fake import KEY, Cluster


def seats_of(cluster: Cluster) -> list[str]:
    seats: list[str] = cluster.api.of(GANGS)[KEY]["status"]["placement"]["seats"]
    return seats


def check_whole(cluster: Cluster) -> None:
    """Check that each seat has one live pod on its own healthy blade, all of one attempt."""
    pods = cluster.pods
    assert set(pods) == {0, 1, 2, 3}
    assert [pods[seat]["spec"]["nodeName"] for seat in range(4)] == seats_of(cluster)
    assert len(set(seats_of(cluster))) == 4
    assert set(seats_of(cluster)) <= set(cluster.healthy())
    epochs = {pod["metadata"]["annotations"]["tramontane.dev/epoch"] for pod in pods.values()}
    assert epochs == {str(cluster.status["attempt"])}
    assert cluster.status["phase"] == "Running"
    assert cluster.status["ready"] == "4/4"


async def a_running_cluster(**spec: Any) -> Cluster:
    cluster = Cluster(**spec)
    await cluster.settle()
    check_whole(cluster)
    return cluster


async def test_a_start_costs_few_writes() -> None:
    cluster = await a_running_cluster()

    counts = Counter((verb, kind) for verb, kind, _ in cluster.api.writes)
    assert counts.pop(("status", "trainingjobs")) <= 4
    assert counts == {
        ("create", "gangs"): 1,
        ("create", "services"): 1,
        ("create", "configmaps"): 1,
        ("create", "pods"): 4,
    }


async def test_nothing_is_written_while_nothing_changes() -> None:
    cluster = await a_running_cluster()
    before = len(cluster.api.writes)

    for _ in range(20):
        await cluster.reconcile()

    assert len(cluster.api.writes) == before


async def test_a_fault_costs_one_pod_and_one_patch_per_survivor() -> None:
    cluster = await a_running_cluster()
    before = {seat: pod["metadata"]["uid"] for seat, pod in cluster.pods.items()}
    cluster.api.writes.clear()

    lost = seats_of(cluster)[2]
    cluster.say(lost, "Quarantined")
    await cluster.settle()

    check_whole(cluster)
    now = {seat: pod["metadata"]["uid"] for seat, pod in cluster.pods.items()}
    assert {seat for seat in range(4) if now[seat] != before[seat]} == {2}
    of_pods = [(verb, key) for verb, kind, key in cluster.api.writes if kind == "pods"]
    assert of_pods == [
        ("delete", "ml/llama-2"),
        ("create", "ml/llama-2"),
        ("patch", "ml/llama-0"),
        ("patch", "ml/llama-1"),
        ("patch", "ml/llama-3"),
    ]
    # The incident was on record before anything was done about it.
    assert cluster.api.writes[0] == ("status", "trainingjobs", KEY)
    assert cluster.api.writes[1] == ("apply", "gangs", KEY)


async def test_a_stale_cache_makes_nothing_twice() -> None:
    cluster = Cluster()
    await cluster.reconcile()
    cluster.schedule()
    cluster.sync()

    for _ in range(5):
        await cluster.reconcile()  # the cache shows no pod yet

    assert len([one for one in cluster.api.asked if one[:2] == ("create", "pods")]) == 4
    await cluster.settle()
    check_whole(cluster)


@pytest.mark.parametrize("seed", range(40))
async def test_killed_at_any_moment_it_ends_whole_and_nobody_was_restarted_without_a_cause(
    seed: int,
) -> None:
    chance = random.Random(seed)
    cluster = Cluster()
    faults = 0
    for _ in range(70):
        cluster.api.now += chance.random()
        match chance.randrange(9):
            case 0:
                cluster.schedule()
            case 1:
                cluster.kubelets()
            case 2:
                cluster.sync()
            case 3 if faults < 4 and GANGS.plural in cluster.api.objects:
                faults += 1
                victim = chance.choice(cluster.healthy())
                cluster.say(victim, chance.choice(["Quarantined", "Lost"]))
            case 4:
                cluster.api.kill_in = chance.randrange(6)
                cluster.api.kill_after_write = chance.random() < 0.5
                await cluster.reconcile()
            case _:
                await cluster.reconcile()
    cluster.api.kill_in = None
    await cluster.settle(20)

    check_whole(cluster)
    blades = cluster.api.of(BLADES)
    for pod in cluster.removed:
        seat = int(pod["metadata"]["labels"]["tramontane.dev/seat"])
        assert seat in cluster.recorded, f"seat {seat} was restarted without a recorded cause"
        blade = pod["spec"]["nodeName"]
        assert blades[blade]["status"]["state"] != "Healthy", f"survivor on {blade} was deleted"


async def test_a_crash_loop_ends_the_job_and_not_before_its_budget() -> None:
    cluster = await a_running_cluster(recovery={"userFailures": {"max": 2, "window": "24h"}})
    for _ in range(3):
        for pod in cluster.pods.values():
            pod["status"] = {
                "phase": "Failed",
                "containerStatuses": [
                    {"name": "trainer", "state": {"terminated": {"exitCode": 1}}}
                ],
            }
        await cluster.settle(40)

    assert cluster.status["phase"] == "Failed"
    assert cluster.status["reason"] == "TooManyUserFailures"
    assert cluster.status["restarts"]["user"] == 3
    assert cluster.api.of(GANGS)[KEY]["spec"]["active"] is False


async def test_suspension_and_resumption() -> None:
    cluster = await a_running_cluster()
    spec = cluster.api.of(TRAININGJOBS)[KEY]["spec"]

    spec["suspend"] = True
    await cluster.settle()
    assert cluster.status["phase"] == "Suspended"
    assert not cluster.pods
    spec["suspend"] = False
    await cluster.settle()

    check_whole(cluster)
    assert cluster.status["attempt"] == 2


async def test_a_pod_that_was_deleted_by_force_while_starting_is_recorded() -> None:
    cluster = Cluster()
    for _ in range(2):
        await cluster.reconcile()
        cluster.schedule()
        cluster.sync()
    assert cluster.status["phase"] == "Starting"

    cluster.remove("ml/llama-1")
    await cluster.settle()

    check_whole(cluster)
    assert [one["cause"] for one in cluster.status["incidents"]] == ["Evicted"]
    assert cluster.status["incidents"][0]["seats"] == [1]


async def test_a_quota_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    real = cluster.api.create

    async def refusing(resource: Any, body: Any) -> Any:
        if resource is PODS:
            raise Forbidden(403, "Forbidden", "exceeded quota: gpus")
        return await real(resource, body)

    monkeypatch.setattr(cluster.api, "create", refusing)
    await cluster.settle(4)
    assert cluster.status["reason"] == "Misconfigured"
    assert "exceeded quota: gpus" in cluster.status["message"]

    monkeypatch.setattr(cluster.api, "create", real)
    await cluster.settle(16)
    check_whole(cluster)


@pytest.mark.parametrize("resource", [SERVICES, CONFIGMAPS], ids=lambda one: one.plural)
async def test_somebody_else_s_object_of_our_name_is_left_alone(resource: Any) -> None:
    cluster = Cluster()
    name = "llama" if resource is SERVICES else "llama-tramontane"
    theirs = {"metadata": {"name": name, "namespace": "ml", "uid": "theirs"}}
    cluster.api.of(resource)[f"ml/{name}"] = theirs

    await cluster.settle(6)

    assert cluster.api.of(resource)[f"ml/{name}"] is theirs
    assert not cluster.pods
    assert "must belong to this job" in cluster.status["message"]


async def test_an_invalid_pod_is_said_in_the_api_server_s_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster()
    real = cluster.api.create

    async def refusing(resource: Any, body: Any) -> Any:
        if resource is PODS:
            raise Invalid(422, "Invalid", "spec.volumes[0]: Required value")
        return await real(resource, body)

    monkeypatch.setattr(cluster.api, "create", refusing)
    await cluster.settle(4)

    assert "spec.volumes[0]: Required value" in cluster.status["message"]
    conditions = {one["type"]: one["status"] for one in cluster.status["conditions"]}
    assert conditions["Stalled"] == "True"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Forbidden(403, "Forbidden", "exceeded quota: gangs"), id="quota"),
        pytest.param(Invalid(422, "Invalid", "exceeded quota: gangs"), id="policy"),
        pytest.param(ApiError(400, "BadRequest", "exceeded quota: gangs"), id="webhook"),
    ],
)
async def test_a_gang_that_the_api_server_refuses_is_said_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: ApiError
) -> None:
    cluster = Cluster()
    real, tries = cluster.api.apply, []

    async def refusing(resource: Any, body: Any, **options: Any) -> Any:
        if resource is GANGS:
            tries.append(cluster.api.now)
            raise error
        return await real(resource, body, **options)

    monkeypatch.setattr(cluster.api, "apply", refusing)
    await cluster.settle(4)
    assert (cluster.status["phase"], cluster.status["reason"]) == ("Queued", "Misconfigured")
    assert "gang llama must be accepted (got: exceeded quota: gangs)" in cluster.status["message"]
    conditions = {one["type"]: one["status"] for one in cluster.status["conditions"]}
    assert conditions["Stalled"] == "True"

    said = len(cluster.api.writes)
    await cluster.settle(26)
    assert len(tries) == 3
    assert len(cluster.api.writes) == said
    assert 0 < (await cluster.controller.reconcile(KEY) or 0) <= 10

    monkeypatch.setattr(cluster.api, "apply", real)
    await cluster.settle(20)
    check_whole(cluster)


async def test_blades_that_cannot_be_given_up_are_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = await a_running_cluster()
    cluster.api.of(TRAININGJOBS)[KEY]["spec"]["suspend"] = True
    real = cluster.api.apply

    async def refusing(resource: Any, body: Any, **options: Any) -> Any:
        if resource is GANGS:
            raise Forbidden(403, "Forbidden", "rbac")
        return await real(resource, body, **options)

    monkeypatch.setattr(cluster.api, "apply", refusing)
    await cluster.settle(4)
    assert cluster.status["phase"] == "Suspended"
    assert 0 < (await cluster.controller.reconcile(KEY) or 0) <= 10

    monkeypatch.setattr(cluster.api, "apply", real)
    await cluster.settle()
    assert cluster.api.of(GANGS)[KEY]["spec"]["active"] is False


async def test_a_job_with_a_place_says_so_though_its_pods_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster()
    await cluster.reconcile()
    cluster.schedule()
    cluster.sync()
    real = cluster.api.create

    async def failing(resource: Any, body: Any) -> Any:
        if resource is PODS:
            raise ApiError(500, "InternalError", "failed calling webhook")
        return await real(resource, body)

    monkeypatch.setattr(cluster.api, "create", failing)
    with pytest.raises(ApiError, match="failed calling webhook"):  # so that the queue comes back
        await cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["ready"]) == ("Starting", "0/4")

    monkeypatch.setattr(cluster.api, "create", real)
    await cluster.settle()
    check_whole(cluster)


async def test_a_job_that_is_gone_is_forgotten() -> None:
    cluster = await a_running_cluster()
    del cluster.api.of(TRAININGJOBS)[KEY]

    assert await cluster.controller.reconcile(KEY) is None
    assert await cluster.controller.reconcile(KEY) is None


async def test_goodput_adds_up_through_it_all() -> None:
    cluster = await a_running_cluster()
    cluster.say(seats_of(cluster)[0], "Quarantined")
    await cluster.settle(50)

    shown = cluster.status["goodput"]
    total = float(shown["productive"][:-1]) + sum(float(v[:-1]) for v in shown["lost"].values())
    created = cluster.api.of(TRAININGJOBS)[KEY]["metadata"]["creationTimestamp"]
    assert shown["at"] == clock.utc(clock.parse(created) + total)
    assert float(shown["lost"]["restart"][:-1]) > 0


async def test_a_delete_means_the_pod_that_was_seen_and_not_its_successor() -> None:
    cluster = await a_running_cluster()
    cluster.say(seats_of(cluster)[2], "Quarantined")
    cluster.sync()
    cluster.api.of(PODS)["ml/llama-2"]["metadata"]["uid"] = "successor"

    await cluster.reconcile()

    assert ("delete", "pods", "ml/llama-2") in cluster.api.asked
    assert "deletionTimestamp" not in cluster.api.of(PODS)["ml/llama-2"]["metadata"]
