"""Say what a check is: a pure function from one reading to findings.

A check has a name, the source of its threshold, and a judge. Each can be switched off by name
(`--disable-check`). What a check could not see it names, so that the report can say "unknown"
instead of "healthy", and can keep the fault that is open there:

| value on a GPU                    | finding | blind | check is unknown |
|-----------------------------------|---------|-------|------------------|
| read, within the threshold        | no      | no    | no               |
| read, beyond it                   | yes     | no    | no               |
| Unsupported                       | no      | yes   | yes              |
| GPU lost or waiting for its reset | no      | yes   | no: the lost check speaks for it |
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tramontane.api.blade import Action, Fault, Severity
from tramontane.health.device import GpuReading, Reading, Sample, Unsupported


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault as a check sees it: without times. `gpu` None means the whole blade."""

    code: str
    severity: Severity
    action: Action
    evidence: str
    gpu: int | None = None
    uuid: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found; `blind` holds the GPUs (None: the blade) of which it saw nothing."""

    findings: tuple[Finding, ...] = ()
    blind: frozenset[int | None] = frozenset()
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """What a check may know beside the reading that it judges.

    `gpus` is how many GPUs the blade had, `at` when the reading was taken (Unix seconds), and
    `previous` the readings before it, oldest first, as `window.remember` keeps them: none after
    the agent has started, so a rule about time begins anew then. `no_session_s` is for how long
    NVML could not be used in this boot, by the previous report, which outlives the agent; so do
    `faults`, those open in it. `released_at` is when a person released the blade, which forgives
    what has happened until then: faults from before it are not among them.
    """

    gpus: int = 0
    at: float = 0.0
    previous: tuple[Sample, ...] = ()
    no_session_s: float = 0.0
    faults: tuple[Fault, ...] = ()
    released_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `source` names the document or project behind its rule."""

    name: str
    source: str
    judge: Callable[[Reading, Past], Outcome]


T = TypeVar("T")


def per_gpu(
    name: str,
    source: str,
    value: Callable[[GpuReading], T | Unsupported],
    judge: Callable[[GpuReading, T], Iterable[Finding]],
) -> Check:
    """Return a check that judges one value of each GPU."""
    return over_time(name, source, value, lambda gpu, seen, _past: judge(gpu, seen))


def over_time(
    name: str,
    source: str,
    value: Callable[[GpuReading], T | Unsupported],
    judge: Callable[[GpuReading, T, Past], Iterable[Finding]],
    span_s: float = 0.0,
) -> Check:
    """Return a check that judges one value of each GPU by how it came to be.

    Until the readings reach back `span_s`, a GPU is not yet known to be well, whatever else is
    found of it: the check is blind for it, so that a fault from before the agent's start stays
    open.
    """

    def run(reading: Reading, past: Past) -> Outcome:
        young = bool(span_s) and not (past.previous and past.at - past.previous[0].at >= span_s)
        findings: list[Finding] = []
        blind: set[int | None] = set()
        unknown = False
        for gpu in reading.gpus:
            seen = value(gpu)
            if isinstance(seen, Unsupported):
                blind.add(gpu.index)
                unknown |= not (gpu.lost or gpu.reset_required)
                continue
            findings += judge(gpu, seen, past)
            if young:
                blind.add(gpu.index)
        return Outcome(tuple(findings), frozenset(blind), unknown)

    return Check(name, source, run)


def on(
    gpu: GpuReading,
    code: str,
    severity: Severity,
    action: Action,
    evidence: str,
) -> Iterator[Finding]:
    """Yield one finding about `gpu`."""
    yield Finding(code, severity, action, evidence, gpu.index, gpu.facts.uuid)
