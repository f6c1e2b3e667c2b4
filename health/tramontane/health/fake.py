"""A blade in memory, with faults on demand: for unit tests and for simulated fleets.

`FakeDevice` keeps one frozen reading and replaces it when something happens; who waits on it is
woken, so a fleet of thousands costs nothing while nothing happens. It behaves as the driver does
where the agent could tell: an XID that asks for a reset comes with recovery action 1, and only
`reset` or `reboot` takes that back.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tramontane.api.blade import Action
from tramontane.health import catalogue
from tramontane.health.device import (
    XID_EVENT,
    DeviceError,
    EccErrors,
    EccMode,
    Event,
    GpuFacts,
    GpuReading,
    Reading,
    RemappedRows,
    Unresponsive,
    Unsupported,
    Update,
)

_RECOVERY = {Action.RESET: 1, Action.REBOOT: 2}
_LOST = Unsupported("GpuIsLost")
_VALUES = (
    "ecc_mode",
    "ecc_errors",
    "sram_threshold_exceeded",
    "remapped_rows",
    "recovery_action",
    "temperature_c",
    "power_mw",
)
# All healthy GPUs of all blades share these.
_HEALTHY: dict[str, Any] = {
    "ecc_mode": EccMode(current=True, pending=True),
    "ecc_errors": EccErrors(),
    "sram_threshold_exceeded": False,
    "remapped_rows": RemappedRows(),
    "recovery_action": 0,
    "temperature_c": 41,
    "power_mw": 118_000,
}


class FakeDevice:
    """A simulated blade; the probe of an agent (`next`), and a `Device` for a child's loop."""

    def __init__(
        self,
        name: str,
        *,
        gpus: int = 8,
        product: str = "NVIDIA H200",
        memory_bytes: int = 141 << 30,
        driver: str = "580.95.05",
        cuda: str = "13.0",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._clock = clock
        self._boots = 0
        self._reading = Reading(
            boot_id=self._boot_id(),
            driver=driver,
            cuda=cuda,
            gpus=tuple(
                GpuReading(
                    index=index,
                    facts=_facts(name, index, product, memory_bytes),
                    **_HEALTHY,
                )
                for index in range(gpus)
            ),
        )
        self._facts = tuple(gpu.facts for gpu in self._reading.gpus)
        self._events: list[Event] = []
        self._strikes = 0
        self._changed = asyncio.Event()
        self._changed.set()

    # What an agent asks of a probe.

    async def next(self) -> Update:
        """Wait for a change and return all that is new; the first call returns at once."""
        await self._changed.wait()
        self._changed.clear()
        if self._strikes:
            evidence = "no answer from NVML"
            boot_id = self._reading.boot_id
            return Update(unresponsive=Unresponsive(self._strikes, evidence, boot_id))
        events, self._events = tuple(self._events), []
        return Update(reading=self._reading, events=events)

    async def aclose(self) -> None:
        """Let the next agent, too, begin with a reading."""
        self._changed.set()

    # What a child's loop asks of a device.

    def open(self) -> None:
        """Start the session, which fails while `fail_session` says so."""
        if self._reading.session_error:
            raise DeviceError(self._reading.session_error)

    def read(self) -> Reading:
        """Return the blade as it is."""
        self.open()
        return self._reading

    def close(self) -> None:
        """Do nothing: there is no session."""

    def wait(self, timeout_s: float) -> tuple[Event, ...]:
        """Return pending events, else nothing after `timeout_s`."""
        if not self._events:
            time.sleep(timeout_s)
        events, self._events = tuple(self._events), []
        return events

    # What happens to the blade.

    @property
    def reading(self) -> Reading:
        """Return the blade as it is."""
        return self._reading

    def set(self, gpu: int, **values: Any) -> None:
        """Change values of one GPU."""
        gpus = list(self._reading.gpus)
        gpus[gpu] = replace(gpus[gpu], **values)
        self._become(gpus=tuple(gpus))

    def xid(self, gpu: int, code: int) -> None:
        """Raise an XID, with the recovery action that the driver sets along with it."""
        event = Event(gpu, self._facts[gpu].uuid, XID_EVENT, code, self._clock())
        self._events.append(event)
        recovery = _RECOVERY.get(catalogue.look_up(code).action)
        if recovery is not None and not self._reading.gpus[gpu].lost:
            self.set(gpu, recovery_action=recovery)
        self._changed.set()

    def lose(self, gpu: int) -> None:
        """Let one GPU fall off the bus: XID 79, and no call about it succeeds any more."""
        self.xid(gpu, 79)
        self.set(gpu, lost=True, **dict.fromkeys(_VALUES, _LOST))

    def hang(self, strikes: int = 1) -> None:
        """Let the library give no answer, until `heal` or a reboot."""
        self._strikes = strikes
        self._changed.set()

    def fail_session(self, error: str) -> None:
        """Let the library be of no use at all, e.g. `DriverNotLoaded`."""
        self._become(session_error=error)

    def reset(self, gpu: int) -> None:
        """Reset one GPU: pending things take effect, volatile counts begin anew."""
        old = self._reading.gpus[gpu]
        if not old.lost:  # what fell off the bus does not hear a reset
            self.set(gpu, reset_required=False, **_HEALTHY)

    def reboot(self) -> None:
        """Reboot the blade: every GPU is back; what only new hardware ends goes on."""
        self._start_anew(tuple(_after_reboot(gpu) for gpu in self._reading.gpus))

    def heal(self) -> None:
        """Repair the blade as a technician does: whole again, and powered off meanwhile."""
        self._start_anew(
            tuple(
                GpuReading(index=index, facts=facts, **_HEALTHY)
                for index, facts in enumerate(self._facts)
            )
        )

    def _start_anew(self, gpus: tuple[GpuReading, ...]) -> None:
        self._boots += 1
        self._strikes = 0
        self._become(boot_id=self._boot_id(), session_error="", gpus=gpus)

    def _become(self, **changes: Any) -> None:
        self._reading = replace(self._reading, **changes)
        self._changed.set()

    def _boot_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}/boot/{self._boots}"))


def _after_reboot(gpu: GpuReading) -> GpuReading:
    values = dict(_HEALTHY)
    if isinstance(gpu.remapped_rows, RemappedRows):
        values["remapped_rows"] = replace(gpu.remapped_rows, pending=False)
    if gpu.sram_threshold_exceeded is True:
        values["sram_threshold_exceeded"] = True
    return GpuReading(index=gpu.index, facts=gpu.facts, **values)


def _facts(name: str, index: int, product: str, memory_bytes: int) -> GpuFacts:
    return GpuFacts(
        uuid=f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}/{index}')}",
        serial=f"{name}-{index}",
        pci_bus_id=f"{0:08X}:{0x10 + 0x10 * index:02X}:00.0",
        product=product,
        memory_bytes=memory_bytes,
        vbios="96.00.A5.00.01",
    )
