"""The scheduler's own process on a real API server: placing, dying, moving one seat, explaining."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from plane.harness import SYSTEM, Plane
from tramontane.api import clock
from tramontane.api.names import API_VERSION, GPU_RESOURCE, LEASE_SCHEDULER
from tramontane.kube.client import Client, Conflict, NotFound
from tramontane.kube.resources import BLADES, GANGS, LEASES, NODEPOOLS, NODES, PODS
from tramontane.lab.fleet import Fleet, Layout

SOON_S = 30.0
LEVELS = [
    {"name": "block", "label": "topology.tramontane.dev/block"},
    {"name": "rack", "label": "topology.tramontane.dev/rack"},
]


class Scheduler:
    """One scheduler process, or the next after it was killed."""

    def __init__(self, plane: Plane) -> None:
        self._environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
        self._process: asyncio.subprocess.Process | None = None
        self._lives = 0

    async def start(self) -> None:
        self._lives += 1
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tramontane.scheduler",
            "--namespace",
            SYSTEM,
            "--identity",
            f"test-{os.getpid()}-{self._lives}",
            env=self._environment,
        )

    async def end(self, number: int = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        return await process.wait()


@asynccontextmanager
async def scheduling(plane: Plane) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(plane)
    await scheduler.start()
    try:
        yield scheduler
    finally:
        assert await scheduler.end() in {0, -signal.SIGKILL}


async def hall(client: Client, blades: int = 8) -> list[str]:
    """Make a pool of healthy blades by hand, four to a rack; return their names."""
    fleet = Fleet(client, Layout(blades=blades, rack=4, racks_per_block=2))
    await fleet.create()
    await fleet.wait_ready()
    selector = {"matchLabels": {"node-role/gpu": "h200"}}
    pool = {"nodeSelector": selector, "gpu": {"count": 8}, "topology": {"levels": LEVELS}}
    await client.create(NODEPOOLS, made(NODEPOOLS.kind, "paris", pool))
    for name in fleet.names:
        await client.create(BLADES, made(BLADES.kind, name, {"pool": "paris"}))
        await state(client, name, "Healthy")
    return list(fleet.names)


def made(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": "default"} if kind == "Gang" else {})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


async def state(client: Client, name: str, word: str) -> None:
    severity = "None" if word == "Healthy" else "Fatal"
    status = {"state": word, "verdict": {"severity": severity, "action": "None"}}
    await client.merge_patch(BLADES, name, {"status": status}, subresource="status")


async def submit(client: Client, name: str, count: int, **more: Any) -> None:
    slot = {"name": "worker", "count": count, "requests": {GPU_RESOURCE: "8", "cpu": "64"}}
    await client.create(GANGS, made("Gang", name, {"pool": "paris", "slots": [slot], **more}))


async def seen(
    client: Client, name: str, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the gang's status as soon as it is as wanted."""
    status: dict[str, Any] = {}
    try:
        async with asyncio.timeout(SOON_S):
            while not holds(status):
                await asyncio.sleep(0.02)
                status = (await client.get(GANGS, name, "default")).get("status") or {}
    except TimeoutError:
        pytest.fail(f"gang {name} stays as it is: {status}")
    return status


def placed(status: dict[str, Any]) -> bool:
    return status.get("phase") == "Placed"


def seats(status: dict[str, Any]) -> list[str]:
    return list(status["placement"]["seats"])


async def free_lease(client: Client) -> None:
    """Let the next process lead at once: a killed one holds the Lease for 15 s more."""
    while True:
        try:
            lease = await client.get(LEASES, LEASE_SCHEDULER, SYSTEM)
            lease["spec"]["holderIdentity"] = ""
            await client.replace(LEASES, lease)
        except Conflict:
            continue
        except NotFound:
            pass
        return


async def test_a_gang_is_placed_whole_and_keeps_its_seats_when_the_scheduler_dies(
    plane: Plane,
) -> None:
    async with await plane.client() as client, scheduling(plane) as scheduler:
        names = await hall(client)
        await submit(client, "first", 3, spares=1, topology={"pack": "rack", "mode": "Required"})
        before = await seen(client, "first", placed)
        assert seats(before) == names[:3]
        assert before["placement"]["spares"] == [names[3]]
        assert before["placement"]["size"] == 3
        assert (before["epoch"], before["observedGeneration"]) == (1, 1)
        ready = before["conditions"][0]
        assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "True", "Placed")

        await scheduler.end(signal.SIGKILL)
        await submit(client, "second", 4)
        await free_lease(client)
        await scheduler.start()
        second = await seen(client, "second", placed)
        assert seats(second) == names[4:]
        after = (await client.get(GANGS, "first", "default"))["status"]
        assert after == before


async def test_a_gang_that_waits_is_promised_blades_that_nobody_else_takes_for_longer(
    plane: Plane,
) -> None:
    async with await plane.client() as client, scheduling(plane):
        await hall(client)
        await submit(client, "sits", 6, maxRuntime="1h", preemptible=False)
        placed_at = (await seen(client, "sits", placed))["placedAt"]
        await submit(client, "big", 8, priority=1)
        waits = await seen(client, "big", lambda s: "estimatedStart" in s)
        assert waits["reason"] == "WaitingForCapacity"
        started = clock.parse(placed_at)
        assert clock.parse(waits["estimatedStart"]["p50"]) == pytest.approx(started + 3600, abs=2)
        await submit(client, "endless", 2)
        kept = await seen(client, "endless", lambda s: bool(s.get("reason")))
        assert kept["reason"] == "ReservedForOther"
        assert "default/big" in kept["message"]
        await submit(client, "short", 2, maxRuntime="10m")
        await seen(client, "short", placed)


async def test_only_the_lost_seat_moves_and_to_the_spare(plane: Plane) -> None:
    async with await plane.client() as client, scheduling(plane):
        names = await hall(client)
        await submit(client, "job", 3, spares=1, topology={"pack": "rack", "mode": "Required"})
        before = await seen(client, "job", placed)
        [spare] = before["placement"]["spares"]
        victim = seats(before)[1]
        await state(client, victim, "Quarantined")
        lost = {"spec": {"lost": [{"seat": 1, "blade": victim}]}}
        began = time.monotonic()
        await client.merge_patch(GANGS, "job", lost, "default")
        after = await seen(client, "job", lambda s: placed(s) and victim not in seats(s))
        assert time.monotonic() - began < SOON_S
        assert seats(after) == [seats(before)[0], spare, seats(before)[2]]
        assert after["epoch"] == 2
        # No other blade of its rack is left, and spares elsewhere would be of no use.
        assert after["placement"]["spares"] == []
        assert "holds 0 of 1 spares" in after["message"]

        last = seats(after)[0]
        await state(client, last, "Lost")
        lost["spec"]["lost"].append({"seat": 0, "blade": last})
        await client.merge_patch(GANGS, "job", lost, "default")
        waits = await seen(client, "job", lambda s: s.get("reason") == "WaitingForSpare")
        assert (waits["phase"], seats(waits)) == ("Placed", seats(after))
        assert waits["conditions"][0]["status"] == "False"
        assert f"lost seat 0 (on {last}) must move" in waits["message"]

        # What this gang must not leave its rack for is there for others.
        await submit(client, "other", 4)
        assert seats(await seen(client, "other", placed)) == names[4:]


async def test_a_gang_without_a_place_says_why_with_numbers(plane: Plane) -> None:
    async with await plane.client() as client, scheduling(plane):
        names = await hall(client)
        await state(client, names[7], "Quarantined")
        await submit(client, "runs", 4, topology={"pack": "rack", "mode": "Required"})
        await seen(client, "runs", placed)
        await submit(client, "waits", 7)
        waiting = await seen(client, "waits", lambda s: bool(s.get("reason")))
        assert (waiting["phase"], waiting["reason"]) == ("Pending", "WaitingForCapacity")
        assert waiting["message"] == (
            "Gang default/waits: needs 7 free blades of 8 GPUs (got 3 of 8 in pool paris: "
            "4 in use, 1 quarantined); it starts when 4 more are free, or make the gang smaller"
        )
        assert waiting["position"] == 1
        assert "placement" not in waiting
        await submit(client, "huge", 9)
        assert (await seen(client, "huge", lambda s: "reason" in s))["reason"] == "ExceedsPool"
        await submit(client, "lost", 1, topology={"pack": "row", "mode": "Required"})
        wrong = await seen(client, "lost", lambda s: "reason" in s)
        assert wrong["reason"] == "Misconfigured"
        assert "block, rack, blade" in wrong["message"]

        # The blades of a gang that is gone are free when its last pod is gone.
        await client.create(PODS, pod("runs-0", names[0], "runs"))
        await client.delete(GANGS, "runs", "default")
        short = await seen(client, "waits", lambda s: "1 in use" in s.get("message", ""))
        assert short["phase"] == "Pending"
        await client.delete(PODS, "runs-0", "default", grace_period_s=0)
        await seen(client, "waits", placed)


async def test_a_gang_edited_by_hand_is_put_back(plane: Plane) -> None:
    async with await plane.client() as client, scheduling(plane) as scheduler:
        names = await hall(client)
        await submit(client, "job", 2)
        before = await seen(client, "job", placed)
        for seats_by_hand in ([names[5], names[5]], ["nowhere", names[1]], [names[6], names[7]]):
            edit = {"status": {"placement": {"size": 2, "seats": seats_by_hand}}}
            await client.merge_patch(GANGS, "job", edit, "default", subresource="status")
            after = await seen(client, "job", lambda s: seats(s) == seats(before) if s else False)
            assert "put back as it was" in after["message"]
            assert after["phase"] == "Placed"

        # A scheduler that was not there when it happened looks at the pods.
        for seat, name in enumerate(seats(before)):
            await client.create(PODS, pod(f"job-{seat}", name, "job", seat))
        await scheduler.end()
        edit = {"status": {"placement": {"size": 2, "seats": [names[5], names[5]]}}}
        await client.merge_patch(GANGS, "job", edit, "default", subresource="status")
        await scheduler.start()
        after = await seen(client, "job", lambda s: seats(s) == seats(before) if s else False)
        assert "put back as its pods are" in after["message"]


async def test_an_inactive_gang_holds_nothing_and_comes_back(plane: Plane) -> None:
    async with await plane.client() as client, scheduling(plane):
        await hall(client, 4)
        await submit(client, "job", 4)
        await seen(client, "job", placed)
        await client.merge_patch(GANGS, "job", {"spec": {"active": False}}, "default")
        off = await seen(client, "job", lambda s: s.get("phase") == "Inactive")
        assert (off["reason"], off["epoch"]) == ("Suspended", 2)
        assert "placement" not in off
        await client.merge_patch(GANGS, "job", {"spec": {"active": True}}, "default")
        on = await seen(client, "job", placed)
        assert (on["epoch"], len(seats(on))) == (3, 4)


def pod(name: str, node: str, gang: str, seat: int = 0) -> dict[str, Any]:
    labels = {"tramontane.dev/gang": gang, "tramontane.dev/seat": str(seat)}
    resources = {"requests": {GPU_RESOURCE: "8"}, "limits": {GPU_RESOURCE: "8"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "trainer", "image": "train", "resources": resources}],
        },
    }


async def test_nodes_are_really_nodes(plane: Plane) -> None:
    """A cordon alone keeps a gang away, though the Blade is healthy."""
    async with await plane.client() as client, scheduling(plane):
        [name] = await hall(client, 1)
        await client.merge_patch(NODES, name, {"spec": {"unschedulable": True}})
        await submit(client, "job", 1)
        held = await seen(client, "job", lambda s: "1 cordoned" in s.get("message", ""))
        assert held["reason"] == "HealthHold"
        await client.merge_patch(NODES, name, {"spec": {"unschedulable": None}})
        await seen(client, "job", placed)
