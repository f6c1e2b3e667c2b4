"""A blade in memory, with faults on demand: for unit tests and for simulated fleets.

`FakeDevice` keeps one frozen reading and replaces it when something happens; who waits on it is
woken, so a fleet of thousands costs nothing while nothing happens. It behaves as the driver does
where the agent could tell: an XID that asks for a reset comes with recovery action 1, and only
`reset` or `reboot` takes that back.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from tramontane.api.blade import Action
from tramontane.health import catalogue
from tramontane.health.device import (
    XID_EVENT,
    BankRemap,
    DeviceError,
    EccErrors,
    EccMode,
    Event,
    Fabric,
    GpuFacts,
    GpuReading,
    MigMode,
    NvLinkErrors,
    OfMax,
    PowerLimit,
    Reading,
    RemappedRows,
    Repair,
    RetiredPages,
    RowSpares,
    SramErrors,
    Unresponsive,
    Unsupported,
    Update,
    unread,
)
from tramontane.health.host import HostReading, Port

_RECOVERY = {Action.RESET: 1, Action.REBOOT: 2}
_LOST = Unsupported("GpuIsLost")
# What wears out, and what a reset changes nothing of.
_WORN = (
    "sram_threshold_exceeded",
    "sram_errors",
    "remapped_rows",
    "row_spares",
    "retired_pages",
    "bank_remap",
)
# All healthy GPUs of all blades share these. Tests hold that every value is among them.
HEALTHY: Mapping[str, Any] = MappingProxyType(
    {
        "recovery_action": 0,
        "ecc_mode": EccMode(current=True, pending=True),
        "ecc_errors": EccErrors(),
        "sram_threshold_exceeded": False,
        "sram_errors": SramErrors(),
        "remapped_rows": RemappedRows(),
        "row_spares": RowSpares(max=640),
        "retired_pages": RetiredPages(),
        "bank_remap": BankRemap(),
        "repair": Repair(),
        "nvlinks": (1,) * 18,
        "nvlink_errors": NvLinkErrors(*((0,) * 18,) * 4),
        "fabric": Fabric(state=3, summary=1),
        "pcie_width": OfMax(16, 16),
        "pcie_generation": OfMax(5, 5),
        "pcie_replays": 0,
        "temperature_c": 41,
        "temperature_max_c": 87,
        "memory_temperature_c": 47,
        "memory_temperature_max_c": 95,
        "thermal_margin_c": 46,
        "power_mw": 118_000,
        "energy_mj": 0,
        "power_limit": PowerLimit(enforced_mw=700_000, default_mw=700_000),
        "clock_reasons": 0x1,
        "utilization_pct": 0,
        "inforom_valid": True,
        "persistence": True,
        "mig": MigMode(),
        "processes": 0,
        "memory_used_bytes": 0,
    }
)


# All healthy blades share these: one adapter per GPU, as in the boxes of eight.
_PORTS = tuple(Port(f"mlx5_{n}", 1, "InfiniBand", "ACTIVE", "LinkUp", 400) for n in range(8))


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
                    **HEALTHY,
                )
                for index in range(gpus)
            ),
            host=HostReading(
                boot_id=self._boot_id(),
                ports=_PORTS,
                nvme=8,
                memory_bytes=2 << 40,
                clocksource="tsc",
                pci_gpus=gpus,
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

    def draw(self, seconds: float) -> None:
        """Let every GPU draw its power for so long: the meters of those that answer go on."""
        self._become(gpus=tuple(_metered(gpu, seconds) for gpu in self._reading.gpus))

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
        self.set(gpu, lost=True, **unread(_LOST))

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
            self.set(gpu, reset_required=False, **_anew(old))

    def reboot(self) -> None:
        """Reboot the blade: every GPU is back; what only new hardware ends goes on."""
        self._start_anew(
            tuple(
                GpuReading(index=gpu.index, facts=gpu.facts, **_anew(gpu))
                for gpu in self._reading.gpus
            )
        )

    def heal(self) -> None:
        """Repair the blade as a technician does: whole again, and powered off meanwhile."""
        self._start_anew(
            tuple(
                GpuReading(index=index, facts=facts, **HEALTHY)
                for index, facts in enumerate(self._facts)
            )
        )

    def _start_anew(self, gpus: tuple[GpuReading, ...]) -> None:
        self._boots += 1
        self._strikes = 0
        host = self._reading.host
        self._become(
            boot_id=self._boot_id(),
            session_error="",
            gpus=gpus,
            host=host and replace(host, boot_id=self._boot_id()),
        )

    def _become(self, **changes: Any) -> None:
        self._reading = replace(self._reading, **changes)
        self._changed.set()

    def _boot_id(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}/boot/{self._boots}"))


def _metered(gpu: GpuReading, seconds: float) -> GpuReading:
    if isinstance(gpu.energy_mj, Unsupported) or isinstance(gpu.power_mw, Unsupported):
        return gpu
    return replace(gpu, energy_mj=gpu.energy_mj + round(gpu.power_mw * seconds))


def _anew(gpu: GpuReading) -> dict[str, Any]:
    """Return a GPU's values after a reset: what only new hardware ends is as it was."""
    values = dict(HEALTHY)
    for name in _WORN:
        old = getattr(gpu, name)
        if not isinstance(old, Unsupported):
            values[name] = old
    for name in ("remapped_rows", "retired_pages", "bank_remap"):
        if not isinstance(values[name], Unsupported):
            values[name] = replace(values[name], pending=False)
    return values


def _facts(name: str, index: int, product: str, memory_bytes: int) -> GpuFacts:
    return GpuFacts(
        uuid=f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}/{index}')}",
        serial=f"{name}-{index}",
        pci_bus_id=f"{0:08X}:{0x10 + 0x10 * index:02X}:00.0",
        product=product,
        memory_bytes=memory_bytes,
        vbios="96.00.A5.00.01",
        gsp_firmware="580.95.05",
    )
