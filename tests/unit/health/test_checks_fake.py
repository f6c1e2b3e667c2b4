"""The blade in memory ends what a reset, a reboot and a technician end, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest

from tramontane.health.device import (
    BankRemap,
    EccErrors,
    RemappedRows,
    RetiredPages,
    RowSpares,
    SramErrors,
    Unsupported,
)
from tramontane.health.fake import HEALTHY, FakeDevice

Deed = Callable[[FakeDevice], None]
DEEDS: dict[str, Deed] = {
    "reset": lambda device: device.reset(1),
    "reboot": lambda device: device.reboot(),
    "heal": lambda device: device.heal(),
}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("ecc_errors", EccErrors(1, 1, 1, 1), EccErrors()),
        ("recovery_action", 1, 0),
        ("nvlinks", (0, 1), HEALTHY["nvlinks"]),
        ("remapped_rows", RemappedRows(1, 2, True, True), RemappedRows(1, 2, False, True)),
        ("retired_pages", RetiredPages(1, 2, True), RetiredPages(1, 2, False)),
        ("bank_remap", BankRemap(1, True, 2), BankRemap(1, False, 2)),
        ("row_spares", RowSpares(none=1), RowSpares(none=1)),
        ("sram_errors", SramErrors(1, 1), SramErrors(1, 1)),
        ("sram_threshold_exceeded", True, True),
        ("row_spares", Unsupported("NotSupported"), HEALTHY["row_spares"]),
    ],
)
@pytest.mark.parametrize("deed", DEEDS)
def test_what_wears_out_stays_until_the_gpu_is_new(
    name: str, before: Any, after: Any, deed: str
) -> None:
    device = FakeDevice("b", gpus=2)
    device.set(1, **{name: before})
    DEEDS[deed](device)
    expected = HEALTHY[name] if deed == "heal" else after
    assert getattr(device.reading.gpus[1], name) == expected
    assert getattr(device.reading.gpus[0], name) == HEALTHY[name]


@pytest.mark.parametrize(("deed", "back"), [("reset", False), ("reboot", True), ("heal", True)])
def test_a_gpu_off_the_bus_hears_no_reset(deed: str, *, back: bool) -> None:
    device = FakeDevice("b", gpus=2)
    device.lose(1)
    DEEDS[deed](device)
    assert device.reading.gpus[1].lost is not back


def test_the_host_boots_with_the_blade() -> None:
    device = FakeDevice("b")
    device.reboot()
    assert device.reading.host is not None
    assert device.reading.host.boot_id == device.reading.boot_id


def test_what_a_gpu_draws_adds_up_until_it_is_reset() -> None:
    device = FakeDevice("b", gpus=2)
    device.set(0, power_mw=500_000)
    device.lose(1)
    device.draw(10)
    device.draw(5)
    assert device.reading.gpus[0].energy_mj == 7_500_000
    assert isinstance(device.reading.gpus[1].energy_mj, Unsupported)
    device.reset(0)
    assert device.reading.gpus[0].energy_mj == 0
