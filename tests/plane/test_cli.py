"""A person's word, from the command line through a real API server to the operator and back."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from plane.harness import Plane
from plane.operating import (
    all_in,
    all_report,
    condition,
    fault,
    is_in,
    make_pool,
    operating,
    report,
    seen,
    until,
)
from tramontane.cli import complete
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS
from tramontane.lab.fleet import Fleet, Layout


async def tramontane(plane: Plane, *arguments: str, status: int = 0) -> str:
    """Run a command that must end with a status; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from tramontane.cli.main import main; main()",
        *arguments,
        env={**os.environ, "KUBECONFIG": str(plane.kubeconfig)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == status, said.decode()
    return said.decode()


async def start(client: Client, blades: int, **spec: Any) -> tuple[str, ...]:
    """Make a pool of healthy blades."""
    fleet = Fleet(client, Layout(blades=blades, rack=2))
    await make_pool(client, **spec)
    await fleet.create()
    await fleet.wait_ready()
    await all_in(client, fleet.names, "Unknown")
    await all_report(client, fleet.names)
    await all_in(client, fleet.names, "Healthy")
    await seen(client, NODEPOOLS, "paris", lambda raw: counted(raw) == blades)
    return fleet.names


def counted(pool: dict[str, Any]) -> int:
    """Return how many blades the pool itself counts as healthy: that follows the blades."""
    healthy: int = ((pool.get("status") or {}).get("blades") or {}).get("healthy", 0)
    return healthy


async def told(plane: Plane, name: str, part: str) -> bool:
    """Return whether an object's timeline has something in it."""
    return part in await tramontane(plane, "timeline", name)


async def shows(plane: Plane, part: str) -> bool:
    """Return whether the fleet view has something in it: it follows the Nodes' labels."""
    return part in await tramontane(plane, "fleet")


async def test_a_blade_is_held_and_released(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client, operating(plane, tmp_path):
        one, other = await start(client, 2)
        word = ("quarantine", one, "--reason", "new fan", "--by", "anna")
        said = await tramontane(plane, *word, status=2)
        assert "Pool paris:   1 of 2 out after it" in said
        assert "hold" not in (await client.get(BLADES, one))["spec"]
        await tramontane(plane, *word, "--yes")
        held = await seen(client, BLADES, one, is_in("Quarantined", "HeldByPerson"))
        assert held["status"]["message"] == "held by anna: new fan"
        assert held["spec"]["pool"] == "paris"
        said = await tramontane(plane, "blade", "list", "--state", "Quarantined", "--pool", "paris")
        assert one in said
        assert other not in said
        await until(lambda: shows(plane, "1 quarantined"))
        assert "anna, 20" in await tramontane(plane, "explain", f"blade/{one}")
        back_to_work = ("--reason", "done", "--skip-burn-in", "--yes")
        await tramontane(plane, "blade", "release", one, *back_to_work)
        back = await seen(client, BLADES, one, is_in("Healthy"))
        assert back["status"].get("reason") is None
        assert "hold ended" in await tramontane(plane, "blade", "show", one)
        # The Event is of the real API server's own selection.
        await until(lambda: told(plane, f"blade/{one}", "Quarantined → Healthy"))
        lines = (await tramontane(plane, "timeline", f"blade/{one}")).splitlines()
        order = [
            next(i for i, line in enumerate(lines) if part in line)
            for part in ("known, in pool paris", "held by anna: new fan", "released by ")
        ]
        assert order == sorted(order)
        assert other not in "".join(lines)


async def test_only_a_person_closes_the_breaker(plane: Plane, tmp_path: Path) -> None:
    remediation = {"maxUnavailable": "100%", "breaker": {"threshold": 2, "window": "5m"}}
    async with await plane.client() as client:
        async with operating(plane, tmp_path):
            names = await start(client, 5, remediation=remediation)
            for name in names[:2]:
                await report(client, name, fault(action="Drain"))
                await seen(client, BLADES, name, is_in("Quarantined"))
            await report(client, names[2], fault(action="Drain"))
            await seen(client, BLADES, names[2], is_in("Healthy", "BreakerOpen"))
            pool = await seen(
                client, NODEPOOLS, "paris", lambda raw: condition(raw, "BreakerOpen") != {}
                and condition(raw, "BreakerOpen")["status"] == "True",
            )  # fmt: skip
            assert pool["status"]["breaker"]["state"] == "Open"
            message = condition(pool, "BreakerOpen")["message"]
            assert "2 of 5 blades failed within 5m" in message
            assert "tramontane breaker close paris" in message
        # A restarted operator finds it open, and another fault changes nothing.
        async with operating(plane, tmp_path, "two"):
            await report(client, names[3], fault(action="Drain"))
            await seen(client, BLADES, names[3], is_in("Healthy", "BreakerOpen"))
            assert "2 of 5 blades" in await tramontane(plane, "breaker", "show", "paris")
            await tramontane(plane, "breaker", "close", "paris", "--by", "anna", "--yes")
            # It counts anew: both go out, and the second of them opens it again.
            for name in names[2:4]:
                await seen(client, BLADES, name, is_in("Quarantined"))
            await report(client, names[4], fault(action="Drain"))
            await seen(client, BLADES, names[4], is_in("Healthy", "BreakerOpen"))
            assert "Open" in await tramontane(plane, "pool", "list")


async def test_a_hall_at_a_glance_and_what_is_wrong_in_it(plane: Plane, tmp_path: Path) -> None:
    levels = [
        {"name": "block", "label": "topology.tramontane.dev/block"},
        {"name": "rack", "label": "topology.tramontane.dev/rack"},
    ]
    async with await plane.client() as client, operating(plane, tmp_path):
        names = await start(client, 4, topology={"levels": levels})
        said = await tramontane(plane, "fleet")
        assert "Nothing is wrong." in said
        assert "■" not in said.splitlines()[3]
        placement = {"size": 1, "seats": [names[0]], "spares": [names[1]]}
        await client.create(GANGS, gang("llama"))
        status: dict[str, Any] = {
            "metadata": {"name": "llama", "namespace": "default"},
            "status": {"phase": "Placed", "placement": placement},
        }
        await client.apply(GANGS, status, manager="test", subresource="status")
        await report(client, names[3], fault(action="Drain"))
        await seen(client, BLADES, names[3], is_in("Quarantined"))
        await until(lambda: shows(plane, f"{names[3]} Quarantined, HardwareFault"))
        rows = (await tramontane(plane, "fleet", "--by", "blade")).splitlines()
        signs = [row.split()[1] for row in rows if row.startswith("  block")]
        assert signs == ["■+", "□Q"]
        whole = json.loads(await tramontane(plane, "fleet", "--by", "rack", "-o", "json"))
        assert [one["blades"] for one in whole["domains"]] == [2, 2]
        said = await tramontane(plane, "explain", names[3])
        assert "NVRM: Xid 79" in said
        assert "xid-79" in said
        assert "paris" in await tramontane(plane, "top", "--once")
        plan = await tramontane(plane, "quarantine", names[0], "--reason", "x", "--dry-run")
        assert "default/llama" in plan
        version = json.loads(await tramontane(plane, "version", "-o", "json"))
        assert version["cluster"]["api"] == ["tramontane.dev/v1alpha1"]
        assert version["cluster"]["agents"] == {"0.1.0": 4}


def gang(name: str) -> dict[str, Any]:
    slot = {"name": "worker", "count": 1, "requests": {"nvidia.com/gpu": "8"}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"pool": "paris", "slots": [slot], "active": False},
    }


async def test_names_are_completed_and_the_nearest_is_suggested(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    async with await plane.client() as client, operating(plane, tmp_path):
        names = await start(client, 2)
        await client.create(GANGS, gang("llama"))
        for kind, begun, expected in (
            ("blades", names[0][:-1], list(names)),
            ("any", "np/", ["np/paris"]),
            ("gangs", "gang/", ["gang/llama"]),
        ):
            found = await asyncio.to_thread(complete.names, kind, {}, begun, 30.0)
            assert [one.value for one in found] == expected
        said = await tramontane(plane, "timeline", "gang/lama", status=1)
        assert 'did you mean "llama"?' in said
        assert "asked for" in await tramontane(plane, "timeline", "default/llama")
        assert "Inactive" in await tramontane(plane, "why", "gang/llama", status=3)
