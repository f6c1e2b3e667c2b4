"""Write PromQL so that no board forgets its cluster.

A selector names its scope first: `tramontane_gpus{@pool, state="Healthy"}`. The scope stands for
the matchers of the board's variables, `cluster` always among them:

    @all           cluster
    @pool          cluster, pool
    @job           cluster, namespace, job            metrics of training jobs
    @deployment    cluster, namespace, deployment     metrics of inference deployments
    @blade         cluster, blade
    @jobs_blades, @deployments_blades                 the same by the labels of allocation_info

Two clusters may have a blade, a pool or a job of the same name, so joins are `on (cluster, ...)`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_CLUSTER: Final = 'cluster=~"$cluster"'
_NAMESPACE: Final = 'namespace=~"$namespace"'
SCOPES: Final = {
    "all": _CLUSTER,
    "pool": f'{_CLUSTER}, pool=~"$pool"',
    "job": f'{_CLUSTER}, {_NAMESPACE}, job=~"$job"',
    "deployment": f'{_CLUSTER}, {_NAMESPACE}, deployment=~"$deployment"',
    "blade": f'{_CLUSTER}, blade=~"$blade"',
    "jobs_blades": f'{_CLUSTER}, kind="TrainingJob", {_NAMESPACE}, name=~"$job"',
    "deployments_blades": (
        f'{_CLUSTER}, kind="InferenceDeployment", {_NAMESPACE}, name=~"$deployment"'
    ),
}
_SCOPE: Final = re.compile(r"@([a-z_]+)(?=[,}])")

#: The window of a rate that follows the dashboard's own window and the scrape interval.
WINDOW: Final = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL with scopes.
        legend: what the series is called, with `{{label}}`.
    """

    expr: str
    legend: str = ""

    @property
    def promql(self) -> str:
        """Return what goes to Prometheus: scopes replaced, on one line."""
        return " ".join(scoped(self.expr).split())


def scoped(expr: str) -> str:
    """Return the expression with its scopes replaced.

    Raises:
        KeyError: there is no such scope.
    """
    return _SCOPE.sub(lambda found: SCOPES[found[1]], expr)


def quantile(rank: float, histogram: str, *by: str, window: str = WINDOW) -> str:
    """Return the quantile of a histogram, `name{selector}`, over a window.

    Where nothing was observed there is nothing, not NaN.
    """
    name, brace, selector = histogram.partition("{")
    labels = ", ".join(("le", *by))
    rate = f"rate({name}_bucket{brace}{selector}[{window}])"
    return f"(histogram_quantile({rank:g}, sum by ({labels}) ({rate})) >= 0)"


def coded(metric: str, scope: str, label: str, words: Iterable[str], by: str) -> str:
    """Return the state that a label tells of as a number, 1 for the first word and so on.

    A state timeline colours values, and PromQL cannot make one out of a label.
    """
    terms = (
        f'{metric}{{@{scope}, {label}="{word}"}} * {number}'
        for number, word in enumerate(words, start=1)
    )
    return f"max by ({by}) ({' or '.join(terms)})"


def worst(most: int, expr: str, by: str, rank: str = "") -> str:
    """Return only the series of so many objects: those that ranked highest within the time shown.

    A hall has thousands of jobs. Bare `topk` chooses anew at each moment: of ages, which rise and
    fall, it shows every job once within some hours. Chosen at the end of the time shown only, jobs
    that are over would be missing. `by` are the labels that name an object, `rank` is what puts
    them in order where that is not `expr` itself.
    """
    highest = f"max_over_time(({rank or expr})[$__range:$__interval] @ end())"
    return f"({expr}) and on ({by}) topk({most}, {highest})"


def in_trouble(metric: str, scope: str, phases: str, by: str) -> str:
    """Return the moments at which things are in one of such phases, 0 for those that are not."""
    seen = f'timestamp({metric}{{@{scope}, phase=~"{phases}"}})'
    return f"max by ({by}) ({seen}) or max by ({by}) (0 * {metric}{{@{scope}}})"


def watts_of(scope: str, label: str) -> str:
    """Return the power of each job's or deployment's blades, its name under its own label.

    `scope` is one of allocation_info. A blade that two of them share counts for both.
    """
    held = f"max by (cluster, blade, namespace, name) (tramontane_allocation_info{{@{scope}}})"
    watts = "sum by (cluster, blade) (tramontane_gpu_power_watts{@all})"
    joined = f"{held} * on (cluster, blade) group_left () {watts}"
    total = f"sum by (cluster, namespace, name) ({joined})"
    return f'label_replace({total}, "{label}", "$1", "name", "(.+)")'


def ours(metric: str, scope: str, by: str) -> str:
    """Return a gauge of the leader's, once, while an old and a new process are both scraped."""
    return f"max by (cluster, {by}) ({metric}{{@{scope}}})"
