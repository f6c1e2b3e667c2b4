"""Count what goes over the wire; every process that uses this package exports these.

What is asked of a collector at the scrape, and has no value before there is one, stands at the end.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import metadata
from typing import Protocol

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tramontane.kube.skew import Skew, interval, parse_date


class Detail(StrEnum):
    """Say how much is exported: at `low` nothing per blade, job or deployment.

    An agent, whose series are all a blade's, leaves out its GPUs' readings but power and energy.
    `high` is what `normal` is; it is there for what only a search for a fault will want.
    """

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


REQUESTS = Counter(
    "tramontane_api_requests",
    "Requests to the API server; code is the HTTP status or `unreachable`",
    ["verb", "resource", "code"],
)
REQUEST_SECONDS = Histogram(
    "tramontane_api_request_seconds",
    "Duration of requests to the API server, waiting for a slot not included",
    ["verb", "resource"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
RETRIES = Counter(
    "tramontane_api_retries",
    "Requests sent again because the API server answered with Retry-After",
    ["verb", "resource"],
)
RELISTS = Counter(
    "tramontane_informer_relists",
    "Complete lists, by what made them necessary: start, gone, error",
    ["resource", "cause"],
)
WATCH_EVENTS = Counter(
    "tramontane_informer_events", "Events of watches, bookmarks included", ["resource", "type"]
)
WATCH_ENDS = Counter(
    "tramontane_informer_watch_ends",
    "Watches that ended: served (its time was over), cut, silent, refused",
    ["resource", "cause"],
)
UNDECODABLE = Counter(
    "tramontane_informer_undecodable", "Objects that the decoder refused", ["resource"]
)
OBJECTS = Gauge("tramontane_informer_objects", "Objects in the cache", ["resource"])
QUEUE_DEPTH = Gauge("tramontane_workqueue_depth", "Keys that wait for a worker", ["queue"])
RECONCILE_SECONDS = Histogram(
    "tramontane_reconcile_seconds",
    "Duration of reconciles by outcome: ok, error",
    ["queue", "outcome"],
    buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1, 5, 30),
)
LEADER = Gauge("tramontane_leader", "1 while this process holds the Lease", ["lease"])
EVENTS_DROPPED = Counter(
    "tramontane_events_dropped", "Events that were not written: queue full, or refused", ["cause"]
)
BUILD_INFO = Gauge(
    "tramontane_build_info", "What runs: component and version; 1", ["component", "version"]
)


def begin_informer(resource: str) -> None:
    """Export what may end a watch as 0: a series that begins at 1 has not grown, for Prometheus."""
    for cause in ("served", "cut", "silent", "refused"):
        WATCH_ENDS.labels(resource, cause)
    for cause in ("start", "gone", "error"):
        RELISTS.labels(resource, cause)


def announce(component: str) -> None:
    """Export that this process is that component, of the version that is installed."""
    BUILD_INFO.labels(component, metadata.version("tramontane")).set(1)


class ClockSkew(Collector):
    """Show our clock against the API server's while its answers are at most two minutes old."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._skew = Skew()

    def heard(self, date: str | None, sent_s: float, answered_s: float) -> None:
        """Take the Date of an answer, and when it was asked for and came (Unix seconds)."""
        date_s = parse_date(date) if date is not None else None
        if date_s is not None:
            self._skew.take(interval(date_s, sent_s, answered_s), self._monotonic())

    def collect(self) -> Iterator[Metric]:
        """Return the family, without a sample where nothing was heard."""
        family = GaugeMetricFamily(
            "tramontane_clock_skew_seconds",
            "Our clock minus the API server's, the least that its answers allow",
            labels=(),
        )
        seconds = self._skew.seconds(self._monotonic())
        if seconds is not None:
            family.add_metric((), seconds)
        yield family


class Waiting(Protocol):
    """What is needed of a work queue."""

    name: str

    def oldest_s(self) -> float:
        """Return for how long the key has waited that has waited longest; 0 where none does."""


class OldestKeys(Collector):
    """Show for how long keys wait, of the queues that are in use."""

    def __init__(self) -> None:
        self._queues: weakref.WeakValueDictionary[str, Waiting] = weakref.WeakValueDictionary()

    def add(self, queue: Waiting) -> None:
        """Show this queue from now on, in place of another of its name."""
        self._queues[queue.name] = queue

    def collect(self) -> Iterator[Metric]:
        """Return the family. O(keys that wait)."""
        family = GaugeMetricFamily(
            "tramontane_workqueue_oldest_seconds",
            "How long the key has waited for a worker that has waited longest",
            labels=("queue",),
        )
        for queue in list(self._queues.values()):
            family.add_metric((queue.name,), queue.oldest_s())
        yield family


CLOCK_SKEW = ClockSkew()
QUEUE_OLDEST = OldestKeys()
REGISTRY.register(CLOCK_SKEW)
REGISTRY.register(QUEUE_OLDEST)
