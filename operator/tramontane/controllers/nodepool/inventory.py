"""Compare what a report shows of a blade with what its pool says, and with the pool's others.

What the report does not show (no `nvlinks`, no `network`, a GPU of which NVML tells nothing) is not
known, and not known is no mismatch. What a fault of the agent explains is not said twice: a GPU
that fell off the bus is a reboot, not a wrong delivery. Ports may flap and train again, so they are
Degraded: the blade takes nothing new, and is out when that lasts (`clearAfter`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator

from tramontane.api.blade import Fault, GpuInventory, Report
from tramontane.api.quantity import parse_quantity
from tramontane.controllers.nodepool.policy import Policy, as_product, as_version

# The agent's checks whose faults say why the inventory is short.
COUNT_CHECK = "gpu-count"
SESSION_CHECK = "nvml"
NVLINK_CHECKS = frozenset({"nvlink-state", "gpu-lost"})
NETWORK_PREFIX = "infiniband"


def mismatches(report: Report, policy: Policy, faults: Collection[Fault]) -> Iterator[str]:
    """Yield what of the blade itself is not what the pool says, each with both values."""
    untold = {fault.gpu for fault in faults if fault.check == SESSION_CHECK}
    checks = {fault.check for fault in faults}
    shown = [gpu for gpu in report.gpus if gpu.index not in untold]
    if len(report.gpus) != policy.gpus and COUNT_CHECK not in checks:
        yield f"must have {policy.gpus} GPUs (got {len(report.gpus)})"
    if policy.product is not None:
        bad = [g for g in shown if as_product(g.product or "") != policy.product]
        if bad:
            got = ", ".join(sorted({as_product(g.product or "") or "none" for g in bad}))
            yield f"{_named(bad)} must be {policy.product} (got {got})"
    if policy.memory_b is not None:
        small = [g for g in shown if parse_quantity(g.memory or 0) < policy.memory_b]
        if small:
            got = ", ".join(sorted({g.memory or "none" for g in small}))
            yield f"{_named(small)} must have {policy.memory} of memory or more (got {got})"
    if policy.nvlink_links and not checks & NVLINK_CHECKS:
        few = [g for g in report.gpus if g.nvlinks is not None and g.nvlinks < policy.nvlink_links]
        if few:
            got = ", ".join(sorted({str(g.nvlinks) for g in few}))
            yield f"{_named(few)} must have {policy.nvlink_links} active NVLinks (got {got})"
    if policy.min_driver:
        driver = report.agent.driver or ""
        if as_version(driver) < policy.min_driver:
            wanted = ".".join(map(str, policy.min_driver))
            yield f"driver must be {wanted} or newer (got {driver or 'none'})"


def network_mismatches(report: Report, policy: Policy, faults: Iterable[Fault]) -> Iterator[str]:
    """Yield what of the blade's ports is below what the pool says."""
    network = report.network
    if network is None or any((fault.check or "").startswith(NETWORK_PREFIX) for fault in faults):
        return
    if network.ports < policy.infiniband_ports:
        yield f"must have {policy.infiniband_ports} active InfiniBand ports (got {network.ports})"
    if network.rate is not None and network.rate < policy.infiniband_rate:
        yield (
            f"InfiniBand ports must run at {policy.infiniband_rate} Gb/s or more "
            f"(got {network.rate})"
        )


def differences(report: Report, policy: Policy) -> Iterator[str]:
    """Yield which versions are not those that most of the pool's blades have."""
    usual = policy.usual
    driver = report.agent.driver
    if usual.driver and driver and driver != usual.driver:
        yield f"driver is {driver}, most of the pool have {usual.driver}"
    yield from _unlike("VBIOS", usual.vbios, report.gpus, lambda gpu: gpu.vbios)
    yield from _unlike("GSP firmware", usual.gsp, report.gpus, lambda gpu: gpu.gsp_firmware)


def _unlike(
    what: str,
    usual: str,
    gpus: Iterable[GpuInventory],
    version: Callable[[GpuInventory], str | None],
) -> Iterator[str]:
    other = [gpu for gpu in gpus if usual and version(gpu) and version(gpu) != usual]
    if other:
        got = ", ".join(sorted({version(gpu) or "" for gpu in other}))
        yield f"{_named(other)} have {what} {got}, most of the pool have {usual}"


def _named(gpus: Iterable[GpuInventory]) -> str:
    return "GPU " + ",".join(str(gpu.index) for gpu in gpus)
