"""Export what the agent sees, for Prometheus: at most 200 lines per scrape of eight healthy GPUs.

One process serves one blade, so the blade's name is the scrape target's, not a label. A GPU is
named by its index; what else it is called stands in `tramontane_gpu_info` alone. What is wrong
has a series while it is wrong, what was counted has one from the first time, and a value that
could not be read has none; `tramontane_agent_check_unknown` says which checks are blind.

XIDs are counters by code, one per GPU: a gauge of the last one hides a 62 behind the 45 that
follows it (DCGM#235) and hides repeats (dcgm-exporter#500). NVML and the kernel log tell most of
them both; the larger of the two counts is exported.

The latest reading is kept as it is and turned into series when somebody asks for them. At detail
`low` a GPU has its power, its energy and what is wrong with it, and a port nothing.
"""

import contextlib
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tramontane.api.blade import Report
from tramontane.health import series, sources
from tramontane.health.device import Event, Reading, Update
from tramontane.health.host import HostReading
from tramontane.health.ledger import is_noted
from tramontane.health.throttle import Throttle
from tramontane.kube import metrics as kube

# The budget is 1 s from the event to the report.
_LATENCIES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0)
# A look at eight GPUs takes some 10 ms; of a driver that hangs the deadline is 5 s.
_POLLS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 5.0)
# An agent has no informers and no queues; durations are the API server's to export.
NOT_OURS = (
    PROCESS_COLLECTOR,
    PLATFORM_COLLECTOR,
    GC_COLLECTOR,
    kube.REQUEST_SECONDS,
    kube.RELISTS,
    kube.WATCH_EVENTS,
    kube.WATCH_ENDS,
    kube.UNDECODABLE,
    kube.OBJECTS,
    kube.QUEUE_DEPTH,
    kube.RECONCILE_SECONDS,
    kube.LEADER,
    kube.EVENTS_DROPPED,
    kube.QUEUE_OLDEST,
    kube.BUILD_INFO,  # agent_info says it
)
_OF_THE_PROCESS = frozenset({"process_resident_memory_bytes", "process_cpu_seconds"})


class Metrics(Collector):
    """The metrics of one agent; `saw`, `reports` and `wrote` are called as things happen.

    Args:
        registry: where they go; None: this process's, which then loses all that an agent's
            scrape has no room for.
        clock: wall clock (Unix seconds), as events have it.
        timer: clock for durations (s), which nobody sets.
        low: whether to say little (`--metrics-detail low`).
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        *,
        low: bool = False,
    ) -> None:
        self._clock = clock
        self._low = low
        self._timer = timer
        self._started_at = clock()
        self._reading: Reading | None = None
        self._host: HostReading | None = None
        self._report: Report | None = None
        self._strikes = 0
        self._throttle = Throttle()
        self._slots: dict[str, sources.Gpu] = {}
        self._events: Tally[tuple[str, str, str]] = Tally()  # source, GPU, XID
        self._switch_events: Tally[str] = Tally()
        self._event_at: float | None = None
        self._due_since: float | None = None
        self._polled_at: dict[str, float] = {}
        self._open: frozenset[tuple[str, int | None]] = frozenset()
        if registry is None:
            registry = REGISTRY
            _make_room()
        self._writes = Counter(
            "tramontane_agent_reports_total",
            "Reports that the API server has taken.",
            registry=registry,
        )
        self._latency = Histogram(
            "tramontane_agent_event_to_report_seconds",
            "Time from an event to the report that has its fault.",
            buckets=_LATENCIES,
            registry=registry,
        )
        self._polls = Histogram(
            "tramontane_agent_poll_duration_seconds",
            "Time that NVML took for one look at all GPUs.",
            buckets=_POLLS,
            registry=registry,
        )
        registry.register(self)

    def polled(self, seconds: float) -> None:
        """Count a look that NVML has answered after so long."""
        self._polls.observe(seconds)
        self.looked("nvml")

    def looked(self, source: str) -> None:
        """Note that a source was read just now: nvml, host, kmsg."""
        self._polled_at[source] = self._clock()

    def saw(self, update: Update) -> None:
        """Take over an update from a probe."""
        if update.reading is not None:
            self._reading, self._strikes = update.reading, 0
            self._slots = sources.addresses(None, update.reading) or self._slots
            self._throttle.see(update.reading.gpus, self._timer())
        if update.unresponsive is not None:
            self._reading, self._strikes = None, update.unresponsive.strikes
            self._throttle.see((), self._timer())
        if update.host is not None:
            self._host = update.host
        for event in update.events:
            self._count(sources.located(event, self._slots))

    def left(self) -> None:
        """Note that the GPUs are not looked at: what was read of them is no longer true."""
        self._reading = None
        self._throttle.see((), self._timer())

    def _count(self, event: Event) -> None:
        if event.xid is not None:
            gpu = "" if event.gpu < 0 else str(event.gpu)
            self._events[event.source, gpu, str(event.xid)] += event.count
        elif event.sxid is not None:
            self._switch_events[str(event.sxid)] += event.count
        if event.at >= self._started_at:  # the kernel log also tells of long ago
            self._event_at = event.at

    def reports(self, report: Report) -> None:
        """Take over the report as it now is, written or not.

        An event that opened no fault is not waited for: nothing has to be written for it.
        """
        self._report = report
        now_open = frozenset(
            (fault.code, fault.gpu) for fault in report.faults if not is_noted(fault)
        )
        if now_open - self._open and self._event_at is not None:
            self._due_since = self._event_at
        self._event_at = None
        self._open = now_open

    def wrote(self, _report: Report) -> None:
        """Count a report that the API server has taken."""
        self._writes.inc()
        if self._due_since is not None:
            self._latency.observe(max(0.0, self._clock() - self._due_since))
            self._due_since = None

    def describe(self) -> Iterable[Metric]:
        """Return all families without samples: names are ours before there is anything to say."""
        yield from series.described()
        yield from (Throttle().family(0.0), _xid_family({}), _switch_family(Tally()))
        yield from series.of_agent(None, None, 0)
        yield _poll_family({})
        yield from _of_the_process()

    def collect(self) -> Iterator[Metric]:
        """Return everything that there is to say now. O(GPUs · series)."""
        if self._reading is not None:
            yield from series.of_gpus(self._reading.gpus, low=self._low)
        if not self._low:
            yield self._throttle.family(self._timer())
        yield self._xids()
        if self._switch_events:
            yield _switch_family(self._switch_events)
        if not self._low:
            yield from series.of_host(self._host)
        yield from series.of_agent(self._reading, self._report, self._strikes)
        yield _poll_family(self._polled_at)
        yield from _of_the_process()

    def _xids(self) -> Metric:
        most: dict[tuple[str, str], int] = {}
        for (_, gpu, xid), count in self._events.items():
            most[gpu, xid] = max(most.get((gpu, xid), 0), count)
        return _xid_family(most)


def _xid_family(counts: Mapping[tuple[str, str], int]) -> Metric:
    family = CounterMetricFamily(
        "tramontane_gpu_xid_errors",
        "XIDs by code; gpu is empty where the line did not tell.",
        labels=("gpu", "xid"),
    )
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _poll_family(at: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(
        "tramontane_agent_last_poll_timestamp_seconds",
        "When NVML, the host and the kernel log last answered; Unix time.",
        labels=("source",),
    )
    for source, when in sorted(at.items()):
        family.add_metric((source,), when)
    return family


def _of_the_process() -> Iterator[Metric]:
    return (family for family in PROCESS_COLLECTOR.collect() if family.name in _OF_THE_PROCESS)


def _switch_family(counts: Tally[str]) -> Metric:
    family = CounterMetricFamily(
        "tramontane_switch_sxid_errors", "SXIDs of NVSwitches by code.", labels=("sxid",)
    )
    for code, count in sorted(counts.items()):
        family.add_metric((code,), count)
    return family


def _make_room() -> None:
    """Take out of this process's registry what an agent's scrape has no room for."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    for collector in NOT_OURS:
        with contextlib.suppress(KeyError):  # it is out already
            REGISTRY.unregister(collector)
