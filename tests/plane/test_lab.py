"""The lab itself: real processes come and go, simulated nodes and pods behave like real ones."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plane.harness import Plane
from tramontane.api import clock
from tramontane.api.names import API_VERSION
from tramontane.kube.client import Client
from tramontane.kube.informer import Informer
from tramontane.kube.resources import BLADES, GANGS, NODES, PODS
from tramontane.lab.ageing import age_blades
from tramontane.lab.cluster import Lab, Setup, down
from tramontane.lab.controlplane import ControlPlane
from tramontane.lab.description import Description
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Fleet, Layout
from tramontane.lab.processes import Processes, start_ticks
from tramontane.lab.remote import Remote
from tramontane.lab.simulator import Simulator

SOON_S = 30
HOLD = {"reason": "fan", "by": "anna"}


def pod(name: str, node: str, **labels: str) -> dict[str, Any]:
    env = [
        {"name": "TRAMONTANE_NODES", "value": "2"},
        {"name": "TRAMONTANE_LAB_STEP_TIME", "value": "0.02"},
        {"name": "TRAMONTANE_LAB_START_TIME", "value": "0.1"},
        {"name": "TRAMONTANE_LAB_SAVE_EVERY", "value": "5"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {"tramontane.dev/epoch": "1"},
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "OnFailure",
            "containers": [{"name": "trainer", "image": "train", "env": env}],
        },
    }


def seat(job: str, number: int, node: str) -> dict[str, Any]:
    labels = {"tramontane.dev/job": job, "tramontane.dev/seat": str(number)}
    return pod(f"{job}-{number}", node, **labels)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await holds():  # noqa: ASYNC110 - the API server has no event of ours to set
            await asyncio.sleep(0.05)


async def wait_phase(client: Client, name: str, phase: str) -> None:
    async def reached() -> bool:
        found = await client.get(PODS, name, "default")
        return bool(found["status"]["phase"] == phase)

    await until(reached)


async def wait_no_pods(client: Client) -> None:
    async def none() -> bool:
        return not await client.list_all(PODS, "default")

    await until(none)


async def wait_gone(pids: list[int]) -> None:
    async def gone() -> bool:
        return not any(start_ticks(pid) for pid in pids)

    await until(gone)


async def wait_line(client: Client, name: str, text: str) -> list[str]:
    """Follow a pod's log until a line has `text`; return all lines up to it."""
    seen = []
    async with asyncio.timeout(SOON_S), client.pod_log("default", name, follow=True) as lines:
        async for line in lines:
            seen.append(line.decode())
            if text in seen[-1]:
                return seen
    raise AssertionError(f"the log ended without {text!r}: {seen}")


@asynccontextmanager
async def hall(
    plane: Plane, blades: int, first: int = 1
) -> AsyncIterator[tuple[Client, Fleet, Remote]]:
    layout = Layout(blades=blades, first=first)
    description = Description(
        layout=layout,
        simulated_agents=False,
        kubelet_port=plane.control.kubelet_port,
        token="secret",
    )
    folder = plane.control.folder
    async with (
        await plane.client() as client,
        Simulator(client, folder, description),
        Remote(folder, description) as remote,
    ):
        fleet = Fleet(client, layout)
        await fleet.create()
        await fleet.wait_ready()
        yield client, fleet, remote


async def test_a_pod_on_its_node_runs_and_a_deleted_one_goes(plane: Plane) -> None:
    async with hall(plane, 1) as (client, _, _):
        await client.create(PODS, pod("one", "gpu-0001"), "default")
        await wait_phase(client, "one", "Running")
        running = await client.get(PODS, "one", "default")
        assert running["status"]["podIP"]
        await client.delete(PODS, "one", "default")
        await wait_no_pods(client)


async def test_a_log_streams_while_the_gang_trains(plane: Plane) -> None:
    async with hall(plane, 2) as (client, _, _):
        await client.create(PODS, seat("llama", 0, "gpu-0001"), "default")
        await wait_phase(client, "llama-0", "Running")
        following = asyncio.create_task(wait_line(client, "llama-0", "saved checkpoint step=5"))
        await asyncio.sleep(0.3)
        assert not following.done(), "half a gang must not train"
        await client.create(PODS, seat("llama", 1, "gpu-0002"), "default")
        lines = await following
        assert lines[0] == "2 ranks are meeting, epoch 1"
        assert lines[1] == "starting from step 0"
        assert [line.split()[1] for line in lines if line.startswith("step ")] == list("12345")


async def test_training_stands_still_on_a_fault_and_resumes_when_the_seat_has_moved(
    plane: Plane,
) -> None:
    async with hall(plane, 3) as (client, _, remote):
        for number in (0, 1):
            await client.create(PODS, seat("llama", number, f"gpu-000{number + 1}"), "default")
        await wait_line(client, "llama-0", "saved checkpoint step=5")
        await remote.inject("gpu-0002", parse_fault("gpu-lost", gpu=3))
        assert await remote.faults() == {"gpu-0002": ["gpu-lost"]}
        await wait_line(client, "llama-0", "rank 1 lost after step")
        assert "CUDA error" in (await wait_line(client, "llama-1", "rank 1:"))[-1]

        await client.delete(PODS, "llama-1", "default", grace_period_s=0)
        again = seat("llama", 1, "gpu-0003")
        again["metadata"]["annotations"]["tramontane.dev/epoch"] = "2"
        await client.create(PODS, again, "default")
        patch = {"metadata": {"annotations": {"tramontane.dev/epoch": "2"}}}
        await client.merge_patch(PODS, "llama-0", patch, "default")
        resumed = await wait_line(client, "llama-0", "resuming from checkpoint")
        saved = [line for line in resumed if line.startswith("saved checkpoint")][-1]
        assert resumed[-1] == f"resuming from checkpoint {saved.split()[-1]}"
        assert await remote.clear("gpu-0002") == ["gpu-lost"]


async def test_a_node_without_power_turns_not_ready_and_its_pods_freeze(plane: Plane) -> None:
    # Blades that no other test has had.
    async with hall(plane, 4, first=71) as (client, fleet, remote):
        await client.create(PODS, pod("frozen", "gpu-0072"), "default")
        await wait_phase(client, "frozen", "Running")
        await remote.inject("gpu-0072", parse_fault("node-down"))
        await fleet.wait_not_ready("gpu-0072", SOON_S)
        await client.delete(PODS, "frozen", "default", grace_period_s=1)
        await asyncio.sleep(2)
        frozen = await client.get(PODS, "frozen", "default")
        assert frozen["metadata"]["deletionTimestamp"], "deleted, but nobody there to end it"

        await remote.clear("gpu-0072")
        await fleet.wait_ready(SOON_S)
        await wait_no_pods(client)


async def test_the_gang_says_how_many_ranks_there_are(plane: Plane) -> None:
    async with hall(plane, 1) as (client, _, _):
        gang = {
            "apiVersion": "tramontane.dev/v1alpha1",
            "kind": "Gang",
            "metadata": {"name": "small"},
            "spec": {
                "pool": "paris-a",
                "slots": [{"name": "worker", "count": 1, "requests": {"nvidia.com/gpu": "8"}}],
            },
        }
        await client.create(GANGS, gang, "default")
        placed = {"phase": "Placed", "placement": {"size": 1, "seats": ["gpu-0001"]}}
        await client.merge_patch(
            GANGS, "small", {"status": placed}, "default", subresource="status"
        )
        await client.create(PODS, seat("small", 0, "gpu-0001"), "default")
        await wait_phase(client, "small-0", "Running")
        await wait_line(client, "small-0", "step 1 ")


async def test_up_and_down_leave_no_process(tmp_path: Path) -> None:
    setup = Setup(Layout(blades=3), components=(), simulated_agents=False)
    lab = Lab(tmp_path / "lab", setup, attached=False)
    await lab.start()
    await lab.close()
    records = Processes.load(lab.folder).running()
    assert {record.name for record in records} == {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kwok",
        "simulator",
    }
    assert down(lab.folder) == len(records)
    assert [start_ticks(record.pid) for record in records] == [None] * len(records)
    assert down(lab.folder) == 0


async def test_a_failing_block_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []

    async def fail() -> None:
        async with ControlPlane(tmp_path / "lab") as control:
            pids.extend(record.pid for record in control.processes.records)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert len(pids) == 4
    assert [start_ticks(pid) for pid in pids] == [None] * 4


PARENT = """
import asyncio, pathlib, sys
from tramontane.lab.controlplane import ControlPlane

async def main():
    async with ControlPlane(pathlib.Path(sys.argv[1])) as control:
        print(*(record.pid for record in control.processes.records), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_death_of_the_parent_takes_its_processes_along(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "lab")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 4
        os.kill(parent.pid, signal.SIGKILL)
    asyncio.run(wait_gone(pids))


def work(kind: str, number: int, **more: str) -> dict[str, Any]:
    """Return a work pod as the nodepool controller makes it."""
    node = f"gpu-{number:04d}"
    labels = {"tramontane.dev/work": kind, "tramontane.dev/blade": node}
    env = {"TRAMONTANE_BLADE": node, **more}
    if group := more.get("TRAMONTANE_GROUP"):
        labels["tramontane.dev/group"] = group
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{kind.lower()}-{node}", "labels": labels},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "work",
                    "image": "work",
                    "env": [{"name": name, "value": value} for name, value in env.items()],
                }
            ],
        },
    }


async def wait_ended(client: Client, name: str) -> tuple[str, int, dict[str, Any]]:
    """Return the phase, the exit code and what was said, once a work pod has ended."""
    found: dict[str, Any] = {}

    async def ended() -> bool:
        found.update(await client.get(PODS, name, "default"))
        return found["status"].get("phase") in {"Succeeded", "Failed"}

    await until(ended)
    (container,) = found["status"]["containerStatuses"]
    terminated = container["state"]["terminated"]
    said: dict[str, Any] = json.loads(terminated["message"])
    return found["status"]["phase"], terminated["exitCode"], said


async def test_a_burn_in_condemns_slow_memory_and_nobody_else(plane: Plane) -> None:
    async with hall(plane, 3) as (client, _, remote):
        await remote.inject("gpu-0002", parse_fault("slow-memory", gpu=3))
        await remote.inject("gpu-0003", parse_fault("bad-link"))
        for number in (1, 2, 3):
            await client.create(PODS, work("burnIn", number), "default")
        ends = [await wait_ended(client, f"burnin-gpu-000{number}") for number in (1, 2, 3)]
        assert [(phase, code, said["verdict"]) for phase, code, said in ends] == [
            ("Succeeded", 0, "PASS"),
            ("Failed", 1, "FAIL"),
            ("Succeeded", 0, "PASS"),
        ]
        assert ends[1][2]["reason"].startswith("cuda:3: memory must be ")
        lines = await wait_line(client, "burnin-gpu-0002", "FAIL")
        assert json.loads(lines[-1]) == ends[1][2], "the log says it too"


async def test_a_group_is_measured_when_all_of_it_runs(plane: Plane) -> None:
    async with hall(plane, 4) as (client, _, remote):
        await remote.inject("gpu-0004", parse_fault("bad-link"))
        good = {"TRAMONTANE_GROUP": "one", "TRAMONTANE_GROUP_SIZE": "2"}
        bad = {"TRAMONTANE_GROUP": "two", "TRAMONTANE_GROUP_SIZE": "2"}
        await client.create(PODS, work("collective", 1, **good), "default")
        for number in (3, 4):
            await client.create(PODS, work("collective", number, **bad), "default")
        for number in (3, 4):
            phase, code, said = await wait_ended(client, f"collective-gpu-000{number}")
            assert (phase, code, said["verdict"]) == ("Failed", 1, "FAIL")
            assert said["value"] < 300
        alone = await client.get(PODS, "collective-gpu-0001", "default")
        assert alone["status"]["phase"] == "Running", "it waits for the other one"
        await client.create(PODS, work("collective", 2, **good), "default")
        for number in (1, 2):
            phase, code, said = await wait_ended(client, f"collective-gpu-000{number}")
            assert (phase, code, said["verdict"]) == ("Succeeded", 0, "PASS")
            assert said["value"] > 300


async def test_a_reboot_takes_the_node_away_and_brings_it_back_from_another_boot(
    plane: Plane,
) -> None:
    async with hall(plane, 2) as (client, _, remote):
        before = (await client.get(NODES, "gpu-0001"))["status"]["nodeInfo"]["bootID"]
        await remote.inject("gpu-0001", parse_fault("gpu-lost", gpu=3))
        await remote.inject("gpu-0001", parse_fault("slow-memory"))
        await client.create(PODS, work("reset", 1, TRAMONTANE_GPU="3"), "default")
        phase, code, said = await wait_ended(client, "reset-gpu-0001")
        assert (phase, code) == ("Failed", 1), "what fell off the bus hears no reset"
        assert "gpu-lost" in said["reason"]

        ready: list[str] = []
        nodes = Informer(client, NODES, lambda raw: raw)
        nodes.add_listener(lambda _key, _old, new: ready.append(readiness(new)))
        watch = asyncio.create_task(nodes.run())
        await nodes.wait_synced()
        await client.create(PODS, work("reboot", 1), "default")
        phase, code, _ = await wait_ended(client, "reboot-gpu-0001")
        assert (phase, code) == ("Succeeded", 0)
        after = await client.get(NODES, "gpu-0001")
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        assert "gpu-0001 False" in ready
        assert readiness(after) == "gpu-0001 True"
        assert after["status"]["nodeInfo"]["bootID"] not in {"", before}
        assert await remote.faults() == {"gpu-0001": ["slow-memory"]}, "what a boot mends is gone"


def readiness(node: dict[str, Any] | None) -> str:
    assert node is not None
    conditions = node.get("status", {}).get("conditions", ())
    ready = next((one["status"] for one in conditions if one["type"] == "Ready"), "-")
    return f"{node['metadata']['name']} {ready}"


async def test_on_a_blade_without_power_no_test_ends(plane: Plane) -> None:
    async with hall(plane, 1) as (client, fleet, remote):
        await client.create(PODS, work("burnIn", 1), "default")
        await wait_phase(client, "burnin-gpu-0001", "Running")
        await remote.inject("gpu-0001", parse_fault("node-down"))
        await fleet.wait_not_ready("gpu-0001", SOON_S)
        still = await client.get(PODS, "burnin-gpu-0001", "default")
        assert still["status"]["phase"] == "Running"
        await remote.clear("gpu-0001")
        phase, code, _ = await wait_ended(client, "burnin-gpu-0001")
        assert (phase, code) == ("Succeeded", 0)


async def test_blades_become_older_for_all_who_watch_and_lose_nothing(plane: Plane) -> None:
    def made(client: Client, name: str) -> Awaitable[dict[str, Any]]:
        kind = {"apiVersion": API_VERSION, "kind": "Blade", "metadata": {"name": name}}
        return client.create(BLADES, {**kind, "spec": {"pool": "paris"}})

    async with await plane.client() as client:
        before = [await made(client, name) for name in ("gpu-1", "gpu-2")]
        seen: dict[str, str] = {}
        blades = Informer(client, BLADES, lambda raw: raw)
        blades.add_listener(lambda key, _, new: seen.update({key: born(new)} if new else {}))
        watch = asyncio.create_task(blades.run())
        await blades.wait_synced()
        for days in (20, 1):  # what is old already can grow older
            assert await age_blades(plane.control.etcd, days) == len(before)
        changed = await client.merge_patch(BLADES, "gpu-1", {"spec": {"hold": HOLD}})
        wanted = {
            one["metadata"]["name"]: clock.utc(clock.parse(born(one)) - 21 * 86_400.0)
            for one in before
        }
        assert born(changed) == wanted["gpu-1"]
        assert changed["spec"] == {"pool": "paris", "hold": HOLD}
        assert changed["metadata"]["uid"] == before[0]["metadata"]["uid"]

        async def told() -> bool:
            return seen == wanted

        await until(told)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


def born(blade: dict[str, Any]) -> str:
    return str(blade["metadata"]["creationTimestamp"])
