"""Hold what events mean together: the rules between XIDs, as data. events.py applies them.

An event alone means what the catalogue says. Beside others, on the same GPU:

| events                                       | mean                                            |
|----------------------------------------------|-------------------------------------------------|
| 45 within a minute of another XID            | nothing: every crash tears its channels down    |
| 162 after 163, SXID 10005 after 10004        | that what the other reported is over            |
| 171 or 172 within a minute of 48             | where 48's error was: one fault, DRAM or SRAM   |
| 63 or 94 within a minute of 48               | that it was contained: reset when the job ends  |
| 94 again                                     | failing memory: reset now                       |
| 48 again, 74 again on the same link          | a part that goes back                           |
| 13 again on the same TPC, 31 again, and no   | a GPU to be doubted: no new work for a day; an  |
| other TPC or GPU of the blade had it         | application's own error mostly strikes many     |

*Again* is in another burst, within a day. Lines of one burst follow each other closely and are
one occurrence, however many they are: a fault's `count` is of bursts, so that a flood escalates
nothing, neither here nor by a pool's rules; 45 escalates by nothing at all.

Why 13 and 31 ask for no more than a restart of the application even then: a job whose one rank has
a bug, restarted in place, strikes the same GPU each time. That is no reason to take a blade out.
A pool of known good applications may want more: `health.rules` with count and window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tramontane.api.blade import Action, Severity

DAY_S = 24 * 3600.0

# A follower, a detail and their cause lie this close together.
# Source: NVSentinel#1710 (bursts of a crash).
NEAR_S = 60.0
# The same XID from NVML and from the kernel log: the log is looked at every 0.2 s, and a repeat
# is told after a second at most (kmsg.py); the rest is for a loaded blade.
SAME_S = 5.0

# Events of a code that follow each other so closely are one occurrence; see Recurrence.burst_s.
# Source: NVSentinel, bursts of 15 s.
BURST_S = 15.0

# Codes that mean something only when alone. Source: NVSentinel#1710.
FOLLOWERS = frozenset({"xid-45"})

# What is over when the code comes.
# Source: NVSentinel#1252 (power smoothing); Fabric Manager User Guide (thermal event ends).
CANCELS: Mapping[str, frozenset[str]] = MappingProxyType(
    {"xid-162": frozenset({"xid-163"}), "sxid-10005": frozenset({"sxid-10004"})}
)


@dataclass(frozen=True, slots=True)
class Detail:
    """A code that only says more about another."""

    of: str
    text: str


# Source: xid.csv, 171 and 172: "Detail record for XID 48".
DETAILS: Mapping[str, Detail] = MappingProxyType(
    {
        "xid-171": Detail("xid-48", "in DRAM (XID 171)"),
        "xid-172": Detail("xid-48", "in SRAM (XID 172)"),
    }
)


@dataclass(frozen=True, slots=True)
class Softening:
    """What a code asks for where one of `by` is near: the others tell how bad it was."""

    by: frozenset[str]
    severity: Severity
    action: Action


# Source: NVIDIA, WORKFLOW_XID_48: "followed by 63: drain, wait for the work's end, reset"; 94 says
# that the error was contained. 64 and 95 are Fatal on their own.
SOFTENED: Mapping[str, Softening] = MappingProxyType(
    {"xid-48": Softening(frozenset({"xid-63", "xid-94"}), Severity.DEGRADED, Action.RESET)}
)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What a code asks for when it comes again within `window_s`, in another burst.

    Attributes:
        burst_s: events that follow each other within this time are one occurrence.
        by_unit: it must have struck the same part, as the kernel log names it.
        alone: no other part (`by_unit`) or GPU may have it: an application strikes many.
        source: the document or project behind the rule.
    """

    severity: Severity
    action: Action
    source: str
    burst_s: float = BURST_S
    window_s: float = DAY_S
    by_unit: bool = False
    alone: bool = False


RECURRENCES: Mapping[str, Recurrence] = MappingProxyType(
    {
        "xid-13": Recurrence(
            Severity.DEGRADED,
            Action.RESTART_APP,
            "NVIDIA WORKFLOW_XID_13: repeat TPC and GPC; NVSentinel: 2 in 24 h, bursts of 15 s",
            by_unit=True,
            alone=True,
        ),
        "xid-31": Recurrence(
            Severity.DEGRADED,
            Action.RESTART_APP,
            "NVIDIA WORKFLOW_XID_31: repeat on one GPU; NVSentinel: 2 in 24 h, bursts of 3 min",
            burst_s=180.0,
            alone=True,
        ),
        "xid-48": Recurrence(
            Severity.FATAL, Action.REPLACE, "xid.csv: repeat on the same GPU -> RMA"
        ),
        "xid-74": Recurrence(
            Severity.FATAL,
            Action.REPLACE,
            "xid.csv: repeat on the same link -> RMA",
            by_unit=True,
        ),
        "xid-94": Recurrence(
            Severity.FATAL,
            Action.RESET,
            "proposal; gpud calls 94 fatal the first time, NVIDIA only restarts the application",
        ),
    }
)
