"""pynvml, unchanged, over the simulated library: marshalling, errors, both ways of loading."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from tramontane.health.device import (
    DeviceError,
    EccErrors,
    EccMode,
    GpuReading,
    MigMode,
    RemappedRows,
    Repair,
    Unsupported,
)
from tramontane.health.nvml import NvmlDevice
from tramontane.lab.nvml import NvmlState, StateFile, blade, build
from tramontane.lab.nvml import library as builder
from tramontane.lab.nvml.state import ENV_STATE, RECOVERY_ACTION_EVENT


@pytest.fixture
def device(
    library: Path, machine: StateFile, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NvmlDevice]:
    monkeypatch.setenv(ENV_STATE, str(machine.path))
    # C code reads the process's environment, which os.environ keeps in step.
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    opened = NvmlDevice(str(library))
    opened.open()
    yield opened
    opened.close()


def gpu_of(device: NvmlDevice, index: int = 3) -> GpuReading:
    return device.read().gpus[index]


def test_the_build_is_kept_in_the_cache(library: Path) -> None:
    before = library.stat().st_mtime_ns
    assert build(library.parents[1]) == library
    assert library.stat().st_mtime_ns == before


def test_without_a_compiler_the_build_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(builder.BuildError, match="install gcc"):
        build(tmp_path)


def test_a_compiler_that_refuses_is_quoted_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(builder.BuildError, match="exit status 1"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_all_functions_are_there(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))
    for name in ("nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlEventSetWait_v2"):
        assert hasattr(loaded, name)


@pytest.mark.parametrize("way", ["LD_LIBRARY_PATH", "preset"])
def test_pynvml_loads_it_both_ways(library: Path, machine: StateFile, way: str) -> None:
    preset = f"import ctypes; pynvml.nvmlLib = ctypes.CDLL({str(library)!r})\n"
    script = (
        "import pynvml\n"
        + (preset if way == "preset" else "")
        + "pynvml.nvmlInit()\n"
        + "print(pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlDeviceGetCount())\n"
        + "pynvml.nvmlShutdown()\n"
    )
    environment = {**os.environ, **machine.environment()}
    if way == "LD_LIBRARY_PATH":
        environment["LD_LIBRARY_PATH"] = str(library.parent)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["580.95.05", "8"]


def test_a_reading_has_every_value(device: NvmlDevice, machine: StateFile) -> None:
    machine.change(
        3,
        ecc_pending=0,
        ecc_vol_corr=1,
        ecc_vol_unc=2,
        ecc_agg_corr=3,
        ecc_agg_unc=5_000_000_000,
        ecc_sram_threshold=True,
        remap_corr=6,
        remap_unc=7,
        remap_pending=True,
        remap_failure=True,
        recovery_action=2,
        temperature=66,
        power_mw=650_000,
    )
    reading = device.read()
    assert (reading.driver, reading.cuda, len(reading.gpus)) == ("580.95.05", "13.0", 8)
    gpu = reading.gpus[3]
    assert gpu.facts.uuid == "GPU-gpu-0001-3"
    assert gpu.facts.serial == "gpu-0001-3"
    assert gpu.facts.pci_bus_id == "00000000:40:00.0"
    assert (gpu.facts.product, gpu.facts.memory_bytes) == ("NVIDIA H200", 141 << 30)
    assert gpu.ecc_mode == EccMode(current=True, pending=False)
    assert gpu.ecc_errors == EccErrors(1, 2, 3, 5_000_000_000)
    assert gpu.sram_threshold_exceeded is True
    assert gpu.remapped_rows == RemappedRows(6, 7, pending=True, failure=True)
    assert (gpu.recovery_action, gpu.temperature_c, gpu.power_mw) == (2, 66, 650_000)
    assert isinstance(gpu.energy_mj, int)
    assert not reading.gpus[2].unread


def test_a_lost_gpu_is_lost_and_the_others_are_not(device: NvmlDevice, machine: StateFile) -> None:
    uuid = gpu_of(device).facts.uuid
    machine.change(3, lost=True)
    gpus = device.read().gpus
    assert [gpu.lost for gpu in gpus] == [index == 3 for index in range(8)]
    assert gpus[3].facts.uuid == uuid
    assert gpus[3].remapped_rows == Unsupported("GpuIsLost")


def test_a_gpu_that_was_lost_before_the_session_is_read_when_it_is_back(
    device: NvmlDevice, machine: StateFile
) -> None:
    machine.change(3, lost=True)
    device.close()
    device.open()
    assert (gpu_of(device).lost, gpu_of(device).facts.uuid) == (True, "")
    machine.change(3, lost=False)
    assert (gpu_of(device).lost, gpu_of(device).facts.uuid) == (False, "GPU-gpu-0001-3")
    machine.xid(3, 31)
    assert [event.data for event in device.wait(1.0)] == [31]


def test_a_gpu_that_must_be_reset_says_so(device: NvmlDevice, machine: StateFile) -> None:
    machine.change(3, reset_required=True)
    gpu = gpu_of(device)
    assert (gpu.reset_required, gpu.lost) == (True, False)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(device: NvmlDevice, library: Path, clock: Clock) -> Iterator[NvmlDevice]:
    device.close()
    opened = NvmlDevice(str(library), clock=clock)
    opened.open()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("changed", "after_s"),
    [
        pytest.param(("temperature", 66, "temperature_c", 66), 0.0, id="each-time"),
        pytest.param(("pcie_replays", 9, "pcie_replays", 9), 4.6, id="every-few-seconds"),
        pytest.param(("inforom_corrupt", 1, "inforom_valid", False), 61.0, id="once-a-minute"),
    ],
)
def test_a_value_is_read_as_often_as_it_is_worth(
    timed: NvmlDevice,
    machine: StateFile,
    clock: Clock,
    changed: tuple[str, int, str, object],
    after_s: float,
) -> None:
    key, to, name, expected = changed
    timed.read()
    machine.change(3, **{key: to})
    if after_s:
        assert getattr(gpu_of(timed), name) != expected
    clock.now += after_s
    assert getattr(gpu_of(timed), name) == expected


def test_expensive_values_of_all_gpus_do_not_fall_due_together(
    timed: NvmlDevice, machine: StateFile, clock: Clock
) -> None:
    timed.read()
    machine.write(
        replace(machine.state, gpus=tuple(replace(g, mig_pending=True) for g in machine.state.gpus))
    )
    clock.now += 31.0
    seen = [gpu.mig != MigMode() for gpu in timed.read().gpus]
    assert seen == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    "trouble", [{"reset_required": True}, {"lost": True}, {"recovery_action": 1}], ids=str
)
def test_everything_is_read_anew_when_a_gpu_is_back(
    timed: NvmlDevice, machine: StateFile, trouble: dict[str, int]
) -> None:
    machine.change(3, repair_tpc=True, vbios="old")
    assert gpu_of(timed).repair == Repair(tpc_pending=True)
    machine.change(3, **trouble)
    gpu = gpu_of(timed)
    assert gpu.facts.vbios == "old"
    assert (gpu.repair == Unsupported("GpuIsLost")) is bool(trouble.get("lost"))
    machine.change(3, **dict.fromkeys(trouble, 0), repair_tpc=False, vbios="new")
    gpu_of(timed)  # facts come before values, and so one look later
    gpu = gpu_of(timed)
    assert (gpu.repair, gpu.facts.vbios) == (Repair(), "new")


def test_an_older_driver_says_why_clocks_are_low_by_another_name(
    device: NvmlDevice, machine: StateFile
) -> None:
    machine.write(machine.state.without_functions("nvmlDeviceGetCurrentClocksEventReasons"))
    machine.change(3, clock_reasons=0x48)
    assert gpu_of(device).clock_reasons == 0x48


def test_a_gpu_fewer_starts_the_session_anew(device: NvmlDevice, machine: StateFile) -> None:
    assert len(device.read().gpus) == 8
    machine.write(replace(machine.state, gpus=machine.state.gpus[:7]))
    assert len(device.read().gpus) == 7


def test_an_older_driver_leaves_values_unknown(device: NvmlDevice, machine: StateFile) -> None:
    machine.write(
        machine.state.without_functions("nvmlDeviceGetRemappedRows", "nvmlDeviceGetSerial")
    )
    device.close()
    device.open()
    gpu = gpu_of(device)
    assert gpu.remapped_rows == Unsupported("FunctionNotFound")
    assert gpu.unread == ("serial",)
    assert (gpu.lost, gpu.reset_required) == (False, False)


@pytest.mark.parametrize(
    ("function", "code", "error"),
    [
        pytest.param("field-230", 3, "NotSupported", id="one-field-of-a-call-that-succeeds"),
        pytest.param("nvmlDeviceGetFieldValues", 999, "Unknown", id="the-call"),
    ],
)
def test_a_field_fails_by_itself(
    device: NvmlDevice, machine: StateFile, function: str, code: int, error: str
) -> None:
    machine.change(3, fail={function: code})
    assert gpu_of(device).recovery_action == Unsupported(error)
    assert gpu_of(device, 2).recovery_action == 0


def test_a_symbol_that_the_library_lacks_is_function_not_found(device: NvmlDevice) -> None:
    assert device.read().gpus
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        pynvml.nvmlSystemGetConfComputeState()


@pytest.mark.parametrize(("code", "error"), [(9, "DriverNotLoaded"), (18, "LibRmVersionMismatch")])
def test_a_session_that_cannot_start_says_why(
    device: NvmlDevice, machine: StateFile, code: int, error: str
) -> None:
    device.close()
    machine.write(replace(machine.state, init_error=code))
    with pytest.raises(DeviceError, match=error):
        device.open()


def test_a_driver_that_goes_away_ends_the_session(device: NvmlDevice, machine: StateFile) -> None:
    machine.path.unlink()
    with pytest.raises(DeviceError, match="DriverNotLoaded"):
        device.read()


def test_a_library_that_is_not_there_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    with pytest.raises(DeviceError, match="LibraryNotFound"):
        NvmlDevice("/nowhere/libnvidia-ml.so.1").open()


def test_a_gpu_for_which_nvml_gives_no_handle_tells_nothing(
    device: NvmlDevice, machine: StateFile
) -> None:
    machine.change(3, fail={"nvmlDeviceGetHandleByIndex_v2": 999})
    device.close()
    device.open()
    assert [gpu.untold for gpu in device.read().gpus] == [""] * 3 + ["Unknown"] + [""] * 4
    machine.change(3, fail={})
    assert gpu_of(device).untold == ""


def test_events_that_could_not_be_had_at_the_start_come_later(
    device: NvmlDevice, machine: StateFile
) -> None:
    machine.change(3, fail={"nvmlDeviceRegisterEvents": 999})
    device.close()
    device.open()
    assert device.wait(0.01) == ()
    assert device.read().events_error == "Unknown"
    machine.change(3, fail={})
    assert device.read().events_error == ""
    machine.xid(3, 79)
    assert [event.xid for event in device.wait(1.0)] == [79]


def test_events_come_in_order_each_once_with_their_gpu(
    device: NvmlDevice, machine: StateFile
) -> None:
    assert device.wait(0.01) == ()
    for gpu, xid in ((3, 31), (5, 94), (3, 79)):
        machine.xid(gpu, xid)
    events = device.wait(5.0)
    assert [(e.gpu, e.uuid, e.xid) for e in events] == [
        (3, "", 31),
        (5, "", 94),
        (3, "", 79),
    ]
    assert device.wait(0.01) == ()


def test_an_event_wakes_the_wait(device: NvmlDevice, machine: StateFile) -> None:
    machine.xid(3, 31)
    began = time.monotonic()
    assert device.wait(30.0)
    assert time.monotonic() - began < 15.0


def test_a_change_of_the_recovery_action_is_an_event_without_an_xid(
    device: NvmlDevice, machine: StateFile
) -> None:
    machine.write(machine.state.with_event(3, RECOVERY_ACTION_EVENT, 1))
    assert [event.xid for event in device.wait(5.0)] == [None]


def test_events_from_before_the_session_are_not_delivered(
    device: NvmlDevice, machine: StateFile
) -> None:
    device.close()
    machine.xid(3, 79)
    device.open()
    assert device.wait(0.01) == ()


def test_a_driver_without_events_is_known_as_such(device: NvmlDevice, machine: StateFile) -> None:
    machine.write(machine.state.without_functions("nvmlEventSetCreate"))
    device.close()
    device.open()
    assert device.read().events_error == "FunctionNotFound"
    assert device.wait(0.01) == ()
    machine.write(blade("gpu-0001"))
    assert device.read().events_error == ""


def test_a_wait_that_fails_is_known_and_ends_no_session(
    device: NvmlDevice, machine: StateFile
) -> None:
    machine.write(machine.state.without_functions("nvmlEventSetWait_v2"))
    assert device.wait(0.01) == ()
    assert device.read().events_error == "FunctionNotFound"
    machine.write(blade("gpu-0001"))
    assert device.wait(0.01) == ()
    assert device.read().events_error == ""


@pytest.mark.usefixtures("device")
def test_what_the_lab_shows_of_links_and_fabric_is_laid_out_as_pynvml_reads_it(
    machine: StateFile,
) -> None:
    machine.change(0, nvlink=(1, 1, 0), pcie_width=8, pcie_gen=4, fabric_summary=2, fabric_state=2)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert [pynvml.nvmlDeviceGetNvLinkState(handle, link) for link in range(3)] == [1, 1, 0]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetNvLinkState(handle, 3)
    (by_field,) = pynvml.nvmlDeviceGetFieldValues(
        handle, [(pynvml.NVML_FI_DEV_NVLINK_GET_STATE, 2)]
    )
    assert (by_field.nvmlReturn, by_field.value.uiVal) == (0, 0)
    assert pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle) == 8
    assert pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle) == 16
    assert pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle) == 4
    fabric = pynvml.c_nvmlGpuFabricInfo_v3_t()
    pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(fabric))
    assert (fabric.state, fabric.healthSummary) == (2, 2)
    assert pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).total == 141 << 30
    assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM) == 3201
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == 0x1
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == 0
    machine.change(0, inforom_corrupt=True)
    with pytest.raises(pynvml.NVMLError_CorruptedInforom):
        pynvml.nvmlDeviceValidateInforom(handle)


def test_a_machine_is_changed_by_value() -> None:
    machine = blade("b", count=2)
    changed = machine.with_gpu(1, lost=True).with_xid(1, 79)
    assert machine == blade("b", count=2)
    assert (changed.gpus[1].lost, [e.data for e in changed.events]) == (True, [79])
    assert "event 1 1 8 79" in changed.render().splitlines()
    assert isinstance(NvmlState(()).render(), str)


def test_what_a_gpu_draws_adds_up_over_time(library: Path, machine: StateFile) -> None:
    """Read from a process of its own: the meter begins when the library is loaded."""
    script = f"""
import ctypes, pynvml, sys, time
pynvml.nvmlLib = ctypes.CDLL({str(library)!r})
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(3)
for line in sys.stdin:
    print(time.monotonic(), pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu), flush=True)
"""
    machine.change(3, power_mw=500_000)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, **machine.environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def read() -> tuple[float, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            at, millijoules = process.stdout.readline().split()
            return float(at), float(millijoules) / 1000

        began, first = read()
        time.sleep(0.2)
        changed, second = read()
        machine.change(3, power_mw=0)
        _, third = read()
        time.sleep(0.1)
        _, last = read()
        process.stdin.close()
    # The two clocks are read a moment apart.
    assert second - first == pytest.approx(500 * (changed - began), rel=0.2)
    assert last == third
