"""thermal: GPU and memory stay below the temperatures that they were built for.

| for a minute                          | code              | severity | action  |
|---------------------------------------|-------------------|----------|---------|
| GPU hotter than its maximum           | thermal-gpu       | Degraded | Inspect |
| memory hotter than its maximum        | thermal-memory    | Degraded | Inspect |
| margin below 0, GPU's maximum unknown | thermal-margin    | Info     | Inspect |

Some GPUs show a margin of 0 or less while all is well, for which gpud leaves its check of it off;
so the margin only speaks where nothing better does, and then only for information. GPU and memory
have a maximum each, and many cards none for their memory: each is judged where its own is known.
The check is unknown where nothing can be said of the GPU itself.
"""

from collections.abc import Callable, Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import GpuReading, Unsupported

# Source: gpud calls a GPU degraded above GPU max or HBM max; for how long is our choice.
FOR_S = 60.0


def _hot_gpu(gpu: GpuReading) -> bool:
    return _hot(gpu.temperature_c, gpu.temperature_max_c)


def _hot_memory(gpu: GpuReading) -> bool:
    return _hot(gpu.memory_temperature_c, gpu.memory_temperature_max_c)


def _hot(now_c: int | Unsupported, max_c: int | Unsupported) -> bool:
    if isinstance(now_c, Unsupported) or isinstance(max_c, Unsupported):
        return False
    return 0 < max_c < now_c


def _no_margin(gpu: GpuReading) -> bool:
    margin = gpu.thermal_margin_c
    return (
        isinstance(gpu.temperature_max_c, Unsupported)
        and not isinstance(margin, Unsupported)
        and margin < 0
    )


_RULES: tuple[tuple[Callable[[GpuReading], bool], str, Severity, str], ...] = (
    (_hot_gpu, "thermal-gpu", Severity.DEGRADED, "the GPU is hotter than its maximum"),
    (_hot_memory, "thermal-memory", Severity.DEGRADED, "memory is hotter than its maximum"),
    (_no_margin, "thermal-margin", Severity.INFO, "there is no margin to the slowdown temperature"),
)


def _seen(gpu: GpuReading) -> int | Unsupported:
    """Return what can be judged: the temperature with a maximum, or else the margin."""
    if isinstance(gpu.temperature_max_c, Unsupported):
        return gpu.thermal_margin_c
    return gpu.temperature_c


def _judge(gpu: GpuReading, _celsius: int, past: Past) -> Iterator[Finding]:
    for holds, code, severity, evidence in _RULES:
        if holds(gpu) and window.seconds_held(past, gpu, holds) >= FOR_S:
            yield from on(gpu, code, severity, Action.INSPECT, evidence)


CHECK = over_time("thermal", "gpud: degraded above GPU max or HBM max", _seen, _judge, span_s=FOR_S)
