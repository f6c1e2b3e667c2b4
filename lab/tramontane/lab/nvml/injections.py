"""List, per check, the faults of a simulated machine that it must find, and how to blind it.

The fault matrix of the tests is made from `INJECTIONS`: a check that looks through NVML and has
no entry here fails there. Most faults are there from one look to the next; a rule about time
needs its change made several times (`looks`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from tramontane.api.blade import Action, Severity
from tramontane.lab.nvml.state import NvmlState

GPU = 3

Change = Callable[[NvmlState], NvmlState]


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault: what happens to the machine, and the finding that must follow.

    Attributes:
        change: what happens.
        gpu: the GPU that the finding names; None: the whole blade.
        times: how often the change is made.
        every_s: time between two looks.
    """

    change: Change
    code: str
    severity: Severity
    action: Action
    gpu: int | None = GPU
    times: int = 1
    every_s: float = 5.0


def looks(injection: Injection, machine: NvmlState) -> Iterator[tuple[float, NvmlState]]:
    """Yield the machine at each look and its time (s): healthy first, with the fault at last."""
    yield 0.0, machine
    for number in range(1, injection.times + 1):
        machine = injection.change(machine)
        yield number * injection.every_s, machine


def _set(**values: Any) -> Change:
    return lambda state: state.with_gpu(GPU, **values)


def _grow(field: str, by: int) -> Change:
    return lambda state: state.with_gpu(GPU, **{field: getattr(state.gpus[GPU], field) + by})


def _count(field: str, link: int, by: int, **values: Any) -> Change:
    """Return a change that counts errors on one link."""

    def change(state: NvmlState) -> NvmlState:
        gpu = state.gpus[GPU]
        counts = list(getattr(gpu, field) or (0,) * len(gpu.nvlink))
        counts[link] += by
        return state.with_gpu(GPU, **{field: tuple(counts)}, **values)

    return change


def _twin(state: NvmlState) -> NvmlState:
    return state.with_gpu(GPU, uuid=state.gpus[1].uuid)


def _one_fewer(state: NvmlState) -> NvmlState:
    return replace(state, gpus=state.gpus[:-1])


def _fabric(mask: int) -> Change:
    return _set(fabric_mask=mask, fabric_summary=2)


_INFO, _DEGRADED, _FATAL = Severity.INFO, Severity.DEGRADED, Severity.FATAL
_NONE, _DRAIN, _RESET = Action.NONE, Action.DRAIN, Action.RESET
_REBOOT, _INSPECT, _REPLACE = Action.REBOOT, Action.INSPECT, Action.REPLACE
_RELOADED_S = 300.0  # a driver that is not back by then is not being reloaded
_DOWN_LINK = tuple(int(link != 7) for link in range(18))  # noqa: PLR2004 -- any link

INJECTIONS: Mapping[str, tuple[Injection, ...]] = MappingProxyType(
    {
        "nvml": (
            Injection(
                lambda state: replace(state, init_error=9),
                "nvml-driver-not-loaded",
                _DEGRADED,
                _DRAIN,
                gpu=None,
            ),
            Injection(
                lambda state: replace(state, init_error=9),
                "nvml-driver-not-loaded",
                _FATAL,
                _REBOOT,
                gpu=None,
                times=2,
                every_s=_RELOADED_S,
            ),
            Injection(
                lambda state: replace(state, init_error=18),
                "nvml-lib-rm-version-mismatch",
                _FATAL,
                _REBOOT,
                gpu=None,
                times=2,
                every_s=_RELOADED_S,
            ),
            Injection(
                lambda state: replace(state, init_error=999),
                "nvml-unknown",
                _FATAL,
                _INSPECT,
                gpu=None,
            ),
            Injection(
                lambda state: replace(state, init_error=4),
                "nvml-no-permission",
                Severity.UNKNOWN,
                _NONE,
                gpu=None,
            ),
        ),
        "gpu-count": (Injection(_one_fewer, "gpu-count", _FATAL, _REBOOT, gpu=None),),
        "gpu-lost": (
            Injection(_set(lost=True), "gpu-lost", _FATAL, _REBOOT),
            Injection(_set(reset_required=True), "gpu-reset-required", _FATAL, _RESET),
        ),
        "inventory": (Injection(_twin, "inventory-duplicate", _DEGRADED, _INSPECT),),
        "firmware": (
            Injection(_set(vbios="96.00.9F.00.04"), "vbios-mismatch", _DEGRADED, _INSPECT),
            Injection(_set(gsp="575.57.08"), "gsp-firmware-mismatch", _DEGRADED, _INSPECT),
        ),
        "recovery-action": tuple(
            Injection(_set(recovery_action=value), f"recovery-{word}", severity, action)
            for value, word, severity, action in (
                (1, "gpu-reset", _FATAL, _RESET),
                (2, "node-reboot", _FATAL, _REBOOT),
                (3, "drain-p2p", _DEGRADED, _DRAIN),
                (4, "drain-and-reset", _DEGRADED, _RESET),
                (5, "recover-imex", _DEGRADED, _DRAIN),
                (6, "bus-reset", _FATAL, _RESET),
                (7, "system-reboot", _FATAL, _REBOOT),
                (8, "unknown", _DEGRADED, _INSPECT),
            )
        ),
        "row-remap": (
            Injection(_set(remap_pending=True), "row-remap-pending", _DEGRADED, _RESET),
            Injection(_set(remap_failure=True), "row-remap-failure", _FATAL, _REPLACE),
        ),
        "row-spares": (
            Injection(_set(banks_without_spares=2), "row-spares-exhausted", _INFO, _INSPECT),
        ),
        "retired-pages": (
            Injection(
                _set(retires_pages=True, retired_pending=True),
                "retired-pages-pending",
                _DEGRADED,
                _RESET,
            ),
            Injection(
                _set(retires_pages=True, retired_single=15, retired_double=1),
                "retired-pages-many",
                _INFO,
                _INSPECT,
            ),
            Injection(
                _set(retires_pages=True, retired_single=60, retired_double=3),
                "retired-pages-limit",
                _FATAL,
                _REPLACE,
            ),
        ),
        "bank-remap": (
            Injection(_set(bank_pending=True), "bank-remap-pending", _DEGRADED, _RESET),
            Injection(_set(bank_exhausted=1), "bank-spares-exhausted", _INFO, _INSPECT),
        ),
        "gpu-repair": (
            Injection(_set(repair_channel=True), "channel-repair-pending", _DEGRADED, _RESET),
            Injection(_set(repair_tpc=True), "tpc-repair-pending", _DEGRADED, _RESET),
        ),
        "ecc-mode": (
            Injection(_set(ecc_current=0), "ecc-disabled", _DEGRADED, _RESET),
            Injection(_set(ecc_current=0, ecc_pending=0), "ecc-disabled", _DEGRADED, _INSPECT),
            Injection(_set(ecc_pending=0), "ecc-pending", _INFO, _INSPECT),
        ),
        "ecc-errors": (
            Injection(_set(ecc_vol_unc=1), "ecc-uncorrected", _DEGRADED, _RESET),
            Injection(_set(ecc_vol_corr=50_000_001), "ecc-corrected", _INFO, _INSPECT),
        ),
        "ecc-aggregate": (Injection(_set(ecc_sram_unc=1), "ecc-sram-aggregate", _INFO, _INSPECT),),
        "ecc-rate": (
            Injection(
                _grow("ecc_vol_corr", 60_000),
                "ecc-corrected-rate",
                _INFO,
                _INSPECT,
                times=6,
                every_s=60.0,
            ),
        ),
        "ecc-sram": (
            Injection(_set(ecc_sram_threshold=True), "ecc-sram-threshold", _FATAL, _REPLACE),
        ),
        "nvlink-state": (
            Injection(_set(nvlink=_DOWN_LINK), "nvlink-down", _DEGRADED, _RESET),
            Injection(_set(nvlink=(0,) * 18), "nvlink-down", _DEGRADED, _RESET),
            Injection(_set(nvlink=(1,) * 17 + (3,)), "nvlink-down", _DEGRADED, _RESET),
        ),
        "nvlink-errors": (
            Injection(_count("nvlink_replays", 4, 1), "nvlink-replay", _INFO, _INSPECT),
            Injection(_count("nvlink_recoveries", 4, 1), "nvlink-recovery", _DEGRADED, _NONE),
            Injection(
                _count("nvlink_crc", 4, 2_000),
                "nvlink-crc",
                _DEGRADED,
                _RESET,
                times=4,
                every_s=20.0,
            ),
            Injection(
                _count("nvlink_failed", 4, 1, nvlink5=True),
                "nvlink-recovery-failed",
                _DEGRADED,
                _RESET,
                times=2,
            ),
        ),
        "fabric": (
            Injection(_set(fabric_state=1), "fabric-not-registered", _DEGRADED, _DRAIN),
            Injection(_set(fabric_state=2), "fabric-not-registered", _DEGRADED, _DRAIN),
            Injection(_set(fabric_status=999), "fabric-registration-failed", _DEGRADED, _RESET),
            Injection(_fabric(1 << 0), "fabric-bandwidth", _DEGRADED, _RESET),
            Injection(_fabric(1 << 2), "fabric-recovering", _DEGRADED, _DRAIN),
            Injection(_fabric(1 << 4), "fabric-route", _DEGRADED, _RESET),
            Injection(_fabric(1 << 6), "fabric-recovering", _DEGRADED, _DRAIN),
            Injection(_fabric(5 << 8), "fabric-configuration", _DEGRADED, _INSPECT),
            Injection(_fabric(2 << 12), "fabric-partition", _DEGRADED, _DRAIN),
            Injection(_fabric(2 << 14), "fabric-manager", _DEGRADED, _DRAIN),
            Injection(_set(fabric_summary=2), "fabric-unhealthy", _DEGRADED, _INSPECT),
            Injection(_set(fabric_summary=3), "fabric-unhealthy", _DEGRADED, _INSPECT),
        ),
        "pcie-width": (Injection(_set(pcie_width=8), "pcie-width", _DEGRADED, _RESET),),
        "pcie-generation": (
            Injection(
                _set(pcie_gen=3, utilization=97),
                "pcie-generation",
                _DEGRADED,
                _RESET,
                times=4,
                every_s=30.0,
            ),
        ),
        "pcie-replay": (
            Injection(
                _grow("pcie_replays", 5),
                "pcie-replay",
                _DEGRADED,
                _INSPECT,
                times=3,
                every_s=30.0,
            ),
        ),
        "clock-events": tuple(
            Injection(_set(clock_reasons=reasons), code, _DEGRADED, _INSPECT, times=8, every_s=60.0)
            for reasons, code in (
                (0x8, "clock-slowdown"),
                (0x48, "clock-thermal"),
                (0x88, "clock-power"),
            )
        ),
        "thermal": (
            Injection(
                _set(temperature=91), "thermal-gpu", _DEGRADED, _INSPECT, times=4, every_s=30.0
            ),
            Injection(
                _set(memory_temperature=99),
                "thermal-memory",
                _DEGRADED,
                _INSPECT,
                times=4,
                every_s=30.0,
            ),
            Injection(
                _set(margin=-3, fail={"nvmlDeviceGetTemperatureThreshold": 3}),
                "thermal-margin",
                _INFO,
                _INSPECT,
                times=4,
                every_s=30.0,
            ),
        ),
        "power": (
            Injection(_set(power_mw=0), "power-unreadable", _DEGRADED, _REBOOT),
            Injection(_set(power_limit_mw=450_000), "power-limit", _INFO, _INSPECT),
        ),
        "inforom": (Injection(_set(inforom_corrupt=True), "inforom-corrupt", _DEGRADED, _RESET),),
        "persistence": (Injection(_set(persistence=False), "persistence-off", _INFO, _NONE),),
        "mig": (Injection(_set(mig_pending=True), "mig-pending", _INFO, _INSPECT),),
        "gpu-idle": (
            Injection(_set(processes=2), "idle-processes", _INFO, _INSPECT, times=12, every_s=60.0),
            Injection(
                _set(memory_used=1 << 30), "idle-memory", _INFO, _INSPECT, times=12, every_s=60.0
            ),
        ),
    }
)

# The C functions or fields that a check depends on: without them it must be unknown.
DEPENDS_ON: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "inventory": ("nvmlDeviceGetSerial",),
        "firmware": ("nvmlDeviceGetGspFirmwareVersion",),
        "recovery-action": ("field-230",),
        "row-remap": ("nvmlDeviceGetRemappedRows",),
        "row-spares": ("nvmlDeviceGetRowRemapperHistogram",),
        "retired-pages": ("nvmlDeviceGetRetiredPages",),
        "bank-remap": ("nvmlDeviceGetBankRemapperStatus_v1",),
        "gpu-repair": ("nvmlDeviceGetRepairStatus",),
        "ecc-mode": ("nvmlDeviceGetEccMode",),
        "ecc-errors": ("nvmlDeviceGetTotalEccErrors",),
        "ecc-aggregate": ("nvmlDeviceGetSramEccErrorStatus",),
        "ecc-rate": ("nvmlDeviceGetTotalEccErrors",),
        "ecc-sram": ("nvmlDeviceGetSramEccErrorStatus",),
        "nvlink-state": ("nvmlDeviceGetFieldValues",),
        "nvlink-errors": ("nvmlDeviceGetFieldValues",),
        "fabric": ("nvmlDeviceGetGpuFabricInfoV",),
        "pcie-width": ("nvmlDeviceGetMaxPcieLinkWidth",),
        "pcie-generation": ("nvmlDeviceGetMaxPcieLinkGeneration",),
        "pcie-replay": ("nvmlDeviceGetPcieReplayCounter",),
        "clock-events": (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ),
        "thermal": ("nvmlDeviceGetTemperature",),
        "power": ("nvmlDeviceGetPowerUsage",),
        "inforom": ("nvmlDeviceValidateInforom",),
        "persistence": ("nvmlDeviceGetPersistenceMode",),
        "mig": ("nvmlDeviceGetMigMode",),
        "gpu-idle": ("nvmlDeviceGetComputeRunningProcesses_v3",),
    }
)
