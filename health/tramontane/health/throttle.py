"""Add up how long each GPU was slowed down, and why.

A reading says why the clocks are lower now; the driver's own sums are missing on some drivers and
in different units on others. So a reason counts from the reading that shows it to the next one
that does not: as exact as the poll is often. While nobody knows, nothing is counted.
"""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric

from tramontane.health.device import GpuReading, Unsupported

# Idle, application clocks and sync boost are how a GPU is used, not what slows it down.
# Source: nvml.h, nvmlClocksEventReason…
REASONS = (
    (0x04, "power_cap"),
    (0x08, "hardware"),
    (0x20, "software_thermal"),
    (0x40, "hardware_thermal"),
    (0x80, "power_brake"),
)


class Throttle:
    """Seconds by GPU and reason; a GPU has a series from its first second on."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}
        self._slowed: frozenset[tuple[str, str]] = frozenset()
        self._until = 0.0

    def see(self, gpus: Iterable[GpuReading], at: float) -> None:
        """Take over what holds from `at` on; no GPUs: it is not known."""
        self._advance(at)
        self._slowed = frozenset(
            (str(gpu.index), name)
            for gpu in gpus
            if not isinstance(gpu.clock_reasons, Unsupported)
            for bit, name in REASONS
            if gpu.clock_reasons & bit
        )

    def family(self, at: float) -> Metric:
        """Return the seconds up to `at`."""
        self._advance(at)
        family = CounterMetricFamily(
            "tramontane_gpu_throttle_seconds",
            "Time that the GPU's clocks were held down, by reason; as sampled by the poll.",
            labels=("gpu", "reason"),
        )
        for labels, seconds in sorted(self._seconds.items()):
            family.add_metric(labels, seconds)
        return family

    def _advance(self, at: float) -> None:
        for one in self._slowed:
            self._seconds[one] = self._seconds.get(one, 0.0) + at - self._until
        self._until = at
