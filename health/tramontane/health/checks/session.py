"""nvml: the library can be used at all.

A driver that is not loaded, a library that does not fit it, a library that is not there: none of
the blade's GPUs can work, so the fault is the blade's. Otherwise the node would go on taking pods
(k8s-device-plugin PR#1641). A library that does not *answer* is seen from outside, by the probe's
deadline; `unresponsive` turns that into a finding of the same check.
"""

import re

from tramontane.api.blade import Action, Severity
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Reading, Unresponsive

NAME = "nvml"
UNRESPONSIVE = "nvml-unresponsive"

# A busy driver may be slow once; three children in a row that get no answer are no accident.
# Source: NVSentinel, three missed polls.
FATAL_STRIKES = 3

_ACTIONS = {
    "DriverNotLoaded": Action.REBOOT,
    "LibRmVersionMismatch": Action.REBOOT,  # a driver update without a reboot
}


def _judge(reading: Reading, _past: Past) -> Outcome:
    if not reading.session_error:
        return Outcome()
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", reading.session_error).lower()
    finding = Finding(
        f"nvml-{words}",
        Severity.FATAL,
        _ACTIONS.get(reading.session_error, Action.INSPECT),
        f"NVML cannot be used: {reading.session_error}",
    )
    return Outcome((finding,))


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
