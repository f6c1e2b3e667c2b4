"""Read what the kernel shows of a blade beside its GPUs' driver: links, drives, memory, the bus.

Plain files under /sys and /proc: nothing here can hang with NVML, and nothing needs a tool. What
is not there is `Unsupported`: a blade without InfiniBand is no faulty blade; whether it should
have some is the pool's to say, by `Report.network`.

Counters of a port are read where its link layer is InfiniBand. On a converged adapter in Ethernet
mode each look at them makes the driver complain in the kernel log (gpud#1164), and what they would
say its network device says too: `carrier_changes`. That device is to be seen in the /sys of its
own network namespace only, the host's.

A device that software made (a virtual function of SR-IOV, a subfunction) or that lies behind a
network (NVMe over Fabrics) comes and goes by somebody's order: it is no part of the blade. A
virtual function that a virtual machine was given is, in there, a device like any other.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tramontane.health.device import NOT_READ, Unsupported

SYS = Path("/sys")
PROC = Path("/proc")

INFINIBAND = "InfiniBand"

_COUNTERS = (
    "link_downed",
    "link_error_recovery",
    "symbol_error",
    "port_rcv_errors",
    "excessive_buffer_overrun_errors",
    "local_link_integrity_errors",
)
_HARDWARE_COUNTERS = ("rnr_nak_retry_err",)
# What the kernel shows of a device that software made.
_MADE = ("physfn", "sfnum")
# Any other state (live, resetting, connecting) is one that a drive comes back from by itself.
_NVME_GONE = frozenset({"dead", "deleting", "deleting (no IO)"})
# Old kernels do not say how a drive is reached.
_NVME_LOCAL = frozenset({"pcie", ""})
_NVIDIA = "0x10de"
# VGA and 3D controllers.
_GPU_CLASSES = ("0x0300", "0x0302")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Port:
    """One port of an InfiniBand or RoCE adapter; `rate_gbps` is that of its link now.

    `counters` are pairs of name and value, sorted; only those that the port has.
    """

    device: str
    port: int
    link_layer: str = ""
    state: str = ""
    phys_state: str = ""
    rate_gbps: int = 0
    counters: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """Return the port's name as tools print it: `mlx5_0/1`."""
        return f"{self.device}/{self.port}"

    @property
    def active(self) -> bool:
        """Return whether the port carries traffic."""
        return self.state == "ACTIVE"


@dataclass(frozen=True, slots=True)
class Rise:
    """By how much counters of a port had grown at a look; `seconds`: since the look before."""

    at: float
    seconds: float
    grown: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PortPast:
    """What is remembered of a port (host_past.py); times are Unix seconds.

    Attributes:
        best_gbps: highest rate at which it was active; 0: it never was.
        down_since: since when it is not active, having been so.
        returns: when it came back after having been down for a while.
        counters: as they were last read.
        rises: how they grew in the last hour.
    """

    name: str
    best_gbps: int = 0
    down_since: float | None = None
    returns: tuple[float, ...] = ()
    counters: tuple[tuple[str, int], ...] = ()
    rises: tuple[Rise, ...] = ()


@dataclass(frozen=True, slots=True)
class HostPast:
    """What is remembered of the host, `since` the agent has started (host_past.py).

    The most that was there is counted from a person's release on, if there was one.
    """

    since: float = 0.0
    ports: tuple[PortPast, ...] = ()
    most_nvme: int = 0
    most_memory_bytes: int = 0
    most_pci_gpus: int = 0


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the blade without its GPUs' driver.

    Attributes:
        kernel_log: why the kernel log cannot be read; empty if it can.
        nvme: drives in the blade whose controller is not dead.
        memory_bytes: what the kernel manages, which is a little less than what is plugged in.
        pci_gpus: NVIDIA display and 3D controllers on the PCI bus.
        past: what earlier looks have shown.
    """

    boot_id: str = ""
    kernel_log: str = ""
    ports: tuple[Port, ...] | Unsupported = NOT_READ
    nvme: int | Unsupported = NOT_READ
    memory_bytes: int | Unsupported = NOT_READ
    clocksource: str | Unsupported = NOT_READ
    pci_gpus: int | Unsupported = NOT_READ
    past: HostPast = HostPast()


def read(sys: Path = SYS, proc: Path = PROC) -> HostReading:
    """Return one look; some hundred small files. The caller adds boot ID and kernel log."""
    clock = sys / "devices/system/clocksource/clocksource0/current_clocksource"
    return HostReading(
        ports=_or_unsupported(lambda: _ports(sys / "class/infiniband")),
        nvme=_or_unsupported(lambda: _nvme(sys / "class/nvme")),
        memory_bytes=_or_unsupported(lambda: _memory(proc / "meminfo")),
        clocksource=_or_unsupported(lambda: _text(clock)),
        pci_gpus=_or_unsupported(lambda: _gpus(sys / "bus/pci/devices")),
    )


def _or_unsupported(look: Callable[[], T]) -> T | Unsupported:
    try:
        return look()
    except OSError as error:
        return Unsupported(type(error).__name__)
    except (ValueError, IndexError):
        return Unsupported("Unintelligible")


def _text(path: Path) -> str:
    return path.read_text().strip()


def _text_or_none(path: Path) -> str:
    """Return what a file holds; nothing where a sick device does not let it be read."""
    try:
        return _text(path)
    except OSError:
        return ""


def _ports(root: Path) -> tuple[Port, ...]:
    return tuple(
        _port(device, port)
        for device in sorted(root.iterdir(), key=lambda path: path.name)
        if not _is_made(device / "device")
        for port in sorted((device / "ports").iterdir(), key=lambda path: int(path.name))
    )


def _is_made(device: Path) -> bool:
    """Return whether software made a device, and may take it away."""
    return any((device / name).exists() for name in _MADE)


def _port(device: Path, port: Path) -> Port:
    link_layer = _text_or_none(port / "link_layer")
    rate = _text_or_none(port / "rate").split()
    counters: list[tuple[str, int]] = []
    if link_layer == INFINIBAND:
        counters += _numbers(port / "counters", _COUNTERS)
        counters += _numbers(port / "hw_counters", _HARDWARE_COUNTERS)
    else:
        changes = [
            value
            for network in _children(device / "device/net")
            for _, value in _numbers(network, ("carrier_changes",))
        ]
        counters += [("carrier_changes", sum(changes))] if changes else []
    return Port(
        device=device.name,
        port=int(port.name),
        link_layer=link_layer,
        state=_word(_text_or_none(port / "state")),
        phys_state=_word(_text_or_none(port / "phys_state")),
        rate_gbps=round(float(rate[0])) if rate else 0,
        counters=tuple(sorted(counters)),
    )


def _word(text: str) -> str:
    """Return `ACTIVE` of `4: ACTIVE`."""
    return text.rpartition(":")[2].strip()


def _numbers(folder: Path, names: Iterable[str]) -> list[tuple[str, int]]:
    """Return those counters that there are: which ones depends on the adapter's driver."""
    found = []
    for name in names:
        try:
            found.append((name, int(_text(folder / name))))
        except (OSError, ValueError):
            continue
    return found


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _nvme(root: Path) -> int:
    return sum(
        _text(drive / "state") not in _NVME_GONE
        for drive in root.iterdir()
        if _text_or_none(drive / "transport") in _NVME_LOCAL and not _is_made(drive / "device")
    )


def _memory(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    raise ValueError("MemTotal")


def _gpus(devices: Path) -> int:
    return sum(
        _text(device / "vendor") == _NVIDIA
        and _text(device / "class").startswith(_GPU_CLASSES)
        and not _is_made(device)
        for device in devices.iterdir()
    )
