"""The operator's process: Lease, failover, CRDs that are not there yet, kopf as a mere shell."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp

from plane.harness import SYSTEM, Plane
from plane.operating import (
    Operator,
    all_in,
    all_report,
    fault,
    gone,
    is_in,
    make_pool,
    node_seen,
    operating,
    report,
    seen,
    taint_of,
    until,
)
from tramontane.api.names import GROUP, LABEL_POOL, LEASE_OPERATOR
from tramontane.kube.client import Client, NotFound
from tramontane.kube.process import EXIT_LEADERSHIP_LOST
from tramontane.kube.resources import BLADES, CRDS, LEASES, NODEPOOLS, NODES, TRAININGJOBS
from tramontane.lab.cluster import apply_crds
from tramontane.lab.controlplane import free_ports
from tramontane.lab.fleet import Fleet, Layout

# The Lease runs 15 s and a standby looks every 2 s; more is the machine's.
FAILOVER_S = 17.0
SLACK_S = 8.0


async def leader(client: Client, identity: str, within_s: float) -> float:
    """Return how long it took until `identity` held the Lease."""
    started = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            try:
                lease = await client.get(LEASES, LEASE_OPERATOR, SYSTEM)
            except NotFound:
                lease = {"spec": {}}
            if lease["spec"].get("holderIdentity") == identity:
                return time.monotonic() - started
            await asyncio.sleep(0.05)


async def ask(operator: Operator, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{operator.port}{path}"
    async with asyncio.timeout(30.0), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    return answer.status, await answer.text()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


async def ready(operator: Operator) -> None:
    async def is_ready() -> bool:
        return (await ask(operator, "/readyz"))[0] == 200

    await until(is_ready)


async def says(operator: Operator, line: str) -> None:
    """Return as soon as the metrics have a line that begins so."""

    async def is_there() -> bool:
        return f"\n{line}" in (await ask(operator, "/metrics"))[1]

    await until(is_there)


async def small_hall(client: Client, blades: int = 3) -> Fleet:
    fleet = Fleet(client, Layout(blades=blades))
    await fleet.create()
    await fleet.wait_ready()
    await make_pool(client)
    await all_in(client, fleet.names, "Unknown")
    await all_report(client, fleet.names)
    await all_in(client, fleet.names, "Healthy")
    return fleet


async def test_killed_the_standby_takes_over_and_misses_nothing(
    plane: Plane, tmp_path: Path
) -> None:
    async with await plane.client() as client, operating(plane, tmp_path, "one") as one:
        await leader(client, "one", 30.0)
        async with operating(plane, tmp_path, "two", *free_ports(1)) as two:
            await ready(two)  # a standby is ready, its caches are warm
            fleet = await small_hall(client)
            assert await one.end(signal.SIGKILL) == -signal.SIGKILL
            # Nobody leads now; what happens meanwhile is found later.
            await report(client, "gpu-0001", fault())
            await client.delete(NODES, "gpu-0003")
            took_s = await leader(client, "two", FAILOVER_S + SLACK_S)
            assert took_s > 1.0
            await node_seen(client, "gpu-0001", "Quarantined")
            await seen(client, BLADES, "gpu-0001", is_in("Quarantined"))
            await gone(client, BLADES, "gpu-0003")
            assert taint_of(await client.get(NODES, "gpu-0002")) is None
            assert fleet.names[1] == "gpu-0002"
            await says(two, 'tramontane_leader{lease="tramontane-operator"} 1.0')
            await says(two, 'tramontane_blades{pool="paris",state="quarantined"} 1.0')


async def test_told_to_stop_it_gives_the_lease_back(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client, operating(plane, tmp_path, "one") as one:
        await leader(client, "one", 30.0)
        async with operating(plane, tmp_path, "two", *free_ports(1)) as two:
            await ready(two)
            await asyncio.sleep(1.0)
            assert await one.end() == 0
            await leader(client, "two", 2.0 + SLACK_S)
            await small_hall(client, 1)


async def test_killed_alone_it_goes_on_where_it_was(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client, operating(plane, tmp_path, "one") as one:
        await small_hall(client)
        await report(client, "gpu-0002", fault())
        before = await seen(client, BLADES, "gpu-0002", is_in("Quarantined"))
        await one.end(signal.SIGKILL)
        node = await client.get(NODES, "gpu-0001")
        async with operating(plane, tmp_path, "one"):  # the same replica, started again
            await report(client, "gpu-0003", fault(), fault("xid-48"))
            # 10 % of 3 blades are 1: what was out before still counts.
            await seen(client, BLADES, "gpu-0003", is_in("Healthy", "BudgetExhausted"))
            after = await client.get(BLADES, "gpu-0002")
            assert after["status"] == before["status"]
            assert (await client.get(NODES, "gpu-0001"))["metadata"]["managedFields"] == (
                node["metadata"]["managedFields"]
            )


async def test_with_its_lease_taken_the_process_ends(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client:
        one = Operator(plane, "one", tmp_path / "one.log")
        await one.start()
        try:
            await leader(client, "one", 30.0)
            taken = {"spec": {"holderIdentity": "somebody"}}
            await client.merge_patch(LEASES, LEASE_OPERATOR, taken, SYSTEM)
            async with asyncio.timeout(30.0):
                assert await one.ended() == EXIT_LEADERSHIP_LOST
            lease = await client.get(LEASES, LEASE_OPERATOR, SYSTEM)
            assert lease["spec"]["holderIdentity"] == "somebody"
        finally:
            await one.end(signal.SIGKILL)


async def test_without_crds_it_waits_and_says_so(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client:
        names = [f"{one.plural}.{GROUP}" for one in (TRAININGJOBS, NODEPOOLS)]
        for name in names:
            await client.delete(CRDS, name)
            await gone(client, CRDS, name)
        try:
            async with operating(plane, tmp_path, "one", *free_ports(1)) as one:
                status, text = await ask(one, "/readyz")
                assert (status, text) == (503, "crds: not ready\n")
                assert (await ask(one, "/healthz"))[0] == 200
                missing = f"missing_crds={NODEPOOLS.plural}.{GROUP},{TRAININGJOBS.plural}.{GROUP} "

                async def said_so() -> bool:
                    return missing in one.said()

                await until(said_so)
                await apply_crds(client)
                await ready(one)
                await small_hall(client, 1)
        finally:
            await apply_crds(client)


async def test_kopf_leaves_no_trace_on_objects(plane: Plane, tmp_path: Path) -> None:
    async with (
        await plane.client() as client,
        operating(plane, tmp_path, "one", *free_ports(1)) as one,
    ):
        await small_hall(client, 1)
        job: dict[str, Any] = {
            "apiVersion": TRAININGJOBS.api_version,
            "kind": "TrainingJob",
            "metadata": {"name": "llama", "namespace": "default"},
            "spec": {
                "nodePool": "paris",
                "nodes": 1,
                "template": {"spec": {"containers": [{"name": "trainer", "image": "train:1"}]}},
            },
        }
        await client.create(TRAININGJOBS, job)
        await says(one, 'tramontane_kopf_events_total{kind="TrainingJob"} ')
        pool = await client.get(NODEPOOLS, "paris")
        made = await client.get(TRAININGJOBS, "llama", "default")
        for raw in (pool, made):
            assert "annotations" not in raw["metadata"]
            assert "finalizers" not in raw["metadata"]
            assert "kopf" not in str(raw["metadata"]["managedFields"])
        await client.delete(NODEPOOLS, "paris")
        await gone(client, BLADES, "gpu-0001")
        await seen(
            client, NODES, "gpu-0001", lambda raw: LABEL_POOL not in raw["metadata"]["labels"]
        )
