"""Turn readings and reports into metric families: pure, one table row per family.

A row names what it reads; where that is `Unsupported`, the GPU has no sample. Names follow
Prometheus: base units and their suffixes, `_total` on what only grows.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tramontane.api.blade import Fault, Report
from tramontane.health.device import (
    EccErrors,
    GpuReading,
    Reading,
    RemappedRows,
    Unsupported,
)
from tramontane.health.host import HostReading, Port
from tramontane.health.ledger import is_noted

# Values of one GPU's or port's samples, each with the labels that follow the first.
Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Series:
    """One family with a sample per GPU, or several that differ in `labels`."""

    name: str
    text: str
    read: Callable[[GpuReading], Samples]
    labels: tuple[str, ...] = ()
    counter: bool = False

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        """Return the family without samples."""
        return _family(self.name, self.text, ("gpu", *self.labels), counter=self.counter)


def _one(value: float | Unsupported | None, scale: float = 1) -> Samples:
    return () if value is None or isinstance(value, Unsupported) else (((), value * scale),)


def _ecc(errors: EccErrors | Unsupported) -> Samples:
    if isinstance(errors, Unsupported):
        return ()
    return (
        (("corrected",), errors.aggregate_corrected),
        (("uncorrected",), errors.aggregate_uncorrected),
    )


def _rows(rows: RemappedRows | Unsupported) -> Samples:
    if isinstance(rows, Unsupported):
        return ()
    counts = ("correctable", rows.corrected), ("uncorrectable", rows.uncorrected)
    return tuple(((cause,), count) for cause, count in counts if count)


def _info(gpu: GpuReading) -> Samples:
    facts = gpu.facts
    labels = (facts.uuid, facts.serial, facts.pci_bus_id, facts.product, facts.vbios)
    return ((labels, 1),)


GPU_SERIES = (
    Series(
        "gpu_info",
        "What a GPU is called; 1.",
        _info,
        ("uuid", "serial", "pci_bus_id", "product", "vbios"),
    ),
    Series(
        "gpu_temperature_celsius", "Temperature of the GPU.", lambda gpu: _one(gpu.temperature_c)
    ),
    Series(
        "gpu_memory_temperature_celsius",
        "Temperature of the GPU's memory.",
        lambda gpu: _one(gpu.memory_temperature_c),
    ),
    Series(
        "gpu_margin_celsius",
        "How much hotter the GPU may become before it is slowed down.",
        lambda gpu: _one(gpu.thermal_margin_c),
    ),
    Series(
        "gpu_power_watts", "Power that the GPU draws.", lambda gpu: _one(gpu.power_mw, scale=1e-3)
    ),
    Series(
        "gpu_energy_joules_total",
        "Energy that the GPU has drawn since its driver was loaded.",
        lambda gpu: _one(gpu.energy_mj, scale=1e-3),
        counter=True,
    ),
    Series(
        "gpu_ecc_errors_total",
        "Memory errors over the GPU's life.",
        lambda gpu: _ecc(gpu.ecc_errors),
        ("kind",),
        counter=True,
    ),
    Series(
        "gpu_remapped_rows",
        "Memory rows that spare ones replace, by cause; where there are any.",
        lambda gpu: _rows(gpu.remapped_rows),
        ("cause",),
    ),
    Series(
        "gpu_nvlinks_active",
        "NVLinks that carry traffic or sleep.",
        lambda gpu: _one(gpu.nvlinks_active),
    ),
    Series(
        "gpu_pcie_replays_total",
        "PCIe packets sent again, since the GPU's reset.",
        lambda gpu: _one(gpu.pcie_replays),
        counter=True,
    ),
)


# What remains at the lowest detail: what a blade draws adds up to what a hall does.
_ALWAYS = frozenset({"gpu_power_watts", "gpu_energy_joules_total"})


def described() -> Iterator[Metric]:
    """Return the families of GPUs and ports without samples."""
    yield from (row.family() for row in GPU_SERIES)
    yield from (_ports_active(), _port_downs())


def of_gpus(gpus: Iterable[GpuReading], *, low: bool = False) -> Iterator[Metric]:
    """Return the families of GPU_SERIES that have a sample; `low`: power and energy alone."""
    gpus = tuple(gpus)
    for row in GPU_SERIES:
        if low and row.name not in _ALWAYS:
            continue
        family = row.family()
        for gpu in gpus:
            for labels, value in row.read(gpu):
                family.add_metric((str(gpu.index), *labels), value)
        if family.samples:
            yield family


def of_host(host: HostReading | None) -> Iterator[Metric]:
    """Return the families of the blade's network ports; none where there are no ports."""
    ports = () if host is None or isinstance(host.ports, Unsupported) else host.ports
    if not ports:
        return
    active, downs = _ports_active(), _port_downs()
    for port in ports:
        active.add_metric((port.name,), float(port.active))
        for value in _downs(port):
            downs.add_metric((port.name,), value)
    yield active
    if downs.samples:
        yield downs


def _ports_active() -> CounterMetricFamily | GaugeMetricFamily:
    text = "1 while the InfiniBand or RoCE port is up, else 0."
    return _family("network_port_active", text, ("port",))


def _port_downs() -> CounterMetricFamily | GaugeMetricFamily:
    text = "Times that the port's link went down."
    return _family("network_port_downs_total", text, ("port",), counter=True)


def _downs(port: Port) -> Iterable[int]:
    return (value for name, value in port.counters if name == "link_downed")


def of_agent(reading: Reading | None, report: Report | None, strikes: int) -> Iterator[Metric]:
    """Return what the agent says of the whole blade and of itself."""
    info = _family("agent_info", "Versions on the blade; 1.", ("version", "driver", "cuda"))
    version = "" if report is None else report.agent.version or ""
    driver, cuda = ("", "") if reading is None else (reading.driver, reading.cuda)
    info.add_metric((version, driver, cuda), 1)
    yield info
    faults = _family(
        "blade_fault",
        "1 per open fault; gpu is empty for the whole blade's.",
        ("gpu", "code", "severity"),
    )
    unknown = _family("agent_check_unknown", "1 per check that cannot be made.", ("check",))
    if report is not None:
        for labels in sorted({_labels(fault) for fault in report.faults if not is_noted(fault)}):
            faults.add_metric(labels, 1)
        for check in report.checks.unknown:
            unknown.add_metric((check,), 1)
    yield faults
    yield unknown
    silent = _family("agent_nvml_strikes", "Probes in a row that NVML did not answer.", ())
    silent.add_metric((), strikes)
    yield silent


def _labels(fault: Fault) -> tuple[str, str, str]:
    return "" if fault.gpu is None else str(fault.gpu), fault.code, fault.severity.value


def _family(
    name: str, text: str, labels: tuple[str, ...], *, counter: bool = False
) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if counter else GaugeMetricFamily
    return kind(f"tramontane_{name}", text, labels=labels)
