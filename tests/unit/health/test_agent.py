"""The shell: what is written, when, and what happens when nobody takes it. Time is virtual."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tramontane.api import clock
from tramontane.health import checks
from tramontane.health.agent import Agent, Timing
from tramontane.health.backoff import Backoff
from tramontane.health.device import XID_EVENT, Event, RemappedRows, Update
from tramontane.health.fake import FakeDevice
from tramontane.health.host import HostReading
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
    given = {"clock": now, "rng": lambda: 0.5, **options}
    agent = Agent("gpu-0001", probe, server.client, **given)
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
        assert server.report.faults[0].count == 1
        assert 3 <= len(server.applied) <= 5


async def test_what_the_catalogue_ignores_is_written_in_passing(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device):
        await asyncio.sleep(1)
        for gpu in range(8):
            device.xid(gpu, 43)
            await asyncio.sleep(0.1)
        assert len(server.applied) == 1
        reads = server.reads
        await asyncio.sleep(600)
        assert server.codes == ["xid-43"] * 8
        assert len(server.applied) == 2
        # Nothing is wrong with the blade, so nobody looks at it more often.
        assert server.reads - reads <= 600 / 60 * 2


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
        said = server.report.checks
        assert "row-remap" not in said.unknown
        assert said.run + len(said.unknown) == len(checks.CHECKS) - 1


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


@pytest.mark.parametrize("restarts", [False, True], ids=["one-process", "a-restart-after-it"])
async def test_a_release_by_a_clock_that_is_ahead_ends_nothing_to_come(
    server: ApiServer, device: FakeDevice, restarts: bool
) -> None:
    assert server.blade is not None
    async with running(server, device):
        device.xid(3, 79)
        await asyncio.sleep(60)
        release = {"reason": "new fan", "by": "anna", "at": clock.utc(now() + 3600)}
        server.blade["spec"]["release"] = release
        wrote = {"time": clock.utc(now()), "fieldsV1": {"f:spec": {"f:release": {"f:at": {}}}}}
        other = {"time": clock.utc(now() + 9999), "fieldsV1": {"f:status": {}}}
        server.blade["metadata"]["managedFields"] = [wrote, other]
        await asyncio.sleep(60)
        assert server.codes == ["recovery-node-reboot"]
        device.xid(4, 119)
        await asyncio.sleep(4000 if restarts else 60)
        assert "xid-119" in server.codes
    if restarts:
        async with running(server, device):
            await asyncio.sleep(120)
            assert "xid-119" in server.codes


async def test_a_release_ends_what_is_held_against_the_host(
    server: ApiServer, device: FakeDevice
) -> None:
    assert server.blade is not None
    host = Host()
    async with running(server, device, host_probe=host):
        assert host.released == []
        for reason in ("one drive is enough", "and none is, too"):
            at = clock.utc(now())
            server.blade["spec"]["release"] = {"reason": reason, "by": "anna", "at": at}
            await asyncio.sleep(300)
            assert host.released[-1] == clock.parse(at)
        assert len(host.released) == 2


@pytest.mark.parametrize("released", [False, True], ids=["", "released"])
@pytest.mark.parametrize("before", [False, True], ids=["while-it-runs", "before-its-start"])
async def test_a_clock_that_is_set_back_hides_no_line(
    server: ApiServer, device: FakeDevice, before: bool, released: bool
) -> None:
    assert server.blade is not None
    back_s = 0.0

    def wall() -> float:
        return now() - back_s

    async with running(server, device, clock=wall):
        if released:
            release = {"reason": "new fan", "by": "anna", "at": clock.utc(wall())}
            server.blade["spec"]["release"] = release
        await asyncio.sleep(120)
    if before:
        back_s = 3600.0
    host = Host()
    async with running(server, device, host_probe=host, clock=wall):
        await asyncio.sleep(120)
        back_s = 3600.0
        await asyncio.sleep(120)
        host.line(79, wall())
        await asyncio.sleep(1)
        assert server.codes == ["xid-79"]


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


async def test_metrics_see_what_the_probes_say_and_what_is_written(
    server: ApiServer, device: FakeDevice
) -> None:
    registry = CollectorRegistry()
    host = Host()

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tramontane_{name}", labels)

    async with running(server, device, host_probe=host, metrics=Metrics(registry, now)):
        assert sample("gpu_temperature_celsius", gpu="3") == 41
        for code in (62, 45, 45):
            device.xid(3, code)
        host.line(62, now())
        host.line(79, now())
        await asyncio.sleep(1)
        for xid, count in (("62", 1), ("45", 2), ("79", 1)):
            assert sample("gpu_xid_errors_total", gpu="3", xid=xid) == count
        assert sample("agent_reports_total") == len(server.applied)
        assert (sample("agent_event_to_report_seconds_count") or 0) >= 1


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


class Host:
    """A host's probe that says what it is told to."""

    def __init__(self, *updates: Update) -> None:
        self._updates: asyncio.Queue[Update] = asyncio.Queue()
        for update in updates:
            self._updates.put_nowait(update)
        self.closed = False
        self.released: list[float] = []

    def line(self, code: int, at: float, pci: str = "0000:40:00", **values: Any) -> None:
        event = Event(-1, "", XID_EVENT, code, at, f"NVRM: {code}", "kmsg", pci=pci, **values)
        self._updates.put_nowait(Update(events=(event,)))

    def look(self, **values: Any) -> None:
        self._updates.put_nowait(Update(host=HostReading(**values)))

    async def next(self) -> Update:
        return await self._updates.get()

    def forget(self, released_at: float) -> None:
        self.released.append(released_at)

    async def aclose(self) -> None:
        self.closed = True


async def test_a_line_of_the_kernel_log_is_a_fault_of_the_gpu_at_its_address(
    server: ApiServer, device: FakeDevice
) -> None:
    host = Host()
    async with running(server, device, host_probe=host):
        host.line(79, now())
        await asyncio.sleep(0.001)
        (fault,) = server.report.faults
        assert (fault.code, fault.gpu, fault.evidence) == ("xid-79", 3, "NVRM: 79")
        assert fault.uuid == device.reading.gpus[3].facts.uuid
    assert host.closed


async def test_the_host_is_watched_while_nvml_hangs(server: ApiServer, device: FakeDevice) -> None:
    host = Host()
    async with running(server, device, host_probe=host):
        device.hang()
        host.look(clocksource="hpet")
        host.line(79, now())
        await asyncio.sleep(1)
        assert sorted(server.codes) == ["clocksource-slow", "nvml-unresponsive", "xid-79"]
        assert server.report.faults[-1].gpu is None


async def test_the_host_is_watched_where_nvml_never_answered(
    server: ApiServer, device: FakeDevice
) -> None:
    host = Host()
    device.hang()
    async with running(server, device, host_probe=host):
        host.look(clocksource="hpet")
        await asyncio.sleep(1)
        assert sorted(server.codes) == ["clocksource-slow", "nvml-unresponsive"]


async def test_nothing_is_said_before_nvml_has_said_something(server: ApiServer) -> None:
    class Slow(FakeDevice):
        async def next(self) -> Update:
            await asyncio.sleep(30)
            return await super().next()

    host = Host()
    host.line(79, START)
    host.look(clocksource="hpet")
    async with running(server, Slow("gpu-0001", clock=now), host_probe=host):
        await asyncio.sleep(29)
        assert (server.applied, server.reads) == ([], 1)
        await asyncio.sleep(2)
        assert sorted(server.codes) == ["clocksource-slow", "xid-79"]
        assert {fault.gpu for fault in server.report.faults} == {3, None}


async def test_a_restart_does_not_count_the_ring_again(
    server: ApiServer, device: FakeDevice
) -> None:
    host = Host()
    async with running(server, device, host_probe=host):
        host.line(31, now())
        await asyncio.sleep(60)
    before, written = server.report, len(server.applied)
    again = Host()
    again.line(31, START + 0.1)
    again.line(94, START + 30)
    async with running(server, device, host_probe=again):
        await asyncio.sleep(600)
        assert server.codes == ["xid-31", "xid-94"]
        assert server.report.faults[0] == before.faults[0]
        assert len(server.applied) == written + 1


async def test_a_flood_of_lines_is_one_occurrence(server: ApiServer, device: FakeDevice) -> None:
    host = Host()
    async with running(server, device, host_probe=host):
        for _ in range(60):
            host.line(95, now(), count=13_333)
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        assert [(fault.code, fault.gpu) for fault in server.report.faults] == [("xid-95", 3)]
        assert server.report.faults[0].count == 1
        assert len(server.applied) <= 5


async def test_the_rates_of_checks_see_earlier_readings(
    server: ApiServer, device: FakeDevice
) -> None:
    async with running(server, device) as agent:
        for celsius in range(200):
            device.set(3, temperature_c=40 + celsius % 30)
            await asyncio.sleep(10)
        assert 55 <= len(agent._previous) <= 65


async def test_a_faulty_blade_is_read_again_sooner(server: ApiServer, device: FakeDevice) -> None:
    async with running(server, device):
        await asyncio.sleep(601)
        well = server.reads
        device.xid(3, 79)
        await asyncio.sleep(600)
        assert well <= 11
        assert server.reads - well >= 55


async def test_a_repair_ends_the_faults_that_it_was_for(
    server: ApiServer, device: FakeDevice
) -> None:
    host = Host()
    host.look()
    async with running(server, device, host_probe=host):
        host.line(95, now(), wanted="Reset")
        await asyncio.sleep(60)
        assert server.codes == ["xid-95"]
        assert server.blade is not None
        server.blade["status"]["repair"] = {
            "code": "xid-95",
            "gpu": 3,
            "action": "Reset",
            "repairedAt": clock.utc(now()),
        }
        await asyncio.sleep(20)
        assert server.codes == []


def test_pauses_double_up_to_a_limit_with_jitter() -> None:
    backoff = Backoff(1.0, 5.0, iter([0.5, 0.5, 0.0, 0.5, 0.5]).__next__)
    assert [backoff.next() for _ in range(4)] == [1.0, 2.0, 2.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0
