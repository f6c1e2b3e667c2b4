"""No session with NVML while the operator has a GPU reset; what was wrong stays wrong meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tramontane.api import clock
from tramontane.api.blade import Action, BladeRepair
from tramontane.health import checks
from tramontane.health.agent import Agent
from tramontane.health.checks.host import NAMES as HOST_CHECKS
from tramontane.health.device import RemappedRows, Update
from tramontane.health.fake import FakeDevice
from tramontane.health.metrics import Metrics
from tramontane.health.pause import AT_MOST_S, Pausing
from tramontane.lab.nvml import StateFile

from .api_server import ApiServer
from .test_probe import gone, running

START = 1_790_000_000.0
RESET = BladeRepair(action=Action.RESET, rung=Action.RESET, started_at=clock.utc(START))


class Session(FakeDevice):
    """A blade that counts how often its session was ended."""

    ended = 0

    async def aclose(self) -> None:
        self.ended += 1
        await super().aclose()


def now() -> float:
    return START + asyncio.get_running_loop().time()


# With the simulated library and a real child.


async def test_the_child_leaves_nvml_in_order_and_another_one_looks(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    async with running(library, machine, tmp_path) as probe:
        pausing = Pausing(probe)
        await pausing.next()
        pid = probe.pid
        assert pid is not None
        taking = asyncio.create_task(pausing.next())
        await asyncio.sleep(0)
        assert pausing.mind(RESET) is not None
        await gone(pid)
        assert (tmp_path / "nvml.log").read_text() == "nvmlShutdown\n"
        machine.change(3, ecc_vol_unc=2)
        await asyncio.sleep(0.5)
        assert (taking.done(), probe.pid, pausing.blind) == (False, None, True)
        assert pausing.mind(RESET.model_copy(update={"started_at": None})) is None
        assert pausing.blind
        update = await taking
        assert update.reading is not None
        assert update.reading.gpus[3].ecc_errors.volatile_uncorrected == 2  # type: ignore[union-attr]
        assert not pausing.blind
        assert probe.pid not in {None, pid}


async def test_a_child_that_hangs_is_ended_too(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    async with running(library, machine, tmp_path, deadline_s=60.0) as probe:
        pausing = Pausing(probe)
        await pausing.next()
        pid = probe.pid
        assert pid is not None
        machine.write(replace(machine.state, hang=True))
        taking = asyncio.create_task(pausing.next())
        await asyncio.sleep(0.3)  # by then it is inside a call
        pausing.mind(RESET)
        await gone(pid)
        machine.write(replace(machine.state, hang=False))
        pausing.mind(None)
        assert (await taking).reading is not None


async def test_before_it_has_begun_it_does_not_begin(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    async with running(library, machine, tmp_path) as probe:
        pausing = Pausing(probe)
        pausing.mind(RESET)
        taking = asyncio.create_task(pausing.next())
        await asyncio.sleep(0.3)
        assert (taking.done(), probe.pid) == (False, None)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking


# When: with a blade in memory.


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("repair", "leaves"),
    [
        pytest.param(None, False, id="no-repair"),
        pytest.param(RESET, True, id="a-reset"),
        pytest.param(RESET.model_copy(update={"rung": None}), True, id="an-older-operators"),
        pytest.param(RESET.model_copy(update={"started_at": None}), False, id="not-yet"),
        pytest.param(RESET.model_copy(update={"rung": Action.REBOOT}), False, id="a-reboot"),
    ],
)
async def test_it_leaves_for_a_reset_alone(repair: BladeRepair | None, leaves: bool) -> None:
    pausing = Pausing(FakeDevice("b"))
    await pausing.next()
    assert (pausing.mind(repair) is not None) is leaves
    assert pausing.blind is leaves


@pytest.mark.looptime
async def test_a_reset_has_ten_minutes_and_the_next_one_has_them_anew() -> None:
    pausing = Pausing(FakeDevice("b"))
    assert pausing.mind(RESET) == AT_MOST_S
    await asyncio.sleep(AT_MOST_S - 1)
    assert pausing.mind(RESET) == 1
    await asyncio.sleep(1)
    assert pausing.mind(RESET) is None
    assert (await pausing.next()).reading is not None
    assert not pausing.blind
    again = RESET.model_copy(update={"started_at": clock.utc(START + 900)})
    assert pausing.mind(again) == AT_MOST_S


@pytest.mark.looptime
async def test_an_error_of_the_probe_is_its_own() -> None:
    class Broken(FakeDevice):
        async def next(self) -> Update:
            raise TimeoutError("of the probe")

    with pytest.raises(TimeoutError, match="of the probe"):
        await Pausing(Broken("b")).next()


# What the agent makes of it.


@asynccontextmanager
async def agent(server: ApiServer, probe: Any, **options: Any) -> AsyncIterator[None]:
    running = Agent("gpu-0001", probe, server.client, clock=now, rng=lambda: 0.5, **options)
    stop = asyncio.Event()
    task = asyncio.create_task(running.run(stop))
    await asyncio.sleep(1)
    try:
        yield
    finally:
        stop.set()
        await task


def repair(server: ApiServer, **values: Any) -> None:
    assert server.blade is not None
    server.blade["status"]["repair"] = {"code": "x", "gpu": 3, "action": "Reset", **values}


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.create_blade()
    return server


@pytest.mark.looptime
async def test_what_was_wrong_stays_wrong_until_it_has_looked_again(server: ApiServer) -> None:
    device = Session("gpu-0001", clock=now)
    registry = CollectorRegistry()
    async with agent(server, device, metrics=Metrics(registry)):
        device.set(3, remapped_rows=RemappedRows(pending=True))
        device.xid(3, 63)
        await asyncio.sleep(1)
        before = server.report
        assert {"row-remap-pending", "xid-63"} < set(server.codes)
        repair(server, startedAt=clock.utc(now()))
        await asyncio.sleep(3)  # where a reset may begin, the Blade is read every 2 s
        assert device.ended == 1
        # The reset ends one thing and begins another: neither is known yet.
        device.reset(3)
        device.set(5, inforom_valid=False)
        await asyncio.sleep(60)
        assert (server.report.faults, server.report.gpus) == (before.faults, before.gpus)
        through_nvml = checks.NAMES - HOST_CHECKS - {"xid", "sxid"}
        assert through_nvml <= set(server.report.checks.unknown)
        assert registry.get_sample_value("tramontane_gpu_temperature_celsius", {"gpu": "0"}) is None
        repair(server, repairedAt=clock.utc(now()))
        await asyncio.sleep(3)
        assert server.codes == ["inforom-corrupt"]
        assert set(server.report.checks.unknown) == set(before.checks.unknown)
        assert device.ended == 1


@pytest.mark.looptime
async def test_a_reset_without_an_end_does_not_blind_the_agent(server: ApiServer) -> None:
    device = Session("gpu-0001", clock=now)
    async with agent(server, device):
        device.xid(3, 95)
        await asyncio.sleep(1)
        repair(server, startedAt=clock.utc(now()))
        await asyncio.sleep(3)
        device.xid(4, 79)
        await asyncio.sleep(AT_MOST_S - 10)
        assert "xid-79" not in server.codes
        await asyncio.sleep(15)
        assert "xid-79" in server.codes
        assert device.ended == 1


@pytest.mark.looptime
async def test_a_start_during_a_reset_writes_nothing_new(server: ApiServer) -> None:
    async with agent(server, FakeDevice("gpu-0001", clock=now)):
        await asyncio.sleep(1)
    before, written = server.report, len(server.applied)
    repair(server, startedAt=clock.utc(now()))
    device = FakeDevice("gpu-0001", clock=now)
    device.hang()
    async with agent(server, device):
        await asyncio.sleep(60)
        assert server.report.faults == before.faults
        assert len(server.applied) <= written + 1


@pytest.mark.looptime
async def test_where_a_reset_may_begin_the_blade_is_read_most_often(server: ApiServer) -> None:
    device = FakeDevice("gpu-0001", clock=now)
    async with agent(server, device):
        await asyncio.sleep(300)
        reads = server.reads
        device.xid(3, 95)
        await asyncio.sleep(20)
        assert server.reads - reads >= 9
        # Nobody has ordered it: then it is read as often as that of any faulty blade.
        await asyncio.sleep(300)
        reads = server.reads
        await asyncio.sleep(300)
        assert 25 <= server.reads - reads <= 35
        repair(server)
        await asyncio.sleep(20)
        reads = server.reads
        await asyncio.sleep(20)
        assert server.reads - reads >= 9
