"""Read one GPU's facts and values through pynvml: a function for each, and how often it is asked.

States that begin a fault are read each time. What only a rate rule wants comes every few seconds;
what changes by a reset or by hand, or makes the GPU read its flash memory, once a minute.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pynvml

from tramontane.health import nvml_links
from tramontane.health.device import (
    BankRemap,
    EccErrors,
    EccMode,
    GpuFacts,
    MigMode,
    PowerLimit,
    RemappedRows,
    Repair,
    RetiredPages,
    RowSpares,
    SramErrors,
    Unsupported,
)
from tramontane.health.nvml_calls import Target, ask, field, text

# Sources: nvml.h, NVML_TEMPERATURE_GPU, NVML_TEMPERATURE_THRESHOLD_MEM_MAX and …_GPU_MAX.
_GPU_SENSOR, _MEM_MAX, _GPU_MAX = 0, 2, 3


def facts(handle: Any) -> tuple[GpuFacts, tuple[str, ...]]:
    """Return what the GPU is, and the names of the facts that it does not tell."""
    answers: dict[str, Any] = {
        "uuid": ask(lambda: pynvml.nvmlDeviceGetUUID(handle)),
        "serial": ask(lambda: pynvml.nvmlDeviceGetSerial(handle)),
        "pci_bus_id": ask(lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId),
        "product": ask(lambda: pynvml.nvmlDeviceGetName(handle)),
        "memory_bytes": ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "vbios": ask(lambda: pynvml.nvmlDeviceGetVbiosVersion(handle)),
        "gsp_firmware": ask(lambda: pynvml.nvmlDeviceGetGspFirmwareVersion(handle)),
    }
    unread = tuple(name for name, answer in answers.items() if isinstance(answer, Unsupported))
    known: dict[str, Any] = {
        name: text(answer) if isinstance(answer, bytes) else answer
        for name, answer in answers.items()
        if name not in unread
    }
    return GpuFacts(**known), unread


# Memory.


def _recovery_action(gpu: Target) -> int:
    return field(gpu, pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)


def _ecc_mode(gpu: Target) -> EccMode:
    current, pending = pynvml.nvmlDeviceGetEccMode(gpu.handle)
    return EccMode(bool(current), bool(pending))


def _ecc_errors(gpu: Target) -> EccErrors:
    def total(kind: int, counter: int) -> int:
        count: int = pynvml.nvmlDeviceGetTotalEccErrors(gpu.handle, kind, counter)
        return count

    corrected = pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    uncorrected = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    return EccErrors(
        volatile_corrected=total(corrected, pynvml.NVML_VOLATILE_ECC),
        volatile_uncorrected=total(uncorrected, pynvml.NVML_VOLATILE_ECC),
        aggregate_corrected=total(corrected, pynvml.NVML_AGGREGATE_ECC),
        aggregate_uncorrected=total(uncorrected, pynvml.NVML_AGGREGATE_ECC),
    )


def _sram(gpu: Target) -> Any:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    pynvml.nvmlDeviceGetSramEccErrorStatus(gpu.handle, ctypes.byref(status))
    return status


def _sram_threshold_exceeded(gpu: Target) -> bool:
    return bool(_sram(gpu).bThresholdExceeded)


def _sram_errors(gpu: Target) -> SramErrors:
    status = _sram(gpu)
    return SramErrors(
        volatile=status.volatileUncParity + status.volatileUncSecDed,
        aggregate=status.aggregateUncParity + status.aggregateUncSecDed,
    )


def _remapped_rows(gpu: Target) -> RemappedRows:
    corrected, uncorrected, pending, failure = pynvml.nvmlDeviceGetRemappedRows(gpu.handle)
    return RemappedRows(corrected, uncorrected, bool(pending), bool(failure))


def _row_spares(gpu: Target) -> RowSpares:
    banks = pynvml.nvmlDeviceGetRowRemapperHistogram(gpu.handle)
    return RowSpares(banks.max, banks.high, banks.partial, banks.low, banks.none)


def _retired_pages(gpu: Target) -> RetiredPages:
    # Not the _v2 of this call: pynvml asks it for the number of pages with an argument too few.
    single, double = (
        len(pynvml.nvmlDeviceGetRetiredPages(gpu.handle, cause))
        for cause in (
            pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
            pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
        )
    )
    pending = pynvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu.handle)
    return RetiredPages(single, double, bool(pending))


def _bank_remap(gpu: Target) -> BankRemap:
    status = pynvml.c_nvmlEccBankRemapperStatus_v1_t()
    pynvml.nvmlDeviceGetBankRemapperStatus_v1(gpu.handle, ctypes.byref(status))
    return BankRemap(
        active=status.activeRemappings,
        pending=bool(status.bPending),
        exhausted=status.histogram.noSpareGroupCount,
    )


def _repair(gpu: Target) -> Repair:
    channel, tpc = pynvml.nvmlDeviceGetRepairStatus(gpu.handle)
    return Repair(bool(channel), bool(tpc))


# Running conditions, setup and use.


def _temperature(gpu: Target) -> int:
    celsius: int = pynvml.nvmlDeviceGetTemperature(gpu.handle, _GPU_SENSOR)
    return celsius


def _memory_temperature(gpu: Target) -> int:
    return field(gpu, pynvml.NVML_FI_DEV_MEMORY_TEMP)


def _thermal_margin(gpu: Target) -> int:
    celsius: int = pynvml.nvmlDeviceGetMarginTemperature(gpu.handle)
    return celsius


def _temperature_max(gpu: Target) -> int:
    celsius: int = pynvml.nvmlDeviceGetTemperatureThreshold(gpu.handle, _GPU_MAX)
    return celsius


def _memory_temperature_max(gpu: Target) -> int:
    celsius: int = pynvml.nvmlDeviceGetTemperatureThreshold(gpu.handle, _MEM_MAX)
    return celsius


def _power(gpu: Target) -> int:
    milliwatts: int = pynvml.nvmlDeviceGetPowerUsage(gpu.handle)
    return milliwatts


def _energy(gpu: Target) -> int:
    millijoules: int = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle)
    return millijoules


def _power_limit(gpu: Target) -> PowerLimit:
    return PowerLimit(
        enforced_mw=pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu.handle),
        default_mw=pynvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu.handle),
    )


def _clock_reasons(gpu: Target) -> int:
    reasons: int
    try:
        reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu.handle)
    except pynvml.NVMLError_FunctionNotFound:  # its name before driver 535
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu.handle)
    return reasons


def _utilization(gpu: Target) -> int:
    percent: int = pynvml.nvmlDeviceGetUtilizationRates(gpu.handle).gpu
    return percent


def _inforom_valid(gpu: Target) -> bool:
    try:
        pynvml.nvmlDeviceValidateInforom(gpu.handle)
    except pynvml.NVMLError_CorruptedInforom:
        return False
    return True


def _persistence(gpu: Target) -> bool:
    return bool(pynvml.nvmlDeviceGetPersistenceMode(gpu.handle))


def _mig(gpu: Target) -> MigMode:
    current, pending = pynvml.nvmlDeviceGetMigMode(gpu.handle)
    return MigMode(bool(current), bool(pending))


def _processes(gpu: Target) -> int:
    return len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu.handle))


def _memory_used(gpu: Target) -> int:
    # Version 2 does not count what the driver keeps for itself.
    used: int = pynvml.nvmlDeviceGetMemoryInfo(gpu.handle, pynvml.nvmlMemory_v2).used
    return used


@dataclass(frozen=True, slots=True)
class Tier:
    """Values that are read equally often."""

    every_s: float
    values: Mapping[str, Callable[[Target], Any]]


# A little less than the 5 s of a slow poll, which is never quite on time.
OFTEN_S = 4.5
SELDOM_S = 60.0

_EACH: Mapping[str, Callable[[Target], Any]] = MappingProxyType(
    {
        "recovery_action": _recovery_action,
        "ecc_errors": _ecc_errors,
        "sram_threshold_exceeded": _sram_threshold_exceeded,
        "remapped_rows": _remapped_rows,
        "nvlinks": nvml_links.nvlinks,
        "fabric": nvml_links.fabric,
        "temperature_c": _temperature,
        "power_mw": _power,
        "clock_reasons": _clock_reasons,
        "utilization_pct": _utilization,
    }
)
_OFTEN: Mapping[str, Callable[[Target], Any]] = MappingProxyType(
    {
        "ecc_mode": _ecc_mode,
        "sram_errors": _sram_errors,
        "nvlink_errors": nvml_links.nvlink_errors,
        "pcie_width": nvml_links.pcie_width,
        "pcie_generation": nvml_links.pcie_generation,
        "pcie_replays": nvml_links.pcie_replays,
        "memory_temperature_c": _memory_temperature,
        "thermal_margin_c": _thermal_margin,
        "energy_mj": _energy,
        "processes": _processes,
        "memory_used_bytes": _memory_used,
    }
)
_SELDOM: Mapping[str, Callable[[Target], Any]] = MappingProxyType(
    {
        "row_spares": _row_spares,
        "retired_pages": _retired_pages,
        "bank_remap": _bank_remap,
        "repair": _repair,
        "temperature_max_c": _temperature_max,
        "memory_temperature_max_c": _memory_temperature_max,
        "power_limit": _power_limit,
        "inforom_valid": _inforom_valid,
        "persistence": _persistence,
        "mig": _mig,
    }
)


def tiers(often_s: float = OFTEN_S, seldom_s: float = SELDOM_S) -> tuple[Tier, ...]:
    """Return all values, the most often read first: NVLinks must be known before their errors."""
    return Tier(0.0, _EACH), Tier(often_s, _OFTEN), Tier(seldom_s, _SELDOM)
