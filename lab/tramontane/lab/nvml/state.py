"""Describe the simulated machine and write the file from which the library answers.

`NvmlState` is a frozen value: each `with_…` returns the machine after one change, and
`StateFile.write` puts it in place atomically. The library notices within 5 ms. Field names are
the keys of the file (`src/state.c`).
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

XID_EVENT = 0x8
RECOVERY_ACTION_EVENT = 0x8000
FUNCTION_NOT_FOUND = 13
ENV_STATE = "TRAMONTANE_NVML_STATE"

# The library's ring holds 256; enough for any client that still listens.
_KEPT_EVENTS = 64
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class NvmlEvent:
    """One event for `nvmlEventSetWait`; `data` is the XID where the type is XID_EVENT."""

    seq: int
    gpu: int
    type: int
    data: int


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU as NVML would show it; `fail` maps a C function or `field-<id>` to a return code."""

    product: str
    uuid: str
    serial: str
    bus_id: str
    vbios: str = "96.00.A5.00.01"
    gsp: str = "580.95.05"
    memory: int = 141 * _GIB
    memory_used: int = 0
    ecc_current: int = 1
    ecc_pending: int = 1
    ecc_vol_corr: int = 0
    ecc_vol_unc: int = 0
    ecc_agg_corr: int = 0
    ecc_agg_unc: int = 0
    ecc_sram_unc: int = 0
    ecc_sram_threshold: bool = False
    remap_corr: int = 0
    remap_unc: int = 0
    remap_pending: bool = False
    remap_failure: bool = False
    banks_without_spares: int = 0
    bank_active: int = 0
    bank_pending: bool = False
    bank_exhausted: int = 0
    retires_pages: bool = False  # as GPUs did before Ampere
    retired_single: int = 0
    retired_double: int = 0
    retired_pending: bool = False
    repair_channel: bool = False
    repair_tpc: bool = False
    recovery_action: int = 0
    temperature: int = 41
    memory_temperature: int = 47
    margin: int = 46
    power_mw: int = 118_000
    power_limit_mw: int = 700_000
    power_default_mw: int = 700_000
    clock_reasons: int = 0x1
    utilization: int = 0
    persistence: bool = True
    mig_current: bool = False
    mig_pending: bool = False
    processes: int = 0
    pcie_width: int = 16
    pcie_max_width: int = 16
    pcie_gen: int = 5
    pcie_max_gen: int = 5
    pcie_replays: int = 0
    fabric_state: int = 3
    fabric_status: int = 0
    fabric_mask: int = 0
    fabric_summary: int = 1
    fabric_clique: int = 0
    inforom_corrupt: bool = False
    lost: bool = False
    reset_required: bool = False
    hang: bool = False
    nvlink: tuple[int, ...] = (1,) * 18
    nvlink5: bool = False
    nvlink_replays: tuple[int, ...] = ()
    nvlink_recoveries: tuple[int, ...] = ()
    nvlink_crc: tuple[int, ...] = ()
    nvlink_failed: tuple[int, ...] = ()
    fail: Mapping[str, int] = field(default_factory=dict)

    def lines(self, index: int) -> list[str]:
        """Return this GPU's lines of the state file."""
        out = [f"gpu {index}"]
        for item in fields(self):
            value: Any = getattr(self, item.name)
            if item.name == "fail":
                out += [f"fail {name} {code}" for name, code in sorted(value.items())]
            elif isinstance(value, tuple):
                out.append(f"{item.name} {' '.join(map(str, value))}")
            else:
                out.append(f"{item.name} {int(value) if isinstance(value, bool) else value}")
        return out


@dataclass(frozen=True, slots=True)
class NvmlState:
    """A machine: its GPUs, its driver, what is wrong with the library, and the events so far."""

    gpus: tuple[GpuState, ...]
    driver: str = "580.95.05"
    cuda: int = 13000
    hang: bool = False
    init_error: int = 0
    fail: Mapping[str, int] = field(default_factory=dict)
    events: tuple[NvmlEvent, ...] = ()
    next_seq: int = 1

    def with_gpu(self, index: int, **changes: Any) -> Self:
        """Return the machine with fields of one GPU changed."""
        gpus = list(self.gpus)
        gpus[index] = replace(gpus[index], **changes)
        return replace(self, gpus=tuple(gpus))

    def with_event(self, gpu: int, type_: int, data: int) -> Self:
        """Return the machine with one more event."""
        event = NvmlEvent(self.next_seq, gpu, type_, data)
        events = (*self.events, event)[-_KEPT_EVENTS:]
        return replace(self, events=events, next_seq=self.next_seq + 1)

    def with_xid(self, gpu: int, xid: int) -> Self:
        """Return the machine after the driver has raised an XID on one GPU."""
        return self.with_event(gpu, XID_EVENT, xid)

    def without_functions(self, *names: str) -> Self:
        """Return the machine with an older driver, one that lacks these functions."""
        return replace(self, fail={**self.fail, **dict.fromkeys(names, FUNCTION_NOT_FOUND)})

    def render(self) -> str:
        """Return the state file's text."""
        lines = [
            f"driver {self.driver}",
            f"cuda {self.cuda}",
            f"hang {int(self.hang)}",
            f"init-error {self.init_error}",
            *(f"fail {name} {code}" for name, code in sorted(self.fail.items())),
        ]
        for index, gpu in enumerate(self.gpus):
            lines += gpu.lines(index)
        lines += [f"event {e.seq} {e.gpu} {e.type} {e.data}" for e in self.events]
        return "\n".join(lines) + "\n"


def blade(name: str, *, count: int = 8, product: str = "NVIDIA H200", **gpu: Any) -> NvmlState:
    """Return a healthy machine whose identities all follow from its name."""
    return NvmlState(
        tuple(
            GpuState(
                product=product,
                uuid=f"GPU-{name}-{index}",
                serial=f"{name}-{index}",
                bus_id=f"{0:08X}:{0x10 + 0x10 * index:02X}:00.0",
                **gpu,
            )
            for index in range(count)
        )
    )


@dataclass(slots=True)
class StateFile:
    """The file of one machine. `state` is what was written last."""

    path: Path
    state: NvmlState = field(default_factory=lambda: NvmlState(()))

    def write(self, state: NvmlState) -> None:
        """Put `state` in place; the library sees all of it or nothing."""
        handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}-", dir=self.path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(state.render())
        Path(temporary).replace(self.path)
        self.state = state

    def change(self, index: int, **changes: Any) -> None:
        """Write the machine with fields of one GPU changed."""
        self.write(self.state.with_gpu(index, **changes))

    def xid(self, gpu: int, xid: int) -> None:
        """Write the machine with one more XID event."""
        self.write(self.state.with_xid(gpu, xid))

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process sees this machine."""
        return {ENV_STATE: str(self.path)}
