"""clock-events: the hardware does not slow the GPU down for long.

gpud looks once a minute and calls a GPU unhealthy at 0.6 events a minute over ten minutes, which
is six looks of ten. We look more often and so count time: six minutes of the last ten. Short
slowdowns, power caps by software and idle clocks are how a GPU works. One that has been at full
speed for a minute is well again, however it was before.

| bit   | reason               | code            |
|-------|----------------------|-----------------|
| 0x08  | hardware slowdown    | clock-slowdown  |
| 0x40  | hardware thermal     | clock-thermal   |
| 0x80  | hardware power brake | clock-power     |

0x08 comes along with either of the others, and is reported only when it is alone. None of them is
the GPU's own fault as a rule: cooling and power supply are, so a person has to look.
"""

from collections.abc import Callable, Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import GpuReading, Unsupported

# Source: gpud, 0.6 events per minute over 10 minutes.
SHARE = 0.6

_SLOWDOWN, _THERMAL, _POWER = 0x08, 0x40, 0x80
_REASONS = (
    (_THERMAL, "clock-thermal", "it is too hot"),
    (_POWER, "clock-power", "the power supply asked for it"),
)


def _because(bit: int) -> Callable[[GpuReading], bool]:
    return lambda gpu: (
        not isinstance(gpu.clock_reasons, Unsupported) and bool(gpu.clock_reasons & bit)
    )


def _lasts(past: Past, gpu: GpuReading, bit: int) -> bool:
    held_s = window.seconds_held(past, gpu, _because(bit))
    calm = window.seconds_held(past, gpu, _because(bit), window.CALM_S) == 0
    return held_s >= SHARE * window.WINDOW_S and not calm


def _judge(gpu: GpuReading, _reasons: int, past: Past) -> Iterator[Finding]:
    alone = True
    for bit, code, why in _REASONS:
        if _lasts(past, gpu, bit):
            alone = False
            evidence = f"slowed down for 6 of 10 minutes: {why}"
            yield from on(gpu, code, Severity.DEGRADED, Action.INSPECT, evidence)
    if alone and _lasts(past, gpu, _SLOWDOWN):
        evidence = "slowed down by the hardware for 6 of 10 minutes"
        yield from on(gpu, "clock-slowdown", Severity.DEGRADED, Action.INSPECT, evidence)


CHECK = over_time(
    "clock-events",
    "gpud: 0.6 events per minute over 10 minutes of 0x8, 0x40, 0x80",
    lambda gpu: gpu.clock_reasons,
    _judge,
    span_s=window.WINDOW_S,
)
