"""pcie-generation: the PCIe link runs at its full speed while the GPU works.

An idle GPU lowers its link's generation to save power, and raises it within milliseconds of the
first load. So only a link that is slow under load for a minute is slow; an idle GPU is not judged,
and an open fault stays while it idles.
"""

from tramontane.api.blade import Action, Severity
from tramontane.health.checks import window
from tramontane.health.checks.base import Check, Finding, Outcome, Past, on, over_time
from tramontane.health.device import GpuReading, OfMax, Reading, Unsupported

NAME = "pcie-generation"
SOURCE = "DCGM_FR_PCIE_GENERATION; only under load: our choice"

# Our choice, as no peer says what load is: half of the time a kernel runs, for one minute.
LOAD_PCT = 50
FOR_S = 60.0


def _loaded(gpu: GpuReading) -> bool:
    return not isinstance(gpu.utilization_pct, Unsupported) and gpu.utilization_pct >= LOAD_PCT


def _slow(gpu: GpuReading) -> bool:
    link = gpu.pcie_generation
    return _loaded(gpu) and not isinstance(link, Unsupported) and link.current < link.maximum


def _judge(gpu: GpuReading, link: OfMax, past: Past) -> list[Finding]:
    if not _slow(gpu) or window.seconds_held(past, gpu, _slow) < FOR_S:
        return []
    evidence = f"PCIe generation {link.current} of {link.maximum} under load"
    return list(on(gpu, "pcie-generation", Severity.DEGRADED, Action.RESET, evidence))


_EACH = over_time(NAME, SOURCE, lambda gpu: gpu.pcie_generation, _judge, span_s=FOR_S)


def _run(reading: Reading, past: Past) -> Outcome:
    outcome = _EACH.judge(reading, past)
    idle = {gpu.index for gpu in reading.gpus if not _loaded(gpu)}
    load_unknown = any(
        isinstance(gpu.utilization_pct, Unsupported) and not (gpu.lost or gpu.reset_required)
        for gpu in reading.gpus
    )
    return Outcome(outcome.findings, outcome.blind | idle, outcome.unknown or load_unknown)


CHECK = Check(NAME, SOURCE, _run)
