"""The TrainingJob controller on a real API server, with the real scheduler and KWOK's kubelets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from plane.hall import NAMESPACE, SOON_S, a_scheduled_hall, controlled, made, say_state
from plane.harness import Plane
from tramontane.api.names import (
    ANNOTATION_EPOCH,
    ANNOTATION_PEERS,
    LABEL_SEAT,
)
from tramontane.controllers.trainingjob import TrainingJobController
from tramontane.kube.client import Client, Conflict
from tramontane.kube.resources import (
    BLADES,
    CONFIGMAPS,
    GANGS,
    NODES,
    PODS,
    PRIORITYCLASSES,
    SERVICES,
    TRAININGJOBS,
)

NAME = "llama"
Raw = dict[str, Any]


def controlling(plane: Plane) -> AbstractAsyncContextManager[TrainingJobController]:
    return controlled(plane, TRAININGJOBS, TrainingJobController)


@asynccontextmanager
async def a_hall(plane: Plane, blades: int = 6) -> AsyncIterator[Client]:
    """Yield a client of a cluster with healthy blades, a scheduler and the controller."""
    async with a_scheduled_hall(plane, blades) as client, controlling(plane):
        yield client


def a_job(nodes: int = 4, **spec: Any) -> Raw:
    rank: Raw = {"name": "trainer", "image": "train", "command": ["torchrun", "train.py"]}
    rank["resources"] = {"limits": {"nvidia.com/gpu": "8"}, "requests": {"cpu": "64"}}
    template = {"spec": {"containers": [rank]}}
    return made(
        "TrainingJob", NAME, {"nodePool": "paris", "nodes": nodes, "template": template, **spec}
    )


async def status_of(client: Client, holds: Callable[[Raw], bool], what: str) -> Raw:
    """Return the job's status as soon as it is as wanted."""
    status: Raw = {}
    try:
        async with asyncio.timeout(SOON_S):
            while not (status and holds(status)):
                await asyncio.sleep(0.02)
                status = (await client.get(TRAININGJOBS, NAME, NAMESPACE)).get("status") or {}
    except TimeoutError:
        gangs = await client.list_all(GANGS, NAMESPACE)
        pytest.fail(f"the job must become {what} (got {status}; gangs: {gangs})")
    return status


def in_phase(phase: str) -> Callable[[Raw], bool]:
    return lambda status: status.get("phase") == phase


async def pods_of(client: Client) -> dict[int, Raw]:
    pods = await client.list_all(PODS, NAMESPACE, label_selector=f"tramontane.dev/job={NAME}")
    return {int(pod["metadata"]["labels"][LABEL_SEAT]): pod for pod in pods}


def epochs(pods: dict[int, Raw]) -> set[str]:
    return {pod["metadata"]["annotations"][ANNOTATION_EPOCH] for pod in pods.values()}


def uids(pods: dict[int, Raw]) -> dict[int, str]:
    return {seat: pod["metadata"]["uid"] for seat, pod in pods.items()}


async def test_from_submission_through_a_fault_to_whole_again(plane: Plane) -> None:
    async with a_hall(plane) as client:
        await client.create(TRAININGJOBS, a_job(spares=1))
        status = await status_of(client, in_phase("Running"), "Running")
        assert (status["ready"], status["gpus"], status["attempt"]) == ("4/4", 32, 1)

        before = await pods_of(client)
        gang = await client.get(GANGS, NAME, NAMESPACE)
        seats = gang["status"]["placement"]["seats"]
        assert [before[seat]["spec"]["nodeName"] for seat in range(4)] == seats
        assert epochs(before) == {"1"}
        service = await client.get(SERVICES, NAME, NAMESPACE)
        assert service["spec"]["clusterIP"] == "None"
        config = await client.get(CONFIGMAPS, f"{NAME}-tramontane", NAMESPACE)
        assert config["data"]["rank-blades"] == ",".join(seats)
        assert "rankagent.py" in config["data"]

        await say_state(client, seats[2], "Quarantined")
        status = await status_of(
            client, lambda s: s["phase"] == "Running" and s["attempt"] == 2, "whole again"
        )

        after = await pods_of(client)
        survivors = (0, 1, 3)
        assert {seat: uids(after)[seat] for seat in survivors} == {
            seat: uids(before)[seat] for seat in survivors
        }
        assert uids(after)[2] != uids(before)[2]
        assert after[2]["spec"]["nodeName"] not in seats
        assert epochs(after) == {"2"}
        address = after[2]["status"]["podIP"]
        peers = after[0]["metadata"]["annotations"][ANNOTATION_PEERS]
        assert peers == f'{{"2": "{address}"}}'
        [incident] = status["incidents"]
        assert (incident["cause"], incident["blade"], incident["seats"]) == (
            "BladeFault", seats[2], [2],
        )  # fmt: skip
        assert incident["replacedBy"] == after[2]["spec"]["nodeName"]
        assert incident["runningAfter"]
        assert status["restarts"] == {"user": 0, "infra": 1, "preempted": 0}
        gang = await client.get(GANGS, NAME, NAMESPACE)
        assert gang["spec"].get("lost", []) == []


async def test_a_node_that_goes_away_takes_one_seat_with_it(plane: Plane) -> None:
    async with a_hall(plane) as client:
        await client.create(TRAININGJOBS, a_job())
        await status_of(client, in_phase("Running"), "Running")
        before = await pods_of(client)

        gone = before[1]["spec"]["nodeName"]
        await client.delete(BLADES, gone)
        await client.delete(NODES, gone)
        status = await status_of(
            client, lambda s: s["phase"] == "Running" and s["attempt"] == 2, "whole again"
        )

        after = await pods_of(client)
        assert after[1]["spec"]["nodeName"] != gone
        assert {uid for seat, uid in uids(after).items() if seat != 1} == {
            uid for seat, uid in uids(before).items() if seat != 1
        }
        assert [incident["cause"] for incident in status["incidents"]] == ["NodeLost"]


async def test_a_pod_that_somebody_deletes_comes_back_with_a_recorded_cause(plane: Plane) -> None:
    async with a_hall(plane) as client:
        await client.create(TRAININGJOBS, a_job())
        await status_of(client, in_phase("Running"), "Running")

        await client.delete(PODS, f"{NAME}-3", NAMESPACE, grace_period_s=0)
        status = await status_of(
            client, lambda s: s["phase"] == "Running" and s["attempt"] == 2, "whole again"
        )

        [incident] = status["incidents"]
        assert (incident["cause"], incident["seats"]) == ("Evicted", [3])
        assert epochs(await pods_of(client)) == {"2"}


async def test_a_drained_blade_is_left_for_another_one(plane: Plane) -> None:
    """As `kubectl drain` does it: the Node is cordoned, its pods are evicted."""
    async with a_hall(plane) as client:
        await client.create(TRAININGJOBS, a_job(spares=1))
        await status_of(client, in_phase("Running"), "Running")
        before = await pods_of(client)
        left = before[3]["spec"]["nodeName"]

        await client.merge_patch(NODES, left, {"spec": {"unschedulable": True}})
        name = f"{NAME}-3"
        body = {"metadata": {"name": name, "namespace": NAMESPACE}}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", **body}
        await client.create(PODS, eviction, NAMESPACE, name=name, subresource="eviction")
        status = await status_of(
            client, lambda s: s["phase"] == "Running" and s["attempt"] == 2, "whole again"
        )

        after = await pods_of(client)
        assert after[3]["spec"]["nodeName"] != left
        assert {uid for seat, uid in uids(after).items() if seat != 3} == {
            uid for seat, uid in uids(before).items() if seat != 3
        }
        [incident] = status["incidents"]
        assert (incident["cause"], incident["seats"]) == ("Evicted", [3])
        node = await client.get(NODES, left)
        assert node["spec"]["unschedulable"], "nothing is uncordoned that others cordoned"


async def test_suspension_frees_the_blades_and_resumption_is_a_new_attempt(plane: Plane) -> None:
    async with a_hall(plane) as client:
        await client.create(TRAININGJOBS, a_job())
        await status_of(client, in_phase("Running"), "Running")

        await client.merge_patch(TRAININGJOBS, NAME, {"spec": {"suspend": True}}, NAMESPACE)
        status = await status_of(client, in_phase("Suspended"), "Suspended")
        assert status["reason"] == "Suspended"
        assert await pods_of(client) == {}
        gang = await client.get(GANGS, NAME, NAMESPACE)
        assert gang["spec"]["active"] is False

        await client.merge_patch(TRAININGJOBS, NAME, {"spec": {"suspend": False}}, NAMESPACE)
        status = await status_of(client, in_phase("Running"), "Running again")
        assert status["attempt"] == 2
        assert epochs(await pods_of(client)) == {"2"}
        assert status["incidents"] == []


async def test_a_more_important_job_gets_the_blades_and_the_other_comes_back(plane: Plane) -> None:
    async with a_hall(plane, blades=4) as client:
        important = {"metadata": {"name": "urgent"}, "value": 1000}
        await client.create(PRIORITYCLASSES, important)
        await client.create(TRAININGJOBS, a_job(maxRuntime="24h", checkpoint={"grace": "5s"}))
        before = await status_of(client, in_phase("Running"), "Running")

        urgent = a_job(2, priorityClassName="urgent")
        urgent["metadata"] = {"name": "urgent", "namespace": NAMESPACE}
        await client.create(TRAININGJOBS, urgent)
        status = await status_of(
            client, lambda s: s.get("phase") == "Queued" and bool(s.get("restarts")), "Queued"
        )
        assert status["restarts"]["preempted"] == 1
        assert status["restarts"]["user"] == status["restarts"]["infra"] == 0
        [incident] = status["incidents"][len(before["incidents"]) :]
        assert (incident["cause"], incident["code"]) == ("Preempted", f"{NAMESPACE}/urgent")

        async with asyncio.timeout(SOON_S):
            while (  # noqa: ASYNC110 - the API server sets no event
                await client.get(TRAININGJOBS, "urgent", NAMESPACE)
            ).get("status", {}).get("phase") != "Running":
                await asyncio.sleep(0.05)
        gang = (await client.get(GANGS, NAME, NAMESPACE))["status"]
        assert gang["phase"] == "Pending"
        assert "preempt" not in gang
        assert "placement" not in gang

        await client.delete(TRAININGJOBS, "urgent", NAMESPACE, propagation="Background")
        status = await status_of(client, in_phase("Running"), "Running again")
        assert epochs(await pods_of(client)) == {str(status["attempt"])}
        await client.delete(PRIORITYCLASSES, "urgent")


async def test_what_is_wrong_is_said_and_put_right(plane: Plane) -> None:
    async with a_hall(plane) as client:
        job = a_job(nodePool="rome")
        await client.create(TRAININGJOBS, job)
        status = await status_of(client, lambda s: "reason" in s, "refused")
        assert status["reason"] == "NoMatchingPool"
        assert 'got "rome"; there are paris' in status["message"]
        assert await pods_of(client) == {}
        await client.delete(TRAININGJOBS, NAME, NAMESPACE)
        await gone(client)

        job = a_job(nodes=40)
        await client.create(TRAININGJOBS, job)
        status = await status_of(client, lambda s: s.get("reason") == "ExceedsPool", "too large")
        assert "40" in status["message"]
        await client.merge_patch(TRAININGJOBS, NAME, {"spec": {"nodes": 4}}, NAMESPACE)
        await status_of(client, in_phase("Running"), "Running")
        await client.delete(TRAININGJOBS, NAME, NAMESPACE)
        await gone(client)

        job = a_job()
        job["spec"]["template"]["spec"]["nodeName"] = "gpu-00001"
        await client.create(TRAININGJOBS, job)
        status = await status_of(client, lambda s: "reason" in s, "refused")
        assert (status["phase"], status["reason"]) == ("Queued", "Misconfigured")
        assert "template.spec.nodeName must not be set" in status["message"]


async def gone(client: Client) -> None:
    """Return when a deleted job has taken its gang and its pods with it."""
    async with asyncio.timeout(SOON_S):
        while await pods_of(client) or await client.list_all(GANGS, NAMESPACE):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_only_the_api_server_knows_is_said_too(plane: Plane) -> None:
    async with a_hall(plane) as client:
        job = a_job()
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": "Not A Name"}}
        job["spec"]["template"]["spec"]["volumes"] = [volume, {"name": "bad", "emptyDir": 7}]
        await client.create(TRAININGJOBS, job)

        status = await status_of(client, lambda s: s.get("reason") == "Misconfigured", "refused")

        assert "pod llama-" in status["message"]
        assert await pods_of(client) == {}


async def test_a_gang_edited_by_hand_is_put_back(plane: Plane) -> None:
    async with a_hall(plane) as client:
        await client.create(TRAININGJOBS, a_job())
        await status_of(client, in_phase("Running"), "Running")
        before = await pods_of(client)

        with contextlib.suppress(Conflict):
            await client.merge_patch(GANGS, NAME, {"spec": {"spares": 2}}, NAMESPACE)
        async with asyncio.timeout(SOON_S):
            while (await client.get(GANGS, NAME, NAMESPACE))["spec"]["spares"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        assert uids(await pods_of(client)) == uids(before)


async def test_controllers_that_die_one_after_another_leave_one_pod_per_seat(plane: Plane) -> None:
    async with a_scheduled_hall(plane, blades=18) as client:
        await client.create(TRAININGJOBS, a_job(nodes=16))
        for pods in (1, 6, 11):
            async with controlling(plane):
                async with asyncio.timeout(SOON_S):
                    while len(await pods_of(client)) < pods:  # noqa: ASYNC110
                        await asyncio.sleep(0)
        before = uids(await pods_of(client))
        async with controlling(plane):
            status = await status_of(client, in_phase("Running"), "Running")
            lost = (await pods_of(client))[5]["spec"]["nodeName"]
            await say_state(client, lost, "Quarantined")
            await status_of(client, lambda s: bool(s.get("incidents")), "Recovering")
        async with controlling(plane):
            status = await status_of(
                client, lambda s: s["phase"] == "Running" and s["attempt"] == 2, "whole again"
            )

        after = await pods_of(client)
        assert len(after) == 16
        assert len({pod["spec"]["nodeName"] for pod in after.values()}) == 16
        assert {seat for seat, uid in before.items() if uids(after)[seat] != uid} <= {5}
        assert [incident["seats"] for incident in status["incidents"]] == [[5]]
        assert epochs(after) == {"2"}
