"""Sum up a blade's record: how often it failed, and whether it is a lemon. Pure.

A lemon is a blade that passes every test and fails at work again and again. Meta found that of
seven signals over 28 days (RSC clusters, "Revisiting Reliability") exclusions by users say little;
the other six, as far as an operator's own records have them, make the score here:

| signal       | Meta's                   | ours, of Blade.status.incidents          | full | part |
|--------------|--------------------------|------------------------------------------|------|------|
| outages      | times out of scheduling  | quarantines by a fault, losses under work|    5 | 0.30 |
| job_failures | multi-node job failures  | jobs on it when that happened, summed    |    5 | 0.20 |
| recurrence   | single-node failure rate | the same code on the same GPU again      |    2 | 0.20 |
| jobs         | single-node job failures | different jobs among them                |    4 | 0.10 |
| codes        | distinct XIDs            | different fault codes                    |    4 | 0.10 |
| tickets      | tickets                  | holds, and faults only a person can mend |    2 | 0.10 |

    score = sum of part · min(1, signal / full)

So it grows with each signal, is 0 for a clean record, and at most 1. Of one failure it makes
0.08 to 0.20; five quarantines for the same fault that each broke another job make 0.82.
Source: reference/health.md, sections 2 and 3. "Five" is NVSentinel's limit of remediations in a
week; parts and the other numbers are set by hand, as Meta's thresholds are.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tramontane.api import clock
from tramontane.api.blade import (
    Action,
    BladeQualification,
    BladeState,
    BladeStatus,
    History,
    Incident,
)

# Code of the incident of a node that was lost under work.
NODE_LOST = "node-lost"

_DAY_S = 86_400.0
WINDOW_S = 28 * _DAY_S

# Source: Meta's lemons were 1.2 to 1.7 % of the blades; by hand, as theirs: no single bad week of
# one fault reaches it unless the blade broke jobs in it.
LEMON_SCORE = 0.7

# Source: proposal in reference/health.md: what comes and goes within a day is not repaired by
# waiting; gpud keeps a flapping port out until a person clears it, after 3 flaps too.
FLAPS = 3
FLAP_WINDOW_S = _DAY_S

# A rate from less says nothing; two failures of 7 blade-days would be 286 per 1,000.
LEAST_BLADE_DAYS = 7.0

_BY_PERSON = frozenset({Action.INSPECT, Action.REPLACE})
# Where a blade is before it has ever worked, and where it is out already.
_NEW = frozenset({None, BladeState.DELIVERED, BladeState.QUALIFYING})
_OUT_ALREADY = frozenset(
    {
        BladeState.QUARANTINED,
        BladeState.DRAINING,
        BladeState.REPAIRING,
        BladeState.REQUALIFYING,
        BladeState.RMA,
    }
)


@dataclass(frozen=True, slots=True)
class Signals:
    """What the score is made of; see the module."""

    outages: int = 0
    job_failures: int = 0
    recurrence: int = 0
    jobs: int = 0
    codes: int = 0
    tickets: int = 0


# Signal to the value at which it is full, and its part of the score.
_PARTS = {
    "outages": (5, 0.30),
    "job_failures": (5, 0.20),
    "recurrence": (2, 0.20),
    "jobs": (4, 0.10),
    "codes": (4, 0.10),
    "tickets": (2, 0.10),
}


def of(incidents: Iterable[Incident], now: float) -> History:
    """Return the sums of the last 28 days. O(incidents), of which there are at most 20."""
    recent = _since(incidents, now - WINDOW_S)
    found = signals(recent)
    return History(
        incidents28d=len(recent),
        quarantines28d=sum(map(is_quarantine, recent)),
        job_failures28d=found.job_failures,
        lemon_score=f"{score(found):.2f}",
    )


def signals(incidents: Iterable[Incident]) -> Signals:
    """Return the six signals of a record."""
    every = tuple(incidents)
    faults = [one for one in every if one.code]
    out = [one for one in faults if is_outage(one)]
    again = Counter((one.code, one.gpu) for one in out)
    return Signals(
        outages=len(out),
        job_failures=sum(len(one.jobs) for one in out),
        recurrence=max(again.values(), default=1) - 1,
        jobs=len({job for one in out for job in one.jobs}),
        codes=len({one.code for one in faults}),
        tickets=sum(not one.code or one.action in _BY_PERSON for one in every),
    )


def score(found: Signals) -> float:
    """Return how likely the blade is a lemon, from 0 to 1; see the module."""
    total = 0.0
    for signal, (full, part) in _PARTS.items():
        total += part * min(1.0, getattr(found, signal) / full)
    return min(1.0, total)


def is_lemon(history: History | None, threshold: float = LEMON_SCORE) -> bool:
    """Return whether the blade's record asks for its replacement."""
    if history is None or history.lemon_score is None:
        return False
    return float(history.lemon_score) >= threshold


def is_quarantine(one: Incident) -> bool:
    """Return whether a fault took the blade out, or kept it out when another was repaired.

    Not so the memory that was made up anew.
    """
    return bool(one.code) and one.to is BladeState.QUARANTINED and one.from_ is not one.to


def is_outage(one: Incident) -> bool:
    """Return whether a fault, or the loss of its node under work, took the blade out."""
    return is_quarantine(one) or one.code == NODE_LOST


def takes_capacity(before: BladeState | None) -> bool:
    """Return whether a quarantine takes anything from those who work.

    It does not where the blade has not passed its qualification yet, or is out already.
    """
    return before not in _NEW and before not in _OUT_ALREADY


def has_worked(asked: BladeQualification | None, incidents: Iterable[Incident]) -> bool:
    """Return whether the blade has ever been capacity, as far as its status remembers.

    | qualification        | an incident that began while it worked | answer |
    |----------------------|----------------------------------------|--------|
    | none, or passed      | any                                    | True   |
    | has steps to pass    | yes: it requalifies                    | True   |
    | has steps to pass    | no: it is new                          | False  |
    """
    if asked is None or asked.step is None:
        return True
    return any(takes_capacity(one.from_) for one in incidents)


def is_flapping(incidents: Iterable[Incident], now: float) -> bool:
    """Return whether faults took the blade out 3 times or more within 24 h, ending with the last.

    Counted from the last quarantine, not from now: who waits for a person does not heal by
    waiting. So it holds until the record is cut (by a release) or 28 days have passed.
    """
    times = sorted(
        clock.parse(one.at)
        for one in _since(incidents, now - WINDOW_S)
        if is_quarantine(one) and one.at
    )
    return len(times) >= FLAPS and times[-1] - times[-FLAPS] <= FLAP_WINDOW_S


def failures(incidents: Iterable[Incident], now: float) -> int:
    """Return how often the blade failed at work in the last 28 days.

    What a new blade's qualification found is no failure of a blade at work: the pool's rate, and
    with it the number of spares, must not rise with every delivery.
    """
    recent = _since(incidents, now - WINDOW_S)
    return sum(is_outage(one) and takes_capacity(one.from_) for one in recent)


def failure_rate(failed: int, blade_days: float) -> float | None:
    """Return failures per 1,000 blade-days; None where too little was seen."""
    return None if blade_days < LEAST_BLADE_DAYS else 1000.0 * failed / blade_days


def left_at(status: BladeStatus) -> float | None:
    """Return when the incident was that took a blade from service which is out now (Unix s).

    None: it is not Quarantined, Draining, Repairing, Requalifying or RMA, or it had not worked
    before. A blade that is Lost or Unknown has no such record.
    """
    if status.state not in _OUT_ALREADY:
        return None
    taken = (
        one
        for one in reversed(status.incidents)
        if one.to in _OUT_ALREADY and one.from_ not in _OUT_ALREADY
    )
    last = next(taken, None)
    worked = last is not None and takes_capacity(last.from_)
    return clock.parse(last.at) if last is not None and worked and last.at else None


def passed_first_try(status: BladeStatus) -> bool | None:
    """Return whether a blade passed its qualification at the first try; None: it has not ended.

    | record                                               | answer                            |
    |------------------------------------------------------|-----------------------------------|
    | quarantined before it worked                         | False                             |
    | an incident that began while it worked               | True                              |
    | a step that failed                                   | False                             |
    | Delivered, Qualifying, not seen yet                  | None                              |
    | Unknown, Lost                                        | True if all steps passed, or None |
    | any other state                                      | True                              |

    Rows are tried from the top: a blade that fails later in its life passed all the same.
    """
    asked = status.qualification
    first: dict[str, bool] = {}
    for result in asked.results if asked is not None else ():
        if not result.group:  # a group that failed says nothing of one of its blades
            first.setdefault(result.step, result.passed)
    # Where a pool has no steps, nothing tells a blade that is new from one that is silent.
    early = _NEW if asked is not None else _NEW | {BladeState.UNKNOWN}
    if any(is_quarantine(one) and one.from_ in early for one in status.incidents):
        return False
    if any(takes_capacity(one.from_) for one in status.incidents):
        return True
    if not all(first.values()):
        return False
    if status.state in _NEW:
        return None
    if status.state in {BladeState.UNKNOWN, BladeState.LOST}:
        return True if first and asked is not None and asked.step is None else None
    return True


def _since(incidents: Iterable[Incident], since: float) -> tuple[Incident, ...]:
    """Return what is not older; an incident without a time is taken for a recent one."""
    return tuple(one for one in incidents if not one.at or clock.parse(one.at) > since)
