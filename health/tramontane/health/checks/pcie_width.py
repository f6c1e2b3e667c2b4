"""pcie-width: the PCIe link has all the lanes that slot and GPU can have.

Half the lanes are half the bandwidth to the host; a reset trains the link anew. A link that stays
narrow is a matter of contacts, and the repair ladder ends with a person.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, on, per_gpu
from tramontane.health.device import GpuReading, OfMax


def _judge(gpu: GpuReading, lanes: OfMax) -> Iterator[Finding]:
    if lanes.current < lanes.maximum:
        evidence = f"{lanes.current} PCIe lanes of {lanes.maximum}"
        yield from on(gpu, "pcie-width", Severity.DEGRADED, Action.RESET, evidence)


CHECK = per_gpu("pcie-width", "DCGM_FR_PCIE_WIDTH", lambda gpu: gpu.pcie_width, _judge)
