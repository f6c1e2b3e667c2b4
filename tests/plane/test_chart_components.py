"""The components run as the chart starts them: its command lines, its accounts, its roles.

A role that lacks a verb shows in the API server's audit log, which knows every refused request.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from chart.helm import CHART, RELEASE, Helm
from plane.chart_hall import ADDRESSES, WATCHED, BareLab, Hall, job_status, until
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS, PODS, TRAININGJOBS
from tramontane.lab import binaries
from tramontane.lab.cluster import Setup, pool_of
from tramontane.lab.controlplane import NodeTiming, Options, free_ports
from tramontane.lab.demo import training_job
from tramontane.lab.faults import parse_fault
from tramontane.lab.fleet import Layout

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]


@pytest.fixture
async def hall(tmp_path: Path) -> AsyncIterator[Hall]:
    programs = binaries.ensure(["helm", *binaries.CONTROL_PLANE])
    layout = Layout(blades=5)
    setup = Setup(
        layout,
        components=(),
        real_agents=(WATCHED,),
        options=Options(nodes=NodeTiming.quick(), audit_log=True),
    )
    async with BareLab(tmp_path / "lab", setup) as lab:
        helm = Helm(programs["helm"], tmp_path, {"KUBECONFIG": str(lab.plane.kubeconfig)})
        (port,) = free_ports(1)
        made = Hall(lab, helm, port, more={"crds": {"enabled": False}})
        await made.release("install", RELEASE, str(CHART), values=made.values())
        await made.start_all()
        pool = pool_of(layout)
        # Two of five at once would open the breaker, and then no repair begins.
        pool["spec"]["remediation"] = {"maxUnavailable": 3, "breaker": {"threshold": "90%"}}
        await lab.client.create(NODEPOOLS, pool)
        yield made


async def test_a_job_survives_a_fault_and_nobody_is_refused_anything(hall: Hall) -> None:
    lab, client = hall.lab, hall.lab.client
    await lab.wait_healthy("paris-a")

    async with aiohttp.ClientSession() as session:
        for component, address in ADDRESSES.items():
            for path in ("healthz", "readyz", "metrics"):
                async with session.get(f"http://{address}:{hall.port}/{path}") as answer:
                    assert answer.status == 200, f"{component} {path}: {await answer.text()}"

    await client.create(TRAININGJOBS, training_job("llama", 3, "paris-a", spares=1))

    async def runs() -> bool:
        status = await job_status(client)
        return status.get("phase") == "Running" and bool(status.get("step"))

    await until(lab, "the job trains", runs)
    seats = {pod["spec"]["nodeName"] for pod in await client.list_all(PODS, "default")}
    victims = {WATCHED, max(seats - {WATCHED})}
    async with lab.remote() as remote:
        for victim in victims:
            await remote.inject(victim, parse_fault("gpu-lost", 3))

    emptied: set[str] = set()

    async def repairing() -> bool:
        """Return whether each has been in repair: one may be through before the other begins."""
        for victim in victims:
            blade = await client.get(BLADES, victim)
            if blade["status"]["state"] in {"Repairing", "Requalifying", "RMA"}:
                emptied.add(victim)
        return emptied == victims

    try:
        await until(lab, "the blades are out, and empty", repairing)
    except TimeoutError:
        blades = {v: (await client.get(BLADES, v))["status"] for v in victims}
        said = {k: (b["state"], b.get("reason"), b.get("message")) for k, b in blades.items()}
        gangs = [g["status"] for g in await client.list_all(GANGS, "default")]
        pytest.fail(f"the blades must be out, and empty (got {said}; gangs {gangs})")

    async def whole_again() -> bool:
        status = await job_status(client)
        pods = await client.list_all(PODS, "default")
        on = {pod["spec"]["nodeName"] for pod in pods}
        again = status.get("phase") == "Running" and status.get("attempt", 1) > 1
        return again and len(on) == 3 and not on & victims

    await until(lab, "the job is whole again", whole_again)

    requests = hall.requests()
    assert {event["user"]["username"].rpartition("-")[2] for event in requests} == set(ADDRESSES)
    assert not hall.refused()
