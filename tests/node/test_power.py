"""Power cuts, pulled cables and killed kubelets: who notices what, and how nodes come back."""

import signal
from collections.abc import Awaitable, Callable

from node.builders import client as client_pod
from node.builders import python, server
from node.harness import Tier, lines_until, log_of, until, wait_phase
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, NODES, PODS
from tramontane.lab.controlplane import NodeTiming
from tramontane.lab.fleet import is_ready

FOREVER = "import time; marker = 815; time.sleep(10000)"
# Configured are 6 s without a heartbeat and a look each second; the rest is for a busy machine.
# By default a node would be given 50 s.
NOT_READY_S = 35.0


async def ready(client: Client, name: str) -> bool:
    return is_ready(await client.get(NODES, name))


async def wait_not_ready(client: Client, name: str) -> None:
    async def gone() -> bool:
        return not await ready(client, name)

    await until(gone, f"{name} NotReady", NOT_READY_S)


async def test_a_killed_process_is_noticed_by_its_peers_at_once(tier: Tier) -> None:
    async with await tier.client() as client:
        await connected(client)
        tier.nodes.signal("real-0001", "create_server", signal.SIGKILL)
        await lines_until(client, "asks", "ended")


async def connected(client: Client) -> None:
    """Let a pod on real-0002 be connected to one on real-0001."""
    await client.create(PODS, server("one", "real-0001"), "default")
    address = (await wait_phase(client, "one", "Running"))["status"]["podIP"]
    await client.create(PODS, client_pod("asks", "real-0002", address), "default")
    await wait_phase(client, "asks", "Running")
    await lines_until(client, "asks", "heard one")


async def test_a_power_cut_is_noticed_by_nobody_but_by_the_missing_heartbeat(tier: Tier) -> None:
    assert tier.lab.plane.options.nodes == NodeTiming.quick()
    async with await tier.client() as client:
        await connected(client)
        agent = tier.lab.processes.get("agent-real-0001")
        before = await client.get(NODES, "real-0001")

        await tier.nodes.power_off("real-0001")
        assert not tier.nodes.has_power("real-0001")
        assert tier.nodes.pids("real-0001", "") == []
        assert agent.pid not in {one.pid for one in tier.lab.processes.running()}
        assert await ready(client, "real-0001"), "nobody has told the API server"

        await wait_not_ready(client, "real-0001")
        assert "ended" not in " ".join(await log_of(client, "asks")), "the peer is still waiting"
        await until(_unreachable(client, "real-0001"), "the taint")

        await tier.nodes.power_on("real-0001")
        await tier.nodes.wait_ready(client, ["real-0001"])
        node = await client.get(NODES, "real-0001")
        boot_id = node["status"]["nodeInfo"]["bootID"]
        assert boot_id != before["status"]["nodeInfo"]["bootID"]

        async def reported() -> bool:
            blade = await client.get(BLADES, "real-0001")
            return bool(blade["status"]["report"]["agent"]["bootID"] == boot_id)

        await until(reported, "a report from the new boot")


def _unreachable(client: Client, name: str) -> Callable[[], Awaitable[bool]]:
    async def tainted() -> bool:
        taints = (await client.get(NODES, name))["spec"].get("taints", ())
        return "node.kubernetes.io/unreachable" in {one["key"] for one in taints}

    return tainted


async def test_a_pod_that_may_restart_does_so_when_the_power_is_back(tier: Tier) -> None:
    async with await tier.client() as client:
        again = python("again", "real-0002", FOREVER, restartPolicy="Always")
        await client.create(PODS, again, "default")
        await wait_phase(client, "again", "Running")
        await tier.nodes.power_off("real-0002")
        await tier.nodes.power_on("real-0002")

        async def restarted() -> bool:
            (status,) = (await client.get(PODS, "again", "default"))["status"]["containerStatuses"]
            return bool(status["restartCount"] == 1 and "running" in status["state"])

        await until(restarted, "the pod again")
        assert len(tier.nodes.pids("real-0002", "marker = 815")) == 1


async def test_what_runs_behind_a_pulled_cable_runs_on(tier: Tier) -> None:
    async with await tier.client() as client:
        await client.create(PODS, python("runs", "real-0003", FOREVER), "default")
        await wait_phase(client, "runs", "Running")
        (pid,) = tier.nodes.pids("real-0003", "marker = 815")
        await tier.nodes.link("real-0003", up=False)
        await wait_not_ready(client, "real-0003")
        assert tier.nodes.pids("real-0003", "marker = 815") == [pid]
        await tier.nodes.link("real-0003", up=True)
        await tier.nodes.wait_ready(client, ["real-0003"])
        assert tier.nodes.pids("real-0003", "marker = 815") == [pid]
        assert (await client.get(PODS, "runs", "default"))["status"]["phase"] == "Running"


async def test_a_killed_kubelet_comes_back_and_its_pods_have_not_noticed(tier: Tier) -> None:
    async with await tier.client() as client:
        await client.create(PODS, python("runs", "real-0004", FOREVER, gpus=8), "default")
        await wait_phase(client, "runs", "Running")
        (pid,) = tier.nodes.pids("real-0004", "marker = 815")
        (kubelet,) = tier.nodes.pids("real-0004", "/kubelet ", daemons=True)
        tier.nodes.signal("real-0004", "/kubelet ", signal.SIGKILL, daemons=True)

        async def another() -> bool:
            found = tier.nodes.pids("real-0004", "/kubelet ", daemons=True)
            return bool(found) and found != [kubelet]

        await until(another, "another kubelet")
        await tier.nodes.wait_ready(client, ["real-0004"])
        assert tier.nodes.pids("real-0004", "marker = 815") == [pid]
