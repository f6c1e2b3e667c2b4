"""The faults that `tramontane lab inject` knows, each as one pure change of a machine.

What they do to a job, to a test and to a repair is part of them: a GPU that fell off the bus kills
its rank, does not hear a reset and comes back with a reboot; a slow memory shows in a burn-in and
nowhere else, and only new parts mend it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from tramontane.api.blade import Action
from tramontane.api.errors import InvalidValue
from tramontane.api.names import Work
from tramontane.health import catalogue
from tramontane.health.device import EccErrors, OfMax, RemappedRows
from tramontane.lab.device import LabDevice
from tramontane.lab.nvml import NvmlState
from tramontane.lab.nvml.state import RECOVERY_ACTION_EVENT

_FELL_OFF_THE_BUS = 79
_DOUBLE_BIT_ECC = 48
_ROW_REMAP = 63
_ROW_REMAP_FAILURE = 64
_RESET, _REBOOT = 1, 2
_FLAP_S = 2
# XIDs after which the process on the GPU is dead (NVIDIA's catalogue: reset or worse).
_DEADLY = frozenset({46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158})


class Mend(IntEnum):
    """What ends a fault; whatever is stronger does too."""

    RESET = 1
    REBOOT = 2
    PARTS = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as asked for."""

    kind: str
    gpu: int = 0
    code: int | None = None

    def __str__(self) -> str:
        """Write it as a person would type it."""
        return self.kind if self.code is None else f"{self.kind} {self.code}"

    @property
    def mend(self) -> Mend:
        """Return the least that ends it."""
        known = KINDS[self.kind].mend
        return known(self) if callable(known) else known


Machine = Callable[[NvmlState, Fault], NvmlState]
Memory = Callable[[LabDevice, Fault], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault of one kind is and does; `machine` and `memory` say the same twice.

    `machine` changes what the simulated NVML library shows to a real agent, `memory` what an
    agent in the simulator sees. Both are there, or neither: then no look at the GPUs shows it.
    """

    help: str
    machine: Machine | None = None
    memory: Memory | None = None
    mend: Mend | Callable[[Fault], Mend] = Mend.PARTS
    takes_code: str = ""  # what the number after the name is; empty: there is none
    power: bool = False  # takes the node down
    silent: bool = False  # stops the blade's agent
    deaf: bool = False  # the GPU does not hear a reset
    flaps: bool = False  # comes and goes
    fails: Work | None = None  # the test that it fails
    trouble: str = ""  # what the rank says when it dies of it; empty: it lives


def _code(fault: Fault) -> int:
    """Return the code, or say that one is needed."""
    if fault.code is None:
        raise InvalidValue(f'must have a code, as in "{fault.kind} 94"', fault.kind)
    return fault.code


def _action(fault: Fault) -> int:
    return _RESET if fault.code is None else fault.code


def _values(machine: Mapping[str, Any], memory: Mapping[str, Any]) -> dict[str, Any]:
    """Return both effects of values that are simply other ones."""
    return {
        "machine": lambda state, fault: state.with_gpu(fault.gpu, **machine),
        "memory": lambda device, fault: device.change(fault.gpu, memory),
    }


def _one_down(links: tuple[int, ...]) -> tuple[int, ...]:
    return (*links[:-1], 0)


def _gone_machine(state: NvmlState, fault: Fault) -> NvmlState:
    left = tuple(one for index, one in enumerate(state.gpus) if index != fault.gpu)
    return replace(state, gpus=left)


def _ecc_machine(state: NvmlState, fault: Fault) -> NvmlState:
    gpu = state.gpus[fault.gpu]
    counts = {"ecc_vol_unc": gpu.ecc_vol_unc + 1, "ecc_agg_unc": gpu.ecc_agg_unc + 1}
    return state.with_gpu(fault.gpu, **counts).with_xid(fault.gpu, _DOUBLE_BIT_ECC)


def _ecc_memory(device: LabDevice, fault: Fault) -> None:
    errors = EccErrors(volatile_uncorrected=1, aggregate_uncorrected=1)
    device.set(fault.gpu, ecc_errors=errors)
    device.xid(fault.gpu, _DOUBLE_BIT_ECC)


def _remap_machine(state: NvmlState, fault: Fault) -> NvmlState:
    return state.with_gpu(fault.gpu, remap_failure=True).with_xid(fault.gpu, _ROW_REMAP_FAILURE)


def _remap_memory(device: LabDevice, fault: Fault) -> None:
    device.set(fault.gpu, remapped_rows=RemappedRows(failure=True))
    device.xid(fault.gpu, _ROW_REMAP_FAILURE)


def _pending_machine(state: NvmlState, fault: Fault) -> NvmlState:
    state = state.with_gpu(fault.gpu, remap_unc=1, remap_pending=True)
    return state.with_xid(fault.gpu, _ROW_REMAP)


def _pending_memory(device: LabDevice, fault: Fault) -> None:
    device.set(fault.gpu, remapped_rows=RemappedRows(uncorrected=1, pending=True))
    device.xid(fault.gpu, _ROW_REMAP)


def _recovery_machine(state: NvmlState, fault: Fault) -> NvmlState:
    state = state.with_gpu(fault.gpu, recovery_action=_action(fault))
    return state.with_event(fault.gpu, RECOVERY_ACTION_EVENT, _action(fault))


def _flap_machine(state: NvmlState, fault: Fault) -> NvmlState:
    return _recovery_machine(state, replace(fault, code=_RESET))


def _mend_of_xid(fault: Fault) -> Mend:
    reboots = catalogue.look_up(_code(fault)).action is Action.REBOOT
    return Mend.REBOOT if reboots else Mend.RESET


def _mend_of_recovery(fault: Fault) -> Mend:
    return Mend.REBOOT if _action(fault) == _REBOOT else Mend.RESET


# Clock event reasons. Source: nvml.h, nvmlClocksEventReasonHwSlowdown, …HwThermalSlowdown and
# …HwPowerBrakeSlowdown.
_HW_SLOWDOWN, _HW_THERMAL, _HW_POWER_BRAKE = 0x8, 0x40, 0x80
_TOO_HOT_C = 96

KINDS = {
    "gpu-lost": Kind(
        "a GPU falls off the bus: XID 79, and NVML says that it is lost",
        machine=lambda state, fault: state.with_gpu(fault.gpu, lost=True).with_xid(
            fault.gpu, _FELL_OFF_THE_BUS
        ),
        memory=lambda device, fault: device.lose(fault.gpu),
        mend=Mend.REBOOT,
        deaf=True,
        trouble="CUDA error: unspecified launch failure",
    ),
    "dead-on-arrival": Kind(
        "a GPU is not there at all: the driver shows one less",
        machine=_gone_machine,
        memory=lambda device, fault: device.remove(fault.gpu),
        deaf=True,
        trouble="CUDA error: invalid device ordinal",
    ),
    "xid": Kind(
        "the driver raises the XID CODE on a GPU",
        machine=lambda state, fault: state.with_xid(fault.gpu, _code(fault)),
        memory=lambda device, fault: device.xid(fault.gpu, _code(fault)),
        mend=_mend_of_xid,
        takes_code="CODE",
    ),
    "ecc-dbe": Kind(
        "an uncorrectable memory error: XID 48 and the counters",
        machine=_ecc_machine,
        memory=_ecc_memory,
        mend=Mend.RESET,
        trouble="CUDA error: uncorrectable ECC error encountered",
    ),
    "row-remap-pending": Kind(
        "a row of memory waits for a reset to be replaced: XID 63 and the flag",
        machine=_pending_machine,
        memory=_pending_memory,
        mend=Mend.RESET,
    ),
    "row-remap-failure": Kind(
        "no spare row is left: XID 64 and the flag",
        machine=_remap_machine,
        memory=_remap_memory,
        trouble="CUDA error: uncorrectable ECC error encountered",
    ),
    "recovery-action": Kind(
        "NVML asks for a recovery action: 1 reset (if not given), 2 reboot",
        machine=_recovery_machine,
        memory=lambda device, fault: device.set(fault.gpu, recovery_action=_action(fault)),
        mend=_mend_of_recovery,
        takes_code="[N]",
    ),
    "flapping": Kind(
        "NVML asks for a reset and takes it back, every N seconds (2 if not given)",
        machine=_flap_machine,
        memory=lambda device, fault: device.change(fault.gpu, {"recovery_action": _RESET}),
        takes_code="[N]",
        flaps=True,
    ),
    "thermal": Kind(
        "a GPU is too hot and slows down",
        **_values(
            {"temperature": _TOO_HOT_C, "clock_reasons": _HW_SLOWDOWN | _HW_THERMAL},
            {
                "temperature_c": _TOO_HOT_C,
                "thermal_margin_c": -9,
                "clock_reasons": _HW_SLOWDOWN | _HW_THERMAL,
            },
        ),
    ),
    "clocks": Kind(
        "the power supply makes a GPU slow down (power brake)",
        **_values(
            {"clock_reasons": _HW_SLOWDOWN | _HW_POWER_BRAKE},
            {"clock_reasons": _HW_SLOWDOWN | _HW_POWER_BRAKE},
        ),
    ),
    "nvlink-down": Kind(
        "one NVLink of a GPU is down",
        machine=lambda state, fault: state.with_gpu(
            fault.gpu, nvlink=_one_down(state.gpus[fault.gpu].nvlink)
        ),
        memory=lambda device, fault: device.change(fault.gpu, {"nvlinks": _one_down((1,) * 18)}),
        mend=Mend.RESET,
        fails=Work.COLLECTIVE,
    ),
    "pcie-width": Kind(
        "a GPU has 8 of its 16 PCIe lanes",
        **_values({"pcie_width": 8}, {"pcie_width": OfMax(8, 16)}),
        fails=Work.BURN_IN,
    ),
    "slow-memory": Kind(
        "memory at half its bandwidth: only a burn-in shows it", fails=Work.BURN_IN
    ),
    "bad-link": Kind(
        "a network link that is slow under load: only a collective test shows it",
        fails=Work.COLLECTIVE,
    ),
    "hang": Kind(
        "every NVML call hangs; what runs on the GPUs runs on",
        machine=lambda state, _: replace(state, hang=True),
        memory=lambda device, _: device.hang(),
        mend=Mend.REBOOT,
        deaf=True,
    ),
    "node-down": Kind(
        "the node loses power: no heartbeat, no agent, pods frozen",
        power=True,
        silent=True,
        trouble="no route to host",
    ),
    "agent-silent": Kind("the blade's health agent stops; all else works", silent=True),
}


def parse_fault(text: str, gpu: int = 0, gpus: int = 8) -> Fault:
    """Read a fault as a person types it: `gpu-lost`, `xid 94`, `recovery-action 2`.

    Raises:
        InvalidValue: there is no such fault, or no such GPU.
    """
    kind, _, code = text.strip().partition(" ")
    code = code.strip()
    if kind not in KINDS:
        raise InvalidValue(f"must be one of {', '.join(KINDS)}", text)
    if code and not (code.isdecimal() and KINDS[kind].takes_code):
        raise InvalidValue(f"must be {kind} and no more, or a number where it takes one", text)
    if not 0 <= gpu < gpus:
        raise InvalidValue(f"must be a GPU from 0 to {gpus - 1}", gpu)
    fault = Fault(kind, gpu, int(code) if code else None)
    if kind == "xid":
        _code(fault)
    return fault


def trouble_of(fault: Fault) -> str:
    """Return what a rank on the blade says as it dies of the fault; empty when it lives."""
    if fault.kind == "xid" and fault.code in _DEADLY:
        return f"CUDA error: the GPU failed (XID {fault.code})"
    return KINDS[fault.kind].trouble


def flap_s(fault: Fault) -> float:
    """Return how long a flapping fault is there, and then away."""
    return float(max(1, _FLAP_S if fault.code is None else fault.code))


def left_after(faults: Iterable[Fault], mend: Mend, gpu: int | None) -> tuple[Fault, ...]:
    """Return what a repair leaves; `gpu` None: of all GPUs, as a reboot is."""
    return tuple(one for one in faults if one.mend > mend or (gpu is not None and gpu != one.gpu))


def calm_machine(state: NvmlState, fault: Fault) -> NvmlState:
    """Return the machine while a flapping fault is away."""
    return state.with_gpu(fault.gpu, recovery_action=0)


def calm_memory(device: LabDevice, fault: Fault) -> None:
    """Let a flapping fault be away."""
    device.change(fault.gpu, {"recovery_action": 0})
