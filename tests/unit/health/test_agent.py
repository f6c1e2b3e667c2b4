"""The shell: what is written, when, and what happens when nobody takes it. Time is virtual."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tramontane.api import clock
from tramontane.health.agent import Agent, Timing
from tramontane.health.backoff import Backoff
from tramontane.health.device import RemappedRows, Update
from tramontane.health.fake import FakeDevice
from tramontane.health.metrics import Metrics

from .api_server import ApiServer

pytestmark = pytest.mark.looptime

START = 1_790_000_000.0


def now() -> float:
    return START + asyncio.get_running_loop().time()


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.create_blade()
    return server


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice("gpu-0001", clock=now)


@asynccontextmanager
async def running(
    server: ApiServer, probe: Any, settle_s: float = 0.1, **options: Any
) -> AsyncIterator[Agent]:
    agent = Agent("gpu-0001", probe, server.client, clock=now, rng=lambda: 0.5, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    await asyncio.sleep(settle_s)
    try:
        yield agent
    finally:
        stop.set()
        await task


async def test_the_first_report_is_written_and_then_nothing(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device) as agent:
        assert agent.reported
        assert len(server.applied) == 1
        await asyncio.sleep(3600)
        assert len(server.applied) == 1
        assert (server.codes, len(server.report.gpus)) == ([], 8)


async def test_a_fault_is_written_at_once(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        device.lose(3)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        assert server.codes == ["gpu-lost", "xid-79"]
        assert server.report.faults[1].last_seen == clock.utc(now())


async def test_looking_again_is_no_reason_to_write(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        for celsius in range(40, 80):
            device.set(3, temperature_c=celsius)
            await asyncio.sleep(1)
        assert len(server.applied) == 1


async def test_a_flood_of_one_xid_is_written_once_and_then_twice_a_minute(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        for _ in range(600):
            device.xid(3, 94)
            await asyncio.sleep(0.1)
        await asyncio.sleep(60)
        assert server.report.faults[0].count == 600
        assert 3 <= len(server.applied) <= 5


async def test_the_agent_waits_for_its_blade_and_loses_nothing_meanwhile(
    device: FakeDevice,
) -> None:
    server = ApiServer()
    async with running(server, device) as agent:
        device.xid(3, 94)
        await asyncio.sleep(60)
        assert (server.applied, agent.reported) == ([], False)
        assert server.beats
        server.create_blade()
        await asyncio.sleep(20)
        assert server.codes == ["xid-94"]


async def test_a_restart_forgets_nothing_and_writes_nothing(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        device.xid(3, 79)
        await asyncio.sleep(1)
    written = len(server.applied)
    before = server.report
    again = FakeDevice("gpu-0001", clock=now)
    again.set(3, recovery_action=2)
    async with running(server, again):
        await asyncio.sleep(60)
        assert len(server.applied) == written
        assert server.report == before


async def test_a_reboot_ends_what_a_reboot_ends(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        device.lose(3)
        await asyncio.sleep(1)
        device.reboot()
        await asyncio.sleep(1)
        assert server.codes == []
        assert server.report.agent.boot_id == device.reading.boot_id


async def test_a_hang_is_a_fault_until_nvml_answers(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        device.hang()
        await asyncio.sleep(1)
        assert server.codes == ["nvml-unresponsive"]
        device.heal()
        await asyncio.sleep(1)
        assert server.codes == []


async def test_a_switched_off_check_is_not_run(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device, disabled=frozenset({"row-remap"})):
        device.set(3, remapped_rows=RemappedRows(failure=True))
        await asyncio.sleep(1)
        assert server.codes == []
        assert server.report.checks.run == 9


async def test_what_happened_while_the_api_server_was_away_is_written_when_it_is_back(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        server.away = True
        device.xid(3, 94)
        await asyncio.sleep(100)
        device.lose(5)
        await asyncio.sleep(100)
        asked = server.refused
        assert asked < 100
        server.away = False
        await asyncio.sleep(20)
        assert sorted(server.codes) == ["gpu-lost", "xid-79", "xid-94"]


async def test_a_blade_that_was_made_anew_gets_its_report(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        device.xid(3, 79)
        await asyncio.sleep(1)
        server.create_blade()
        await asyncio.sleep(600)
        assert server.codes == ["recovery-node-reboot", "xid-79"]


async def test_a_blade_that_is_gone_is_waited_for(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        server.blade = None
        device.xid(3, 79)
        await asyncio.sleep(60)
        server.create_blade()
        await asyncio.sleep(20)
        assert "xid-79" in server.codes


async def test_a_release_ends_event_faults(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        device.xid(3, 1)
        await asyncio.sleep(1)
        assert server.codes == ["xid-1"]
        report = server.report.to_dict()
        server.create_blade(release={"reason": "ok", "by": "a", "at": clock.utc(now() + 1)})
        assert server.blade is not None
        server.blade["status"]["report"] = report
        await asyncio.sleep(600)
        assert server.codes == []


async def test_the_heartbeat_goes_on_every_30_s_whatever_the_blade_does(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        device.hang()
        await asyncio.sleep(310)
        assert set(server.beats) == {"blade-gpu-0001"}
        assert 10 <= len(server.beats) <= 12


async def test_the_heartbeat_comes_back_with_the_api_server(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        server.away = True
        await asyncio.sleep(300)
        beats = len(server.beats)
        server.away = False
        await asyncio.sleep(20)
        assert len(server.beats) > beats


async def test_a_probe_that_talks_rubbish_does_not_end_the_agent(server: ApiServer) -> None:
    class Rubbish:
        closed = False
        asked = 0

        async def next(self) -> Update:
            self.asked += 1
            raise ValueError("rubbish")

        async def aclose(self) -> None:
            self.closed = True

    probe = Rubbish()
    async with running(server, probe):
        await asyncio.sleep(100)
        assert server.beats
        assert 1 < probe.asked < 50
    assert probe.closed


async def test_an_error_of_the_agent_ends_it(server: ApiServer) -> None:
    class Broken(FakeDevice):
        async def next(self) -> Update:
            raise RuntimeError("a fault of ours")

    agent = Agent("gpu-0001", Broken("b"), server.client, timing=Timing(), clock=now)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await agent.run(asyncio.Event())


async def test_metrics_count_by_code_and_show_what_is_open(
    server: ApiServer, device: FakeDevice
) -> None:
    registry = CollectorRegistry()
    uuid = device.reading.gpus[3].facts.uuid
    gpu = {"gpu": "3", "uuid": uuid}

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tramontane_{name}", labels)

    async with running(server, device, metrics=Metrics(registry, now)):
        assert sample("gpu_temperature_celsius", **gpu) == 41
        assert sample("gpu_power_watts", **gpu) == 118
        for code in (62, 45, 45):
            device.xid(3, code)
        await asyncio.sleep(1)
        assert sample("gpu_xid_total", **gpu, xid="62") == 1
        assert sample("gpu_xid_total", **gpu, xid="45") == 2
        assert sample("gpu_fault", **gpu, code="xid-62", severity="Fatal") == 1
        device.lose(3)
        await asyncio.sleep(1)
        assert sample("gpu_lost", **gpu) == 1
        assert sample("gpu_temperature_celsius", **gpu) is None
        assert sample("gpu_count") == 8
        assert sample("agent_reports_total") == len(server.applied)
        assert (sample("agent_event_to_report_seconds_count") or 0) >= 2
        device.hang(strikes=2)
        await asyncio.sleep(1)
        assert sample("agent_nvml_strikes") == 2
        assert sample("agent_check_unknown", check="row-remap") == 1


async def test_a_fleet_in_one_process_writes_once_per_blade_and_beats_apart() -> None:
    servers = [ApiServer() for _ in range(200)]
    devices = [FakeDevice(f"gpu-{index}", clock=now) for index in range(200)]
    stop = asyncio.Event()
    for server in servers:
        server.create_blade()
    tasks = [
        asyncio.create_task(Agent("gpu-0001", device, server.client, clock=now).run(stop))
        for device, server in zip(devices, servers, strict=True)
    ]
    await asyncio.sleep(90)
    devices[7].lose(0)
    await asyncio.sleep(1)
    stop.set()
    await asyncio.gather(*tasks)
    assert [len(server.applied) for server in servers] == [1] * 7 + [2] + [1] * 192
    assert all(3 <= len(server.beats) <= 4 for server in servers)


def test_pauses_double_up_to_a_limit_with_jitter() -> None:
    backoff = Backoff(1.0, 5.0, iter([0.5, 0.5, 0.0, 0.5, 0.5]).__next__)
    assert [backoff.next() for _ in range(4)] == [1.0, 2.0, 2.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0
