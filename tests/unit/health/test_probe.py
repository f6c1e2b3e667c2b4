"""The child process: its deadline, its replacement, and how it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tramontane.health import probe as probes
from tramontane.health import wire
from tramontane.health.child import RENEW_AFTER_S
from tramontane.health.device import (
    Event,
    GpuFacts,
    Reading,
    RemappedRows,
    Unresponsive,
    Unsupported,
    Update,
)
from tramontane.health.fake import FakeDevice
from tramontane.health.probe import ChildProbe
from tramontane.lab.nvml import StateFile

from .builders import lost, reading, xid

PATIENCE_S = 60.0


@pytest.fixture
async def probe(library: Path, machine: StateFile, tmp_path: Path) -> AsyncIterator[ChildProbe]:
    async with running(library, machine, tmp_path) as started:
        yield started


@asynccontextmanager
async def running(
    library: Path, machine: StateFile, folder: Path, **options: Any
) -> AsyncIterator[ChildProbe]:
    environment = {**machine.environment(), "TRAMONTANE_NVML_LOG": str(folder / "nvml.log")}
    given = {"interval_s": 0.1, "deadline_s": 2.0, "start_deadline_s": 30.0, "rng": lambda: 0.0}
    probe = ChildProbe(library=str(library), environment=environment, **{**given, **options})
    try:
        yield probe
    finally:
        await probe.aclose()


async def until(probe: ChildProbe, wanted: Callable[[Update], object]) -> Update:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(update := await probe.next()):
            continue
        return update


def is_running(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while is_running(pid):  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "update",
    [
        pytest.param(Update(reading=reading()), id="healthy"),
        pytest.param(Update(reading=lost(reading(), 3)), id="lost"),
        pytest.param(
            Update(reading=Reading("b", session_error="DriverNotLoaded")), id="no-session"
        ),
        pytest.param(Update(events=(xid(79), Event(-1, "", 0x8000, 1, 2.5))), id="events"),
        pytest.param(Update(), id="beat"),
    ],
)
def test_an_update_survives_the_pipe(update: Update) -> None:
    assert wire.decode(wire.encode(update)) == update


@pytest.mark.parametrize("line", [b"", b"NVRM: hello\n", b"[1]\n", b'{"reading": {"a": 1}}\n'])
def test_a_line_that_is_no_update_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"must be an update|Expecting value"):
        wire.decode(line)


async def test_each_look_is_timed_though_it_shows_nothing_new(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    took: list[float] = []
    async with running(library, machine, tmp_path, polled=took.append) as probe:
        waiting = asyncio.create_task(until(probe, lambda update: update.events))
        async with asyncio.timeout(PATIENCE_S):
            while len(took) < 3:  # noqa: ASYNC110 - a look sets no event
                await asyncio.sleep(0.02)
        waiting.cancel()
    assert all(0 < seconds < PATIENCE_S for seconds in took)


async def test_a_reading_comes_first_and_then_only_what_is_new(
    probe: ChildProbe, machine: StateFile
) -> None:
    first = await probe.next()
    assert first.reading is not None
    assert len(first.reading.gpus) == 8
    machine.change(3, remap_pending=True)
    second = await probe.next()
    assert second.reading is not None
    assert second.reading.gpus[3] != first.reading.gpus[3]


async def test_an_xid_is_pushed_before_the_state_that_follows(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    # With an hour between readings, nothing but the push can bring it.
    async with running(library, machine, tmp_path, interval_s=3600.0) as probe:
        await probe.next()
        machine.write(machine.state.with_gpu(3, lost=True).with_xid(3, 79))
        pushed = await until(probe, lambda _: True)
        assert [(event.gpu, event.uuid, event.xid) for event in pushed.events] == [
            (3, "GPU-gpu-0001-3", 79)
        ]
        after = await until(probe, lambda update: update.reading)
        assert after.reading is not None
        assert after.reading.gpus[3].lost


async def test_no_session_is_a_reading_and_it_is_tried_again(
    probe: ChildProbe, machine: StateFile
) -> None:
    text = machine.path.read_text()
    machine.path.unlink()
    first = await probe.next()
    assert first.reading is not None
    assert first.reading.session_error == "DriverNotLoaded"
    assert first.reading.boot_id
    machine.path.write_text(text)
    back = await probe.next()
    assert back.reading is not None
    assert not back.reading.session_error


async def test_a_hang_is_unresponsive_and_the_child_is_replaced(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    async with running(library, machine, tmp_path, deadline_s=0.5, start_deadline_s=3.0) as probe:
        await until(probe, lambda update: update.reading)
        first = probe.pid
        machine.write(replace(machine.state, hang=True))
        silent = await until(probe, lambda update: update.unresponsive)
        assert silent.unresponsive is not None
        assert silent.unresponsive.strikes == 1
        assert "no answer from NVML" in silent.unresponsive.evidence
        again = await until(probe, lambda update: update.unresponsive)
        assert again.unresponsive is not None
        assert again.unresponsive.strikes == 2
        machine.write(replace(machine.state, hang=False))
        back = await until(probe, lambda update: update.reading)
        assert back.reading is not None
        assert probe.pid not in {None, first}
        assert probe.restarts >= 2
        assert first is not None
        await gone(first)


async def test_one_gpu_that_hangs_is_enough(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    async with running(library, machine, tmp_path, deadline_s=0.5, start_deadline_s=3.0) as probe:
        await until(probe, lambda update: update.reading)
        machine.change(3, hang=True)
        assert (await until(probe, lambda update: update.unresponsive)).unresponsive


async def test_a_child_that_dies_once_is_replaced_without_a_word(probe: ChildProbe) -> None:
    await until(probe, lambda update: update.reading)
    assert probe.pid is not None
    os.kill(probe.pid, signal.SIGKILL)
    update = await until(probe, lambda _: True)
    assert update.reading is not None
    assert probe.restarts == 1


async def test_a_child_that_cannot_start_is_unresponsive(
    machine: StateFile, tmp_path: Path
) -> None:
    bad = tmp_path / "libnvidia-ml.so.1"
    bad.write_bytes(b"")
    async with running(bad, machine, tmp_path) as probe:
        first = await probe.next()
        assert first.reading is not None
        assert first.reading.session_error == "LibraryNotFound"
    async with running(
        bad, machine, tmp_path, boot_id_file=tmp_path / "boot", interval_s=0.1
    ) as probe:
        (tmp_path / "boot").write_text("boot-7")
        probe._command = ["/bin/false"]
        silent = await until(probe, lambda update: update.unresponsive)
        assert silent.unresponsive == Unresponsive(2, "the probe ended (status 1)", "boot-7")


async def test_a_driver_that_was_replaced_beneath_the_child_is_used_by_the_next_one(
    probe: ChildProbe, machine: StateFile
) -> None:
    """An update of the driver: unloaded, and another version loaded with another library."""
    before = await until(probe, lambda update: update.reading)
    first = probe.pid
    assert before.reading is not None
    await asyncio.sleep(RENEW_AFTER_S)
    machine.path.unlink()
    # The meters of the GPUs went on meanwhile, which was said, too.
    gone = await until(probe, lambda update: update.reading and update.reading.session_error)
    assert gone.reading is not None
    assert gone.reading.session_error == "DriverNotLoaded"
    machine.write(replace(machine.state, driver="590.44.01"))
    said = [gone.reading]
    while said[-1].session_error:
        update = await until(probe, lambda _: True)
        assert update.reading is not None, update  # nobody hung, and nobody says so
        said.append(update.reading)
    assert (before.reading.driver, said[-1].driver) == ("580.95.05", "590.44.01")
    assert probe.pid != first


# A child that says it is alive, falls silent, and whose death nobody can see: SIGKILL ends it, but
# its standard output stays open, as that of a process does which the kernel does not let go.
UNKILLABLE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    open(sys.argv[1], "w").write(str(os.getpid()))
    time.sleep(200)
sys.stdout.write("{}\\n")
sys.stdout.flush()
time.sleep(200)
"""


async def test_a_child_that_cannot_be_killed_is_a_strike_again_and_again(
    library: Path, machine: StateFile, tmp_path: Path
) -> None:
    holder = tmp_path / "holder"
    options = {"deadline_s": 0.2, "start_deadline_s": 1.0}
    async with running(library, machine, tmp_path, **options) as probe:
        answering = probe._command
        probe._command = [sys.executable, "-c", UNKILLABLE, str(holder)]
        told = []
        try:
            for _ in range(3):
                update = await until(probe, lambda update: update.unresponsive)
                assert update.unresponsive is not None
                told.append((update.unresponsive.strikes, update.unresponsive.evidence))
        finally:
            os.kill(int(holder.read_text()), signal.SIGKILL)
        assert [strikes for strikes, _ in told] == [1, 2, 3]
        assert told[-1][1] == "the probe that hangs in NVML cannot be ended"
        assert probe.restarts == 0  # another child would only block beside it
        probe._command, probe._start_deadline_s = answering, 30.0
        assert (await until(probe, lambda _: True)).reading is not None
        assert probe.restarts == 1


async def test_a_child_that_outlives_its_closing_gets_no_other_beside_it(
    library: Path, machine: StateFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_KILL_AFTER_S", 0.1)
    monkeypatch.setattr(probes, "_DEAD_AFTER_S", 0.1)
    holder = tmp_path / "holder"
    async with running(library, machine, tmp_path, start_deadline_s=1.0) as probe:
        answering = probe._command
        probe._command = [sys.executable, "-c", UNKILLABLE, str(holder)]
        try:
            await until(probe, lambda update: update.unresponsive)
            await probe.aclose()
            probe._command = answering
            update = await until(probe, lambda _: True)
            assert update.unresponsive is not None
            assert update.unresponsive.evidence == "the probe that hangs in NVML cannot be ended"
        finally:
            os.kill(int(holder.read_text()), signal.SIGKILL)


async def test_closing_ends_the_session_in_order(probe: ChildProbe, tmp_path: Path) -> None:
    await probe.next()
    pid = probe.pid
    assert pid is not None
    await probe.aclose()
    await gone(pid)
    assert (tmp_path / "nvml.log").read_text() == "nvmlShutdown\n"


async def test_sigterm_ends_a_child_that_hangs(probe: ChildProbe, machine: StateFile) -> None:
    await probe.next()
    pid = probe.pid
    assert pid is not None
    machine.write(replace(machine.state, hang=True))
    os.kill(pid, signal.SIGTERM)
    await gone(pid)


@pytest.mark.parametrize("hang", [False, True], ids=["in-order", "while-nvml-hangs"])
async def test_the_child_ends_with_its_parent(
    library: Path, machine: StateFile, tmp_path: Path, hang: bool
) -> None:
    script = (
        "import asyncio, sys\n"
        "from tramontane.health.probe import ChildProbe\n"
        "async def main():\n"
        "    probe = ChildProbe(interval_s=0.1, library=sys.argv[1])\n"
        "    await probe.next()\n"
        "    print(probe.pid, flush=True)\n"
        "    await asyncio.sleep(3600)\n"
        "asyncio.run(main())\n"
    )
    environment = {
        **os.environ,
        **machine.environment(),
        "TRAMONTANE_NVML_LOG": str(tmp_path / "nvml.log"),
    }
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(library),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    machine.write(replace(machine.state, hang=hang))
    await asyncio.sleep(0.3)  # by then it is inside a call
    parent.kill()
    await parent.wait()
    await gone(child)
    assert (tmp_path / "nvml.log").exists() is not hang
    parent._transport.close()  # type: ignore[attr-defined]


class TestFake:
    async def test_wakes_who_waits(self) -> None:
        fake = FakeDevice("b")
        first = await fake.next()
        assert first.reading == fake.reading
        waiting = asyncio.create_task(fake.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        fake.lose(3)
        update = await waiting
        assert [event.xid for event in update.events] == [79]
        assert update.reading is not None
        assert update.reading.gpus[3].remapped_rows == Unsupported("GpuIsLost")

    async def test_hangs_and_heals(self) -> None:
        fake = FakeDevice("b")
        fake.hang(strikes=3)
        assert (await fake.next()).unresponsive == Unresponsive(
            3, "no answer from NVML", fake.reading.boot_id
        )
        fake.heal()
        assert (await fake.next()).reading is not None

    async def test_boots_anew(self) -> None:
        fake = FakeDevice("b")
        before = fake.reading
        fake.lose(3)
        fake.reset(3)
        assert fake.reading.gpus[3].lost
        fake.reboot()
        assert fake.reading.boot_id != before.boot_id
        assert fake.reading.gpus == before.gpus

    async def test_needs_new_hardware_for_some_things(self) -> None:
        fake = FakeDevice("b")
        fake.set(3, remapped_rows=RemappedRows(0, 9, pending=True, failure=True))
        fake.set(4, sram_threshold_exceeded=True)
        before = fake.reading
        fake.reboot()
        assert fake.reading.gpus[3].remapped_rows == RemappedRows(0, 9, failure=True)
        assert fake.reading.gpus[4].sram_threshold_exceeded is True
        fake.heal()
        assert fake.reading.gpus == FakeDevice("b").reading.gpus
        assert fake.reading.boot_id != before.boot_id

    async def test_gives_every_agent_a_reading_to_begin_with(self) -> None:
        fake = FakeDevice("b")
        await fake.next()
        await fake.aclose()
        assert (await fake.next()).reading == fake.reading

    def test_asks_for_a_reset_after_an_xid_that_needs_one(self) -> None:
        fake = FakeDevice("b")
        fake.xid(3, 95)
        assert fake.reading.gpus[3].recovery_action == 1
        fake.reset(3)
        assert fake.reading.gpus[3].recovery_action == 0

    def test_has_identities_of_its_own(self) -> None:
        facts = {gpu.facts for name in "ab" for gpu in FakeDevice(name).reading.gpus}
        assert len(facts) == 16
        assert GpuFacts() not in facts
