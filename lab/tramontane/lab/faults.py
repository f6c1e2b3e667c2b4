"""The faults that `tramontane lab inject` knows, each as one pure change of a machine.

What they do to a job is part of them: a GPU that fell off the bus kills its rank, a pending row
remap does not.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tramontane.api.errors import InvalidValue
from tramontane.health.device import EccErrors, RemappedRows
from tramontane.health.fake import FakeDevice
from tramontane.lab.nvml import NvmlState
from tramontane.lab.nvml.state import RECOVERY_ACTION_EVENT

_FELL_OFF_THE_BUS = 79
_DOUBLE_BIT_ECC = 48
_ROW_REMAP_FAILURE = 64
_RESET = 1
# XIDs after which the process on the GPU is dead (NVIDIA's catalogue: reset or worse).
_DEADLY = frozenset({46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as asked for."""

    kind: str
    gpu: int = 0
    code: int | None = None

    def __str__(self) -> str:
        """Write it as a person would type it."""
        return self.kind if self.code is None else f"{self.kind} {self.code}"


Machine = Callable[[NvmlState, Fault], NvmlState]
Memory = Callable[[FakeDevice, Fault], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a fault of one kind is and does; `machine` and `memory` say the same twice.

    `machine` changes what the simulated NVML library shows to a real agent, `memory` what an
    agent in the simulator sees. Both are there, or neither: then the fault is the node's.
    """

    help: str
    machine: Machine | None = None
    memory: Memory | None = None
    takes_code: bool = False
    power: bool = False  # takes the node down
    silent: bool = False  # stops the blade's agent
    trouble: str = ""  # what the rank says when it dies of it; empty: it lives


def _code(fault: Fault) -> int:
    """Return the code, or say that one is needed."""
    if fault.code is None:
        raise InvalidValue(f'must have a code, as in "{fault.kind} 94"', fault.kind)
    return fault.code


def _action(fault: Fault) -> int:
    return _RESET if fault.code is None else fault.code


def _ecc_machine(state: NvmlState, fault: Fault) -> NvmlState:
    gpu = state.gpus[fault.gpu]
    counts = {"ecc_vol_unc": gpu.ecc_vol_unc + 1, "ecc_agg_unc": gpu.ecc_agg_unc + 1}
    return state.with_gpu(fault.gpu, **counts).with_xid(fault.gpu, _DOUBLE_BIT_ECC)


def _ecc_memory(device: FakeDevice, fault: Fault) -> None:
    errors = EccErrors(volatile_uncorrected=1, aggregate_uncorrected=1)
    device.set(fault.gpu, ecc_errors=errors)
    device.xid(fault.gpu, _DOUBLE_BIT_ECC)


def _remap_machine(state: NvmlState, fault: Fault) -> NvmlState:
    return state.with_gpu(fault.gpu, remap_failure=True).with_xid(fault.gpu, _ROW_REMAP_FAILURE)


def _remap_memory(device: FakeDevice, fault: Fault) -> None:
    device.set(fault.gpu, remapped_rows=RemappedRows(failure=True))
    device.xid(fault.gpu, _ROW_REMAP_FAILURE)


def _recovery_machine(state: NvmlState, fault: Fault) -> NvmlState:
    state = state.with_gpu(fault.gpu, recovery_action=_action(fault))
    return state.with_event(fault.gpu, RECOVERY_ACTION_EVENT, _action(fault))


KINDS = {
    "gpu-lost": Kind(
        "a GPU falls off the bus: XID 79, and NVML says that it is lost",
        machine=lambda state, fault: state.with_gpu(fault.gpu, lost=True).with_xid(
            fault.gpu, _FELL_OFF_THE_BUS
        ),
        memory=lambda device, fault: device.lose(fault.gpu),
        trouble="CUDA error: unspecified launch failure",
    ),
    "xid": Kind(
        "the driver raises the XID CODE on a GPU",
        machine=lambda state, fault: state.with_xid(fault.gpu, _code(fault)),
        memory=lambda device, fault: device.xid(fault.gpu, _code(fault)),
        takes_code=True,
    ),
    "ecc-dbe": Kind(
        "an uncorrectable memory error: XID 48 and the counters",
        machine=_ecc_machine,
        memory=_ecc_memory,
        trouble="CUDA error: uncorrectable ECC error encountered",
    ),
    "row-remap-failure": Kind(
        "no spare row is left: XID 64 and the flag",
        machine=_remap_machine,
        memory=_remap_memory,
        trouble="CUDA error: uncorrectable ECC error encountered",
    ),
    "recovery-action": Kind(
        "NVML asks for a recovery action; CODE 1 reset (if not given), 2 reboot",
        machine=_recovery_machine,
        memory=lambda device, fault: device.set(fault.gpu, recovery_action=_action(fault)),
        takes_code=True,
    ),
    "hang": Kind(
        "every NVML call hangs; what runs on the GPUs runs on",
        machine=lambda state, _: replace(state, hang=True),
        memory=lambda device, _: device.hang(),
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
