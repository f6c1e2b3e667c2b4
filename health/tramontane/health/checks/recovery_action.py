"""recovery-action: the driver asks for nothing (NVML field 230).

| value | driver asks for    | severity | action  |
|-------|--------------------|----------|---------|
| 0     | nothing            | -        | -       |
| 1     | GPU reset          | Fatal    | Reset   |
| 2     | node reboot        | Fatal    | Reboot  |
| 3     | drain P2P          | Degraded | Drain   |
| 4     | drain and reset    | Degraded | Reset   |
| 5     | recover IMEX domain| Degraded | Drain   |
| 6     | bus reset          | Fatal    | Reset   |
| 7     | system reboot      | Fatal    | Reboot  |
| other | not known here     | Degraded | Inspect |
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading

NAME = "recovery-action"

_ASKED: Mapping[int, tuple[str, Severity, Action]] = MappingProxyType(
    {
        1: ("gpu-reset", Severity.FATAL, Action.RESET),
        2: ("node-reboot", Severity.FATAL, Action.REBOOT),
        3: ("drain-p2p", Severity.DEGRADED, Action.DRAIN),
        4: ("drain-and-reset", Severity.DEGRADED, Action.RESET),
        5: ("recover-imex", Severity.DEGRADED, Action.DRAIN),
        6: ("bus-reset", Severity.FATAL, Action.RESET),
        7: ("system-reboot", Severity.FATAL, Action.REBOOT),
    }
)


def _judge(gpu: GpuReading, value: int) -> Iterator[Finding]:
    if value == 0:
        return
    word, severity, action = _ASKED.get(value, ("unknown", Severity.DEGRADED, Action.INSPECT))
    evidence = f"the driver asks for recovery action {value} ({word})"
    yield from on(gpu, f"recovery-{word}", severity, action, evidence)


CHECK = per_gpu(
    NAME,
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; nvidia-resiliency-ext: any value but 0 is unhealthy",
    lambda gpu: gpu.recovery_action,
    _judge,
)
