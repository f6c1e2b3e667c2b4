"""Export what the operator's controllers do.

What happens seldom is there as 0 before: a series that begins at 1 has not grown, for Prometheus.
"""

import contextlib
from itertools import product

from prometheus_client import Counter, Histogram

from tramontane.api.blade import BladeState
from tramontane.api.reasons import BladeReason
from tramontane.api.trainingjob import IncidentCause

TRANSITIONS = Counter(
    "tramontane_blade_transitions", "Changes of a blade's state", ["pool", "state", "reason"]
)
QUARANTINE_SECONDS = Histogram(
    "tramontane_quarantine_seconds",
    "From a report's arrival at the operator to the taint on its Node",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
OUT_SECONDS = Histogram(
    "tramontane_blade_out_seconds",
    "From when a blade left service until it was Healthy again",
    ["pool"],
    buckets=(60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, 3 * 86_400, 7 * 86_400),
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
#: From an incident on: known, its seats have pods again, steps again.
STAGES = ("detected", "replaced", "running")
for _stage, _cause in product(STAGES, IncidentCause):
    RECOVERY_SECONDS.labels(_stage, _cause)


def begin_pool(pool: str) -> None:
    """Export what may happen to a pool's blades as not having happened."""
    OUT_SECONDS.labels(pool)
    for reason in BladeReason:
        TRANSITIONS.labels(pool, BladeState.QUARANTINED, reason)


def forget_pool(pool: str) -> None:
    """Drop the series of a pool that is no more."""
    with contextlib.suppress(KeyError):  # older releases of the library raise it
        OUT_SECONDS.remove(pool)
    for state, reason in product(BladeState, ("", *BladeReason)):
        with contextlib.suppress(KeyError):
            TRANSITIONS.remove(pool, state, reason)
