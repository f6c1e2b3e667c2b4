"""Every fault that NVML can show: through the simulated library, pynvml and the check."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tramontane.health import checks
from tramontane.health.checks import host, sxid, window, xid
from tramontane.health.checks.base import Outcome, Past
from tramontane.health.device import (
    DeviceError,
    Fabric,
    NvLinkErrors,
    Reading,
    Sample,
    Unsupported,
)
from tramontane.health.nvml import NvmlDevice
from tramontane.lab.nvml import NvmlState, StateFile, blade
from tramontane.lab.nvml.injections import DEPENDS_ON, INJECTIONS, Injection, looks
from tramontane.lab.nvml.state import ENV_STATE

THROUGH_NVML = checks.NAMES - host.NAMES - {xid.NAME, sxid.NAME}
START = 1_790_000_000.0
# Page retirement is what no GPU has that remaps rows.
OLDER = {"retired-pages"}

Look = Callable[[NvmlState], Reading]


def whole(**gpu: Any) -> NvmlState:
    return blade("gpu-0001", **gpu)


@pytest.fixture
def look(library: Path, machine: StateFile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Look]:
    """Return what reads a machine, every value each time."""
    monkeypatch.setenv(ENV_STATE, str(machine.path))
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    device = NvmlDevice(str(library), often_s=0.0, seldom_s=0.0)
    is_open = False

    def read(state: NvmlState) -> Reading:
        nonlocal is_open
        machine.write(state)
        if state.init_error:
            device.close()
            is_open = False
        try:
            if not is_open:
                device.open()
                is_open = True
            return device.read()
        except DeviceError as error:
            return Reading("boot", session_error=str(error))

    yield read
    device.close()


def judged(look: Look, injection: Injection, start: NvmlState) -> Mapping[str, Outcome]:
    """Return what the checks say at the last look."""
    previous: tuple[Sample, ...] = ()
    outcomes: Mapping[str, Outcome] = {}
    for after_s, state in looks(injection, start):
        sample = Sample(START + after_s, replace(look(state), boot_id="boot"))
        no_session_s = after_s - injection.every_s if sample.reading.session_error else 0.0
        outcomes = checks.run(sample.reading, Past(8, sample.at, previous, no_session_s))
        previous = window.remember(previous, sample)
    return outcomes


@pytest.mark.parametrize(
    ("name", "injection"),
    [
        pytest.param(name, injection, id=f"{name}-{number}-{injection.code}")
        for name, injections in INJECTIONS.items()
        for number, injection in enumerate(injections)
    ],
)
def test_a_fault_in_the_library_is_the_finding_of_its_check_alone(
    look: Look, name: str, injection: Injection
) -> None:
    outcomes = judged(look, injection, whole())
    found = [
        (check, finding.code, finding.severity, finding.action, finding.gpu)
        for check, outcome in outcomes.items()
        for finding in outcome.findings
    ]
    expected = (name, injection.code, injection.severity, injection.action, injection.gpu)
    assert found == [expected]


def test_every_check_that_looks_through_nvml_has_an_injection() -> None:
    assert set(INJECTIONS) == THROUGH_NVML
    assert set(DEPENDS_ON) == THROUGH_NVML - {"nvml", "gpu-count", "gpu-lost"}


def test_a_healthy_machine_has_no_findings_and_is_known(look: Look) -> None:
    outcomes = judged(look, INJECTIONS["row-remap"][0], whole())
    assert outcomes["row-remap"].findings
    outcomes = checks.run(look(whole(retires_pages=True)), Past(8))
    assert [finding for outcome in outcomes.values() for finding in outcome.findings] == []
    assert {name for name in THROUGH_NVML if outcomes[name].unknown} == set()
    outcomes = checks.run(look(whole()), Past(8))
    assert {name for name in THROUGH_NVML if outcomes[name].unknown} == OLDER


@pytest.mark.parametrize("code", [3, 13], ids=["NotSupported", "FunctionNotFound"])
@pytest.mark.parametrize(("name", "functions"), sorted(DEPENDS_ON.items()))
def test_what_the_library_does_not_answer_is_unknown_and_no_fault(
    look: Look, name: str, functions: tuple[str, ...], code: int
) -> None:
    blind = replace(whole(), fail=dict.fromkeys(functions, code))
    if functions == ("field-230",):  # fails by GPU: a field is no function
        blind = whole(fail={"field-230": code})
    outcomes = checks.run(look(blind), Past(8))
    assert outcomes[name].unknown
    assert outcomes[name].blind == set(range(8))
    assert [finding for outcome in outcomes.values() for finding in outcome.findings] == []


@pytest.mark.parametrize("links", [18, 12, 36])
def test_the_links_of_a_gpu_are_counted_by_asking(look: Look, links: int) -> None:
    gpu = look(whole(nvlink=(1,) * (links - 1) + (2,))).gpus[0]
    assert gpu.nvlinks == (1,) * (links - 1) + (2,)
    assert gpu.nvlinks_active == links


def test_one_error_at_the_first_look_costs_no_link(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = pynvml.nvmlDeviceGetFieldValues
    broken = iter([True])

    def once(handle: Any, wanted: Any) -> Any:
        items = ask(handle, wanted)
        if (pynvml.NVML_FI_DEV_NVLINK_GET_STATE, 5) in wanted and next(broken, False):
            items[5].nvmlReturn = pynvml.NVML_ERROR_UNKNOWN
        return items

    monkeypatch.setattr(pynvml, "nvmlDeviceGetFieldValues", once)
    first = look(whole())
    assert first.gpus[0].nvlinks == Unsupported("Unknown")
    assert checks.run(first, Past(8))["nvlink-state"].unknown
    assert [gpu.nvlinks_active for gpu in look(whole()).gpus] == [18] * 8


def test_cards_without_a_maximum_for_their_memory_have_one_for_the_gpu(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = pynvml.nvmlDeviceGetTemperatureThreshold

    def gpu_only(handle: Any, which: int) -> Any:
        if which == pynvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return ask(handle, which)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperatureThreshold", gpu_only)
    outcome = judged(look, INJECTIONS["thermal"][0], whole())["thermal"]
    assert [finding.code for finding in outcome.findings] == ["thermal-gpu"]


def test_an_older_driver_tells_of_the_fabric_without_a_summary(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = pynvml.nvmlDeviceGetGpuFabricInfoV

    def older(handle: Any, info: Any) -> Any:
        if info._obj.version != pynvml.nvmlGpuFabricInfo_v2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
        return ask(handle, info)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetGpuFabricInfoV", older)
    assert look(whole(fabric_mask=1)).gpus[3].fabric == Fabric(state=3, mask=1)
    outcome = judged(look, INJECTIONS["fabric"][0], whole())["fabric"]
    assert [finding.code for finding in outcome.findings] == [INJECTIONS["fabric"][0].code]


def test_cards_without_links_are_unknown_and_no_fault(look: Look) -> None:
    reading = look(whole(nvlink=()))
    assert reading.gpus[0].nvlinks_active is None
    outcomes = checks.run(reading, Past(8))
    assert (outcomes["nvlink-state"].unknown, outcomes["nvlink-state"].findings) == (True, ())
    assert (outcomes["nvlink-errors"].unknown, outcomes["nvlink-errors"].findings) == (True, ())


@pytest.mark.parametrize(
    ("fail", "nvlink5"),
    [
        pytest.param({}, False, id="by-field"),
        pytest.param({}, True, id="nvlink-5"),
        pytest.param({f"field-{n}": 3 for n in (161, 162, 163, 165)}, False, id="one-by-one"),
    ],
)
def test_links_and_their_errors_are_read_on_each_generation(
    look: Look, fail: dict[str, int], *, nvlink5: bool
) -> None:
    counts = {"nvlink_recoveries": (0, 2, 0), "nvlink_crc": (0, 0, 5)}
    gpu = look(whole(nvlink=(1, 1, 0), nvlink5=nvlink5, fail=fail, **counts)).gpus[2]
    assert gpu.nvlinks == (1, 1, 0)
    errors = gpu.nvlink_errors
    assert isinstance(errors, NvLinkErrors)
    assert (errors.recoveries, errors.crc) == ((0, 2, 0), (0, 0, 5))
    assert (errors.replays == ()) is nvlink5
    assert (errors.failed == ()) is not nvlink5
