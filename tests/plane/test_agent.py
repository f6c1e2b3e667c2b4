"""The real agent process, over the simulated NVML, against the real API server."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from plane.harness import SYSTEM, Plane
from tramontane.api.blade import Report
from tramontane.api.names import MANAGER_AGENT
from tramontane.health.agent import Agent
from tramontane.health.fake import FakeDevice
from tramontane.kube.client import Client, NotFound
from tramontane.kube.resources import BLADES, LEASES
from tramontane.lab import paths
from tramontane.lab.controlplane import free_ports
from tramontane.lab.nvml import StateFile, blade, build
from unit.health import hosts

NAME = "gpu-0001"
PATIENCE_S = 60.0


@pytest.fixture
def machine(tmp_path: Path) -> StateFile:
    file = StateFile(tmp_path / "blade.nvml")
    file.write(blade(NAME))
    return file


@pytest.fixture
async def client(plane: Plane) -> AsyncIterator[Client]:
    async with await plane.client() as client:
        yield client


async def create_blade(client: Client, name: str = NAME) -> None:
    await client.create(BLADES, {"metadata": {"name": name}, "spec": {"pool": "p"}})
    status = {"state": "Healthy"}
    await client.merge_patch(BLADES, name, {"status": status}, subresource="status")


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A running agent; `ready` returns when it has looked, and the API has what it saw."""

    process: asyncio.subprocess.Process
    port: int

    async def ready(self) -> None:
        url = f"http://127.0.0.1:{self.port}/readyz"
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(url) as answer:
                        if answer.status == HTTPStatus.OK:
                            return
                await asyncio.sleep(0.05)


def host_of(machine: StateFile) -> Path:
    """Return the folder with the blade's host: sysfs, procfs, and a kernel log."""
    folder = machine.path.parent / "host"
    if not folder.exists():
        hosts.machine(folder, ports=8, drives=8, gpus=8)
        (folder / "kmsg").touch()
    return folder


@asynccontextmanager
async def agent_process(
    plane: Plane, machine: StateFile, *arguments: str
) -> AsyncIterator[AgentProcess]:
    library = build(paths.cache_dir())
    (port,) = free_ports(1)
    folder = host_of(machine)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tramontane.health", "--node-name", NAME, "--namespace", SYSTEM),
        *("--nvml-library", str(library), "--interval", "0.2", "--metrics-port", str(port)),
        *("--kernel-log", str(folder / "kmsg"), "--host-interval", "0.2"),
        *("--sysfs-root", str(folder), "--proc-root", str(folder)),
        *arguments,
        env={**os.environ, **machine.environment(), "KUBECONFIG": str(plane.kubeconfig)},
    )
    try:
        yield AgentProcess(process, port)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.wait(), PATIENCE_S)
    assert status == 0


async def report_of(client: Client, wanted: Callable[[Report], object]) -> Report:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            raw = (await client.get(BLADES, NAME))["status"].get("report")
            if raw is not None and wanted(report := Report.model_validate(raw)):
                return report
            await asyncio.sleep(0.02)


def codes(report: Report) -> set[str]:
    return {fault.code for fault in report.faults}


async def version_of(client: Client) -> str:
    version: str = (await client.get(BLADES, NAME))["metadata"]["resourceVersion"]
    return version


async def test_a_fault_in_nvml_is_a_fault_in_the_blade(
    plane: Plane, client: Client, machine: StateFile
) -> None:
    await create_blade(client)
    async with agent_process(plane, machine):
        report = await report_of(client, lambda report: len(report.gpus) == 8)
        assert report.faults == ()
        assert report.checks.unknown == ("retired-pages",)  # what pages were before row remapping
        machine.write(machine.state.with_gpu(3, lost=True).with_xid(3, 79))
        report = await report_of(client, lambda report: codes(report) == {"gpu-lost", "xid-79"})
        assert {fault.gpu for fault in report.faults} == {3}
        assert report.gpus[3].faults == 2


async def test_nothing_is_written_when_nothing_changes(
    plane: Plane, client: Client, machine: StateFile
) -> None:
    await create_blade(client)
    async with agent_process(plane, machine):
        await report_of(client, lambda report: report.gpus)
        before = await version_of(client)
        for celsius in range(40, 55):  # the agent looks, and what it sees is no news
            machine.change(2, temperature=celsius)
            await asyncio.sleep(0.1)
        assert await version_of(client) == before
    async with agent_process(plane, machine) as agent:
        await agent.ready()
        assert await version_of(client) == before
        machine.change(2, remap_pending=True)
        await report_of(client, lambda report: codes(report) == {"row-remap-pending"})
        assert await version_of(client) != before


async def test_only_its_own_fields_are_the_agents(
    plane: Plane, client: Client, machine: StateFile
) -> None:
    await create_blade(client)
    async with agent_process(plane, machine):
        await report_of(client, lambda report: report.gpus)
    raw = await client.get(BLADES, NAME)
    (entry,) = [e for e in raw["metadata"]["managedFields"] if e["manager"] == MANAGER_AGENT]
    assert (entry["operation"], entry["subresource"]) == ("Apply", "status")
    assert set(entry["fieldsV1"]) == {"f:status"}
    assert set(entry["fieldsV1"]["f:status"]) == {"f:report"}
    assert raw["status"]["state"] == "Healthy"


async def test_it_makes_no_blade_and_waits_for_one(
    plane: Plane, client: Client, machine: StateFile
) -> None:
    async with agent_process(plane, machine):
        lease = await _lease(client)
        assert lease["metadata"]["labels"] == {"tramontane.dev/heartbeat": "true"}
        assert lease["spec"]["holderIdentity"] == NAME
        with pytest.raises(NotFound):
            await client.get(BLADES, NAME)
        await create_blade(client)
        await report_of(client, lambda report: report.gpus)


async def _lease(client: Client) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await client.get(LEASES, f"blade-{NAME}", SYSTEM)
            except NotFound:
                await asyncio.sleep(0.05)


async def test_a_restart_keeps_faults_and_a_reboot_ends_them(
    plane: Plane, client: Client, machine: StateFile, tmp_path: Path
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("boot-1\n")
    await create_blade(client)
    async with agent_process(plane, machine, "--boot-id-file", str(boot)):
        await report_of(client, lambda report: report.gpus)
        machine.xid(3, 95)
        await report_of(client, lambda report: codes(report) == {"xid-95"})
    before = await version_of(client)
    machine.write(replace(machine.state, events=()))
    async with agent_process(plane, machine, "--boot-id-file", str(boot)) as agent:
        await agent.ready()
        assert await version_of(client) == before
    boot.write_text("boot-2\n")
    async with agent_process(plane, machine, "--boot-id-file", str(boot)):
        report = await report_of(client, lambda report: not report.faults)
        assert report.agent.boot_id == "boot-2"


async def test_a_hang_is_a_fault_and_ends_with_the_hang(
    plane: Plane, client: Client, machine: StateFile
) -> None:
    await create_blade(client)
    async with agent_process(plane, machine, "--deadline", "0.5", "--start-deadline", "5"):
        await report_of(client, lambda report: report.gpus)
        machine.write(replace(machine.state, hang=True))
        report = await report_of(client, lambda report: report.faults)
        assert codes(report) == {"nvml-unresponsive"}
        assert len(report.gpus) == 8
        machine.write(replace(machine.state, hang=False))
        await report_of(client, lambda report: not report.faults)


async def test_the_kernel_log_and_the_host_are_watched_while_nvml_hangs(
    plane: Plane, client: Client, machine: StateFile
) -> None:
    await create_blade(client)
    host = host_of(machine)
    (host / "kmsg").write_text("")
    async with agent_process(plane, machine, "--deadline", "0.5", "--start-deadline", "5"):
        report = await report_of(client, lambda report: report.network)
        assert report.network is not None
        assert (report.network.ports, report.network.rate) == (8, 400)
        machine.write(replace(machine.state, hang=True))
        await report_of(client, lambda report: codes(report) == {"nvml-unresponsive"})
        address = machine.state.gpus[3].bus_id
        line = f"NVRM: Xid (PCI:{address}): 79, pid='<unknown>', GPU has fallen off the bus."
        with (host / "kmsg").open("a") as log:
            log.writelines(f"{line}\n" for _ in range(10_000))
        (host / "class/nvme/nvme0/state").write_text("dead\n")
        report = await report_of(
            client,
            lambda report: codes(report) == {"nvml-unresponsive", "xid-79", "nvme-missing"},
        )
        (fault,) = [fault for fault in report.faults if fault.code == "xid-79"]
        assert (fault.gpu, fault.evidence) == (3, line)


async def test_simulated_blades_run_the_same_agent(plane: Plane, client: Client) -> None:
    assert plane.kubeconfig.exists()
    await create_blade(client)
    device = FakeDevice(NAME)
    stop = asyncio.Event()
    task = asyncio.create_task(Agent(NAME, device, client, namespace=SYSTEM).run(stop))
    await report_of(client, lambda report: len(report.gpus) == 8)
    device.lose(3)
    await report_of(client, lambda report: codes(report) == {"gpu-lost", "xid-79"})
    stop.set()
    await task
