"""Say what a GPU library must offer to the agent, and give shape to what it reads.

Everything here is frozen and free of I/O, so that readings cross the pipe between the child and
the agent, are compared, and are judged by pure functions.

*Unknown is not healthy*: a value that could not be read is `Unsupported` and names the error. A
check that meets one says so, and neither opens nor clears a fault with it. Two errors are no
gaps in knowledge but findings: a GPU that is lost, and one that must be reset; a reading carries
them as flags, and the GPU's other values then are `Unsupported` too.
"""

from dataclasses import dataclass
from typing import Protocol

# Types of events, as NVML numbers them.
XID_EVENT = 0x8
RECOVERY_ACTION_EVENT = 0x8000


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A value that could not be read; `error` is NVML's name for why, e.g. `FunctionNotFound`."""

    error: str


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
class GpuFacts:
    """What a GPU is; does not change while it is there. Empty where it could not be read."""

    uuid: str = ""
    serial: str = ""
    pci_bus_id: str = ""
    product: str = ""
    memory_bytes: int = 0
    vbios: str = ""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at one GPU. `unread` names facts that the library does not tell."""

    index: int
    facts: GpuFacts = GpuFacts()
    unread: tuple[str, ...] = ()
    lost: bool = False
    reset_required: bool = False
    ecc_mode: EccMode | Unsupported = Unsupported("NotRead")
    ecc_errors: EccErrors | Unsupported = Unsupported("NotRead")
    sram_threshold_exceeded: bool | Unsupported = Unsupported("NotRead")
    remapped_rows: RemappedRows | Unsupported = Unsupported("NotRead")
    recovery_action: int | Unsupported = Unsupported("NotRead")
    temperature_c: int | Unsupported = Unsupported("NotRead")
    power_mw: int | Unsupported = Unsupported("NotRead")


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one blade. `session_error` is set where NVML could not be used at all.

    `pci_gpus` counts the GPUs on the PCI bus, whatever NVML says of them; None: not known.
    """

    boot_id: str
    driver: str = ""
    cuda: str = ""
    gpus: tuple[GpuReading, ...] = ()
    pci_gpus: int | None = None
    session_error: str = ""
    events_error: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a GPU's driver said at a moment: an XID, mostly. `gpu` is -1 if unknown."""

    gpu: int
    uuid: str
    type: int
    data: int
    at: float

    @property
    def xid(self) -> int | None:
        """Return the XID, or None where the event is of another type."""
        return self.data if self.type == XID_EVENT else None


@dataclass(frozen=True, slots=True)
class Unresponsive:
    """The library gave no answer in time, `strikes` times in a row, or its process died."""

    strikes: int
    evidence: str
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Update:
    """What a probe has that is new: a reading, events, or that there is no answer."""

    reading: Reading | None = None
    events: tuple[Event, ...] = ()
    unresponsive: Unresponsive | None = None


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
