"""Serve on real nodes while adapters, load, room and the operator come and go."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

import aiohttp
import pytest

from node.harness import NODES, Tier, until
from node.serving import Raw, Served, serving
from tramontane.kube.resources import ENDPOINTSLICES, PODS
from tramontane.lab.nodes.plan import BRIDGE_ADDRESS
from tramontane.lab.serving.deployment import GPUS
from tramontane.lab.serving.model import write_model
from tramontane.lab.serving.streams import Streams
from unit.inferencedeployment.modeldirs import adapter_files, put

STREAMS = int(os.environ.get("TRAMONTANE_STREAMS", "1000"))
LORA_LOAD_S = 2.0
ROLLOUT_S = 240.0
# The longest that the planner may look at nothing but old metrics, peaks of a minute and its waits.
SCALE_S = 180.0
KILLS = 3

pytestmark = pytest.mark.timeout(600)


async def test_adapters_come_and_go_while_it_serves_and_are_back_before_it_is_ready(
    tier: Tier,
) -> None:
    model = write_model(tier.shared / "models" / "lora" / "v1", lora_load=LORA_LOAD_S)
    for name in ("one", "two"):
        # Nothing that the model's configuration could be compared with: only the rank.
        put(model.parent / name, adapter_files(base=None, width=4096))
    with_adapters = {"adapters": adapters(model, "one")}
    async with serving(tier, "lora", model, model=with_adapters) as served:
        await served.serves(1)
        [pod] = await served.pods()
        assert await loaded(pod) == {"lora", "one"}

        async with served.streams(at_once=4).running() as streams:
            await swap(served, pod, model, "one", "two")
            await swap(served, pod, model, "two")
            assert await answer(pod, "one") == 404
        assert not streams.dropped
        assert [one["metadata"]["uid"] for one in await served.pods()] == [pod["metadata"]["uid"]]
        status = await served.status()
        assert status["replicas"][0]["restarts"] == 0
        assert len(status["revisions"]) == 1

        tier.nodes.signal(pod["spec"]["nodeName"], r"bin/vllm serve", SIGKILL)
        await served.until(lambda it: it["replicas"][0]["restarts"] == 1, "a restart")
        without = 0
        async with asyncio.timeout(60.0):
            while not (ready := await ready_pod(served, but=pod)):
                for new in await served.pods():
                    without += await loaded(new) == {"lora"}
                await asyncio.sleep(0.05)
        assert await loaded(ready) == {"lora", "two"}
        assert without, "the engine must have been seen without its adapter, and not ready"


async def swap(served: Served, pod: Raw, model: Path, *names: str) -> None:
    """Ask for these adapters and no others, and wait until they answer and the status says so."""
    await served.change(model={"adapters": adapters(model, *names)})
    await until(lambda: has(pod, {"lora", *names}), f"adapters {names}")
    await served.until(lambda it: told_ready(it, *names), f"{names} in the status")
    for name in names:
        assert await answer(pod, name) == 200


def adapters(model: Path, *names: str) -> list[Raw]:
    return [{"name": name, "source": {"hostPath": str(model.parent / name)}} for name in names]


def told_ready(status: Raw, *names: str) -> bool:
    told = {one["name"]: one.get("ready") for one in status.get("adapters", ())}
    return told == dict.fromkeys(names, "1/1")


async def loaded(pod: Raw) -> set[str]:
    """Return the models that an engine says it has; none where it does not answer."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as session:
            url = f"http://{pod['status'].get('podIP', '')}:8000/v1/models"
            async with session.get(url) as answered:
                return {one["id"] for one in (await answered.json())["data"]}
    return set()


async def has(pod: Raw, names: set[str]) -> bool:
    return await loaded(pod) == names


async def answer(pod: Raw, model: str) -> int:
    """Return the status of a completion."""
    async with aiohttp.ClientSession() as session:
        url = f"http://{pod['status']['podIP']}:8000/v1/completions"
        body = {"model": model, "prompt": "a", "max_tokens": 1}
        async with session.post(url, json=body) as answered:
            return answered.status


async def ready_pod(served: Served, but: Raw) -> Raw | None:
    """Return the pod that is Ready, another than the one before."""
    for pod in await served.pods(0):
        is_ready = any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in pod["status"].get("conditions", ())
        )
        if is_ready and pod["metadata"]["uid"] != but["metadata"]["uid"]:
            return pod
    return None


async def test_without_requests_no_replica_stays_and_the_first_ones_are_held(tier: Tier) -> None:
    async with serving(tier, "zero", autoscaling={"idleToZeroAfter": "10s"}) as served:
        await served.serves(1)
        await served.until(lambda it: it.get("phase") == "ScaledToZero", "scaled to zero")
        await until(lambda: no_pods(served), "no pods")
        await until(lambda: leads_to_operator(served), "the Service leads to the operator")
        # Twice what it waits: nobody asks for anything, and nothing comes by itself.
        await asyncio.sleep(20.0)
        assert await no_pods(served)

        at_once = 8
        async with served.streams(at_once=at_once).running() as streams:
            [activator] = streams.ready()
            assert activator.startswith(f"{BRIDGE_ADDRESS}:")
            await streams.until(lambda it: it.by_address[activator] >= at_once)
            assert not streams.dropped, streams.dropped
            await streams.until(lambda it: it.ready() and activator not in it.ready())
            enough = streams.done + 100
            await streams.until(lambda it: it.done >= enough)
        assert not streams.dropped, streams.dropped
        assert set(streams.by_address) != {activator}
        await served.serves(1)
        assert any("a request came" in (one.get("why") or "") for one in await decisions(served))


async def no_pods(served: Served) -> bool:
    return not await served.pods()


async def leads_to_operator(served: Served) -> bool:
    slices = await served.client.list_all(ENDPOINTSLICES, "default")
    return any(one["metadata"]["name"] == f"{served.name}-activator" for one in slices)


async def decisions(served: Served) -> list[Raw]:
    return list((await served.status()).get("decisions", ()))


async def test_a_burst_brings_a_replica_and_quiet_takes_it_away_again(tier: Tier) -> None:
    model = write_model(tier.shared / "models" / "burst" / "v1", slots=4)
    capacity = {"contextTokens": 4096, "concurrentRequests": 64}
    capacity |= {"minReplicas": 1, "maxReplicas": 2}
    quiet = {"scaleDownAfter": "10s", "targetQueue": 4}
    async with serving(tier, "burst", model, capacity=capacity, autoscaling=quiet) as served:
        await served.serves(1)
        async with served.streams(at_once=24).running() as streams:
            await served.until(lambda it: it.get("replicasWanted") == 2, "two wanted")
            await served.serves(2)
        assert not streams.dropped, streams.dropped
        assert any("queue" in (one.get("why") or "") for one in await decisions(served))
        async with served.streams(at_once=2).running() as streams:
            await served.until(lambda it: it.get("replicasWanted") == 1, "one wanted", SCALE_S)
            await served.serves(1)
            enough = streams.done + 50
            await streams.until(lambda it: it.done >= enough)
        assert not streams.dropped, streams.dropped


@pytest.mark.parametrize("nodes", [1, 2], ids=["four-of-one-node", "two-of-two-nodes"])
async def test_without_a_spare_it_rolls_out_serially_and_ends(tier: Tier, nodes: int) -> None:
    replicas = NODES // nodes
    name = f"full-{nodes}"
    async with serving(tier, name, replicas=replicas, tensor=nodes * GPUS) as served:
        await served.serves(replicas)
        first = {pod["metadata"]["uid"] for pod in await served.pods()}
        async with served.streams(at_once=8).running() as streams:
            await streams.until(lambda it: len(it.ready()) == replicas)
            async with least(served, streams) as seen:
                await served.change(capacity={"contextTokens": 8192})
                await served.until(rolled(replicas), "rolled out", ROLLOUT_S)
            await streams.until(lambda it: it.done >= STREAMS)
        assert not streams.dropped, streams.dropped
        assert min(seen.endpoints, seen.serving) >= replicas - 1, seen.changes
        assert any("serially" in one["what"] for one in await decisions(served))
        assert not first & {pod["metadata"]["uid"] for pod in await served.pods()}


def rolled(replicas: int) -> Callable[[Raw], bool]:
    """Return whether so many replicas, and no more, serve what was last asked for."""

    def holds(status: Raw) -> bool:
        *_, last = status["revisions"]
        entries = [(one["state"], one["revision"]) for one in status["replicas"]]
        done = status["phase"] == "Serving" and last["verdict"] == "Accepted"
        both = len(status["revisions"]) > 1
        return done and both and entries == [("Serving", last["hash"])] * replicas

    return holds


@dataclass(slots=True)
class Least:
    """Hold the fewest that served, by the endpoints and by the status, and each change of both."""

    endpoints: int = NODES
    serving: int = NODES
    changes: list[tuple[float, int, Raw]] = field(default_factory=list)

    def look(self, endpoints: int, states: Raw) -> None:
        if not self.changes or self.changes[-1][1:] != (endpoints, states):
            self.changes.append((time.monotonic(), endpoints, states))
        self.endpoints = min(self.endpoints, endpoints)
        self.serving = min(self.serving, list(states.values()).count("Serving"))


@contextlib.asynccontextmanager
async def least(served: Served, streams: Streams) -> AsyncIterator[Least]:
    """Look all the time at how many serve."""
    seen = Least()

    async def look() -> None:
        while True:
            replicas = (await served.status())["replicas"]
            states = {one["name"]: one["state"] for one in replicas}
            for _ in range(10):
                seen.look(len(streams.ready()), states)
                await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def test_an_operator_that_is_killed_in_a_rollout_goes_on_with_it(tier: Tier) -> None:
    """Killed at the begin, in the middle and once more; nobody leads for some seconds each time."""
    replicas = NODES - 1
    async with serving(tier, "killed", replicas=replicas) as served:
        await served.serves(replicas)
        async with served.streams(at_once=8).running() as streams:
            await served.change(capacity={"contextTokens": 8192})
            for kills in range(KILLS):
                await served.until(have_come(kills), f"{kills} new ones")
                await kill_operator(tier)
            await served.until(rolled(replicas), "rolled out", ROLLOUT_S)
            await streams.until(lambda it: it.done >= STREAMS)
        assert not streams.dropped, streams.dropped
        status = await served.status()
        assert [one["verdict"] for one in status["revisions"]] == ["Accepted", "Accepted"]
        assert all(one["restarts"] == 0 for one in status["replicas"])
        pods = await served.client.list_all(PODS, "default")
        assert len(pods) == replicas


def have_come(count: int) -> Callable[[Raw], bool]:
    """Return whether there are replicas of the new revision, so many of which serve."""

    def holds(status: Raw) -> bool:
        new = (status.get("rollout") or {}).get("to")
        states = [one["state"] for one in status["replicas"] if one["revision"] == new]
        return bool(states) and states.count("Serving") >= count

    return holds


async def kill_operator(tier: Tier) -> None:
    """Kill it, and start it again some seconds later: time enough for what it had begun to end."""
    processes = tier.lab.processes
    processes.kill("operator", SIGKILL)
    await until(lambda: is_dead(tier), "the operator dead")
    began = time.monotonic()
    await asyncio.sleep(3.0)
    tier.lab.start_component("operator")
    assert time.monotonic() - began < 10.0


async def test_at_the_edge_a_broken_engine_comes_back_while_the_operator_is_away(
    tier: Tier,
) -> None:
    async with serving(tier, "edge", profile="Edge") as served:
        node = tier.nodes.names[0]
        await served.bind(node)
        await served.until(lambda it: it.get("phase") == "Serving", "Serving")
        [before] = await served.pods()
        tier.lab.processes.kill("operator", SIGKILL)
        try:
            await until(lambda: is_dead(tier), "the operator dead")
            tier.nodes.signal(node, r"bin/vllm serve", SIGKILL)

            async def restarted() -> bool:
                [pod] = await served.pods()
                [engine] = pod["status"]["containerStatuses"]
                return bool(engine["restartCount"] >= 1 and engine["ready"])

            await until(restarted, "the engine back")
            async with served.streams(at_once=2).running() as streams:
                await streams.until(lambda it: it.done >= 50)
            assert not streams.dropped, streams.dropped
            assert await is_dead(tier)
        finally:
            tier.lab.start_component("operator")
        [after] = await served.pods()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def is_dead(tier: Tier) -> bool:
    return all(one.name != "operator" for one in tier.lab.processes.running())
