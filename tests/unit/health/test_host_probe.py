"""The host's probe over a folder and a file: lines at once, the host when it has changed."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tramontane.health import host
from tramontane.health.device import SXID_EVENT, XID_EVENT, Event, Unsupported, Update
from tramontane.health.host import HostReading, Rise
from tramontane.health.host_probe import HostProbe

from .hosts import machine

PATIENCE_S = 60.0
LINE = "NVRM: Xid (PCI:0000:1b:00): 145, RLW_SRC_TRACK Nonfatal XC1 i0 Link 12 (0x040988e2 0x8)"
UUID = "GPU-455e672a-1111-2222-3333-444455556666"


@asynccontextmanager
async def probing(root: Path, **options: Any) -> AsyncIterator[HostProbe]:
    (root / "boot_id").write_text("boot-1\n")
    given = {"interval_s": 0.02, "kernel_log": root / "kmsg", "boot_id_file": root / "boot_id"}
    probe = HostProbe(sys=root, proc=root, **{**given, **options})
    try:
        yield probe
    finally:
        await probe.aclose()


@pytest.fixture
async def probe(tmp_path: Path) -> AsyncIterator[HostProbe]:
    machine(tmp_path)
    (tmp_path / "kmsg").touch()
    async with probing(tmp_path) as probe:
        yield probe


async def until(probe: HostProbe, wanted: Callable[[Update], object]) -> Update:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(update := await probe.next()):
            continue
        return update


async def test_the_host_is_said_once_and_then_when_it_changes(
    probe: HostProbe, tmp_path: Path
) -> None:
    first = (await until(probe, lambda update: update.host)).host
    assert first is not None
    assert (first.boot_id, first.kernel_log, first.nvme) == ("boot-1", "", 1)
    (tmp_path / "class/nvme/nvme0/state").write_text("dead\n")
    second = (await until(probe, lambda update: update.host)).host
    assert second is not None
    assert (second.nvme, second.past.most_nvme) == (0, 1)


async def test_each_look_is_noted_and_the_log_while_it_is_followed(tmp_path: Path) -> None:
    machine(tmp_path)
    seen: list[str] = []
    async with probing(tmp_path, looked=seen.append) as probe:
        looking = asyncio.create_task(until(probe, lambda update: update.events))
        async with asyncio.timeout(PATIENCE_S):
            while seen.count("host") < 3:  # noqa: ASYNC110 - a look sets no event
                await asyncio.sleep(0.01)
            assert "kmsg" not in seen  # there is none yet
            (tmp_path / "kmsg").touch()
            while seen.count("kmsg") < 2:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.01)
        looking.cancel()


async def test_a_line_is_an_event_with_all_that_it_says(probe: HostProbe, tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(
        f"3,1,5000000,-;NVRM: GPU at PCI:0000:1b:00: {UUID}\n3,2,5000000,-;{LINE}\n"
        "3,3,5000000,-;nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 22012, Fatal, Link 28 up\n"
    )
    update = await until(probe, lambda update: update.events)
    xid, sxid = update.events
    assert xid == Event(
        gpu=-1,
        uuid=UUID,
        type=XID_EVENT,
        data=145,
        at=xid.at,
        line=LINE,
        source="kmsg",
        fatal=False,
        pci="0000:1b:00",
        unit="link 12",
        subcode="RLW_SRC_TRACK.0/0x8",
        wanted="RestartApp",
    )
    assert (sxid.type, sxid.sxid, sxid.gpu, sxid.uuid) == (SXID_EVENT, 22012, -1, "")
    assert (sxid.fatal, sxid.wanted, sxid.unit) == (True, "Reset", "link 28")


async def test_a_log_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    machine(tmp_path)
    async with probing(tmp_path) as probe:
        update = await until(
            probe, lambda update: update.host and update.host.kernel_log == "ENOENT"
        )
        assert update.host is not None
        (tmp_path / "kmsg").touch()
        await until(probe, lambda update: update.host and update.host.kernel_log == "")


async def test_a_look_that_hangs_is_unknown_and_neither_hides_lines_nor_gets_company(
    tmp_path: Path,
) -> None:
    free, looks = threading.Event(), []

    def read(sys: Path, proc: Path) -> HostReading:
        looks.append(1)
        free.wait(PATIENCE_S)
        return host.read(sys, proc)

    machine(tmp_path)
    (tmp_path / "kmsg").touch()
    async with probing(tmp_path, read=read, deadline_s=0.02) as probe:
        hung = (await until(probe, lambda update: update.host)).host
        assert hung is not None
        assert {hung.ports, hung.nvme, hung.memory_bytes, hung.clocksource, hung.pci_gpus} == {
            Unsupported("Hung")
        }
        (tmp_path / "kmsg").write_text(f"{LINE}\n")
        await until(probe, lambda update: update.events)
        assert looks == [1]
        free.set()
        back = (await until(probe, lambda update: update.host)).host
        assert back is not None
        assert back.nvme == 1


async def test_after_a_hang_growth_is_spread_over_all_of_it(tmp_path: Path) -> None:
    hangs, free = threading.Event(), threading.Event()

    def read(sys: Path, proc: Path) -> HostReading:
        if hangs.is_set():
            free.wait(PATIENCE_S)
        return host.read(sys, proc)

    def growth(update: Update) -> tuple[Rise, ...]:
        ports = () if update.host is None else update.host.past.ports
        return tuple(rise for known in ports for rise in known.rises)

    machine(tmp_path)
    async with probing(tmp_path, read=read, deadline_s=0.02) as probe:
        await until(probe, lambda update: update.host)
        hangs.set()
        await until(probe, lambda update: update.host and update.host.nvme == Unsupported("Hung"))
        waiting = asyncio.create_task(until(probe, growth))
        await asyncio.sleep(0.3)
        (tmp_path / "class/infiniband/mlx5_0/ports/1/counters/symbol_error").write_text("99\n")
        free.set()
        (rise,) = growth(await waiting)
        assert rise.seconds >= 0.3


async def test_a_clock_that_is_set_back_makes_no_look_shorter(tmp_path: Path) -> None:
    machine(tmp_path)
    wall = [2e9]
    async with probing(tmp_path, clock=lambda: wall[0]) as probe:
        await until(probe, lambda update: update.host)
        wall[0] -= 3600
        (tmp_path / "class/infiniband/mlx5_0/ports/1/counters/symbol_error").write_text("99\n")
        update = await until(probe, lambda update: update.host and update.host.past.ports[0].rises)
        assert update.host is not None
        (rise,) = update.host.past.ports[0].rises
        assert (rise.at, rise.seconds >= 0.02) == (2e9 - 3600, True)


async def test_a_release_is_what_the_next_look_begins_with(tmp_path: Path) -> None:
    free, looking = threading.Event(), threading.Event()

    def read(sys: Path, proc: Path) -> HostReading:
        seen = host.read(sys, proc)
        if seen.nvme == 1:
            looking.set()
            free.wait(PATIENCE_S)  # the look is in flight when the release comes
        return seen

    machine(tmp_path, drives=2)
    async with probing(tmp_path, read=read) as probe:
        await until(probe, lambda update: update.host and update.host.past.most_nvme == 2)
        waiting = asyncio.create_task(
            until(probe, lambda update: update.host and update.host.nvme == 1)
        )
        (tmp_path / "class/nvme/nvme0/state").write_text("dead\n")
        async with asyncio.timeout(PATIENCE_S):
            while not looking.is_set():  # noqa: ASYNC110 - a thread sets it
                await asyncio.sleep(0.01)
        probe.forget(time.time())
        free.set()
        seen = (await waiting).host
        assert seen is not None
        assert seen.past.most_nvme == 1


async def test_a_release_is_told_though_the_blade_is_as_it_was(
    probe: HostProbe, tmp_path: Path
) -> None:
    await until(probe, lambda update: update.host)
    (tmp_path / "class/nvme/nvme0/state").write_text("dead\n")
    await until(probe, lambda update: update.host and update.host.past.most_nvme == 1)
    probe.forget(time.time())
    await until(probe, lambda update: update.host and update.host.past.most_nvme == 0)


def test_before_the_first_look_there_is_nothing_to_forget(tmp_path: Path) -> None:
    HostProbe(sys=tmp_path, proc=tmp_path).forget(time.time())


async def test_it_ends_while_a_look_hangs(tmp_path: Path) -> None:
    free = threading.Event()

    def read(_sys: Path, _proc: Path) -> HostReading:
        free.wait(PATIENCE_S)
        return HostReading()

    (tmp_path / "kmsg").touch()
    async with asyncio.timeout(PATIENCE_S), probing(tmp_path, read=read) as probe:
        waiting = asyncio.create_task(probe.next())
        await asyncio.sleep(0.05)
        waiting.cancel()
    free.set()
