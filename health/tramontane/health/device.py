"""Say what a GPU library must offer to the agent, and give shape to what it reads.

Everything here is frozen and free of I/O, so that readings cross the pipe between the child and
the agent, are compared, and are judged by pure functions.

*Unknown is not healthy*: a value that could not be read is `Unsupported` and names the error. A
check that meets one says so, and neither opens nor clears a fault with it. Two errors are no
gaps in knowledge but findings: a GPU that is lost, and one that must be reset; a reading carries
them as flags, and the GPU's other values then are `Unsupported` too.

A new value is a field of `GpuReading` whose default is `NOT_READ`: the wire, the fake and the
tests follow from that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # host.py takes Unsupported from here
    from tramontane.health.host import HostReading

# Types of events, as NVML numbers them.
XID_EVENT = 0x8
RECOVERY_ACTION_EVENT = 0x8000
# Ours: an error of an NVSwitch, which only the kernel log tells.
SXID_EVENT = 0x10000

Source = Literal["nvml", "kmsg"]


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A value that could not be read; `error` is NVML's name for why, e.g. `FunctionNotFound`."""

    error: str


NOT_READ = Unsupported("NotRead")


@dataclass(frozen=True, slots=True)
class EccMode:
    """Whether ECC is on now, and whether it will be after the next reset."""

    current: bool
    pending: bool


@dataclass(frozen=True, slots=True)
class EccErrors:
    """Counts since the driver was loaded (volatile) and over the GPU's life (aggregate)."""

    volatile_corrected: int = 0
    volatile_uncorrected: int = 0
    aggregate_corrected: int = 0
    aggregate_uncorrected: int = 0


@dataclass(frozen=True, slots=True)
class RemappedRows:
    """Rows of memory that spare ones replace; a pending one needs a reset."""

    corrected: int = 0
    uncorrected: int = 0
    pending: bool = False
    failure: bool = False


@dataclass(frozen=True, slots=True)
class SramErrors:
    """Uncorrectable errors of on-chip memory, which no spare row replaces."""

    volatile: int = 0
    aggregate: int = 0


@dataclass(frozen=True, slots=True)
class RowSpares:
    """How many memory banks have how many spare rows left."""

    max: int = 0
    high: int = 0
    partial: int = 0
    low: int = 0
    none: int = 0


@dataclass(frozen=True, slots=True)
class RetiredPages:
    """Pages of memory out of use, by cause; GPUs before Ampere retire where later ones remap."""

    single_bit: int = 0
    double_bit: int = 0
    pending: bool = False


@dataclass(frozen=True, slots=True)
class BankRemap:
    """Banks of memory that spare ones replace; `exhausted` groups have no spare left."""

    active: int = 0
    pending: bool = False
    exhausted: int = 0


@dataclass(frozen=True, slots=True)
class Repair:
    """Repairs that the next reset makes: of a memory channel, of a processing cluster."""

    channel_pending: bool = False
    tpc_pending: bool = False


@dataclass(frozen=True, slots=True)
class NvLinkErrors:
    """Counts per link; empty where this generation does not count such errors."""

    replays: tuple[int, ...] = ()
    recoveries: tuple[int, ...] = ()
    crc: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()  # recoveries that did not bring the link back


@dataclass(frozen=True, slots=True)
class Fabric:
    """The GPU's registration with the NVLink fabric; numbers as NVML has them."""

    state: int = 0
    status: int = 0
    mask: int = 0
    summary: int = 0


@dataclass(frozen=True, slots=True)
class OfMax:
    """What a PCIe link runs at, and what slot and GPU both can do."""

    current: int
    maximum: int


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """The power (mW) that the GPU may draw, and what it was built for."""

    enforced_mw: int
    default_mw: int


@dataclass(frozen=True, slots=True)
class MigMode:
    """Whether the GPU is partitioned now, and whether it will be after the next reset."""

    current: bool = False
    pending: bool = False


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What a GPU is; does not change while it is there. Empty where it could not be read."""

    uuid: str = ""
    serial: str = ""
    pci_bus_id: str = ""
    product: str = ""
    memory_bytes: int = 0
    vbios: str = ""
    gsp_firmware: str = ""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at one GPU. `unread` names facts that the library does not tell."""

    index: int
    facts: GpuFacts = GpuFacts()
    unread: tuple[str, ...] = ()
    lost: bool = False
    reset_required: bool = False
    recovery_action: int | Unsupported = NOT_READ
    # Memory.
    ecc_mode: EccMode | Unsupported = NOT_READ
    ecc_errors: EccErrors | Unsupported = NOT_READ
    sram_threshold_exceeded: bool | Unsupported = NOT_READ
    sram_errors: SramErrors | Unsupported = NOT_READ
    remapped_rows: RemappedRows | Unsupported = NOT_READ
    row_spares: RowSpares | Unsupported = NOT_READ
    retired_pages: RetiredPages | Unsupported = NOT_READ
    bank_remap: BankRemap | Unsupported = NOT_READ
    repair: Repair | Unsupported = NOT_READ
    # Links. `nvlinks` has one state per link: 0 inactive, 1 active, 2 asleep, 3 without traffic.
    nvlinks: tuple[int, ...] | Unsupported = NOT_READ
    nvlink_errors: NvLinkErrors | Unsupported = NOT_READ
    fabric: Fabric | Unsupported = NOT_READ
    pcie_width: OfMax | Unsupported = NOT_READ
    pcie_generation: OfMax | Unsupported = NOT_READ
    pcie_replays: int | Unsupported = NOT_READ
    # Running conditions. `…_max_c`: the temperature beyond which it is not meant to work.
    temperature_c: int | Unsupported = NOT_READ
    temperature_max_c: int | Unsupported = NOT_READ
    memory_temperature_c: int | Unsupported = NOT_READ
    memory_temperature_max_c: int | Unsupported = NOT_READ
    thermal_margin_c: int | Unsupported = NOT_READ
    power_mw: int | Unsupported = NOT_READ
    energy_mj: int | Unsupported = NOT_READ
    power_limit: PowerLimit | Unsupported = NOT_READ
    clock_reasons: int | Unsupported = NOT_READ
    utilization_pct: int | Unsupported = NOT_READ
    # Setup and use.
    inforom_valid: bool | Unsupported = NOT_READ
    persistence: bool | Unsupported = NOT_READ
    mig: MigMode | Unsupported = NOT_READ
    processes: int | Unsupported = NOT_READ
    memory_used_bytes: int | Unsupported = NOT_READ

    @property
    def untold(self) -> str:
        """Return why not one value could be read; empty where one could, or a finding says why."""
        why = self.recovery_action
        if self.lost or self.reset_required or not isinstance(why, Unsupported):
            return ""
        told = any(not isinstance(getattr(self, name), Unsupported) for name in VALUES)
        return "" if told else why.error

    @property
    def nvlinks_active(self) -> int | None:
        """Return how many NVLinks carry traffic or sleep; None where that is not known."""
        if isinstance(self.nvlinks, Unsupported):
            return None
        return sum(state in NVLINK_UP for state in self.nvlinks)


# Source: nvml.h, NVML_NVLINK_STATE_*; a sleeping link wakes when it is used.
NVLINK_UP = frozenset({1, 2})

# Names of everything in a GpuReading that may be unknown.
VALUES = tuple(item.name for item in fields(GpuReading) if item.default is NOT_READ)


def unread(why: Unsupported) -> Mapping[str, Unsupported]:
    """Return the values of a GPU of which nothing can be read."""
    return dict.fromkeys(VALUES, why)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one blade. `session_error` is set where NVML could not be used at all.

    `pci_gpus` counts the GPUs on the PCI bus, whatever NVML says of them; None: not known.
    `host` is what the kernel says beside NVML; None: not read.
    """

    boot_id: str
    driver: str = ""
    cuda: str = ""
    gpus: tuple[GpuReading, ...] = ()
    pci_gpus: int | None = None
    session_error: str = ""
    events_error: str = ""
    host: "HostReading | None" = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading and when it was taken (Unix seconds)."""

    at: float
    reading: Reading


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a GPU's driver said at a moment: an XID, mostly. `gpu` is -1 if unknown.

    Only the kernel log tells the rest (kernel_lines.KernelLine); NVML's events leave it empty.

    Attributes:
        line: the line, word for word.
        fatal: what the line says of itself; None where it says nothing.
        pci: address of the GPU or switch, as the line has it.
        unit: the part that was struck, e.g. `GPC 2, TPC 1` or `link 9`.
        subcode: the kind of error, e.g. `NETIR_LINK_DOWN.4`.
        wanted: value of the Action that the line asks for; empty leaves it to the catalogue.
        count: how often it was said, where a flood was counted instead of told.
    """

    gpu: int
    uuid: str
    type: int
    data: int
    at: float
    line: str = ""
    source: Source = "nvml"
    fatal: bool | None = None
    pci: str = ""
    unit: str = ""
    subcode: str = ""
    wanted: str = ""
    count: int = 1

    @property
    def xid(self) -> int | None:
        """Return the XID, or None where the event is of another type."""
        return self.data if self.type == XID_EVENT else None

    @property
    def sxid(self) -> int | None:
        """Return the SXID, or None where the event is of another type."""
        return self.data if self.type == SXID_EVENT else None


@dataclass(frozen=True, slots=True)
class Unresponsive:
    """The library gave no answer in time, `strikes` times in a row, or its process died."""

    strikes: int
    evidence: str
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What a probe has that is new: a reading, events, or that there is no answer.

    `host` comes from the host's probe, which asks no driver and so cannot hang with one. `took_s`
    is how long the driver took for a look that it answered, whether or not it showed anything new.
    """

    reading: Reading | None = None
    events: tuple[Event, ...] = ()
    unresponsive: Unresponsive | None = None
    host: "HostReading | None" = None
    took_s: float | None = None


class DeviceError(Exception):
    """The library cannot be used at all; `args[0]` is its name for why."""


class Device(Protocol):
    """A GPU library's session, as the child process uses it; every call may block."""

    def open(self) -> None:
        """Start the session and register for events.

        Raises:
            DeviceError: the library cannot be used.
        """

    def read(self) -> Reading:
        """Return one look at the blade.

        Raises:
            DeviceError: the session is of no use any more; close it and open another.
        """

    def wait(self, timeout_s: float) -> tuple[Event, ...]:
        """Return events as soon as there are any; nothing after `timeout_s`."""

    def close(self) -> None:
        """End the session; harmless where there is none."""
