"""Count what the scheduler decides and how long it takes."""

from collections import Counter as Tally

from prometheus_client import Counter, Gauge, Histogram

from tramontane.api.reasons import PendingReason
from tramontane.scheduler.engine import Pass

DECISION_SECONDS = Histogram(
    "tramontane_scheduler_decision_seconds",
    "Duration of one pass over all gangs, without its writes",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
WAIT_SECONDS = Histogram(
    "tramontane_scheduler_gang_wait_seconds",
    "Time a gang waited until it was placed",
    buckets=(0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 1800, 7200, 86400),
)
PENDING = Gauge(
    "tramontane_scheduler_pending_gangs", "Gangs without a whole place, by reason", ["reason"]
)
GANGS = Gauge("tramontane_scheduler_gangs", "Gangs by phase", ["phase"])
PLACED = Counter("tramontane_scheduler_placements", "Gangs placed")
MOVED = Counter("tramontane_scheduler_moved_seats", "Lost seats moved, by what took them", ["to"])
WRITES = Counter(
    "tramontane_scheduler_status_writes",
    "Writes of Gang.status by outcome: ok, refused, unanswered",
    ["outcome"],
)
BINDINGS = Counter(
    "tramontane_scheduler_bindings",
    "Bindings of pods of other controllers by outcome: ok, gone, refused, unanswered",
    ["outcome"],
)
ASSUMED = Gauge(
    "tramontane_scheduler_assumed_pods", "Pods that were bound and that no watch has shown yet"
)


def count_pass(done: Pass, seconds: float) -> None:
    """Count one pass; a reason that nobody has any more is 0, not absent."""
    DECISION_SECONDS.observe(seconds)
    reasons = Tally(outcome.reason for outcome in done.outcomes.values() if outcome.reason)
    for reason in PendingReason:
        PENDING.labels(reason.value).set(reasons[reason])
    phases = Tally(outcome.phase for outcome in done.outcomes.values())
    for phase in ("Pending", "Placed", "Preempting", "Inactive"):
        GANGS.labels(phase).set(phases[phase])
