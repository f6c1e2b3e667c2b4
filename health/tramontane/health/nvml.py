"""Read a blade through NVML. The only module that imports pynvml, and only the child imports it.

How NVML's errors are taken:

| error                                            | means                                      |
|--------------------------------------------------|--------------------------------------------|
| GpuIsLost, ResetRequired                         | a finding of its own, at once              |
| Uninitialized, DriverNotLoaded, LibRmVersion…    | the session is of no use: DeviceError      |
| NotSupported, FunctionNotFound, NoPermission, …  | this value is unknown: Unsupported(name)   |

pynvml looks for `libnvidia-ml.so.1` and nothing else; a library of another path is loaded first.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from tramontane.health import pci
from tramontane.health.device import (
    RECOVERY_ACTION_EVENT,
    XID_EVENT,
    DeviceError,
    EccErrors,
    EccMode,
    Event,
    GpuFacts,
    GpuReading,
    Reading,
    RemappedRows,
    Unsupported,
)

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

_SESSION_ERRORS = frozenset({"Uninitialized", "DriverNotLoaded", "LibRmVersionMismatch"})
# One wait hands over at most this many: a flood of XIDs must not keep the state from being read.
_MAX_BATCH = 256
_WAIT_ERROR_PAUSE_S = 0.2

T = TypeVar("T")


def _error_name(error: Exception) -> str:
    """Return NVML's word for an error: `NVMLError_GpuIsLost` → `GpuIsLost`."""
    return type(error).__name__.removeprefix("NVMLError_")


def _ask(call: Callable[[], T]) -> T | Unsupported:
    """Return what `call` returns, or why it does not.

    Raises:
        DeviceError: the error concerns the whole session.
    """
    try:
        return call()
    except pynvml.NVMLError as error:
        name = _error_name(error)
        if name in _SESSION_ERRORS:
            raise DeviceError(name) from error
        return Unsupported(name)


@dataclass(slots=True)
class _Gpu:
    """What the session keeps of one GPU; `handle` is None while NVML gives none."""

    index: int
    handle: Any = None
    facts: GpuFacts | None = None
    unread: tuple[str, ...] = ()


class NvmlDevice:
    """One NVML session. Opened, read and closed by one thread."""

    def __init__(self, library: str | None = None, boot_id_file: Path = BOOT_ID_FILE) -> None:
        self._library = library
        self._boot_id_file = boot_id_file
        self._gpus: list[_Gpu] = []
        self._by_address: dict[int, _Gpu] = {}
        self._event_set: Any = None
        self._events_error = ""
        self._open = False

    def open(self) -> None:
        """Start NVML, take a handle of each GPU and register for its events."""
        try:
            if self._library is not None and pynvml.nvmlLib is None:
                pynvml.nvmlLib = ctypes.CDLL(self._library)
            pynvml.nvmlInit()
        except OSError as error:
            raise DeviceError("LibraryNotFound") from error
        except pynvml.NVMLError as error:
            raise DeviceError(_error_name(error)) from error
        self._open = True
        try:
            self._start_session()
        except pynvml.NVMLError as error:
            self.close()
            raise DeviceError(_error_name(error)) from error

    def _start_session(self) -> None:
        self._gpus = [_Gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
        self._by_address = {}
        event_set = _ask(pynvml.nvmlEventSetCreate)
        self._events_error = event_set.error if isinstance(event_set, Unsupported) else ""
        self._event_set = None if self._events_error else event_set
        for gpu in self._gpus:
            self._take_handle(gpu)

    def _take_handle(self, gpu: _Gpu) -> Unsupported | None:
        handle = _ask(lambda: pynvml.nvmlDeviceGetHandleByIndex(gpu.index))
        if isinstance(handle, Unsupported):
            return handle
        gpu.handle = handle
        self._by_address[_address(handle)] = gpu
        if self._event_set is not None:
            registered = _ask(lambda: self._register(handle))
            if isinstance(registered, Unsupported):
                self._events_error = registered.error
        return None

    def _register(self, handle: Any) -> None:
        wanted = XID_EVENT | RECOVERY_ACTION_EVENT
        supported = _ask(lambda: pynvml.nvmlDeviceGetSupportedEventTypes(handle))
        mask = XID_EVENT if isinstance(supported, Unsupported) else supported & wanted
        pynvml.nvmlDeviceRegisterEvents(handle, mask, self._event_set)

    def close(self) -> None:
        """Free the event set and shut NVML down, which it needs to leave the driver in order."""
        if not self._open:
            return
        self._open = False
        if self._event_set is not None:
            _ignoring(lambda: pynvml.nvmlEventSetFree(self._event_set))
            self._event_set = None
        _ignoring(pynvml.nvmlShutdown)

    def read(self) -> Reading:
        """Return one look at every GPU; the facts of a GPU are asked for only once."""
        if _ask(pynvml.nvmlDeviceGetCount) != len(self._gpus):
            self.close()
            self.open()
        return Reading(
            boot_id=self._boot_id_file.read_text().strip(),
            driver=_text(_ask(pynvml.nvmlSystemGetDriverVersion)),
            cuda=_cuda(_ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)),
            gpus=tuple(self._read_gpu(gpu) for gpu in self._gpus),
            pci_gpus=pci.count_gpus(),
            events_error=self._events_error,
        )

    def _read_gpu(self, gpu: _Gpu) -> GpuReading:
        if gpu.handle is None and (refused := self._take_handle(gpu)) is not None:
            return _without_values(gpu, refused)
        handle = gpu.handle
        if gpu.facts is None:
            gpu.facts, gpu.unread = _facts(handle)
        values: dict[str, Any] = {
            "ecc_mode": _ask(lambda: _ecc_mode(handle)),
            "ecc_errors": _ask(lambda: _ecc_errors(handle)),
            "sram_threshold_exceeded": _ask(lambda: _sram_threshold_exceeded(handle)),
            "remapped_rows": _ask(lambda: _remapped_rows(handle)),
            "recovery_action": _ask(lambda: _recovery_action(handle)),
            "temperature_c": _ask(lambda: pynvml.nvmlDeviceGetTemperature(handle, 0)),
            "power_mw": _ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle)),
        }
        errors = {value.error for value in values.values() if isinstance(value, Unsupported)}
        reading = GpuReading(
            index=gpu.index,
            facts=gpu.facts,
            unread=gpu.unread,
            lost="GpuIsLost" in errors,
            reset_required="ResetRequired" in errors,
            **values,
        )
        if reading.lost or reading.reset_required:
            # What was asked while the GPU was going is no fact; ask again when it is back.
            gpu.facts = gpu.facts if gpu.facts.uuid else None
        return reading

    def wait(self, timeout_s: float) -> tuple[Event, ...]:
        """Return the events of the next `timeout_s`, as soon as there is one."""
        if self._event_set is None:
            time.sleep(timeout_s)
            return ()
        events: list[Event] = []
        wait_ms = max(1, int(timeout_s * 1000))
        while len(events) < _MAX_BATCH:
            try:
                data = pynvml.nvmlEventSetWait_v2(self._event_set, 0 if events else wait_ms)
            except pynvml.NVMLError as error:
                name = _error_name(error)
                self._events_error = "" if name == "Timeout" else name
                if self._events_error and not events:
                    time.sleep(min(timeout_s, _WAIT_ERROR_PAUSE_S))
                break
            gpu = self._by_address.get(_address(data.device))
            events.append(
                Event(
                    gpu=-1 if gpu is None else gpu.index,
                    uuid=gpu.facts.uuid if gpu is not None and gpu.facts is not None else "",
                    type=data.eventType,
                    data=data.eventData,
                    at=time.time(),
                )
            )
        return tuple(events)


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _ignoring(call: Callable[[], object]) -> None:
    """Call what is done on the way out, where no error can change anything any more."""
    try:
        call()
    except pynvml.NVMLError:
        return


def _text(value: str | bytes | Unsupported) -> str:
    if isinstance(value, Unsupported):
        return ""
    return value.decode() if isinstance(value, bytes) else value


def _cuda(version: int | Unsupported) -> str:
    if isinstance(version, Unsupported):
        return ""
    return f"{version // 1000}.{version % 1000 // 10}"


def _without_values(gpu: _Gpu, why: Unsupported) -> GpuReading:
    return GpuReading(
        index=gpu.index,
        facts=gpu.facts or GpuFacts(),
        unread=gpu.unread,
        lost=why.error == "GpuIsLost",
        reset_required=why.error == "ResetRequired",
        ecc_mode=why,
        ecc_errors=why,
        sram_threshold_exceeded=why,
        remapped_rows=why,
        recovery_action=why,
        temperature_c=why,
        power_mw=why,
    )


def _facts(handle: Any) -> tuple[GpuFacts, tuple[str, ...]]:
    answers: dict[str, Any] = {
        "uuid": _ask(lambda: pynvml.nvmlDeviceGetUUID(handle)),
        "serial": _ask(lambda: pynvml.nvmlDeviceGetSerial(handle)),
        "pci_bus_id": _ask(lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId),
        "product": _ask(lambda: pynvml.nvmlDeviceGetName(handle)),
        "memory_bytes": _ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "vbios": _ask(lambda: pynvml.nvmlDeviceGetVbiosVersion(handle)),
    }
    unread = tuple(name for name, answer in answers.items() if isinstance(answer, Unsupported))
    known: dict[str, Any] = {
        name: _text(answer) if isinstance(answer, bytes) else answer
        for name, answer in answers.items()
        if name not in unread
    }
    return GpuFacts(**known), unread


def _ecc_mode(handle: Any) -> EccMode:
    current, pending = pynvml.nvmlDeviceGetEccMode(handle)
    return EccMode(bool(current), bool(pending))


def _ecc_errors(handle: Any) -> EccErrors:
    def total(kind: int, counter: int) -> int:
        count: int = pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, counter)
        return count

    corrected, uncorrected = (
        pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
    )
    return EccErrors(
        volatile_corrected=total(corrected, pynvml.NVML_VOLATILE_ECC),
        volatile_uncorrected=total(uncorrected, pynvml.NVML_VOLATILE_ECC),
        aggregate_corrected=total(corrected, pynvml.NVML_AGGREGATE_ECC),
        aggregate_uncorrected=total(uncorrected, pynvml.NVML_AGGREGATE_ECC),
    )


def _sram_threshold_exceeded(handle: Any) -> bool:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    pynvml.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status))
    return bool(status.bThresholdExceeded)


def _remapped_rows(handle: Any) -> RemappedRows:
    corrected, uncorrected, pending, failure = pynvml.nvmlDeviceGetRemappedRows(handle)
    return RemappedRows(corrected, uncorrected, bool(pending), bool(failure))


def _recovery_action(handle: Any) -> int:
    (item,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if item.nvmlReturn != pynvml.NVML_SUCCESS:  # the call succeeds although the field does not
        raise pynvml.NVMLError(item.nvmlReturn)
    action: int = item.value.uiVal
    return action
