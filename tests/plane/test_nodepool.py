"""The NodePool controller on a real API server, with agents played by hand."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from plane.harness import Plane
from plane.operating import (
    Operator,
    all_in,
    all_report,
    condition,
    fault,
    gone,
    is_in,
    make_pool,
    node_seen,
    operating,
    report,
    seen,
    state_of,
    taint_of,
)
from tramontane.api.clock import utc
from tramontane.api.names import (
    API_VERSION,
    LABEL_BLADE_STATE,
    LABEL_POOL,
    MANAGER_OPERATOR,
    TAINT_BLADE,
)
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, EVENTS, GANGS, NODEPOOLS, NODES
from tramontane.lab.fleet import LABEL_GPU, LABEL_RACK, Fleet, Layout

THEIRS = {"key": "theirs", "value": "x", "effect": "NoSchedule"}


@asynccontextmanager
async def hall(
    plane: Plane, tmp_path: Path, blades: int = 2, **spec: Any
) -> AsyncIterator[tuple[Client, Fleet, Operator]]:
    """Run an operator over a pool of blades whose agents have reported."""
    async with await plane.client() as client, operating(plane, tmp_path) as operator:
        fleet = Fleet(client, Layout(blades=blades, rack=2))
        await make_pool(client, **spec)
        await fleet.create()
        await fleet.wait_ready()
        await all_in(client, fleet.names, "Unknown")
        await all_report(client, fleet.names)
        await all_in(client, fleet.names, "Healthy")
        yield client, fleet, operator


async def place(client: Client, name: str, *seats: str) -> None:
    """Make a gang and write its placement, as the scheduler would."""
    slot = {"name": "w", "count": len(seats), "requests": {"nvidia.com/gpu": "8"}}
    meta = {"name": name, "namespace": "default"}
    body = {"apiVersion": API_VERSION, "kind": "Gang", "metadata": meta}
    await client.apply(GANGS, {**body, "spec": {"pool": "paris", "slots": [slot]}}, manager="tests")
    placement = {"size": len(seats), "seats": list(seats)}
    status = {"status": {"phase": "Placed", "epoch": 1, "placement": placement}}
    await client.merge_patch(GANGS, name, status, "default", subresource="status")


async def set_taints(client: Client, name: str, *taints: dict[str, str]) -> None:
    node = await client.get(NODES, name)
    kept = [one for one in node["spec"].get("taints") or () if one["key"] == TAINT_BLADE]
    await client.merge_patch(NODES, name, {"spec": {"taints": [*taints, *kept]}})


async def test_from_node_to_work_to_quarantine(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path, blades=4) as (client, _, _):
        node = await node_seen(client, "gpu-0001", None)
        assert node["metadata"]["labels"][LABEL_POOL] == "paris"
        assert node["metadata"]["labels"][LABEL_BLADE_STATE] == "Healthy"
        assert condition(node, "GPUHealthy")["status"] == "True"
        pool = await seen(
            client, NODEPOOLS, "paris", lambda raw: raw["status"]["blades"]["healthy"] == 4
        )
        assert pool["status"]["gpus"] == {"total": 32, "allocatable": 32, "allocated": 0}
        assert condition(pool, "Ready")["status"] == "True"
        await report(client, "gpu-0002", fault())
        await node_seen(client, "gpu-0002", "Quarantined")
        blade = await seen(client, BLADES, "gpu-0002", is_in("Quarantined", "HardwareFault"))
        assert blade["status"]["report"]["faults"][0]["code"] == "xid-79"
        assert blade["status"]["verdict"] == {"severity": "Fatal", "action": "Drain"}
        assert taint_of(await client.get(NODES, "gpu-0001")) is None
        node = await seen(
            client, NODES, "gpu-0002", lambda raw: condition(raw, "GPUHealthy")["status"] == "False"
        )
        assert condition(node, "GPUHealthy")["reason"] == "xid-79"
        owned = {
            entry["manager"]: entry["fieldsV1"]["f:status"]
            for entry in blade["metadata"]["managedFields"]
            if entry.get("subresource") == "status"
        }
        assert "f:report" not in owned[MANAGER_OPERATOR]
        await asyncio.sleep(0.5)
        events = await client.list_all(EVENTS, "default")
        said = [one for one in events if one["regarding"]["name"] == "gpu-0002"]
        assert "HardwareFault" in {one["reason"] for one in said}


async def test_what_others_put_on_a_node_survives(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path, health={"clearAfter": "1s"}) as (client, _, _):
        await set_taints(client, "gpu-0001", THEIRS)
        await client.merge_patch(NODES, "gpu-0001", {"spec": {"unschedulable": True}})
        await report(client, "gpu-0001", fault())
        node = await node_seen(client, "gpu-0001", "Quarantined")
        assert THEIRS in node["spec"]["taints"]
        await report(client, "gpu-0001")
        await seen(client, BLADES, "gpu-0001", is_in("Healthy"))
        node = await node_seen(client, "gpu-0001", None)
        theirs = [one for one in node["spec"]["taints"] if "unschedulable" not in one["key"]]
        assert theirs == [THEIRS]
        assert node["spec"]["unschedulable"] is True
        # The Node leaves: it is given back as it was.
        await client.merge_patch(NODES, "gpu-0001", {"metadata": {"labels": {LABEL_GPU: None}}})
        await gone(client, BLADES, "gpu-0001")
        node = await seen(
            client,
            NODES,
            "gpu-0001",
            lambda raw: (
                not condition(raw, "GPUHealthy") and LABEL_POOL not in raw["metadata"]["labels"]
            ),
        )
        assert LABEL_BLADE_STATE not in node["metadata"]["labels"]
        assert THEIRS in node["spec"]["taints"]
        assert node["spec"]["unschedulable"] is True
        assert condition(node, "Ready")["status"] == "True"


async def test_taints_of_others_that_come_and_go_at_the_same_time(
    plane: Plane, tmp_path: Path
) -> None:
    async with hall(plane, tmp_path, health={"clearAfter": "1s"}) as (client, _, operator):
        for turn in range(20):
            theirs = [{**THEIRS, "value": str(turn)}] if turn % 3 else []
            await asyncio.gather(
                set_taints(client, "gpu-0001", *theirs),
                report(client, "gpu-0001", *([fault()] if turn % 2 else [])),
                return_exceptions=False,
            )
            node = await client.get(NODES, "gpu-0001")
            kept = [one for one in node["spec"].get("taints") or () if one["key"] == "theirs"]
            assert kept == theirs
        await node_seen(client, "gpu-0001", "Quarantined")
        assert operator.said().count("reconcile failed") == 0


async def test_two_pools_and_a_pool_of_nothing(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path) as (client, _, _):
        await make_pool(
            client,
            "lyon",
            selector={"matchExpressions": [{"key": LABEL_RACK, "operator": "Exists"}]},
        )
        await make_pool(client, "nice", selector={"matchLabels": {LABEL_GPU: "b300"}})
        for name in ("paris", "lyon"):
            pool = await seen(
                client,
                NODEPOOLS,
                name,
                lambda raw: condition(raw, "Stalled").get("status") == "True",
            )
            assert condition(pool, "Stalled")["reason"] == "Misconfigured"
            message = condition(pool, "Stalled")["message"]
            assert "lyon and paris" in message
            assert "gpu-0001" in message
        pool = await seen(client, NODEPOOLS, "nice", lambda raw: bool(condition(raw, "Ready")))
        assert condition(pool, "Ready")["status"] == "False"
        assert "node-role/gpu=b300" in condition(pool, "Ready")["message"]
        assert (await client.get(BLADES, "gpu-0001"))["spec"]["pool"] == "paris"
        await client.delete(NODEPOOLS, "paris")
        await seen(client, BLADES, "gpu-0001", lambda raw: raw["spec"]["pool"] == "lyon")
        await seen(
            client, NODES, "gpu-0001", lambda raw: raw["metadata"]["labels"][LABEL_POOL] == "lyon"
        )


async def test_a_missing_topology_label_is_named(plane: Plane, tmp_path: Path) -> None:
    levels = [{"name": "row", "label": "hall/row"}, {"name": "rack", "label": LABEL_RACK}]
    async with hall(plane, tmp_path, topology={"levels": levels}) as (client, _, _):
        # One Node may be seen before the other.
        both = "hall/row (gpu-0001, gpu-0002 lack it)"
        pool = await seen(
            client,
            NODEPOOLS,
            "paris",
            lambda raw: both in condition(raw, "Stalled").get("message", ""),
        )
        assert condition(pool, "Stalled")["status"] == "True"


async def test_a_blade_deleted_by_hand_comes_back_quarantined(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path) as (client, _, _):
        await report(client, "gpu-0001", fault())
        old = await seen(client, BLADES, "gpu-0001", is_in("Quarantined"))
        await seen(
            client, NODES, "gpu-0001", lambda raw: condition(raw, "GPUHealthy")["status"] == "False"
        )
        await client.delete(BLADES, "gpu-0001")
        new = await seen(client, BLADES, "gpu-0001", is_in("Unknown"))
        assert new["metadata"]["uid"] != old["metadata"]["uid"]
        await report(client, "gpu-0001")
        blade = await seen(client, BLADES, "gpu-0001", is_in("Quarantined"))
        assert "is gone since" in blade["status"]["message"]


async def test_nodes_that_go_and_come_back(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path, blades=3) as (client, fleet, _):
        await place(client, "llama", "gpu-0001", "gpu-0002")
        for name in fleet.names:
            await client.delete(NODES, name)
        await gone(client, BLADES, "gpu-0003")
        await seen(client, BLADES, "gpu-0001", is_in("Lost", "NodeNotReady"))
        # Moved away from the first: nothing holds its Blade any more.
        await place(client, "llama", "gpu-0002")
        await gone(client, BLADES, "gpu-0001")
        # The second comes back under its name: its old report does not make it Healthy.
        node = fleet.layout.node("gpu-0002", 1)
        made = await client.create(NODES, node)
        await seen(
            client,
            BLADES,
            "gpu-0002",
            lambda raw: (
                raw["metadata"]["annotations"]["tramontane.dev/node-uid"] == made["metadata"]["uid"]
            ),
        )
        await fleet_ready(client, "gpu-0002")
        await asyncio.sleep(0.5)
        assert state_of(await client.get(BLADES, "gpu-0002")) == "Lost"
        await report(client, "gpu-0002", boot="boot-2")
        await seen(client, BLADES, "gpu-0002", is_in("Healthy"))


async def fleet_ready(client: Client, name: str) -> None:
    await seen(client, NODES, name, lambda raw: condition(raw, "Ready").get("status") == "True")


async def test_budget_holds_and_room_is_used(plane: Plane, tmp_path: Path) -> None:
    async with hall(
        plane,
        tmp_path,
        blades=6,
        remediation={"maxUnavailable": 2, "breaker": {"threshold": "100%"}},
        health={"clearAfter": "1s"},
    ) as (client, fleet, _):
        for name in fleet.names[:4]:
            await report(client, name, fault())
        pool = await seen(
            client,
            NODEPOOLS,
            "paris",
            lambda raw: condition(raw, "BudgetExhausted").get("status") == "True",
        )
        assert "at most 2 of 6" in condition(pool, "BudgetExhausted")["message"]
        blades = {raw["metadata"]["name"]: raw for raw in await client.list_all(BLADES)}
        out = [name for name, raw in blades.items() if state_of(raw) == "Quarantined"]
        assert len(out) == 2
        refused = [name for name in fleet.names[:4] if name not in out]
        for name in refused:
            blade = await seen(client, BLADES, name, is_in("Healthy", "BudgetExhausted"))
            assert blade["status"]["verdict"]["severity"] == "Fatal"
        await report(client, out[0])
        await seen(client, BLADES, out[0], is_in("Healthy"))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            states = [state_of(raw) for raw in await client.list_all(BLADES)]
            assert states.count("Quarantined") <= 2
            if states.count("Quarantined") == 2:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(states)


async def test_dry_run_says_and_does_nothing(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path, remediation={"mode": "DryRun"}) as (client, _, _):
        await report(client, "gpu-0001", fault())
        blade = await seen(client, BLADES, "gpu-0001", is_in("Healthy", "HardwareFault"))
        assert blade["status"]["message"].startswith("DryRun, would quarantine: GPU 3: xid-79")
        assert taint_of(await client.get(NODES, "gpu-0001")) is None


async def test_hold_and_release(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path) as (client, _, _):
        hold = {"reason": "fan", "by": "anna", "at": utc(time.time())}
        await client.merge_patch(BLADES, "gpu-0001", {"spec": {"hold": hold}})
        blade = await seen(client, BLADES, "gpu-0001", is_in("Quarantined", "HeldByPerson"))
        assert blade["spec"]["hold"] == hold
        await node_seen(client, "gpu-0001", "Quarantined")
        release = {"reason": "new fan", "by": "ben", "at": utc(time.time())}
        await client.merge_patch(BLADES, "gpu-0001", {"spec": {"release": release}})
        blade = await seen(client, BLADES, "gpu-0001", is_in("Healthy"))
        assert blade["spec"]["hold"] == hold
        assert blade["spec"]["release"] == {**release, "skipBurnIn": False}
        assert blade["status"]["observedGeneration"] == blade["metadata"]["generation"]


async def test_a_blade_without_power_is_lost_and_returns(plane: Plane, tmp_path: Path) -> None:
    async with hall(plane, tmp_path) as (client, fleet, _):
        await fleet.power_off("gpu-0001")
        await fleet.wait_not_ready("gpu-0001", 60.0)
        await seen(client, BLADES, "gpu-0001", is_in("Lost", "NodeNotReady"), within_s=5.0)
        await node_seen(client, "gpu-0001", "Lost")
        await fleet.power_on("gpu-0001")
        await report(client, "gpu-0001", boot="boot-2")
        await seen(client, BLADES, "gpu-0001", is_in("Healthy"))
        await node_seen(client, "gpu-0001", None)
