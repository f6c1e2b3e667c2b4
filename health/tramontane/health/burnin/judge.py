"""Turn what the devices gave into a verdict. Pure.

| what was seen                                   | verdict | value                    |
|-------------------------------------------------|---------|--------------------------|
| a wrong product, word or byte; a reported fault | FAIL    | TFLOPS of the slowest    |
| a device that no longer answers                 | FAIL    | TFLOPS of the slowest    |
| a rate below its threshold                      | FAIL    | that rate                |
| a threshold for a rate that was not measured    | ERROR   |                          |
| anything else                                   | PASS    | TFLOPS of the slowest    |

Without a threshold a rate is only reported.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.health.burnin.run import DeviceRun, Settings

CHECK = "burnin"
_MAX_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The least that each device must reach; None: only reported."""

    host_gbps: float | None = None
    device_gbps: float | None = None
    memory_gbps: float | None = None
    tflops: float | None = None


@dataclass(frozen=True, slots=True)
class _Rate:
    name: str
    unit: str
    least: float | None
    of: Callable[[DeviceRun], float | None]


def judge(
    runs: Sequence[DeviceRun], thresholds: Thresholds, settings: Settings, backend: str
) -> Outcome:
    """Return the outcome of the module's table."""
    details = _details(runs, settings, backend)
    slowest = min((run.tflops for run in runs if run.tflops is not None), default=None)
    wrong = [f"{run.device}: {text}" for run in runs for text in run.wrong]
    if wrong:
        details["wrong"] = wrong[:_MAX_EVIDENCE]
        return Outcome(CHECK, Verdict.FAIL, wrong[0], slowest, "TFLOPS", details)
    for rate in _rates(thresholds):
        if rate.least is None:
            continue
        seen = [(value, run.device) for run in runs if (value := rate.of(run)) is not None]
        if not seen:
            reason = f"{rate.name}: must be measured (got none on {len(runs)} devices)"
            return Outcome(CHECK, Verdict.ERROR, reason, details=details)
        value, device = min(seen)
        if value < rate.least:
            least = f"{rate.least:g} {rate.unit}"
            reason = f"{device}: {rate.name} must be {least} or more (got {value:.5g})"
            return Outcome(CHECK, Verdict.FAIL, reason, value, rate.unit, details)
    products, patterns = sum(run.products for run in runs), sum(run.patterns for run in runs)
    reason = f"{len(runs)} devices, {products} products and {patterns} patterns, all as expected"
    return Outcome(CHECK, Verdict.PASS, reason, slowest, "TFLOPS", details)


def _rates(thresholds: Thresholds) -> Iterable[_Rate]:
    host, device = thresholds.host_gbps, thresholds.device_gbps
    yield _Rate("compute", "TFLOPS", thresholds.tflops, lambda run: run.tflops)
    yield _Rate("memory", "GB/s", thresholds.memory_gbps, lambda run: run.memory_gbps)
    yield _Rate("host to device", "GB/s", host, lambda run: run.to_device_gbps)
    yield _Rate("device to host", "GB/s", host, lambda run: run.to_host_gbps)
    yield _Rate("device to device", "GB/s", device, lambda run: run.to_next_gbps)


def _details(runs: Sequence[DeviceRun], settings: Settings, backend: str) -> dict[str, Any]:
    return {
        "backend": backend,
        "size": settings.size,
        "seed": settings.seed,
        "devices": [
            {
                "device": run.device,
                "products": run.products,
                "tflops": _short(run.tflops),
                "patterns": run.patterns,
                "memory_mib": run.memory_bytes >> 20,
                "memory_gbps": _short(run.memory_gbps),
                "to_device": _short(run.to_device_gbps),
                "to_host": _short(run.to_host_gbps),
                "to_next": _short(run.to_next_gbps),
            }
            for run in runs
        ],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
