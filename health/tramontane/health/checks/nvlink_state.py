"""nvlink-state: every NVLink of a GPU is up, if NVLinks are in use on the blade at all.

| links of the GPU         | other GPUs of the blade | finding                           |
|--------------------------|-------------------------|-----------------------------------|
| all active or asleep     | whatever                | none                              |
| some up, some not        | whatever                | nvlink-down                       |
| none up                  | some have links up      | nvlink-down                       |
| none up                  | none has                | none: cards without a bridge      |
| some without traffic     | whatever                | nvlink-down                       |

How many links there must be is the pool's to say (`Report.gpus.nvlinks`). Cards of which bridges
join only some links by design need this check switched off. Degraded: ranks on the blade may not
use the link; those that do fail, and say so by XID 74 or 144 to 150.
"""

from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past, on, per_gpu
from tramontane.health.device import NVLINK_UP, GpuReading, Reading, Unsupported

NAME = "nvlink-state"
SOURCE = "NVIDIA health validation: no inactive link; DCGM_FR_NVLINK_DOWN"

_NAMED = 8


def _judge(gpu: GpuReading, links: tuple[int, ...]) -> Iterator[Finding]:
    down = [str(link) for link, state in enumerate(links) if state not in NVLINK_UP]
    if down:
        named = ", ".join(down[:_NAMED]) + (", …" if len(down) > _NAMED else "")
        evidence = f"{len(down)} of {len(links)} NVLinks are down: {named}"
        yield from on(gpu, "nvlink-down", Severity.DEGRADED, Action.RESET, evidence)


_EACH = per_gpu(NAME, SOURCE, lambda gpu: gpu.nvlinks, _judge)


def _run(reading: Reading, past: Past) -> Outcome:
    outcome = _EACH.judge(reading, past)
    if any(
        state in NVLINK_UP
        for gpu in reading.gpus
        if not isinstance(gpu.nvlinks, Unsupported)
        for state in gpu.nvlinks
    ):
        return outcome
    return Outcome((), outcome.blind, outcome.unknown)


CHECK = Check(NAME, SOURCE, _run)
