"""Count restarts by cause, say when there were too many, and how long to wait for the next.

Everything is read from `status`: the incidents (the last 20) and the counts over the job's life.
"""

from collections.abc import Sequence

from tramontane.api import clock
from tramontane.api.trainingjob import (
    MAX_INCIDENTS,
    Backoff,
    IncidentCause,
    JobIncident,
    RestartCounts,
)
from tramontane.controllers.trainingjob.durations import seconds

USER_CAUSES = frozenset({IncidentCause.USER_ERROR})
OTHERS_CAUSES = frozenset({IncidentCause.PREEMPTED})
INFRA_CAUSES = frozenset(IncidentCause) - USER_CAUSES - OTHERS_CAUSES
# A pod that a kubelet did not take is tried again soon: its reason often goes away in seconds.
ADMISSION_BACKOFF = Backoff(base="2s", max="1m")
_LEAST_SPAN_S = 3600.0


def in_window(
    incidents: Sequence[JobIncident],
    causes: frozenset[IncidentCause],
    now: float,
    window_s: float,
) -> int:
    """Return how many incidents of these causes happened within the last `window_s`.

    Exact while fewer than 20 are kept. When all 20 lie within the window there may have been
    more: then their rate is taken for the whole window, over at least an hour, so that one burst
    (a rack that lost power) is not mistaken for a day of them.
    """
    within = [
        at
        for i in incidents
        if i.cause in causes and not is_report(i) and (at := clock.parse(i.at)) > now - window_s
    ]
    oldest = min((clock.parse(i.at) for i in incidents), default=now)
    if len(incidents) < MAX_INCIDENTS or oldest <= now - window_s:
        return len(within)
    span_s = max(now - oldest, min(window_s, _LEAST_SPAN_S))
    return max(len(within), int(len(within) * window_s / span_s))


def is_report(incident: JobIncident) -> bool:
    """Return whether nothing was restarted: a straggler was seen, and left where it is."""
    return incident.cause is IncidentCause.STRAGGLER and incident.replaced_after is None


def wait_s(backoff: Backoff, failures: int) -> float:
    """Return the wait before the restart after the given number of failures: doubling, bounded."""
    if failures <= 0:
        return 0.0
    doublings = min(failures - 1, 40)
    return min(seconds(backoff.base) * 2.0**doublings, seconds(backoff.max))


def counted(counts: RestartCounts | None, causes: Sequence[IncidentCause]) -> RestartCounts:
    """Return the counts after one restart that had these causes: the gravest one counts.

    A blade that broke takes the blame for a crash beside it: infra before preempted before user.
    """
    counts = counts or RestartCounts()
    for name, group in (
        ("infra", INFRA_CAUSES),
        ("preempted", OTHERS_CAUSES),
        ("user", USER_CAUSES),
    ):
        if any(cause in group for cause in causes):
            return counts.model_copy(update={name: getattr(counts, name) + 1})
    return counts
