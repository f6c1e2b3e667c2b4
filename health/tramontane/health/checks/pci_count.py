"""pci-count: every GPU that was on the PCI bus is still there.

gpu-count asks NVML; this one asks the bus, and so also speaks while NVML hangs or has no driver.
A GPU that fell off the bus mostly stays listed (xid-79, gpu-lost); one that is no longer listed
was removed, or its slot has lost power.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Finding, Past
from tramontane.health.checks.host import on_host, told
from tramontane.health.host import HostPast

NAME = "pci-count"
CODE = "pci-gpu-missing"


def _judge(shown: int, known: HostPast, past: Past) -> Iterator[Finding]:
    most = max(known.most_pci_gpus, int(told(past, NAME)))
    missing = most - shown
    if missing > 0:
        evidence = f"the PCI bus shows {shown} GPUs of {most}"
        yield Finding(CODE, Severity.FATAL, Action.REBOOT, evidence, count=missing)


CHECK = on_host(
    NAME,
    "gpud and HyperPod: reboot on a mismatch; /sys/bus/pci/devices",
    lambda host: host.pci_gpus,
    _judge,
)
