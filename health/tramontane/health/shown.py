"""Turn a reading into what a report shows of a blade: its agent, its GPUs, its ports.

What cannot be read now is shown as last known, because a GPU that is lost still has a serial
number; only what changes by itself (active links) is not known then.
"""

from collections.abc import Iterable

from tramontane.api import clock
from tramontane.api.blade import AgentInfo, Fault, GpuInventory, Network, Report
from tramontane.health.device import GpuReading, Reading, Unsupported
from tramontane.health.ledger import is_noted


def network(old: Report, reading: Reading | None) -> Network | None:
    """Return the ports that the kernel shows; where it cannot be asked, as last known."""
    host = reading.host if reading is not None else None
    if host is None:
        return old.network
    if isinstance(host.ports, Unsupported):
        return None
    rates = [port.rate_gbps for port in host.ports if port.active]
    return Network(ports=len(rates), rate=min(rates, default=None))


def agent(
    old: Report, reading: Reading | None, boot_id: str, version: str, now: float
) -> AgentInfo:
    """Return who reports; a driver that does not answer is still the one it was."""
    driver = reading.driver if reading is not None else ""
    cuda = reading.cuda if reading is not None else ""
    return AgentInfo(
        version=version,
        boot_id=boot_id or None,
        driver=driver or old.agent.driver,
        cuda=cuda or old.agent.cuda,
        time=clock.utc(now),
    )


def gpus(old: Report, reading: Reading | None, faults: Iterable[Fault]) -> tuple[GpuInventory, ...]:
    """Return the GPUs: as read, and where that is not possible as last known."""
    known = {gpu.index: gpu for gpu in old.gpus}
    if reading is None or reading.session_error:
        shown = list(old.gpus)
    else:
        shown = [
            _gpu(gpu) if gpu.facts.uuid else known.get(gpu.index, GpuInventory(index=gpu.index))
            for gpu in reading.gpus
        ]
    open_on: dict[int, int] = {}
    for fault in faults:
        if fault.gpu is not None and not is_noted(fault):
            open_on[fault.gpu] = open_on.get(fault.gpu, 0) + 1
    return tuple(gpu.model_copy(update={"faults": open_on.get(gpu.index, 0)}) for gpu in shown)


def _gpu(gpu: GpuReading) -> GpuInventory:
    facts = gpu.facts
    return GpuInventory(
        index=gpu.index,
        uuid=facts.uuid,
        serial=facts.serial or None,
        pci_bus_id=facts.pci_bus_id or None,
        product=facts.product.replace(" ", "-") or None,
        memory=_quantity(facts.memory_bytes) if facts.memory_bytes else None,
        vbios=facts.vbios or None,
        gsp_firmware=facts.gsp_firmware or None,
        nvlinks=gpu.nvlinks_active,
    )


def _quantity(size: int) -> str:
    """Return bytes in the largest binary unit that divides them: `144384Mi`."""
    for unit, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
