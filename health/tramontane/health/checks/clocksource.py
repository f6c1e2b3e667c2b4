"""clocksource: the kernel did not have to give up the processor's own counter.

When the kernel finds the TSC unstable, often for a firmware or board fault, it falls back to a
timer on a bus, and each look at the clock then costs a microsecond instead of 20 ns: a straggler
that no other check explains. Info: slow, not wrong.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host
from tramontane.health.host import HostPast

CODE = "clocksource-slow"
# Timers outside the processor. Source: Linux, Documentation/timers and clocksource watchdog.
SLOW = frozenset({"hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"})


def _judge(name: str, _known: HostPast, _past: Past) -> Iterator[Finding]:
    if name in SLOW:
        evidence = f"the kernel's clock source is {name}"
        yield Finding(CODE, Severity.INFO, Action.INSPECT, evidence)


CHECK = on_host(
    "clocksource",
    "gcm: clock source; /sys/devices/system/clocksource/clocksource0/current_clocksource",
    lambda host: host.clocksource,
    _judge,
)
