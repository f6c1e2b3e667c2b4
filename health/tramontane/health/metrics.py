"""Export what the agent sees, per GPU, for Prometheus.

XIDs are counters by code, one per GPU: a gauge of the last one hides a 62 behind the 45 that
follows it (DCGM#235) and hides repeats (dcgm-exporter#500). A value that cannot be read has no
sample; `tramontane_agent_check_unknown` says which checks are blind.

One process serves one blade: the blade's name is the scrape target's, not a label.
"""

import time
from collections.abc import Callable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from tramontane.api.blade import Report
from tramontane.health.device import GpuReading, Unsupported, Update

_GPU = ("gpu", "uuid")
# The budget is 1 s from the event to the report.
_LATENCIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 30.0)


class Metrics:
    """The metrics of one agent; `saw`, `reports` and `wrote` are called as things happen."""

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._event_at: float | None = None

        def gauge(name: str, text: str, labels: tuple[str, ...] = _GPU) -> Gauge:
            return Gauge(f"tramontane_{name}", text, labels, registry=registry)

        self._temperature = gauge("gpu_temperature_celsius", "Temperature of the GPU.")
        self._power = gauge("gpu_power_watts", "Power that the GPU draws.")
        self._ecc = gauge(
            "gpu_ecc_errors",
            "Memory errors, by kind and by what resets the count.",
            (*_GPU, "kind", "counter"),
        )
        self._rows = gauge("gpu_remapped_rows", "Memory rows remapped, by cause.", (*_GPU, "cause"))
        self._recovery = gauge("gpu_recovery_action", "What the driver asks for; 0 is nothing.")
        self._lost = gauge("gpu_lost", "1 while the GPU does not answer.")
        self._gpus = gauge("gpu_count", "GPUs that NVML shows.", ())
        self._xids = Counter(
            "tramontane_gpu_xid_total", "XID events.", (*_GPU, "xid"), registry=registry
        )
        self._faults = gauge(
            "gpu_fault",
            "1 per open fault; gpu is empty for the blade's.",
            (*_GPU, "code", "severity"),
        )
        self._unknown = gauge("agent_check_unknown", "1 per check that cannot run.", ("check",))
        self._strikes = gauge("agent_nvml_strikes", "Probes in a row without an answer.", ())
        self._writes = Counter(
            "tramontane_agent_reports_total", "Reports written.", registry=registry
        )
        self._latency = Histogram(
            "tramontane_agent_event_to_report_seconds",
            "Time from the newest event to the report that carries it.",
            buckets=_LATENCIES,
            registry=registry,
        )

    def saw(self, update: Update) -> None:
        """Take over an update from the probe."""
        for event in update.events:
            if event.xid is not None:
                gpu = "" if event.gpu < 0 else str(event.gpu)
                self._xids.labels(gpu, event.uuid, event.xid).inc()
            self._event_at = event.at
        self._strikes.set(0 if update.unresponsive is None else update.unresponsive.strikes)
        if update.reading is None:
            return
        self._gpus.set(len(update.reading.gpus))
        for each in (
            self._temperature,
            self._power,
            self._ecc,
            self._rows,
            self._recovery,
            self._lost,
        ):
            each.clear()
        for reading in update.reading.gpus:
            self._gpu(reading)

    def _gpu(self, gpu: GpuReading) -> None:
        who = (str(gpu.index), gpu.facts.uuid)
        self._lost.labels(*who).set(gpu.lost)
        if not isinstance(gpu.temperature_c, Unsupported):
            self._temperature.labels(*who).set(gpu.temperature_c)
        if not isinstance(gpu.power_mw, Unsupported):
            self._power.labels(*who).set(gpu.power_mw / 1000)
        if not isinstance(gpu.recovery_action, Unsupported):
            self._recovery.labels(*who).set(gpu.recovery_action)
        if not isinstance(gpu.remapped_rows, Unsupported):
            self._rows.labels(*who, "correctable").set(gpu.remapped_rows.corrected)
            self._rows.labels(*who, "uncorrectable").set(gpu.remapped_rows.uncorrected)
        if not isinstance(gpu.ecc_errors, Unsupported):
            errors = gpu.ecc_errors
            for kind, counter, value in (
                ("corrected", "volatile", errors.volatile_corrected),
                ("uncorrected", "volatile", errors.volatile_uncorrected),
                ("corrected", "aggregate", errors.aggregate_corrected),
                ("uncorrected", "aggregate", errors.aggregate_uncorrected),
            ):
                self._ecc.labels(*who, kind, counter).set(value)

    def reports(self, report: Report) -> None:
        """Take over the report as it now is, written or not."""
        self._faults.clear()
        for fault in report.faults:
            gpu = "" if fault.gpu is None else str(fault.gpu)
            self._faults.labels(gpu, fault.uuid or "", fault.code, fault.severity.value).set(1)
        self._unknown.clear()
        for check in report.checks.unknown:
            self._unknown.labels(check).set(1)

    def wrote(self, _report: Report) -> None:
        """Count a report that the API server has taken."""
        self._writes.inc()
        if self._event_at is not None:
            self._latency.observe(max(0.0, self._clock() - self._event_at))
            self._event_at = None
