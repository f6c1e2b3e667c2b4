"""List every metric that each component exports, as the code defines them.

Boards, alerts and the manual's reference are made from this list and checked against it, so that
none of them names a metric that is not there. It is read from the collectors themselves: those
that wait for data show their families without samples, and describe the labels all the same.

`python -m tramontane.lab.observe.exported` prints it as JSON.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType
from typing import Final, TypeGuard

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from tramontane.controllers import metrics as operator
from tramontane.controllers.inferencedeployment import metrics as inference
from tramontane.controllers.nodepool import metrics as pools
from tramontane.controllers.trainingjob import metrics as training
from tramontane.health import metrics as agent
from tramontane.kube import metrics as kube
from tramontane.scheduler import metrics as scheduler

OPERATOR: Final = "operator"
SCHEDULER: Final = "scheduler"
AGENT: Final = "agent"
COMPONENTS: Final = (OPERATOR, SCHEDULER, AGENT)
#: Modules whose collectors are in a process's registry once it has imported what it runs.
MODULES: Final = {
    OPERATOR: (kube, operator, pools, training, inference),
    SCHEDULER: (kube, scheduler),
}
_OF_PYTHON: Final = (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
# What a name ends with where it is not `_total`; `seconds` also of a point in time.
_UNITS: Final = ("seconds", "bytes", "joules", "watts", "celsius", "ratio", "gpus", "blades")


@dataclass(frozen=True, slots=True)
class Family:
    """Hold one metric of one component.

    Attributes:
        name: as queries have it, with `_total`; of a histogram without `_bucket`, `_sum`, `_count`.
        kind: counter, gauge or histogram.
        labels: those of the component; the scrape adds the target's.
        unit: what the name ends with; empty for a plain number.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    component: str
    unit: str = ""

    @property
    def series(self) -> tuple[str, ...]:
        """Return the names that a query may ask for."""
        if self.kind != "histogram":
            return (self.name,)
        return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))


@cache
def families() -> tuple[Family, ...]:
    """Return all of them, by component and name."""
    found = [
        *(
            family
            for component, modules in MODULES.items()
            for family in _families(component, [*_collectors(modules), *_OF_PYTHON])
        ),
        *_families(AGENT, _of_agent()),
    ]
    return tuple(sorted(found, key=lambda one: (COMPONENTS.index(one.component), one.name)))


def names() -> frozenset[str]:
    """Return every name that a query may ask for, of all components."""
    return frozenset(name for family in families() for name in family.series)


def _collectors(modules: Iterable[ModuleType]) -> list[Collector]:
    """Return what the modules define; each once, though others import it."""
    found = (
        value
        for module in modules
        for value in vars(module).values()
        if _is_collector(value) and value not in _OF_PYTHON
    )
    return list(dict.fromkeys(found))


def _is_collector(value: object) -> TypeGuard[Collector]:
    """Return whether a value is one; prometheus_client has no class that could be asked."""
    of_its_own = not isinstance(value, type | ModuleType | CollectorRegistry)
    return of_its_own and callable(getattr(value, "collect", None))


def _of_agent() -> list[Collector]:
    """Return what an agent's registry has in it: its own, and what it keeps of the client's."""
    registry = CollectorRegistry()
    agent.Metrics(registry)
    own = list(registry._collector_to_names)  # noqa: SLF001 - the registry lists them nowhere else
    return [*own, *(one for one in _collectors([kube]) if one not in agent.NOT_OURS)]


def _families(component: str, collectors: Iterable[Collector]) -> Iterator[Family]:
    for collector in collectors:
        for metric in _described(collector):
            # A family of a collector of ours knows its labels; of a Counter, only the Counter does.
            knows = metric if hasattr(metric, "_labelnames") else collector
            labels: tuple[str, ...] = getattr(knows, "_labelnames", ())
            yield Family(
                name=f"{metric.name}_total" if metric.type == "counter" else metric.name,
                kind=metric.type,
                help=metric.documentation,
                labels=labels,
                component=component,
                unit=_unit(metric.name),
            )


def _described(collector: Collector) -> Iterable[Metric]:
    """Return the families without samples where it can tell, else with those that there are."""
    describe = getattr(collector, "describe", None)
    return list(describe()) if describe is not None else list(collector.collect())


def _unit(name: str) -> str:
    return next((unit for unit in _UNITS if name.endswith(f"_{unit}")), "")


def main() -> None:
    """Print the list."""
    json.dump([asdict(one) for one in families()], sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
