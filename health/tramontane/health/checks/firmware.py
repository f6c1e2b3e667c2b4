"""firmware: the GPUs of a blade run one VBIOS and one GSP firmware.

Which versions they should be is the pool's to say; that the blade agrees with itself can be told
here. The GPUs in the minority are named; where there is none, all but those that agree with the
first. GPUs of different products are not compared.
"""

from collections import Counter
from collections.abc import Iterator

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past, on
from tramontane.health.device import GpuReading, Reading

_KINDS = (
    ("vbios", "vbios-mismatch", "VBIOS"),
    ("gsp_firmware", "gsp-firmware-mismatch", "GSP firmware"),
)


def _judge(reading: Reading, _past: Past) -> Outcome:
    findings: list[Finding] = []
    for product in sorted({gpu.facts.product for gpu in reading.gpus}):
        alike = [gpu for gpu in reading.gpus if gpu.facts.product == product]
        for field, code, name in _KINDS:
            findings += _odd(alike, field, code, name)
    gone = {gpu.index for gpu in reading.gpus if gpu.lost or gpu.reset_required}
    unread = {gpu.index for gpu in reading.gpus if any(field in gpu.unread for field, *_ in _KINDS)}
    return Outcome(tuple(findings), frozenset(gone | unread), bool(unread - gone))


def _odd(gpus: list[GpuReading], field: str, code: str, name: str) -> Iterator[Finding]:
    # A Counter keeps the order of coming, so that the first GPU's version wins a draw.
    versions = Counter(version for gpu in gpus if (version := getattr(gpu.facts, field)))
    if len(versions) < 2:  # noqa: PLR2004 -- one version, or none told
        return
    usual = versions.most_common(1)[0][0]
    for gpu in gpus:
        version = getattr(gpu.facts, field)
        if version and version != usual:
            evidence = f"{name} {version}; {versions[usual]} GPUs of the blade have {usual}"
            yield from on(gpu, code, Severity.DEGRADED, Action.INSPECT, evidence)


CHECK = Check("firmware", "imbue compares versions with a config; Azure: VBIOS", _judge)
