"""Conclude from a report what is wrong with a blade: pure, and the only place that knows how.

faults, without those that a person released since → the pool's rules, first match → worst of all
inventory against the pool's `gpu`          → a Fatal finding of its own
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tramontane.api import clock
from tramontane.api.blade import Action, Fault, GpuInventory, Report, Severity
from tramontane.api.quantity import parse_quantity
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool.policy import Policy, Rule, as_product, as_version

# What an agent reports when a driver call blocks; its way out differs from a broken GPU's.
HUNG_CODE = "nvml-unresponsive"
MISMATCH_CODE = "inventory-mismatch"
# The agent's check that NVML can be used at all; its faults explain a missing inventory.
NVML_CHECK = "nvml"

_RANK = {
    severity: rank
    for rank, severity in enumerate(
        (Severity.NONE, Severity.INFO, Severity.DEGRADED, Severity.UNKNOWN, Severity.FATAL)
    )
}
_STRENGTH = {action: strength for strength, action in enumerate(Action)}
_REASONS = {
    HUNG_CODE: BladeReason.PROBE_HUNG,
    MISMATCH_CODE: BladeReason.INVENTORY_MISMATCH,
}
_MOST_SHOWN = 3
_EVIDENCE_CHARS = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, all faults together.

    Attributes:
        code: of the worst fault; empty when nothing is wrong.
        gpu: its GPU, or None for the whole blade.
        first_seen: when it was first seen (Unix s), or None.
    """

    severity: Severity = Severity.NONE
    action: Action = Action.NONE
    reason: BladeReason | None = None
    message: str = ""
    code: str = ""
    gpu: int | None = None
    first_seen: float | None = None


NOTHING = Finding()
# A driver that never answered has shown no GPUs; that is no mismatch, and no health either.
BLIND = Finding(
    Severity.UNKNOWN,
    reason=BladeReason.PROBE_HUNG,
    message="the driver has not shown its GPUs yet",
    code=HUNG_CODE,
)


def worse(a: Severity, b: Severity) -> Severity:
    """Return the worse of two severities: None, Info, Degraded, Unknown, Fatal."""
    return a if _RANK[a] >= _RANK[b] else b


def milder(a: Severity, b: Severity) -> bool:
    """Return whether `a` is milder than `b`."""
    return _RANK[a] < _RANK[b]


def reason_of(code: str) -> BladeReason:
    """Return the reason of a blade that is out for the fault `code`."""
    return _REASONS.get(code, BladeReason.HARDWARE_FAULT)


def judge(report: Report, policy: Policy, now: float, released_at: float | None) -> Finding:
    """Return the sum of all that is wrong with a blade. O(faults · rules)."""
    findings = [
        _of(ruled)
        for fault in report.faults
        if not _released(fault, released_at)
        for ruled in [override(fault, policy.rules, now)]
        if ruled is not None and ruled.severity is not Severity.NONE
    ]
    if _is_blind(report):
        findings.append(BLIND)
    elif differs := "; ".join(_mismatches(report, policy)):
        findings.append(
            Finding(
                Severity.FATAL,
                Action.INSPECT,
                reason_of(MISMATCH_CODE),
                differs,
                MISMATCH_CODE,
            )
        )
    if not findings:
        return NOTHING
    # A stable sort: among equals the agent's order counts, and faults come before inventory.
    findings.sort(key=lambda finding: -_RANK[finding.severity])
    shown = [finding.message for finding in findings[:_MOST_SHOWN]]
    if len(findings) > _MOST_SHOWN:
        shown.append(f"and {len(findings) - _MOST_SHOWN} more")
    return replace(
        findings[0],
        action=max((finding.action for finding in findings), key=_STRENGTH.__getitem__),
        message="; ".join(shown),
    )


def override(fault: Fault, rules: Iterable[Rule], now: float) -> Fault | None:
    """Return the fault as the first matching rule wants it; None where that is to ignore it.

    A rule with a count matches a fault that was seen so often within the window. The report has a
    total with its first and last time, so the share in the window is taken as evenly spread.
    """
    for rule in rules:
        if rule.code is not None and rule.code != fault.code:
            continue
        if rule.check is not None and rule.check != fault.check:
            continue
        if _within(fault, rule.window_s, now) < rule.count:
            continue
        if rule.severity is None:
            return None
        return fault.model_copy(
            update={"severity": rule.severity, "action": rule.action or fault.action}
        )
    return fault


def _within(fault: Fault, window_s: float | None, now: float) -> float:
    if window_s is None or fault.last_seen is None:
        return fault.count
    last = clock.parse(fault.last_seen)
    if now - last > window_s:
        return 0
    first = clock.parse(fault.first_seen) if fault.first_seen else last
    spread_s = max(last - first, 0.0)
    covered_s = window_s - max(now - last, 0.0)
    return fault.count if spread_s <= covered_s else fault.count * covered_s / spread_s


def _released(fault: Fault, released_at: float | None) -> bool:
    """Return whether a person released the blade after the fault; not within the same second."""
    seen = fault.last_seen or fault.first_seen
    return released_at is not None and seen is not None and clock.parse(seen) < released_at


def _of(fault: Fault) -> Finding:
    where = "blade" if fault.gpu is None else f"GPU {fault.gpu}"
    evidence = f": {fault.evidence[:_EVIDENCE_CHARS]}" if fault.evidence else ""
    return Finding(
        severity=fault.severity,
        action=fault.action,
        reason=reason_of(fault.code),
        message=f"{where}: {fault.code} ({fault.severity}, {fault.action}){evidence}",
        code=fault.code,
        gpu=fault.gpu,
        first_seen=clock.parse(fault.first_seen) if fault.first_seen else None,
    )


def _is_blind(report: Report) -> bool:
    return not report.gpus and any(fault.check == NVML_CHECK for fault in report.faults)


def _mismatches(report: Report, policy: Policy) -> Iterator[str]:
    """Yield what of the inventory is not what the pool says, each with both values."""
    if len(report.gpus) != policy.gpus:
        yield f"must have {policy.gpus} GPUs (got {len(report.gpus)})"
    if policy.product is not None:
        bad = [g for g in report.gpus if as_product(g.product or "") != policy.product]
        if bad:
            got = ", ".join(sorted({as_product(g.product or "") or "none" for g in bad}))
            yield f"{_named(bad)} must be {policy.product} (got {got})"
    if policy.memory_b is not None:
        small = [g for g in report.gpus if parse_quantity(g.memory or 0) < policy.memory_b]
        if small:
            got = ", ".join(sorted({g.memory or "none" for g in small}))
            yield f"{_named(small)} must have {policy.memory} of memory or more (got {got})"
    if policy.min_driver:
        driver = report.agent.driver or ""
        if as_version(driver) < policy.min_driver:
            wanted = ".".join(map(str, policy.min_driver))
            yield f"driver must be {wanted} or newer (got {driver or 'none'})"


def _named(gpus: Iterable[GpuInventory]) -> str:
    return "GPU " + ",".join(str(gpu.index) for gpu in gpus)
