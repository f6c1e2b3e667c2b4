"""Export how the pools and their blades stand: collectors over what is there, made when asked.

A pool's series are those of its last status, and go with the pool. A blade's are read from the
caches at the scrape: nothing is kept of it that could be forgotten there. Both are shown by the
leader only; a standby has the caches too, and says nothing of them.

| `tramontane_gpus`, state | GPUs of |
|---|---|
| allocated, free | Healthy blades, with and without a seat or spare on them |
| suspect, quarantined, repairing, rma, unknown, lost, qualifying | blades in that state |

These add up to all GPUs that the pool's blades must have.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.nodepool import BladeCounts, BreakerState, NodePoolStatus
from tramontane.controllers.informers import Informers, blades_of

# Fields of BladeCounts that say of all blades, each once, where they are.
_STATES = ("suspect", "quarantined", "repairing", "rma", "unknown", "lost", "qualifying")
_TRANCHE = ("qualifying", "healthy", "faulty", "rma")
_OWNERS = frozenset({"TrainingJob", "InferenceDeployment"})


@dataclass(frozen=True, slots=True)
class PoolShown:
    """Hold what is shown of one pool besides its status.

    Attributes:
        out: blades that are out; `budget`: how many may be.
        refused: blades that should be quarantined and may not be, by lack of budget.
        gpus: that each blade must have.
        busy_gpus: of seats and spares on Healthy blades.
    """

    status: NodePoolStatus
    out: int
    budget: int
    refused: int
    gpus: int
    busy_gpus: int


class PoolMetrics(Collector):
    """Show the pools that were counted last."""

    def __init__(self) -> None:
        self._shown: dict[str, PoolShown] = {}

    def observe(self, name: str, shown: PoolShown) -> None:
        """Take what was found of a pool."""
        self._shown[name] = shown

    def forget(self, name: str) -> None:
        """Drop the series of a pool."""
        self._shown.pop(name, None)

    def collect(self) -> Iterator[Metric]:
        """Return the families. O(pools · tranches)."""
        shown = sorted(self._shown.items())
        yield from _of_counts(shown)
        yield from _of_limits(shown)
        tranches = _pools("tranche_blades", "Blades of a delivery by state", "tranche", "state")
        for name, one in shown:
            for tranche in one.status.tranches:
                for state in _TRANCHE:
                    tranches.add_metric((name, tranche.name, state), getattr(tranche, state))
        yield tranches


def _of_counts(shown: list[tuple[str, PoolShown]]) -> Iterator[Metric]:
    blades = _pools("blades", "Blades of a pool by state", "state")
    gpus = _pools("gpus", "GPUs of a pool by the state of their blades, each once", "state")
    for name, one in shown:
        counts = one.status.blades
        if counts is None:
            continue
        for state in BladeCounts.model_fields:
            if state != "total":
                blades.add_metric((name, state), getattr(counts, state))
        # Pods may ask for more GPUs than the pool says its blades must have.
        busy = min(one.busy_gpus, counts.healthy * one.gpus)
        gpus.add_metric((name, "allocated"), busy)
        gpus.add_metric((name, "free"), counts.healthy * one.gpus - busy)
        for state in _STATES:
            gpus.add_metric((name, state), getattr(counts, state) * one.gpus)
    yield from (blades, gpus)


def _of_limits(shown: list[tuple[str, PoolShown]]) -> Iterator[Metric]:
    out = _pools("blades_out", "Blades of a pool that are out")
    budget = _pools("blades_budget", "Blades of a pool that may be out at once")
    refused = _pools(
        "quarantines_refused",
        "Blades that should be quarantined and may not be, by lack of budget",
    )
    target = _pools("spares_target", "Healthy blades that the pool is to keep free")
    ready = _pools("spares_ready", "Healthy blades that are free")
    open_ = _pools("breaker_open", "1 while the pool's breaker is open, else 0")
    rate = _pools("failure_rate", "Failures per 1,000 blade-days; none while too little was seen")
    for name, one in shown:
        status = one.status
        out.add_metric((name,), one.out)
        budget.add_metric((name,), one.budget)
        refused.add_metric((name,), one.refused)
        if status.spares is not None:
            target.add_metric((name,), status.spares.target)
            ready.add_metric((name,), status.spares.ready)
        if status.breaker is not None:
            open_.add_metric((name,), status.breaker.state is BreakerState.OPEN)
        if status.failure_rate is not None:
            rate.add_metric((name,), float(status.failure_rate))
    yield from (out, budget, refused, target, ready, open_, rate)


class BladeMetrics(Collector):
    """Show the blades, and who has them, while this process leads."""

    def __init__(self) -> None:
        self._blades: Callable[[], Iterable[Blade]] = tuple
        self._gangs: Callable[[], Iterable[Gang]] = tuple

    def lead(self, informers: Informers) -> None:
        """Show what is in these caches from now on."""
        self._blades = informers.blades.cache.values
        self._gangs = informers.gangs.cache.values

    def rest(self) -> None:
        """Show nothing any more."""
        self._blades = self._gangs = tuple

    def collect(self) -> Iterator[Metric]:
        """Return the families. O(blades + seats); the caches are copied at once, then read."""
        yield from of_blades(list(self._blades()))
        yield of_gangs(list(self._gangs()))


def of_blades(blades: Iterable[Blade]) -> Iterator[Metric]:
    """Return what is shown of blades: only the state that each is in."""
    state = _pools(
        "blade_state", "1 for the state that the blade is in", "blade", "state", "reason"
    )
    since = _pools("blade_state_since_timestamp_seconds", "When that state began", "blade")
    lemon = _pools(
        "blade_lemon_score_ratio", "How likely the blade is a lemon; where it is not 0", "blade"
    )
    for blade in blades:
        status, name, pool = blade.status, blade.metadata.name, blade.spec.pool
        if status.state is None:
            continue
        state.add_metric((pool, name, status.state.value, status.reason or ""), 1)
        if status.state_since:
            since.add_metric((pool, name), clock.parse(status.state_since))
        score = float((status.history and status.history.lemon_score) or 0)
        if score > 0:
            lemon.add_metric((pool, name), score)
    yield from (state, since, lemon)


def of_gangs(gangs: Iterable[Gang]) -> Metric:
    """Return who has which blade, as a seat or as a spare."""
    family = _pools(
        "allocation_info",
        "Who has a seat or a spare on the blade: TrainingJob, InferenceDeployment or Gang; 1",
        *("blade", "namespace", "kind", "name"),
    )
    # Two replicas of one deployment may share a blade.
    held: dict[tuple[str, ...], None] = {}
    for gang in gangs:
        owner = owner_of(gang)
        for blade in blades_of(gang):
            held[gang.spec.pool, blade, gang.metadata.namespace or "", *owner] = None
    for labels in held:
        family.add_metric(labels, 1)
    return family


def owner_of(gang: Gang) -> tuple[str, str]:
    """Return kind and name of what a gang is for: itself, where nobody of ours owns it."""
    owners = (one for one in gang.metadata.owner_references if one.kind in _OWNERS)
    return next(((one.kind, one.name) for one in owners), ("Gang", gang.metadata.name))


def _pools(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tramontane_{name}", text, labels=("pool", *labels))


#: What the process exports; the controller feeds it.
POOLS = PoolMetrics()
BLADES = BladeMetrics()
REGISTRY.register(POOLS)
REGISTRY.register(BLADES)
