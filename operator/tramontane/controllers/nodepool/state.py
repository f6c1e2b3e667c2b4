"""Decide a blade's state from the signs of the moment and what its status remembers.

Rows are tried from the top; the first that holds decides. (`prior` is Blade.status as last
written; a fault is *open* from its report until it has been gone for `clearAfter` or a person
released the blade: incidents.py. A fault is *refused* that is Fatal, asks for Reset, Reboot or
Replace, and for which budget or breaker did not let the blade out.)

|    | sign                                      | state       | reason          | verdict        |
|----|-------------------------------------------|-------------|-----------------|----------------|
|  1 | Node gone                                 | Lost        | NodeNotReady    | Unknown        |
|  2 | Node has no Ready condition yet           | Unknown     | NodeNotReady    | Unknown        |
|  3 | Node not Ready                            | Lost        | NodeNotReady    | Unknown        |
|  4 | kubelet and agent both silent for 45 s    | Lost        | NodeNotReady    | Unknown        |
|  5 | Node made anew under a seat, no report    | Lost        | NodeNotReady    | Unknown        |
|  6 | a hold in force                           | Quarantined | HeldByPerson    | faults'        |
|  7 | Fatal finding, Granted                    | Quarantined | the finding's   | Fatal          |
|  8 | quarantined, fault gone but open, Granted | Quarantined | the fault's     | Fatal          |
|    | (not where it requalifies by now), or a   |             |                 |                |
|    | refused one that is gone, not repaired    |             |                 |                |
|  9 | no report of this life, or agent silent   | Unknown     | AgentSilent     | Unknown, Fatal |
| 10 | 7 or 8 over budget, was not Healthy       | Unknown     | BudgetExhausted | Fatal          |
| 11 | 7 or 8 over budget, was Healthy           | Healthy     | BudgetExhausted | Fatal          |
| 12 | 7 or 8, mode is DryRun or Off             | Healthy     | the finding's   | Fatal          |
| 13 | finding of severity Unknown               | Unknown     | ProbeHung       | Unknown        |
| 14 | Degraded finding, or one gone but open    | Suspect     | the finding's   | Degraded       |
| 15 | anything else                             | Healthy     |                 | None, Info     |

A Degraded finding becomes one of row 7 when it has not healed within `clearAfter` and asks for
more than a restart of the application. One that waits for the job's end (a remapped row) becomes
one as soon as the blade is idle, and not before. Over budget or behind an open breaker a Suspect
blade stays Suspect; in a pool that only watches there are none, they stay Healthy.

When `clearAfter` begins, by the operator's own clock (the open incident's `goneSince`), so that no
other machine's matters, and that a restart of the operator does not either:

| what is looked at                                       | the fault has been gone              |
|---------------------------------------------------------|--------------------------------------|
| it is in the report, or the driver does not answer      | not at all                           |
| it is not, was refused, and no other boot came since    | not at all: gone is not repaired     |
| it is not, was refused, and asks for Replace            | not at all                           |
| it is not, for the first time, or first in another boot | from now                             |
| it is not                                               | since then, however often the report |
|                                                         | changed meanwhile                    |
| no report of this life                                  | as before                            |

The scheduler takes Healthy blades with a verdict of None or Info, so rows 11, 12 and 14 keep what
runs and take nothing new. What a blade goes through because it is new or was quarantined is
decided on top of this (life.py); rows 1 to 6 stay above it all: a blade that is not there is in
no repair.
"""

from dataclasses import dataclass, replace
from enum import Enum

from tramontane.api import clock
from tramontane.api.blade import Action, BladeState, Hold, Incident, Release, Severity
from tramontane.api.nodepool import RemediationMode
from tramontane.api.reasons import BladeReason
from tramontane.controllers.nodepool.policy import Policy
from tramontane.controllers.nodepool.verdict import NOTHING, Finding, milder, reason_of, worse

# Source: design, "what happens when something dies": kubelet and agent both silent.
LOST_AFTER_S = 45.0
_MILD = frozenset({Action.NONE, Action.RESTART_APP})
# What another boot does as well.
_BOOTED = frozenset({Action.RESET, Action.REBOOT})
# What no time ends: a blade that was not let out for such a fault still needs it. Inspect is none:
# it ends with the sign (an inventory that a person puts right in the pool, too).
_LASTING = _BOOTED | {Action.REPLACE}
# How often a silent blade's kubelet is asked for, until one of the other rows holds.
_ASK_AGAIN_S = 5.0


class NodeSign(Enum):
    """Say what Kubernetes says of the Node."""

    READY = "ready"
    NOT_READY = "not ready"
    NEW = "new"
    ABSENT = "absent"


class Ruling(Enum):
    """Say whether a fault may have consequences."""

    GRANTED = "granted"
    OVER_BUDGET = "over budget"
    BREAKER_OPEN = "breaker open"
    DRY_RUN = "dry run"
    OFF = "off"


_REFUSALS = {
    Ruling.OVER_BUDGET: (BladeReason.BUDGET_EXHAUSTED, "maxUnavailable is reached"),
    Ruling.BREAKER_OPEN: (BladeReason.BREAKER_OPEN, "the pool's breaker is open"),
}


@dataclass(frozen=True, slots=True)
class Signs:
    """What is seen of a blade at one moment. Times are Unix seconds.

    Attributes:
        reported: whether there is a report of this Node's life, not of an earlier one's.
        reported_at: when that report last changed, by the agent's clock.
        boot_id: the boot that it is of; empty where it does not say.
        agent_silence_s: since the agent's last sign of life; infinite if there was none.
        machine_silence_s: since the last sign of agent or kubelet.
        heard_at: the agent's last sign of life, for messages; None if there was none.
        release: what a person last said, not later than when that was first seen (sight.py).
        replaced: the Node was made anew and its agent has not reported since.
        seated: whether a gang's placement names the blade.
        busy: whether it does, or a pod of a gang still holds the blade.
    """

    now: float
    node: NodeSign
    reported: bool = False
    reported_at: float | None = None
    boot_id: str = ""
    finding: Finding = NOTHING
    agent_silence_s: float = float("inf")
    machine_silence_s: float = 0.0
    heard_at: float | None = None
    hold: Hold | None = None
    release: Release | None = None
    released_at: float | None = None
    replaced: bool = False
    seated: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Prior:
    """What the blade's status remembers. `open_fault`: the fault that has not cleared yet."""

    state: BladeState | None = None
    open_fault: Incident | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A state with its reason.

    Attributes:
        by_fault: whether row 7 or 8 decided, so that budget and mode must agree.
        clearing: whether a fault is gone and its window not over.
        after_s: when to look again without an event, or None.
        gone_since: when the open fault began to be gone (Unix s), for the record; None: it is not.
    """

    state: BladeState
    reason: BladeReason | None
    message: str
    severity: Severity
    action: Action = Action.NONE
    by_fault: bool = False
    clearing: bool = False
    after_s: float | None = None
    gone_since: float | None = None


def decide(signs: Signs, prior: Prior, policy: Policy, ruling: Ruling) -> Decision:
    """Return the state of the module's table. O(1).

    Ask with Ruling.GRANTED first; where the answer is `by_fault` and the pool does not grant it,
    ask again with what it says.
    """
    gone_since = _gone_since(signs, prior, policy)
    decided = _unreachable(signs) or _reachable(signs, prior, policy, ruling, gone_since)
    return replace(decided, gone_since=gone_since)


def _reachable(
    signs: Signs, prior: Prior, policy: Policy, ruling: Ruling, gone_since: float | None
) -> Decision:
    """Rows 6 to 15."""
    cleared_in_s = _cleared_in_s(signs, prior, policy, gone_since)
    clearing = cleared_in_s is not None
    finding = _remembered(prior, gone_since) if clearing else signs.finding
    if signs.hold is not None:
        hold = signs.hold
        message = f"held by {hold.by}: {hold.reason}"
        return Decision(
            BladeState.QUARANTINED,
            BladeReason.HELD_BY_PERSON,
            message,
            finding.severity,
            finding.action,
            clearing=clearing,
            after_s=_soonest(cleared_in_s),
        )
    must_go = (
        _must_come_back(prior, policy, gone_since)
        if clearing
        else _must_go(finding, signs, prior, policy)
    )
    wanted = signs.reported and must_go
    if wanted and ruling is Ruling.GRANTED:
        return Decision(
            BladeState.QUARANTINED,
            finding.reason,
            finding.message,
            finding.severity,
            finding.action,
            by_fault=True,
            clearing=clearing,
            after_s=_soonest(cleared_in_s),
        )
    heals_in_s = None if clearing or wanted else _heals_in_s(finding, signs, prior, policy)
    after_s = _soonest(cleared_in_s, _silent_in_s(signs, policy), heals_in_s)
    if not signs.reported or signs.agent_silence_s >= policy.unknown_after_s:
        return Decision(
            BladeState.UNKNOWN,
            BladeReason.AGENT_SILENT,
            _silence(signs),
            worse(Severity.UNKNOWN, finding.severity),
            finding.action,
            clearing=clearing,
            after_s=after_s,
        )
    state, reason, message = _working(finding, prior, policy, ruling, wanted=wanted)
    return Decision(
        state, reason, message, finding.severity, finding.action, False, clearing, after_s
    )


def _unreachable(signs: Signs) -> Decision | None:
    """Rows 1 to 5."""
    lost, state = True, BladeState.LOST
    match signs:
        case Signs(node=NodeSign.ABSENT):
            message = "the Node is gone"
        case Signs(node=NodeSign.NEW):
            lost, state = False, BladeState.UNKNOWN
            message = "the Node has no Ready condition yet"
        case Signs(node=NodeSign.NOT_READY):
            message = "the Node is not Ready"
        case Signs() if signs.machine_silence_s >= LOST_AFTER_S:
            message = f"kubelet and agent are silent for more than {LOST_AFTER_S:.0f}s"
        case Signs(replaced=True, seated=True):
            message = "the Node was deleted and made anew; its agent has not reported since"
        case _:
            return None
    after_s = _ASK_AGAIN_S if lost and signs.machine_silence_s >= LOST_AFTER_S else None
    return Decision(state, BladeReason.NODE_NOT_READY, message, Severity.UNKNOWN, after_s=after_s)


def _working(
    finding: Finding, prior: Prior, policy: Policy, ruling: Ruling, *, wanted: bool
) -> tuple[BladeState, BladeReason | None, str]:
    """Rows 10 to 15: the agent speaks, and nothing was granted."""
    if wanted and ruling in _REFUSALS:
        reason, why = _REFUSALS[ruling]
        worked = prior.state in {BladeState.HEALTHY, BladeState.SUSPECT}
        state = prior.state if worked and prior.state is not None else BladeState.UNKNOWN
        return state, reason, f"not quarantined, {why}: {finding.message}"
    if wanted and ruling is Ruling.DRY_RUN:
        return BladeState.HEALTHY, finding.reason, f"DryRun, would quarantine: {finding.message}"
    if wanted:
        return BladeState.HEALTHY, finding.reason, f"remediation is Off: {finding.message}"
    if finding.severity is Severity.UNKNOWN:
        return BladeState.UNKNOWN, BladeReason.PROBE_HUNG, finding.message
    acts = policy.mode is RemediationMode.AUTO
    doubted = acts and finding.severity is Severity.DEGRADED
    state = BladeState.SUSPECT if doubted else BladeState.HEALTHY
    return state, finding.reason, finding.message


def _must_go(finding: Finding, signs: Signs, prior: Prior, policy: Policy) -> bool:
    """Return whether the finding calls for quarantine."""
    if finding.severity is Severity.FATAL:
        return True
    if finding.severity is not Severity.DEGRADED:
        return False
    if finding.waits_for_idle:
        return not signs.busy
    return _heals_in_s(finding, signs, prior, policy) == 0


def _heals_in_s(finding: Finding, signs: Signs, prior: Prior, policy: Policy) -> float | None:
    """Return how long a Degraded finding may still heal by itself; None: for ever."""
    if finding.severity is not Severity.DEGRADED or finding.action in _MILD:
        return None
    fault = prior.open_fault
    if finding.waits_for_idle or fault is None or not fault.at:
        return None
    return max(0.0, clock.parse(fault.at) + policy.clear_after_s - signs.now)


def _gone_since(signs: Signs, prior: Prior, policy: Policy) -> float | None:
    """Return since when the open fault is gone: the module's second table."""
    fault = prior.open_fault
    if fault is None:
        return None
    begun = clock.parse(fault.gone_since) if fault.gone_since else None
    if not signs.reported:
        return begun
    seen = signs.finding.severity
    if seen is Severity.UNKNOWN or not milder(seen, severity_of(fault)):
        return None
    rebooted = bool(signs.boot_id and fault.boot_id) and signs.boot_id != fault.boot_id
    if begun is None and _is_refused(fault, policy):
        return signs.now if rebooted and fault.action in _BOOTED else None
    return signs.now if begun is None or rebooted else min(begun, signs.now)


def _is_refused(fault: Incident, policy: Policy) -> bool:
    """Return whether the fault asks for more than time, and did not take the blade out."""
    return (
        policy.mode is RemediationMode.AUTO
        and severity_of(fault) is Severity.FATAL
        and fault.to is not BladeState.QUARANTINED
        and fault.action in _LASTING
    )


def _must_come_back(prior: Prior, policy: Policy, gone_since: float | None) -> bool:
    """Return whether a fault that is gone calls for quarantine all the same."""
    fault = prior.open_fault
    assert fault is not None
    if fault.to is BladeState.QUARANTINED:
        return True
    return gone_since is None and _is_refused(fault, policy)


def _cleared_in_s(
    signs: Signs, prior: Prior, policy: Policy, gone_since: float | None
) -> float | None:
    """Return how long an open fault that the report has no more stays open; None: none is.

    The window ends only while the agent speaks: silence is not clean. A blade that requalifies
    has had its window: what its tests bring into the report begins no other.
    """
    fault = prior.open_fault
    if fault is None or not signs.reported or prior.state is BladeState.REQUALIFYING:
        return None
    if not milder(signs.finding.severity, severity_of(fault)):
        return None
    if signs.released_at is not None and fault.at and clock.parse(fault.at) < signs.released_at:
        return None
    if gone_since is None or signs.agent_silence_s >= policy.unknown_after_s:
        return float("inf")
    left_s = gone_since + policy.clear_after_s - signs.now
    return left_s if left_s > 0 else None


def severity_of(fault: Incident) -> Severity:
    """Return how bad the fault of an incident is."""
    if fault.severity is not None:
        return fault.severity
    return Severity.FATAL if fault.to is BladeState.QUARANTINED else Severity.DEGRADED


def _remembered(prior: Prior, gone_since: float | None) -> Finding:
    """Return the finding that is gone but open, as far as the record has it."""
    fault = prior.open_fault
    assert fault is not None
    where = "blade" if fault.gpu is None else f"GPU {fault.gpu}"
    since = "gone, but not repaired"
    if gone_since is not None:
        since = f"gone since {clock.utc(gone_since)}, and clears after health.clearAfter"
    return Finding(
        severity_of(fault),
        fault.action or Action.NONE,
        reason_of(fault.code or ""),
        f"{where}: {fault.code} is {since}",
        fault.code or "",
        fault.gpu,
    )


def _silence(signs: Signs) -> str:
    if signs.replaced:
        return "the Node was deleted and made anew; its agent has not reported since"
    if not signs.reported:
        return "the agent has not reported yet"
    if signs.heard_at is None:
        return "the agent gives no sign of life"
    return f"no sign of life from the agent since {clock.utc(signs.heard_at)}"


def _silent_in_s(signs: Signs, policy: Policy) -> float | None:
    """Return when to look at the silence again; before 45 s the sweep does (silence.py)."""
    if signs.agent_silence_s < LOST_AFTER_S or signs.agent_silence_s == float("inf"):
        return None
    left_s = policy.unknown_after_s - signs.agent_silence_s
    return min(_ASK_AGAIN_S, left_s) if left_s > 0 else _ASK_AGAIN_S * 6


def _soonest(*times_s: float | None) -> float | None:
    finite = [time for time in times_s if time is not None and time != float("inf")]
    return min(finite, default=None)
