"""Real nodes: pods run on them, talk to each other, are heard and can be killed."""

import re
import signal

import pytest

from node.builders import client as client_pod
from node.builders import peers, python, server
from node.harness import NODES, Tier, lines_until, log_of, until, wait_phase
from tramontane.api.names import GPU_RESOURCE, LABEL_HOSTNAME, LABEL_WORK, Work
from tramontane.kube.resources import BLADES, PODS, SERVICES
from tramontane.kube.resources import NODES as NODE_KIND
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import LABEL_GPU, is_ready
from tramontane.lab.paths import LabError


async def test_four_nodes_are_ready_with_gpus_and_healthy_blades(tier: Tier) -> None:
    async with await tier.client() as client:
        nodes = {one["metadata"]["name"]: one for one in await client.list_all(NODE_KIND)}
        blades = {one["metadata"]["name"]: one for one in await client.list_all(BLADES)}
    assert tuple(nodes) == tuple(blades) == tier.nodes.names
    assert len(nodes) == NODES
    for name, node in nodes.items():
        assert is_ready(node)
        assert node["status"]["allocatable"][GPU_RESOURCE] == "8"
        assert node["metadata"]["labels"][LABEL_HOSTNAME] == name
        assert node["metadata"]["labels"][LABEL_GPU] == "h200"
        assert blades[name]["status"]["state"] == "Healthy"
    boots = {node["status"]["nodeInfo"]["bootID"] for node in nodes.values()}
    assert len(boots) == NODES, "one machine, and yet each of them has booted by itself"


async def test_the_machines_python_runs_in_a_pod_and_its_gpus_have_names(tier: Tier) -> None:
    script = """
import os, ssl, yaml
print(os.uname().nodename, len(os.environ["NVIDIA_VISIBLE_DEVICES"].split(",")))
"""
    async with await tier.client() as client:
        await client.create(PODS, python("hello", "real-0001", script, gpus=3), "default")
        await wait_phase(client, "hello", "Succeeded")
        assert await log_of(client, "hello") == ["hello 3"]


async def test_a_log_streams_while_the_pod_runs(tier: Tier) -> None:
    script = """
import time
for count in range(1000):
    print("line", count, flush=True)
    time.sleep(0.2)
"""
    async with await tier.client() as client:
        await client.create(PODS, python("talker", "real-0002", script), "default")
        await wait_phase(client, "talker", "Running")
        assert (await lines_until(client, "talker", "line 5"))[:2] == ["line 0", "line 1"]
        running = await client.get(PODS, "talker", "default")
        assert running["status"]["phase"] == "Running", "it has not ended, and yet we heard it"


async def test_pods_on_different_nodes_meet_by_address_and_by_name(tier: Tier) -> None:
    async with await tier.client() as client:
        await client.create(SERVICES, peers(), "default")
        await client.create(PODS, server("one", "real-0001"), "default")
        address = (await wait_phase(client, "one", "Running"))["status"]["podIP"]
        assert re.fullmatch(r"10\.244\.1\.\d+", address)
        asks = client_pod("asks", "real-0002", address, "one.peers")
        await client.create(PODS, asks, "default")
        await wait_phase(client, "asks", "Running")
        heard = [line for line in await lines_until(client, "asks", "heard", 2) if "heard" in line]
        assert heard == ["heard one", "heard one"]


async def test_a_pod_asks_the_api_server(tier: Tier) -> None:
    script = f"""
import ssl, urllib.request, urllib.error
try:
    context = ssl._create_unverified_context()
    urllib.request.urlopen("{tier.lab.plane.server}/version", context=context)
except urllib.error.HTTPError as error:
    print("HTTP", error.code)
"""
    async with await tier.client() as client:
        await client.create(PODS, python("asks", "real-0003", script), "default")
        await wait_phase(client, "asks", "Succeeded")
        assert await log_of(client, "asks") == ["HTTP 401"]


async def test_a_sick_gpu_lowers_what_can_be_allocated(tier: Tier) -> None:
    async with await tier.client() as client:

        async def seven() -> bool:
            status = (await client.get(NODE_KIND, "real-0004"))["status"]
            counts = [status[key][GPU_RESOURCE] for key in ("capacity", "allocatable")]
            return counts == ["8", "7"]

        assert not await seven()
        await tier.nodes.set_sick("real-0004", 3)
        await until(seven, "7 of 8 GPUs")


async def test_a_process_of_a_pod_is_found_and_killed_from_outside(tier: Tier) -> None:
    script = "import time; marker = 4711; time.sleep(1000)"
    async with await tier.client() as client:
        await client.create(PODS, python("victim", "real-0001", script), "default")
        await wait_phase(client, "victim", "Running")

        async def found() -> bool:
            return len(tier.nodes.pids("real-0001", "marker = 4711")) == 1

        await until(found, "the process")
        assert tier.nodes.pids("real-0002", "marker = 4711") == []
        tier.nodes.signal("real-0001", "marker = 4711", signal.SIGKILL)
        ended = await wait_phase(client, "victim", "Failed")
        (status,) = ended["status"]["containerStatuses"]
        assert status["state"]["terminated"]["exitCode"] == 128 + signal.SIGKILL


async def test_a_fault_of_a_real_nodes_gpu_reaches_its_blade(tier: Tier) -> None:
    async with await tier.client() as client, tier.lab.remote() as remote:
        await remote.inject("real-0003", parse_fault("gpu-lost", gpu=3))

        async def seen() -> bool:
            blade = await client.get(BLADES, "real-0003")
            faults = blade["status"]["report"].get("faults") or ()
            return bool(faults) and blade["status"]["state"] != "Healthy"

        await until(seen, "the fault in the blade")


async def test_a_pod_that_tests_a_real_blade_ends_by_itself(tier: Tier) -> None:
    # On a simulated blade the simulator would end it within a second, with a verdict of its own.
    body = python("burn-in", "real-0002", "import sys, time; time.sleep(3); sys.exit(3)")
    body["metadata"]["labels"][LABEL_WORK] = Work.BURN_IN
    async with await tier.client() as client:
        await client.create(PODS, body, "default")
        ended = await wait_phase(client, "burn-in", "Failed", "Succeeded")
        (status,) = ended["status"]["containerStatuses"]
        assert status["state"]["terminated"]["exitCode"] == 3


async def test_power_is_cut_by_its_own_order(tier: Tier) -> None:
    async with tier.lab.remote() as remote:
        with pytest.raises(LabError, match="tramontane lab power off real-0001"):
            await remote.inject("real-0001", parse_fault("node-down"))
        assert await remote.faults() == {}


async def test_orders_name_the_nodes_that_there_are(tier: Tier) -> None:
    with pytest.raises(LabError, match=r'node "real-0009": must be .* real-0001 to real-0004'):
        await tier.nodes.link("real-0009", up=True)
    with pytest.raises(LabError, match="must be without power"):
        await tier.nodes.power_on("real-0001")
    with pytest.raises(LabError, match="exit code 1"):
        await tier.nodes.exec_in("real-0001", ["false"])
    said = await tier.nodes.exec_in("real-0001", ["cat", "/proc/sys/kernel/hostname"])
    assert said == "real-0001\n"
