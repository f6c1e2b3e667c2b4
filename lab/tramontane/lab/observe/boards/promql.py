"""Read queries back: which metrics they ask for, and whether their labels can be there.

Prometheus accepts `sum by (pol) (x)` and answers with something. So every expression is parsed, and
the labels that a join, a grouping or a matcher names must be on the metric: the component's own
(`exported.families()`) or those that the scrape adds.

`check` is for boards and alerts alike.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import promql_parser as parser

from tramontane.api.errors import TramontaneError
from tramontane.lab.observe.exported import AGENT, Family, families

#: What the scrape adds to every series, and to an agent's.
TARGET_LABELS: Final = frozenset({"cluster", "component", "instance", "namespace", "pod"})
AGENT_LABELS: Final = TARGET_LABELS | {"blade"}
#: What Prometheus itself has about each target.
OF_PROMETHEUS: Final = frozenset({"up", "scrape_duration_seconds", "scrape_samples_scraped"})
#: What others export, if they are there.
FOREIGN: Final = re.compile(r"DCGM_FI_\w+")
_FOREIGN_LABELS: Final = TARGET_LABELS | {"gpu", "Hostname"}
_GRAFANA: Final = {
    "$__rate_interval": "1m",
    "$__range": "6h",
    "$__interval": "30s",
}
_VARIABLE: Final = re.compile(r"\$(?:\{[a-z_:]+\}|[a-z_]+)")
_COUNTING: Final = frozenset({"rate", "increase", "irate"})
_SETS: Final = frozenset({"and", "unless"})
#: Names of recorded series with their labels.
Recorded = frozenset[tuple[str, frozenset[str]]]


class PromqlError(TramontaneError):
    """An expression that Prometheus would take and that says nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What an expression was found to be.

    Attributes:
        metrics: names of the series it asks for.
        labels: those that its result may have.
    """

    metrics: frozenset[str]
    labels: frozenset[str]


def filled(expr: str, values: Mapping[str, str] | None = None) -> str:
    """Return the expression with Grafana's variables replaced, by `.*` where nothing is given.

    `values` is by name with the dollar: `{"$blade": "gpu-0001"}`.
    """
    for name, value in {**_GRAFANA, **(values or {})}.items():
        expr = re.sub(rf"{re.escape(name)}\b", value, expr)
    return _VARIABLE.sub(".*", expr)


@cache
def check(expr: str, recorded: Recorded = frozenset()) -> Checked:
    """Return what an expression asks for.

    `recorded` are series that rules make, with their labels.

    Raises:
        PromqlError: it does not parse, or names a metric or a label that is not there.
    """
    text = filled(expr)
    try:
        tree = parser.parse(text)
    except ValueError as error:
        raise PromqlError(f"PromQL: must parse (got {error}): {text}") from None
    reader = _Reader(text, dict(recorded))
    labels = reader.labels(tree)
    return Checked(frozenset(reader.metrics), labels)


class _Reader:
    """Walks one expression and collects."""

    def __init__(self, text: str, recorded: Mapping[str, frozenset[str]]) -> None:
        self._text = text
        self._recorded = recorded
        self.metrics: set[str] = set()

    def labels(self, node: Any) -> frozenset[str]:
        """Return the labels that the value of a node may have."""
        found: frozenset[str] = frozenset()
        match node:
            case parser.VectorSelector():
                found = self._selector(node)
            case parser.MatrixSelector():
                found = self._selector(node.vector_selector)
            case parser.ParenExpr() | parser.UnaryExpr() | parser.SubqueryExpr():
                found = self.labels(node.expr)
            case parser.AggregateExpr():
                found = self._aggregate(node)
            case parser.BinaryExpr():
                found = self._binary(node)
            case parser.Call():
                found = self._call(node)
        return found

    def _selector(self, node: Any) -> frozenset[str]:
        self.metrics.add(node.name)
        labels = self._recorded.get(node.name) or labels_of(node.name)
        if labels is None:
            raise PromqlError(f"PromQL: {node.name} must be exported (got no such metric)")
        asked = {matcher.name for matcher in node.matchers.matchers}
        self._need(asked, labels, f"a matcher of {node.name}")
        return labels

    def _aggregate(self, node: Any) -> frozenset[str]:
        inner = self.labels(node.expr)
        if node.modifier is None:
            keeps = str(node.op) in {"topk", "bottomk"}
            return inner if keeps else frozenset()
        named = frozenset(node.modifier.labels)
        self._need(named, inner, f"{node.op} by")
        by = node.modifier.type == parser.AggModifierType.By
        return named if by else inner - named

    def _binary(self, node: Any) -> frozenset[str]:
        left, right = self.labels(node.lhs), self.labels(node.rhs)
        operation, how = str(node.op), node.modifier
        if operation == "or":
            return left | right
        if how is None or how.matching is None:
            if left and right and left != right:
                self._refuse(
                    f"{operation} must say on which labels (got {_of(left)}; {_of(right)})"
                )
            return left or right
        on = frozenset(how.matching.labels)
        self._need(on, left, f"{operation} on")
        self._need(on, right, f"{operation} on")
        more = frozenset(how.group_labels or ())
        if how.card == parser.VectorMatchCardinality.ManyToOne:
            self._need(more, right, "group_left")
            return left | more
        if operation in _SETS:
            return left
        return on

    def _call(self, node: Any) -> frozenset[str]:
        name, arguments = node.func.name, list(node.args)
        found = [self.labels(argument) for argument in arguments]
        if name == "histogram_quantile":
            self._need({"le"}, found[1], name)
            return found[1] - {"le"}
        if name == "label_replace":
            self._need({arguments[3].val}, found[0], name)
            return found[0] | {arguments[1].val}
        if name in _COUNTING:
            counted = arguments[0].vector_selector.name
            if not counted.endswith(("_total", "_bucket", "_sum", "_count")):
                self._refuse(f"{name}() must be of a counter (got {counted})")
        return frozenset() if name in {"vector", "scalar", "time"} else found[0]

    def _need(self, asked: Iterable[str], there: frozenset[str], where: str) -> None:
        if lacking := sorted(set(asked) - there):
            got = f"got {_of(lacking)}; there: {_of(there)}"
            self._refuse(f"{where} must name labels that are there ({got})")

    def _refuse(self, why: str) -> None:
        raise PromqlError(f"PromQL: {why}: {self._text}")


def labels_of(metric: str) -> frozenset[str] | None:
    """Return the labels that a metric's series may have; None: nobody exports it."""
    if metric in OF_PROMETHEUS:
        return AGENT_LABELS
    if FOREIGN.fullmatch(metric):
        return _FOREIGN_LABELS
    found = [_labels(family, metric) for family in families() if metric in family.series]
    return frozenset[str]().union(*found) if found else None


def _labels(family: Family, metric: str) -> frozenset[str]:
    own = frozenset(family.labels) | (AGENT_LABELS if family.component == AGENT else TARGET_LABELS)
    return own | {"le"} if metric.endswith("_bucket") and family.kind == "histogram" else own


def _of(labels: Iterable[str]) -> str:
    return ", ".join(sorted(labels)) or "none"
