"""inventory: every GPU says what it is, and no two say the same.

Whether that is what the pool ordered is the operator's to judge; here it is only whether the
facts can be had at all. Facts that this driver does not tell make the check unknown; firmware has a
check of its own.
"""

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Reading

_FACTS = frozenset({"uuid", "serial", "pci_bus_id", "product", "memory_bytes"})


def _judge(reading: Reading, _past: Past) -> Outcome:
    owner: dict[str, int] = {}
    findings = []
    for gpu in reading.gpus:
        first = owner.setdefault(gpu.facts.uuid, gpu.index)
        if gpu.facts.uuid and first != gpu.index:
            evidence = f"GPUs {first} and {gpu.index} both say {gpu.facts.uuid}"
            findings.append(
                Finding(
                    "inventory-duplicate", Severity.DEGRADED, Action.INSPECT, evidence, gpu.index
                )
            )
    gone = {gpu.index for gpu in reading.gpus if gpu.lost or gpu.reset_required}
    unread = {gpu.index for gpu in reading.gpus if not _FACTS.isdisjoint(gpu.unread)}
    return Outcome(tuple(findings), frozenset(gone | unread), bool(unread - gone))


CHECK = Check("inventory", "UUIDs are unique by NVML's contract", _judge)
