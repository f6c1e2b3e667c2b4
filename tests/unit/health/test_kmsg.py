"""The kernel log: what is told, what is only counted, and what the file may do meanwhile."""

import asyncio
import os
from pathlib import Path

import pytest

from tramontane.health import kmsg
from tramontane.health.kmsg import Heard, KernelLog

BOOTED_AT = 1_790_000_000.0


class Clock:
    """The kernel's seconds since the boot."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return BOOTED_AT + self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kmsg"
    path.touch()
    return path


@pytest.fixture
def log(path: Path, clock: Clock) -> KernelLog:
    return KernelLog(path, wall=clock.wall, monotonic=clock)


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def record(text: str, at_s: float = 90.0) -> str:
    return f"3,1,{int(at_s * 1e6)},-;{text}"


def xid(code: int, gpu: int = 1, rest: str = "") -> str:
    return f"NVRM: Xid (PCI:0000:{gpu:02x}:00): {code}, pid=1, name=x, {rest}"


def told(heard: list[Heard]) -> list[tuple[int, str, int]]:
    return [(each.line.code, each.line.pci, each.count) for each in heard]


def test_what_this_boot_said_before_the_start_is_told_with_its_time(
    log: KernelLog, path: Path
) -> None:
    write(path, record("usb 1-1: new device"), record(xid(79), at_s=42.5))
    (heard,) = log.read()
    assert (heard.line.code, heard.at, heard.count) == (79, BOOTED_AT + 42.5, 1)
    assert log.read() == []
    assert log.error == ""


def test_a_bare_line_happened_when_it_was_read(log: KernelLog, path: Path, clock: Clock) -> None:
    write(path, f"Nov 24 15:02:07 gpu-0001 kernel: [1.2] {xid(79)}")
    assert [heard.at for heard in log.read()] == [clock.wall()]


def test_a_record_has_lines_below_its_text_that_are_no_text(log: KernelLog) -> None:
    assert kmsg._record(b"3,1,90000000,-;NVRM: Xid\n SUBSYSTEM=pci\n DEVICE=+pci:0\n") == (
        b"NVRM: Xid",
        90.0,
    )
    assert kmsg._record(b"a, b; c") == (b"a, b; c", None)
    assert log.error == "NotRead"


def test_the_first_is_told_at_once_and_its_repeats_once_a_second(
    log: KernelLog, path: Path, clock: Clock
) -> None:
    write(path, *[record(xid(95, gpu)) for _ in range(500) for gpu in (1, 2)])
    assert told(log.read()) == [(95, "0000:01:00", 1), (95, "0000:02:00", 1)]
    clock.now += 0.5
    write(path, *[record(xid(95))] * 10)
    assert log.read() == []
    clock.now += 0.5
    assert told(log.read()) == [(95, "0000:01:00", 509), (95, "0000:02:00", 499)]
    clock.now += 1.0
    assert log.read() == []
    write(path, record(xid(95)))
    assert told(log.read()) == [(95, "0000:01:00", 1)]


@pytest.mark.parametrize("apart", [False, True], ids=["in-one-look", "in-many"])
@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        pytest.param([163, 163, 162], [163, 163, 162], id="ended"),
        pytest.param([163, 162, 163], [163, 162, 163], id="begun-anew"),
        pytest.param([162, 163, 163, 162], [162, 163, 163, 162], id="ended-again"),
        pytest.param([163] * 9 + [162] * 9, [163, 163, 162, 162], id="many"),
    ],
)
def test_what_takes_each_other_back_is_told_in_its_order(
    log: KernelLog, path: Path, clock: Clock, codes: list[int], expected: list[int], *, apart: bool
) -> None:
    heard: list[Heard] = []
    for code in codes:
        write(path, record(xid(code, rest="PSHC")))
        heard += log.read() if apart else []
    heard += log.read()
    clock.now += 1.0
    heard += log.read()
    assert [each.line.code for each in heard] == expected
    assert sum(each.count for each in heard) == len(codes)


def test_what_another_gpu_takes_back_is_its_own(log: KernelLog, path: Path) -> None:
    write(path, *[record(xid(163, gpu=1))] * 3, record(xid(162, gpu=2)))
    assert told(log.read()) == [(163, "0000:01:00", 1), (162, "0000:02:00", 1)]


def test_a_flood_hides_no_other_fault(log: KernelLog, path: Path) -> None:
    write(path, *[record(xid(95))] * 300, record(xid(79)), *[record(xid(95))] * 300)
    assert told(log.read()) == [(95, "0000:01:00", 1), (79, "0000:01:00", 1)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [xid(13, rest=f"Graphics Exception on (GPC {gpc}, TPC 0, SM 0)") for gpc in (1, 2, 1)],
            ["GPC 1, TPC 0", "GPC 2, TPC 0"],
            id="13-by-unit",
        ),
        pytest.param(
            [xid(95, rest=f"Uncontained: LTC TAG (0x{n}). RST: Yes, D-RST: No") for n in range(3)],
            ["LTC TAG (0x0)"],
            id="95-by-gpu",
        ),
        pytest.param(
            [f"nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 20034, Fatal, Link {n}" for n in (1, 2)],
            ["link 1", "link 2"],
            id="sxid-by-link",
        ),
    ],
)
def test_what_counts_as_the_same(
    log: KernelLog, path: Path, lines: list[str], expected: list[str]
) -> None:
    write(path, *map(record, lines))
    assert [heard.line.unit for heard in log.read()] == expected


def test_too_many_kinds_are_counted_without_their_unit(
    log: KernelLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kmsg, "_MAX_KINDS", 3)
    units = [f"Graphics Exception on (GPC {n}, TPC 0, SM 0)" for n in range(50)]
    write(path, *[record(xid(13, rest=unit)) for unit in units])
    assert len(log.read()) == 4


def test_the_drivers_introduction_of_a_gpu_is_remembered(log: KernelLog, path: Path) -> None:
    uuid = "GPU-455e672a-1111-2222-3333-444455556666"
    write(path, record(f"NVRM: GPU at PCI:0000:01:00: {uuid}"), record(xid(79)))
    assert len(log.read()) == 1
    assert log.uuids == {"0:1:0": uuid}


def test_a_line_is_told_when_it_is_whole(log: KernelLog, path: Path) -> None:
    line = record(xid(79))
    with path.open("a") as file:
        file.write(line[:40])
        file.flush()
        assert log.read() == []
        file.write(line[40:] + "\n")
    assert told(log.read()) == [(79, "0000:01:00", 1)]


def test_a_file_that_was_cut_is_read_from_its_start(log: KernelLog, path: Path) -> None:
    write(path, record(xid(79)), record("x" * 200))
    log.read()
    path.write_text("")
    assert log.read() == []
    write(path, record(xid(95)))
    assert told(log.read()) == [(95, "0000:01:00", 1)]


def test_a_file_in_its_place_is_read(log: KernelLog, path: Path) -> None:
    write(path, record(xid(79)))
    log.read()
    other = path.with_name("other")
    write(other, record(xid(95)))
    other.rename(path)
    assert told(log.read()) == [(95, "0000:01:00", 1)]


def test_an_absent_log_is_an_error_until_it_is_there(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = KernelLog(tmp_path / "kmsg", wall=clock.wall, monotonic=clock)
    assert (log.read(), log.read(), log.error) == ([], [], "ENOENT")
    assert len(caplog.records) == 1
    write(tmp_path / "kmsg", record(xid(79)))
    assert (told(log.read()), log.error) == ([(79, "0000:01:00", 1)], "")
    (tmp_path / "kmsg").unlink()
    assert (log.read(), log.error) == ([], "ENOENT")
    log.close()


class Ring:
    """What the kernel gives: one record per read, or EPIPE once after an overrun."""

    def __init__(self, *records: str | type[OSError]) -> None:
        self.left = list(records)

    def read(self, _fd: int, _size: int) -> bytes:
        if not self.left:
            raise BlockingIOError
        first = self.left.pop(0)
        if isinstance(first, str):
            return first.encode()
        raise first


@pytest.fixture
def device(log: KernelLog, tmp_path: Path, clock: Clock) -> KernelLog:
    log._source = kmsg._Ring(os.open(tmp_path, os.O_RDONLY), clock)
    return log


def test_an_overrun_loses_lines_and_no_more(
    device: KernelLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ring = Ring(record(xid(79)), BrokenPipeError, BrokenPipeError, record(xid(95)))
    monkeypatch.setattr(os, "read", ring.read)
    assert told(device.read()) == [(79, "0000:01:00", 1), (95, "0000:01:00", 1)]
    assert [each.message for each in caplog.records] == ["kernel log overran, lines are lost"]
    assert (device.read(), device.error) == ([], "NotRead")


def test_one_look_reads_no_more_than_a_batch(
    device: KernelLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = Ring(*[record("nothing")] * (kmsg._BATCH + 5))
    monkeypatch.setattr(os, "read", ring.read)
    device.read()
    assert len(ring.left) == 5


class TestStamps:
    """Of a ring whose clock is not ours: after two weeks they are some seconds apart."""

    UP = 14 * 86400.0

    @pytest.fixture
    def ring(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Ring:
        clock.now = self.UP
        ring = Ring(record("usb 1-1: new device", at_s=60.0))
        monkeypatch.setattr(os, "read", ring.read)
        return ring

    @pytest.mark.parametrize("apart_s", [0.0, 20.0, -20.0])
    def test_say_when_a_line_came_however_far_the_clocks_have_drifted(
        self, device: KernelLog, ring: Ring, clock: Clock, apart_s: float
    ) -> None:
        assert device.read() == []
        for _ in range(2):
            clock.now += 86400.0
            assert device.read() == []
            clock.now += 2.0
            ring.left += [record(xid(94), at_s=clock.now + apart_s)]
            (heard,) = device.read()
            assert heard.at == pytest.approx(clock.wall(), abs=2.0)
            assert device.read() == []

    def test_are_kept_of_a_flood_that_is_read_late(
        self, device: KernelLog, ring: Ring, clock: Clock
    ) -> None:
        device.read()
        ring.left += [record("nothing", at_s=clock.now + 20.0)] * (kmsg._BATCH + 5)
        ring.left += [record(xid(94), at_s=clock.now + 20.5)]
        came = clock.wall() + 0.5
        device.read()
        clock.now += 30.0
        (heard,) = device.read()
        assert heard.at == pytest.approx(came, abs=0.01)

    def test_are_not_corrected_by_the_delay_of_a_reader(
        self, device: KernelLog, ring: Ring, clock: Clock
    ) -> None:
        device.read()
        ring.left += [record("nothing", at_s=clock.now - 20.0)]
        device.read()
        for _ in range(2):
            clock.now += 2 * 86400.0
            device.read()
            clock.now += 20.0
            ring.left += [record(xid(94), at_s=clock.now - 20.0 - 20.0)]
            (heard,) = device.read()
            assert heard.at == pytest.approx(clock.wall() - 20.0, abs=0.1)

    def test_of_the_future_are_of_now(self, device: KernelLog, ring: Ring, clock: Clock) -> None:
        ring.left += [record(xid(94), at_s=clock.now + 20.0)]
        assert [heard.at for heard in device.read()] == [clock.wall()]


async def test_a_line_is_told_soon_after_it_was_written(path: Path) -> None:
    log = KernelLog(path)
    waiting = asyncio.create_task(log.next())
    await asyncio.sleep(0)
    write(path, xid(79))
    async with asyncio.timeout(60):
        assert told(await waiting) == [(79, "0000:01:00", 1)]
    log.close()


async def test_a_pipe_like_the_device_wakes_the_reader() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = KernelLog(Path("/nowhere"))
    log._source = kmsg._Ring(reader, kmsg.raw_monotonic)
    waiting = asyncio.create_task(log.next())
    await asyncio.sleep(0)
    os.write(writer, record(xid(79)).encode())
    async with asyncio.timeout(60):
        assert told(await waiting) == [(79, "0000:01:00", 1)]
    waiting = asyncio.create_task(log.next())
    os.write(writer, record(xid(79)).encode())  # a repeat, told when its second is over
    async with asyncio.timeout(60):
        assert told(await waiting) == [(79, "0000:01:00", 1)]
    os.close(writer)
    log.close()
