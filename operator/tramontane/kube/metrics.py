"""Count what goes over the wire; every process that uses this package exports these."""

from prometheus_client import Counter, Gauge, Histogram

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
