"""gpu-idle: a GPU that does nothing is held by nobody.

| for ten minutes                             | code            | severity | action  |
|---------------------------------------------|-----------------|----------|---------|
| processes that compute nothing              | idle-processes  | Info     | Inspect |
| no process, yet more than 512 MiB in use    | idle-memory     | Info     | Inspect |

Whether a process belongs to a pod is not known here, and a job that waits for its data looks the
same; so both are only worth knowing.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import GpuReading, Unsupported

# Source: nvidia-resiliency-ext tolerates 512 MB on a GPU that should be free.
MAX_HELD_BYTES = 512 << 20
# All of the window, but for the time between two looks.
FOR_S = window.WINDOW_S - window.GAP_S


def _idle(gpu: GpuReading) -> bool:
    return not isinstance(gpu.utilization_pct, Unsupported) and gpu.utilization_pct == 0


def _has_processes(gpu: GpuReading) -> bool:
    return _idle(gpu) and not isinstance(gpu.processes, Unsupported) and gpu.processes > 0


def _holds_memory(gpu: GpuReading) -> bool:
    return (
        _idle(gpu)
        and gpu.processes == 0
        and not isinstance(gpu.memory_used_bytes, Unsupported)
        and gpu.memory_used_bytes > MAX_HELD_BYTES
    )


def _judge(gpu: GpuReading, _processes: int, past: Past) -> Iterator[Finding]:
    for holds, code, evidence in (
        (_has_processes, "idle-processes", "processes hold the GPU and compute nothing"),
        (_holds_memory, "idle-memory", "memory is in use without any process"),
    ):
        if holds(gpu) and window.seconds_held(past, gpu, holds) >= FOR_S:
            yield from on(gpu, code, Severity.INFO, Action.INSPECT, evidence)


CHECK = over_time(
    "gpu-idle",
    "nvidia-resiliency-ext: 512 MB; gcm and soperator: foreign processes",
    lambda gpu: gpu.processes,
    _judge,
    span_s=FOR_S,
)
