"""nvml: the library can be used at all, and tells something of every GPU.

A driver that is not loaded, a library that does not fit it, a library that is not there: none of
the blade's GPUs can work, so the fault is the blade's. Otherwise the node would go on taking pods
(k8s-device-plugin PR#1641). A library that does not *answer* is seen from outside, by the probe's
deadline; `unresponsive` turns that into a finding of the same check.

What a reload of the driver looks like from here, unloading, another library, loading, gets time:

| no session                                  | for less than RELOAD_S | longer                    |
|---------------------------------------------|------------------------|---------------------------|
| driver not loaded, library does not fit it  | Degraded, Drain        | Fatal, Reboot             |
| no library, or one that lost its driver     | Degraded, Drain        | Fatal, Inspect            |
| left by us, for a reset (pause.py)          | nothing is said, and what was said holds           |
| refused to us: no permission, no resources  | Unknown, None          | Unknown, None             |
| anything else                               | Fatal, Inspect         | Fatal, Inspect            |

Drain: no new work comes. What runs has nothing to fear: a driver in use is not unloaded.

Unknown: nobody can tell, so no new work comes, nothing is taken out as broken, and nothing that was
found before is cleared. A refusal says something of the agent and nothing of the GPUs; the chart's
agent.access and agent.resources are the way out. Unknown is also a single GPU of which not one
value can be read, whatever the error: a handle that NVML does not give, say.
"""

import re

from tramontane.api.blade import Action, Fault, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past, on
from tramontane.health.device import Reading, Unresponsive

NAME = "nvml"
UNRESPONSIVE = "nvml-unresponsive"
# Why there is no session while the operator has a GPU reset.
LEFT = "Left"

# A busy driver may be slow once; three children in a row that get no answer are no accident.
# Source: NVSentinel, three missed polls.
FATAL_STRIKES = 3
# A reload takes tens of seconds; a driver container that builds its module first takes minutes.
RELOAD_S = 300.0

_ACTIONS = {
    "DriverNotLoaded": Action.REBOOT,
    "LibRmVersionMismatch": Action.REBOOT,  # a driver update without a reboot
}
_RELOADING = frozenset({*_ACTIONS, "LibraryNotFound", "Uninitialized"})
# Source: nvml.h, NVML_ERROR_NO_PERMISSION, …_INSUFFICIENT_RESOURCES and …_MEMORY: the caller's.
_REFUSALS = frozenset({"NoPermission", "InsufficientResources", "Memory"})


def _code(error: str) -> str:
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", error).lower()
    return f"nvml-{words}"


def _judge(reading: Reading, past: Past) -> Outcome:
    error = reading.session_error
    if not error:
        return _each(reading)
    if error == LEFT:
        return Outcome(blind=frozenset({None}), unknown=True)
    if error in _REFUSALS:
        evidence = f"NVML refuses the agent: {error}; see agent.access and agent.resources"
        refused = Finding(_code(error), Severity.UNKNOWN, Action.NONE, evidence)
        return Outcome((refused,), frozenset({None}), unknown=True)
    severity, action = Severity.FATAL, _ACTIONS.get(error, Action.INSPECT)
    if error in _RELOADING and past.no_session_s < RELOAD_S:
        severity, action = Severity.DEGRADED, Action.DRAIN
    return Outcome((Finding(_code(error), severity, action, f"NVML cannot be used: {error}"),))


def _each(reading: Reading) -> Outcome:
    """Judge a session by what it tells of each GPU."""
    findings: list[Finding] = []
    for gpu in reading.gpus:
        if error := gpu.untold:
            evidence = f"NVML tells nothing of this GPU: {error}"
            findings += on(gpu, _code(error), Severity.UNKNOWN, Action.NONE, evidence)
    return Outcome(tuple(findings), unknown=bool(findings))


def is_no_session(said: Finding | Fault) -> bool:
    """Return whether what this check said is that the library is of no use to anybody."""
    return said.code != UNRESPONSIVE and said.severity is not Severity.UNKNOWN


def tells_no_session(fault: Fault) -> bool:
    """Return whether a fault says that NVML answers, and cannot be used."""
    return fault.check == NAME and is_no_session(fault)


def is_reloading(fault: Fault) -> bool:
    """Return whether a fault is only doubted, because the driver may be about to come back."""
    return tells_no_session(fault) and fault.severity is Severity.DEGRADED


def unresponsive(what: Unresponsive) -> Finding:
    """Return the finding of a library that gives no answer.

    | strikes in a row | severity | action |
    |------------------|----------|--------|
    | 1, 2             | Degraded | Drain: no new work; what runs may not even notice |
    | 3 and more       | Fatal    | Reboot |
    """
    fatal = what.strikes >= FATAL_STRIKES
    return Finding(
        UNRESPONSIVE,
        Severity.FATAL if fatal else Severity.DEGRADED,
        Action.REBOOT if fatal else Action.DRAIN,
        what.evidence,
        count=what.strikes,
    )


CHECK = Check(NAME, "NVML return codes of nvmlInit", _judge)
