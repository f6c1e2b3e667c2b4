"""gpu-count: NVML shows as many GPUs as the blade has.

What it has: the most that were ever reported, or the PCI bus's count where that is larger. The
pool's own number is the operator's to compare (InventoryMismatch); this check also works on a
blade that is in no pool yet, and knows which boot lost the GPU.
"""

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Reading

CODE = "gpu-count"


def _judge(reading: Reading, past: Past) -> Outcome:
    expected = max(past.gpus, reading.pci_gpus or 0)
    missing = expected - len(reading.gpus)
    if missing <= 0:
        return Outcome()
    evidence = f"NVML shows {len(reading.gpus)} GPUs of {expected}"
    if reading.pci_gpus is not None:
        evidence += f"; the PCI bus shows {reading.pci_gpus}"
    return Outcome((Finding(CODE, Severity.FATAL, Action.REBOOT, evidence, count=missing),))


CHECK = Check("gpu-count", "gpud and HyperPod: reboot on a mismatch", _judge)
