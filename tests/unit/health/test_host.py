"""A small tree of files, and what is read of it; then looks in a row, and what is remembered."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tramontane.health import host, host_past
from tramontane.health.device import Unsupported
from tramontane.health.host import HostPast, HostReading, Port, Rise

from .hosts import NOW, add_port, counters, machine, port


def test_a_whole_blade_is_read(tmp_path: Path) -> None:
    machine(tmp_path, ports=2, drives=3, gpus=4)
    add_port(tmp_path, "roce0", link_layer="Ethernet", rate="200 Gb/sec (2X NDR)", carriers=7)
    (tmp_path / "class/infiniband/mlx5_0/ports/1/counters/link_downed").write_text("5\n")
    assert host.read(tmp_path, tmp_path) == HostReading(
        ports=(
            Port("mlx5_0", 1, "InfiniBand", "ACTIVE", "LinkUp", 400, counters(link_downed=5)),
            Port("mlx5_1", 1, "InfiniBand", "ACTIVE", "LinkUp", 400, counters()),
            Port("roce0", 1, "Ethernet", "ACTIVE", "LinkUp", 200, (("carrier_changes", 7),)),
        ),
        nvme=3,
        memory_bytes=2 << 40,
        clocksource="tsc",
        pci_gpus=4,
    )


def test_where_nothing_is_nothing_is_known(tmp_path: Path) -> None:
    absent = Unsupported("FileNotFoundError")
    assert host.read(tmp_path, tmp_path) == HostReading(
        ports=absent, nvme=absent, memory_bytes=absent, clocksource=absent, pci_gpus=absent
    )


@pytest.mark.parametrize("text", ["", "MemTotal:\n", "MemTotal: many kB\n", "MemFree: 3 kB\n"])
def test_what_cannot_be_understood_is_unknown(tmp_path: Path, text: str) -> None:
    machine(tmp_path)
    (tmp_path / "meminfo").write_text(text)
    assert host.read(tmp_path, tmp_path).memory_bytes == Unsupported("Unintelligible")


def test_a_sick_port_hides_no_other(tmp_path: Path) -> None:
    machine(tmp_path, ports=2)
    folder = tmp_path / "class/infiniband/mlx5_0/ports/1"
    for name in ("state", "phys_state", "rate"):
        (folder / name).unlink()
    seen = host.read(tmp_path, tmp_path).ports
    assert not isinstance(seen, Unsupported)
    assert [(each.name, each.active, each.rate_gbps) for each in seen] == [
        ("mlx5_0/1", False, 0),
        ("mlx5_1/1", True, 400),
    ]


def test_counters_of_a_converged_adapter_are_left_alone(tmp_path: Path) -> None:
    # Each look at them makes its driver complain in the kernel log (gpud#1164).
    add_port(tmp_path, "roce0", link_layer="Ethernet")
    (seen,) = host._ports(tmp_path / "class/infiniband")
    assert seen.counters == ()


@pytest.mark.parametrize(
    ("state", "counted"),
    [("live", 2), ("resetting", 2), ("connecting", 2), ("dead", 1), ("deleting", 1)],
)
def test_a_drive_counts_until_it_is_dead(tmp_path: Path, state: str, counted: int) -> None:
    machine(tmp_path, drives=2)
    (tmp_path / "class/nvme/nvme1/state").write_text(state + "\n")
    assert host.read(tmp_path, tmp_path).nvme == counted


@pytest.mark.parametrize(
    ("transport", "counted"), [("pcie", 2), ("tcp", 1), ("rdma", 1), ("fc", 1), ("loop", 1)]
)
def test_a_volume_over_the_network_is_no_drive(
    tmp_path: Path, transport: str, counted: int
) -> None:
    machine(tmp_path, drives=2)
    (tmp_path / "class/nvme/nvme1/transport").write_text(transport + "\n")
    assert host.read(tmp_path, tmp_path).nvme == counted


@pytest.mark.parametrize("mark", ["physfn", "sfnum"])
def test_what_software_has_made_is_no_part_of_the_blade(tmp_path: Path, mark: str) -> None:
    machine(tmp_path, ports=2, drives=2, gpus=2)
    for device in (
        "class/infiniband/mlx5_1/device",
        "class/nvme/nvme1/device",
        "bus/pci/devices/0000:01:00.0",
    ):
        (tmp_path / device / mark).mkdir(parents=True)
    seen = host.read(tmp_path, tmp_path)
    assert not isinstance(seen.ports, Unsupported)
    assert [each.name for each in seen.ports] == ["mlx5_0/1"]
    assert (seen.nvme, seen.pci_gpus) == (1, 1)


def test_only_nvidias_display_devices_are_gpus(tmp_path: Path) -> None:
    machine(tmp_path, gpus=1)
    for number, (vendor, kind) in enumerate(
        [("0x10de", "0x030000"), ("0x10de", "0x068000"), ("0x8086", "0x030200")]
    ):
        device = tmp_path / f"bus/pci/devices/0000:8{number}:00.0"
        device.mkdir()
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
    assert host.read(tmp_path, tmp_path).pci_gpus == 2


# What is remembered.


def looked(past: HostPast | None, at: float, *ports: Port, **values: Any) -> HostPast:
    reading = HostReading(ports=ports, **values)
    return host_past.remember(past, reading, NOW + at, NOW + at - 5)


UP = port()
DOWN = port(state="DOWN", rate_gbps=10)


@pytest.mark.parametrize(
    ("looks", "down_since", "returns"),
    [
        pytest.param([(0, UP), (5, UP)], None, (), id="up"),
        pytest.param([(0, DOWN), (900, DOWN)], None, (), id="never-up"),
        pytest.param([(0, UP), (5, DOWN), (10, DOWN)], 5, (), id="down"),
        pytest.param([(0, UP), (5, None)], 5, (), id="gone"),
        pytest.param([(0, UP), (5, DOWN), (29, UP)], None, (), id="too-short-for-a-flap"),
        pytest.param([(0, UP), (5, DOWN), (30, UP)], None, (30,), id="a-flap"),
        pytest.param(
            [(0, UP), (5, DOWN), (30, UP), (40, DOWN), (90, UP), (99, DOWN)],
            99,
            (30, 90),
            id="two-flaps-and-down",
        ),
        pytest.param(
            [(0, UP), (5, DOWN), (30, UP), (90_000, DOWN), (90_030, UP)],
            None,
            (90_030,),
            id="a-day-later",
        ),
    ],
)
def test_falls_and_returns(
    looks: list[tuple[float, Port | None]], down_since: float | None, returns: tuple[float, ...]
) -> None:
    past: HostPast | None = None
    for at, seen in looks:
        past = looked(past, at, *([] if seen is None else [seen]))
    assert past is not None
    (known,) = past.ports
    assert known.down_since == (None if down_since is None else NOW + down_since)
    assert known.returns == tuple(NOW + at for at in returns)


def test_the_best_of_everything_is_remembered() -> None:
    past = looked(None, 0, port(rate_gbps=400), nvme=8, memory_bytes=100, pci_gpus=8)
    past = looked(past, 5, port(rate_gbps=200), nvme=7, memory_bytes=90, pci_gpus=7)
    assert (past.ports[0].best_gbps, past.most_nvme) == (400, 8)
    assert (past.most_memory_bytes, past.most_pci_gpus, past.since) == (100, 8, NOW)


def test_what_cannot_be_read_changes_nothing_that_is_remembered() -> None:
    past = looked(None, 0, UP, nvme=8, memory_bytes=100, pci_gpus=8)
    assert host_past.remember(past, HostReading(), NOW + 5, NOW) == past


def test_nothing_is_remembered_of_a_look_that_shows_nothing_new() -> None:
    past = looked(None, 0, UP, nvme=8)
    assert looked(past, 5, UP, nvme=8) == past


def counted(*looks: tuple[float, dict[str, Any]]) -> tuple[Rise, ...]:
    past: HostPast | None = None
    for at, values in looks:
        past = looked(past, at, port(**values))
    assert past is not None
    return past.ports[0].rises


def test_growth_is_kept_for_an_hour() -> None:
    looks = [(at, {"symbol_error": value}) for at, value in ((0, 7), (5, 7), (10, 8), (3000, 10))]
    assert counted(*looks) == (
        Rise(NOW + 10, 5, (("symbol_error", 1),)),
        Rise(NOW + 3000, 5, (("symbol_error", 2),)),
    )
    assert counted(*looks, (3700, {"symbol_error": 11, "link_downed": 1})) == (
        Rise(NOW + 3000, 5, (("symbol_error", 2),)),
        Rise(NOW + 3700, 5, (("link_downed", 1), ("symbol_error", 1))),
    )


def test_a_counter_that_fell_began_anew() -> None:
    rises = counted(*((at, {"symbol_error": at * 9 % 70}) for at in (0, 5, 10)))
    assert [rise.grown for rise in rises] == [(("symbol_error", 45),), (("symbol_error", 20),)]


def test_a_counter_that_was_not_there_before_has_not_grown() -> None:
    bare = replace(port(), counters=(("symbol_error", 5),))
    past = looked(looked(None, 0, bare), 5, port(symbol_error=5, link_downed=3))
    assert past.ports[0].rises == ()
    assert looked(past, 10, port(symbol_error=5, link_downed=4)).ports[0].rises == (
        Rise(NOW + 10, 5, (("link_downed", 1),)),
    )


def test_no_flood_of_changes_grows_the_memory_or_loses_a_count() -> None:
    looks = 3 * 720
    rises = counted(*((5.0 * look, {"symbol_error": look}) for look in range(looks)))
    now = NOW + 5.0 * (looks - 1)
    assert len(rises) <= 80
    # Looks of the last minute stay apart; of the hour no more than a minute is missing.
    assert [rise.seconds for rise in rises[-12:]] == [5.0] * 12
    assert 720 - 12 <= sum(by for rise in rises for _, by in rise.grown) <= 720
    assert now - 3600 < rises[0].at <= now - 3540
    assert max(late.at - early.at for early, late in pairwise(rises)) <= 60


def test_returns_are_not_kept_for_ever() -> None:
    falls: HostPast | None = None
    for at in range(0, 6000, 60):
        falls = looked(looked(falls, at, UP), at + 1, DOWN)
    assert falls is not None
    assert len(falls.ports[0].returns) == 16


def test_a_clock_that_is_set_back_leaves_nothing_in_the_future() -> None:
    past: HostPast | None = None
    for at, seen in ((0, UP), (5, DOWN), (40, port(symbol_error=9)), (45, DOWN)):
        past = looked(past, at, seen)
    back = looked(past, -3600, DOWN)
    (known,) = back.ports
    assert (back.since, known.down_since, known.returns) == (NOW - 3600, NOW - 3600, (NOW - 3600,))
    assert {rise.at for rise in known.rises} == {NOW - 3600}
    assert looked(back, -3595, DOWN) == back


# What a person's release ends.


def test_a_release_takes_the_blade_as_it_is() -> None:
    past = looked(None, 0, port(), port("mlx5_1"), nvme=8, memory_bytes=100, pci_gpus=8)
    now = (port(rate_gbps=200), port("mlx5_1", state="DOWN"))
    ill = {"nvme": 7, "memory_bytes": 90, "pci_gpus": 7}
    past = looked(past, 5, *now, **ill)
    past = host_past.remember(past, HostReading(ports=()), NOW + 10, NOW + 5)
    past = looked(past, 40, *(replace(each, counters=counters(link_downed=2)) for each in now))
    past = looked(host_past.forget(past, NOW + 60), 65, *now, **ill)
    assert (past.most_nvme, past.most_memory_bytes, past.most_pci_gpus) == (7, 90, 7)
    assert [(each.best_gbps, each.down_since) for each in past.ports] == [(200, None), (0, None)]
    assert {(each.returns, each.rises) for each in past.ports} == {((), ())}
    assert past.since == NOW


def test_a_release_forgives_nothing_that_comes_after_it() -> None:
    past = looked(looked(None, 0, UP, nvme=8), 65, DOWN, nvme=8)
    assert host_past.forget(past, NOW + 60).ports == past.ports
    # One that was there before the agent ended what the process before this one knew.
    assert host_past.forget(past, NOW - 60) == past
