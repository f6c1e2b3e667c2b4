"""Export what the operator's controllers do."""

from prometheus_client import Counter, Gauge, Histogram

BLADES = Gauge("tramontane_blades", "Blades of a pool by state", ["pool", "state"])
BLADES_OUT = Gauge("tramontane_blades_out", "Blades of a pool that are out", ["pool"])
BUDGET = Gauge("tramontane_blades_budget", "Blades of a pool that may be out at once", ["pool"])
REFUSED = Gauge(
    "tramontane_quarantines_refused",
    "Blades that should be quarantined and may not be, by lack of budget",
    ["pool"],
)
TRANSITIONS = Counter(
    "tramontane_blade_transitions", "Changes of a blade's state", ["pool", "state", "reason"]
)
QUARANTINE_SECONDS = Histogram(
    "tramontane_quarantine_seconds",
    "From a report's arrival at the operator to the taint on its Node",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
STALE_NODE_PATCHES = Counter(
    "tramontane_stale_node_patches", "Patches of Nodes that had to be planned again"
)
KOPF_EVENTS = Counter("tramontane_kopf_events", "Events that kopf passed on", ["kind"])
RECOVERY_SECONDS = Histogram(
    "tramontane_trainingjob_recovery_seconds",
    "From an incident until it was detected, until its seats had pods again, until steps again",
    ["stage", "cause"],
    buckets=(0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600),
)
