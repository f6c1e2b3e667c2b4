"""pcie-replay: the PCIe link seldom has to send a packet again.

A replay loses nothing and takes time; many come from a bad contact, which no reset mends: drained
at the next checkpoint and looked at by a person.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Finding, Past, on, over_time
from tramontane.health.device import GpuReading

# Source: DCGM's hardware limits: 8 replays per minute.
MAX_PER_MINUTE = 8
OVER_S = 60.0


def _judge(gpu: GpuReading, _replays: int, past: Past) -> Iterator[Finding]:
    grown = window.growth(past, gpu, lambda earlier: earlier.pcie_replays, OVER_S)
    if grown is not None and grown.per_second * 60 > MAX_PER_MINUTE:
        evidence = f"more than {MAX_PER_MINUTE} PCIe replays a minute"
        yield from on(gpu, "pcie-replay", Severity.DEGRADED, Action.INSPECT, evidence)


CHECK = over_time(
    "pcie-replay",
    "DCGM_FR_PCI_REPLAY_RATE: 8 per minute",
    lambda gpu: gpu.pcie_replays,
    _judge,
    span_s=OVER_S,
)
