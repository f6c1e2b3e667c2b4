"""pci-count: every GPU that was on the PCI bus is still there.

gpu-count asks NVML; this one asks the bus, and so also speaks while NVML hangs or has no driver.
A GPU that fell off the bus mostly stays listed (xid-79, gpu-lost); one that is no longer listed
was removed, or its slot has lost power.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding
from tramontane.health.checks.host import on_host
from tramontane.health.host import HostPast

CODE = "pci-gpu-missing"


def _judge(shown: int, past: HostPast, _now: float) -> Iterator[Finding]:
    missing = past.most_pci_gpus - shown
    if missing > 0:
        evidence = f"the PCI bus shows {shown} GPUs of {past.most_pci_gpus}"
        yield Finding(CODE, Severity.FATAL, Action.REBOOT, evidence, count=missing)


CHECK = on_host(
    "pci-count",
    "gpud and HyperPod: reboot on a mismatch; /sys/bus/pci/devices",
    lambda host: host.pci_gpus,
    _judge,
)
