"""Conclude from a report what is wrong with a blade: pure, and the only place that knows how.

Faults go through the pool's rules, first match, without the events (XIDs) that a person released
since: what has happened can be forgiven. A state that the report shows is there, whoever says what
(`lastSeen` of a state is when its evidence last changed, not when it was last seen). What
the report shows of the blade is compared with the pool's `gpu` and with the pool's other blades.
The worst of all is the verdict, with the strongest action. (inventory.py compares.)

| what                                              | severity | action    | code                 |
|---------------------------------------------------|----------|-----------|----------------------|
| a fault                                           | the rule's, else its own | its own        |
| GPUs, product, memory, NVLinks, driver below pool | Fatal    | Inspect   | inventory-mismatch   |
| InfiniBand ports or rate below the pool's         | Degraded | Inspect   | inventory-mismatch   |
| driver, VBIOS, GSP unlike the pool's others       | Info     | Inspect   | version-mismatch     |
| a driver that never showed its GPUs               | Unknown  | None      | nvml-unresponsive    |

Rules hold of the operator's own findings too, by their code: of these three, and of those of the
record (life.py): burn-in-failed, collective-failed, flapping, lemon.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tramontane.api import clock
from tramontane.api.blade import Action, Fault, Report, Severity
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool import inventory
from tramontane.controllers.nodepool.policy import Policy, Rule

# What an agent reports when a driver call blocks; its way out differs from a broken GPU's.
HUNG_CODE = "nvml-unresponsive"
MISMATCH_CODE = "inventory-mismatch"
VERSION_CODE = "version-mismatch"
# The agent's checks whose faults are what has happened, not what is.
EVENT_CHECKS = frozenset({"xid", "sxid"})
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
    VERSION_CODE: BladeReason.INVENTORY_MISMATCH,
}
# Degraded faults that do no harm to what runs: the reset waits for the job's end.
# Source: health.md 1.5 (63: "keep the job, reset at the next job boundary") and check 11. What an
# error that was not contained leaves is told by its own XID (48, 95), which is Fatal.
WAITS_FOR_IDLE = frozenset(
    {
        "xid-48",  # where 63 or 94 says that the memory error was contained
        "xid-63",
        "xid-94",  # where its line asks for a reset; alone it asks for none
        "xid-163",
        "bank-remap-pending",
        "channel-repair-pending",
        "ecc-uncorrected",  # what 63 and 94 leave behind until the reset
        "ecc-disabled",  # for a person's look, too, where a reset would leave it off
        "recovery-drain-and-reset",
        "retired-pages-pending",
        "row-remap-pending",
        "tpc-repair-pending",
    }
)
# What the agent makes of a fault only when it has come back on the same unit; the first time it
# asks for less. Source: health.md 1.5, escalations of 13, 31, 48, 74 and 94.
RECURRED: Mapping[str, Action] = MappingProxyType(
    {
        "xid-13": Action.RESTART_APP,
        "xid-31": Action.RESTART_APP,
        "xid-48": Action.REPLACE,
        "xid-74": Action.REPLACE,
        "xid-94": Action.RESET,
    }
)
_MOST_SHOWN = 3
_EVIDENCE_CHARS = 200
_AGAIN = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, all faults together.

    Attributes:
        code: of the worst fault; empty when nothing is wrong.
        gpu: its GPU, or None for the whole blade.
        first_seen, last_seen: when it was seen (Unix s), or None.
        waits_for_idle: nothing that runs is harmed: act when the job has ended.
        fault_boot_id: boot in which the fault was seen; empty if that is not known.
    """

    severity: Severity = Severity.NONE
    action: Action = Action.NONE
    reason: BladeReason | None = None
    message: str = ""
    code: str = ""
    gpu: int | None = None
    first_seen: float | None = None
    last_seen: float | None = None
    waits_for_idle: bool = False
    fault_boot_id: str = ""


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


def stronger(a: Action, b: Action) -> Action:
    """Return the stronger of two actions: None, RestartApp, Drain, Reset, Reboot, ..."""
    return max(a, b, key=_STRENGTH.__getitem__)


def reason_of(code: str) -> BladeReason:
    """Return the reason of a blade that is out for the fault `code`."""
    return _REASONS.get(code, BladeReason.HARDWARE_FAULT)


def judge(report: Report, policy: Policy, now: float, released_at: float | None) -> Finding:
    """Return the sum of all that is wrong with a blade. O(faults · rules)."""
    faults = standing(report, policy, now, released_at)
    findings = [_of(fault) for fault in faults]
    own: list[Finding] = []
    if _is_blind(report):
        findings.append(BLIND)
    else:
        differs = inventory.mismatches(report, policy, faults)
        below = inventory.network_mismatches(report, policy, faults)
        own += _compared(Severity.FATAL, MISMATCH_CODE, differs)
        own += _compared(Severity.DEGRADED, MISMATCH_CODE, below)
        own += _compared(Severity.INFO, VERSION_CODE, inventory.differences(report, policy))
    findings += [found for one in own for found in [ruled(one, policy.rules)] if found is not None]
    if not findings:
        return NOTHING
    # A stable sort: among equals the agent's order counts, and faults come before inventory; but
    # one that cannot wait speaks before one that can.
    findings.sort(key=lambda finding: (-_RANK[finding.severity], finding.waits_for_idle))
    shown = [finding.message for finding in findings[:_MOST_SHOWN]]
    if len(findings) > _MOST_SHOWN:
        shown.append(f"and {len(findings) - _MOST_SHOWN} more")
    worst = findings[0]
    actions = [worst.action, *(f.action for f in findings if not _is_ticket(f))]
    return replace(worst, action=max(actions, key=_STRENGTH.__getitem__), message="; ".join(shown))


def standing(report: Report, policy: Policy, now: float, released_at: float | None) -> list[Fault]:
    """Return the report's faults as the pool's rules have them, without those released since."""
    return [
        seen
        for fault in report.faults
        if not _released(fault, released_at)
        for seen in [override(fault, policy.rules, now)]
        if seen is not None and seen.severity is not Severity.NONE
    ]


def _is_ticket(finding: Finding) -> bool:
    """Return whether a finding is a note for people: it must not keep a repair from the others."""
    return finding.severity is Severity.INFO and finding.action in {Action.INSPECT, Action.REPLACE}


def _compared(severity: Severity, code: str, texts: Iterable[str]) -> list[Finding]:
    message = "; ".join(texts)
    return [Finding(severity, Action.INSPECT, reason_of(code), message, code)] if message else []


def override(fault: Fault, rules: Iterable[Rule], now: float) -> Fault | None:
    """Return the fault as the first matching rule wants it; None where that is to ignore it.

    A rule with a count matches a fault that was seen so often within the window. The report has a
    total with its first and last time, so the share in the window is taken as evenly spread. What
    the catalogue ignores is raised by its code only: a rule for all of a check means its faults.
    """
    ignored = fault.severity is Severity.NONE
    for rule in rules:
        if (rule.code is not None or ignored) and rule.code != fault.code:
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


def ruled(finding: Finding, rules: Iterable[Rule]) -> Finding | None:
    """Return a finding of our own as the first rule for its code wants it; None: to ignore it.

    It was found once, by no check of the agent, so rules with a count or a check do not match.
    """
    for rule in rules:
        if rule.code == finding.code and rule.check is None and rule.count <= 1:
            if rule.severity is None:
                return None
            return replace(finding, severity=rule.severity, action=rule.action or finding.action)
    return finding


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
    """Return whether a person released the blade after the event; not within the same second."""
    if fault.check not in EVENT_CHECKS:
        return False
    seen = fault.last_seen or fault.first_seen
    return released_at is not None and seen is not None and clock.parse(seen) < released_at


def _of(fault: Fault) -> Finding:
    where = "blade" if fault.gpu is None else f"GPU {fault.gpu}"
    evidence = f": {fault.evidence[:_EVIDENCE_CHARS]}" if fault.evidence else ""
    recurred = _recurred(fault)
    return Finding(
        severity=fault.severity,
        action=fault.action,
        reason=BladeReason.RECURRING_FAULT if recurred else reason_of(fault.code),
        message=f"{where}: {fault.code} ({fault.severity}, {fault.action}){evidence}",
        code=fault.code,
        gpu=fault.gpu,
        first_seen=clock.parse(fault.first_seen) if fault.first_seen else None,
        last_seen=clock.parse(fault.last_seen) if fault.last_seen else None,
        waits_for_idle=fault.severity is Severity.DEGRADED and fault.code in WAITS_FOR_IDLE,
        fault_boot_id=fault.boot_id or "",
    )


def _is_blind(report: Report) -> bool:
    return not report.gpus and any(fault.check == NVML_CHECK for fault in report.faults)


def _recurred(fault: Fault) -> bool:
    """Return whether the agent judges the fault as it does because it came back."""
    least = RECURRED.get(fault.code)
    if least is None or milder(fault.severity, Severity.DEGRADED) or fault.count < _AGAIN:
        return False
    return _STRENGTH[fault.action] >= _STRENGTH[least]
