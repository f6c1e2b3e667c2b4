"""Read a blade through NVML: one session, its GPUs, its events.

What NVML's errors mean is told in nvml_calls.py, what is read how often in nvml_values.py. A GPU
that is lost is asked nothing more in that reading; one that came back, from a reset or from the
lost, is asked everything anew. What could not be had of the events is asked for at each look.

pynvml looks for `libnvidia-ml.so.1` and nothing else; a library of another path is loaded first.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pynvml

from tramontane.health import nvml_values, pci
from tramontane.health.device import (
    RECOVERY_ACTION_EVENT,
    XID_EVENT,
    DeviceError,
    Event,
    GpuFacts,
    GpuReading,
    Reading,
    Unsupported,
    unread,
)
from tramontane.health.nvml_calls import Target, ask, error_name, text

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

# One wait hands over at most this many: a flood of XIDs must not keep the state from being read.
_MAX_BATCH = 256
_WAIT_ERROR_PAUSE_S = 0.2


@dataclass(slots=True)
class _Gpu:
    """What the session keeps of one GPU; `target` is None while NVML gives no handle.

    `values` are the last answers, `due` says per tier when they must be had anew. `deaf` is why its
    events do not come; empty when they do.
    """

    index: int
    target: Target | None = None
    facts: GpuFacts | None = None
    facts_due: float = 0.0
    unread: tuple[str, ...] = ()
    deaf: str = "NotRegistered"
    values: dict[str, Any] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)

    def forget(self) -> None:
        """Have everything asked anew the next time."""
        self.due.clear()
        self.facts_due = 0.0


class NvmlDevice:
    """One NVML session. Opened, read and closed by one thread.

    Args:
        library: path of the NVML library; None: what the linker finds.
        boot_id_file: where the kernel says which boot this is.
        often_s: how old an answer may be that only a rate rule wants.
        seldom_s: how old an answer may be that is expensive, or changes by hand only.
        clock: monotonic clock.
    """

    def __init__(
        self,
        library: str | None = None,
        boot_id_file: Path = BOOT_ID_FILE,
        *,
        often_s: float = nvml_values.OFTEN_S,
        seldom_s: float = nvml_values.SELDOM_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._boot_id_file = boot_id_file
        self._tiers = nvml_values.tiers(often_s, seldom_s)
        self._often_s, self._seldom_s = often_s, seldom_s
        self._clock = clock
        self._pci_gpus: int | None = None
        self._pci_due = 0.0
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
            raise DeviceError(error_name(error)) from error
        self._open = True
        try:
            self._start_session()
        except pynvml.NVMLError as error:
            self.close()
            raise DeviceError(error_name(error)) from error

    def _start_session(self) -> None:
        self._gpus = [_Gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
        self._by_address = {}
        for gpu in self._gpus:
            self._take_handle(gpu)
        self._listen()

    def _take_handle(self, gpu: _Gpu) -> Unsupported | None:
        handle = ask(lambda: pynvml.nvmlDeviceGetHandleByIndex(gpu.index))
        if isinstance(handle, Unsupported):
            return handle
        gpu.target = Target(handle)
        self._by_address[_address(handle)] = gpu
        return None

    def _listen(self) -> None:
        """Register for the events of the GPUs whose events do not come yet."""
        if self._event_set is None:
            event_set = ask(pynvml.nvmlEventSetCreate)
            if isinstance(event_set, Unsupported):
                self._events_error = event_set.error
                return
            self._event_set, self._events_error = event_set, ""
        for gpu in self._gpus:
            if gpu.deaf and gpu.target is not None:
                registered = ask(partial(self._register, gpu.target.handle))
                gpu.deaf = registered.error if isinstance(registered, Unsupported) else ""

    def _register(self, handle: Any) -> None:
        wanted = XID_EVENT | RECOVERY_ACTION_EVENT
        supported = ask(lambda: pynvml.nvmlDeviceGetSupportedEventTypes(handle))
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
        """Return one look at every GPU; some answers may be a minute old."""
        if ask(pynvml.nvmlDeviceGetCount) != len(self._gpus):
            self.close()
            self.open()
        now = self._clock()
        if now >= self._pci_due:
            self._pci_gpus, self._pci_due = pci.count_gpus(), now + self._often_s
        gpus = tuple(self._read_gpu(gpu, now) for gpu in self._gpus)
        self._listen()
        return Reading(
            boot_id=self._boot_id_file.read_text().strip(),
            driver=text(ask(pynvml.nvmlSystemGetDriverVersion)),
            cuda=_cuda(ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)),
            gpus=gpus,
            pci_gpus=self._pci_gpus,
            events_error=self._events_error or self._deafness(),
        )

    def _deafness(self) -> str:
        """Return why the events of a GPU that is there do not come; empty when all do."""
        there = (gpu for gpu in self._gpus if gpu.target is not None)
        return next((gpu.deaf for gpu in there if gpu.deaf), "")

    def _read_gpu(self, gpu: _Gpu, now: float) -> GpuReading:
        refused = None if gpu.target is not None else self._take_handle(gpu)
        if gpu.target is None:
            return _without_values(gpu, refused or Unsupported("NoHandle"))
        if gpu.facts is None or now >= gpu.facts_due:
            self._ask_facts(gpu, gpu.target, now)
        errors = self._ask_values(gpu, gpu.target, now)
        lost, reset_required = "GpuIsLost" in errors, "ResetRequired" in errors
        if lost or reset_required:
            gpu.forget()
        return GpuReading(
            index=gpu.index,
            facts=gpu.facts or GpuFacts(),
            unread=gpu.unread,
            lost=lost,
            reset_required=reset_required,
            **(unread(Unsupported("GpuIsLost")) if lost else gpu.values),
        )

    def _ask_facts(self, gpu: _Gpu, target: Target, now: float) -> None:
        facts, unread_facts = nvml_values.facts(target.handle)
        if facts.uuid:  # else it is just going, and what is known of it holds
            gpu.facts, gpu.unread, gpu.facts_due = facts, unread_facts, now + self._seldom_s

    def _ask_values(self, gpu: _Gpu, target: Target, now: float) -> set[str]:
        """Ask for what is due and return the errors, stopping where the GPU is lost."""
        errors: set[str] = set()
        wanted_recovery = gpu.values.get("recovery_action")
        for number, tier in enumerate(self._tiers):
            if now < gpu.due.get(number, now):
                continue
            # Spread at first, so that the expensive answers do not all fall due together.
            share = 1.0 if number in gpu.due else (gpu.index + 1) / len(self._gpus)
            gpu.due[number] = now + tier.every_s * share
            for name, value in tier.values.items():
                answer = gpu.values[name] = ask(partial(value, target))
                if isinstance(answer, Unsupported):
                    errors.add(answer.error)
                    if answer.error == "GpuIsLost":
                        return errors
            if number == 0 and wanted_recovery and gpu.values["recovery_action"] == 0:
                gpu.forget()  # it was reset, or will be no more: nothing older counts
        return errors

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
                name = error_name(error)
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
        **unread(why),
    )
