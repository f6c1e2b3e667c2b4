"""Judge a reading: one file per check, each a pure function with its threshold's source.

`run` is what the agent calls. Add a check by adding its file and naming it in `CHECKS`.
"""

from collections.abc import Mapping

from tramontane.health.checks import (
    count,
    ecc_errors,
    ecc_mode,
    inventory,
    lost,
    recovery_action,
    row_remap,
    session,
    sram,
    xid,
)
from tramontane.health.checks.base import Check, Finding, Outcome, Past
from tramontane.health.device import Reading

CHECKS: tuple[Check, ...] = (
    session.CHECK,
    count.CHECK,
    lost.CHECK,
    recovery_action.CHECK,
    row_remap.CHECK,
    ecc_mode.CHECK,
    ecc_errors.CHECK,
    sram.CHECK,
    inventory.CHECK,
    xid.CHECK,
)
NAMES = frozenset(check.name for check in CHECKS)

# What a check says that could not look at the blade at all.
BLIND = Outcome(blind=frozenset({None}), unknown=True)

__all__ = ["BLIND", "CHECKS", "NAMES", "Check", "Finding", "Outcome", "Past", "run"]


def run(
    reading: Reading, past: Past, disabled: frozenset[str] = frozenset()
) -> Mapping[str, Outcome]:
    """Return the outcome of every check that is switched on.

    Without a session there is nothing to look at: all checks but that of the session are blind.
    """
    outcomes = {}
    for check in CHECKS:
        if check.name in disabled:
            continue
        if reading.session_error and check.name != session.NAME:
            outcomes[check.name] = BLIND
        else:
            outcomes[check.name] = check.judge(reading, past)
    return outcomes
