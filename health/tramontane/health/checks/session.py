"""nvml: the library can be used at all.

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
| anything else                               | Fatal, Inspect         | Fatal, Inspect            |

Drain: no new work comes. What runs has nothing to fear: a driver in use is not unloaded.
"""

import re

from tramontane.api.blade import Action, Fault, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
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


def _code(error: str) -> str:
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", error).lower()
    return f"nvml-{words}"


def _judge(reading: Reading, past: Past) -> Outcome:
    error = reading.session_error
    if not error:
        return Outcome()
    if error == LEFT:
        return Outcome(blind=frozenset({None}), unknown=True)
    severity, action = Severity.FATAL, _ACTIONS.get(error, Action.INSPECT)
    if error in _RELOADING and past.no_session_s < RELOAD_S:
        severity, action = Severity.DEGRADED, Action.DRAIN
    return Outcome((Finding(_code(error), severity, action, f"NVML cannot be used: {error}"),))


def tells_no_session(fault: Fault) -> bool:
    """Return whether a fault says that NVML answers, and cannot be used."""
    return fault.check == NAME and fault.code != UNRESPONSIVE


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
