"""Count what the scheduler decides and how long it takes."""

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tramontane.api.reasons import PendingReason
from tramontane.scheduler.gangs import INACTIVE, GangRecord
from tramontane.scheduler.load import loads
from tramontane.scheduler.outcome import Pass

DECISION_SECONDS = Histogram(
    "tramontane_scheduler_decision_seconds",
    "Duration of one pass over all gangs, without its writes",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
WAIT_SECONDS = Histogram(
    "tramontane_scheduler_gang_wait_seconds",
    "Time a gang waited until it was placed, by the last reason it waited for",
    ["reason"],
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
ORDERED = Counter(
    "tramontane_scheduler_preemptions", "Gangs that were asked to give way, by pool", ["pool"]
)
PROMISES = Counter(
    "tramontane_scheduler_promises",
    "Starts of gangs that were promised one, by outcome: kept, late",
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


# What happens seldom is there as 0 before: a series that begins at 1 has not grown, for Prometheus.
for _reason in ("", *PendingReason):
    WAIT_SECONDS.labels(_reason)
for _to in ("spare", "free"):
    MOVED.labels(_to)
for _outcome in ("ok", "refused", "unanswered"):
    WRITES.labels(_outcome)
for _outcome in ("kept", "late"):
    PROMISES.labels(_outcome)
for _outcome in ("ok", "gone", "refused", "unanswered"):
    BINDINGS.labels(_outcome)


class _Loads(Collector):
    """Export how pools are used after the last pass, computed when somebody asks."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._done = Pass()
        self._gangs: Mapping[str, GangRecord] = {}

    def show(self, done: Pass, gangs: Mapping[str, GangRecord]) -> None:
        """Take a pass and its gangs."""
        self._done, self._gangs = done, gangs

    def collect(self) -> Iterator[Metric]:
        """Return the families."""
        gpus = _gauge("gpus", "GPUs by use: out of service, allocated, held, free", "use")
        placeable = _gauge(
            "placeable_blades",
            "Largest gang of whole blades that each domain of the widest level could take now",
            "domain",
        )
        waiting = _gauge("waiting_blades", "Seats of the largest gang that waits")
        fragmented = _gauge(
            "fragmentation_ratio", "Share of free GPUs on blades that are partly in use"
        )
        promises = _gauge("reserved_gangs", "Gangs that wait and are promised blades")
        oddities = _gauge("topology_oddities", "Levels whose labels are missing or contradict")
        tenants = _gauge(
            "tenant_gpus", "GPUs of a tenant: used, guaranteed, maximum", "tenant", "kind"
        )
        oldest = _gauge(
            "oldest_wait_seconds", "Time that the gang has waited that has waited longest"
        )
        now = self._now()
        for load in loads(self._done, self._gangs):
            for use, count in load.gpus.items():
                gpus.add_metric((load.pool, use), count)
            for domain, blades in load.placeable.items():
                placeable.add_metric((load.pool, domain), blades)
            waiting.add_metric((load.pool,), load.largest_waiting)
            fragmented.add_metric((load.pool,), load.fragmented)
            promises.add_metric((load.pool,), load.reservations)
            oddities.add_metric((load.pool,), load.oddities)
            for tenant, share in load.tenants.items():
                for kind, count in share.items():
                    tenants.add_metric((load.pool, tenant, kind), count)
            since = now if load.waiting_since_s is None else load.waiting_since_s
            oldest.add_metric((load.pool,), max(0.0, now - since))
        yield from (gpus, placeable, waiting, fragmented, promises, oddities, tenants, oldest)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tramontane_scheduler_{name}", text, labels=("pool", *labels))


_LOADS = _Loads()
REGISTRY.register(_LOADS)


def count_pass(done: Pass, seconds: float, gangs: Mapping[str, GangRecord]) -> None:
    """Count one pass; a reason that nobody has any more is 0, not absent.

    A gang that shall hold nothing, as of a job that is suspended or done, waits for no place: it is
    Inactive, and that is all.
    """
    DECISION_SECONDS.observe(seconds)
    _LOADS.show(done, gangs)
    for pool in done.snapshot.fleet.pools if done.snapshot is not None else ():
        ORDERED.labels(pool)
    waiting = (outcome for outcome in done.outcomes.values() if outcome.phase != INACTIVE)
    reasons = Tally(outcome.reason for outcome in waiting if outcome.reason)
    for reason in PendingReason:
        PENDING.labels(reason.value).set(reasons[reason])
    phases = Tally(outcome.phase for outcome in done.outcomes.values())
    for phase in ("Pending", "Placed", "Preempting", "Inactive"):
        GANGS.labels(phase).set(phases[phase])
