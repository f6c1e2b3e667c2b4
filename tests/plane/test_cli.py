"""A person's word, from the command line through a real API server to the operator and back."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

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
)
from tramontane.kube.client import Client
from tramontane.kube.resources import BLADES, NODEPOOLS
from tramontane.lab.fleet import Fleet, Layout


async def tramontane(plane: Plane, *arguments: str) -> str:
    """Run a command that must succeed; return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from tramontane.cli.main import main; main()",
        *arguments,
        env={**os.environ, "KUBECONFIG": str(plane.kubeconfig)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
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
    return fleet.names


async def test_a_blade_is_held_and_released(plane: Plane, tmp_path: Path) -> None:
    async with await plane.client() as client, operating(plane, tmp_path):
        one, other = await start(client, 2)
        await tramontane(plane, "blade", "hold", one, "--reason", "new fan", "--by", "anna")
        held = await seen(client, BLADES, one, is_in("Quarantined", "HeldByPerson"))
        assert held["status"]["message"] == "held by anna: new fan"
        assert held["spec"]["pool"] == "paris"
        said = await tramontane(plane, "blade", "list", "--state", "Quarantined", "--pool", "paris")
        assert one in said
        assert other not in said
        await tramontane(plane, "blade", "release", one, "--reason", "done", "--skip-burn-in")
        back = await seen(client, BLADES, one, is_in("Healthy"))
        assert back["status"].get("reason") is None
        assert "hold ended" in await tramontane(plane, "blade", "show", one)


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
            await tramontane(plane, "breaker", "close", "paris", "--by", "anna")
            # It counts anew: both go out, and the second of them opens it again.
            for name in names[2:4]:
                await seen(client, BLADES, name, is_in("Quarantined"))
            await report(client, names[4], fault(action="Drain"))
            await seen(client, BLADES, names[4], is_in("Healthy", "BreakerOpen"))
            assert "Open" in await tramontane(plane, "pool", "list")
