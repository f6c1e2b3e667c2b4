"""Write alerts as the rules file of the chart: a Helm template of a PrometheusRule's spec.

Three languages meet in that file:

    ${gangPendingMinutes}    a value of the chart, under `prometheusRule`; any text may have it
    {{ $labels.pool }}       Prometheus fills it in when the alert fires; annotations only
    @own                     the matcher of the release's own cluster, where it was given a name

Helm fills in the first and the third, and must hand the second on as it stands. A large number of
Helm's may come out as 1e+06, which PromQL reads as well.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

PREFIX: Final = "Tramontane"
_VALUE: Final = re.compile(r"\$\{(\w+)\}")
_FILLED_IN: Final = re.compile(r"\{\{.*?\}\}")
# Inside a selector that has a matcher already.
_OWN: Final = '{{ with .Values.monitoring.cluster }}, cluster="{{ . }}"{{ end }}'
_HEAD: Final = """\
# Made by `python -m tramontane.lab.observe.alerts`; do not edit.
# A template for Helm. What stands in backquotes is for Prometheus to fill in.
groups:
"""


class Severity(StrEnum):
    """Say how soon somebody must look: critical wakes a person, a warning is a ticket."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: of its runbook; Prometheus has the prefix in front of it.
        expr: PromQL; each series that it returns is an alert, with its labels.
        wait: how long that must hold, as Prometheus writes durations; empty: not at all.
        summary: one sentence without values, since alerts are grouped by it.
        description: what is so, with values.
        board: uid of the dashboard to look at, and those of the alert's labels that choose there.
        off_at_zero: key of a value; where that is 0, the chart leaves the alert out.
    """

    name: str
    severity: Severity
    expr: str
    summary: str
    description: str
    board: tuple[str, ...]
    wait: str = ""
    off_at_zero: str = ""

    @property
    def full_name(self) -> str:
        """Return what Prometheus calls it."""
        return f"{PREFIX}{self.name}"

    @property
    def values(self) -> tuple[str, ...]:
        """Return the keys under `prometheusRule` that bear on it."""
        return tuple(dict.fromkeys(_VALUE.findall(f"{self.expr} {self.description}")))


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule: what several alerts would say again and again."""

    name: str
    expr: str


def rules_file(records: Iterable[Record], alerts: Iterable[Alert]) -> str:
    """Return the text of the file."""
    lines = ["- name: tramontane.records", "  rules:"]
    for record in records:
        lines += [f"  - record: {record.name}", *_field("expr", record.expr, 4)]
    lines += ["- name: tramontane.alerts", "  rules:"]
    for alert in alerts:
        lines += _rule(alert)
    return _HEAD + "\n".join(lines) + "\n"


def with_values(expr: str, values: Mapping[str, object]) -> str:
    """Return an expression as Prometheus evaluates it, where the chart's values are these.

    Raises:
        KeyError: it needs a value that is not given.
    """
    return _VALUE.sub(lambda found: str(values[found[1]]), expr).replace("@own", "")


def rules_at_once(
    records: Iterable[Record], alerts: Iterable[Alert], values: Mapping[str, object]
) -> dict[str, Any]:
    """Return the rules for a Prometheus that looks on for minutes: no alert waits (`for`)."""
    groups = [
        {
            "name": "tramontane.records",
            "rules": [{"record": one.name, "expr": one.expr} for one in records],
        },
        {
            "name": "tramontane.alerts",
            "rules": [
                {
                    "alert": one.full_name,
                    "expr": with_values(one.expr, values),
                    "labels": {"severity": one.severity.value},
                    "annotations": {"summary": one.summary},
                }
                for one in alerts
                if not one.off_at_zero or values[one.off_at_zero]
            ],
        },
    ]
    return {"groups": groups}


def _rule(alert: Alert) -> Iterator[str]:
    if alert.off_at_zero:
        yield f"{{{{- if .Values.prometheusRule.{alert.off_at_zero} }}}}"
    yield f"  - alert: {alert.full_name}"
    yield from _field("expr", alert.expr, 4)
    if alert.wait:
        yield f"    for: {alert.wait}"
    yield f"    labels: {{severity: {alert.severity}}}"
    yield "    annotations:"
    yield from _field("summary", alert.summary, 6)
    yield from _field("description", alert.description, 6)
    yield from _field("runbook_url", f"%runbookUrl%/{alert.name}", 6)
    yield from _field("dashboard_url", _board_url(*alert.board), 6)
    if alert.off_at_zero:
        yield "{{- end }}"


def _board_url(uid: str, *labels: str) -> str:
    """Return the address of a board that shows what the alert is about.

    Without a `cluster` on the targets there is none to choose.
    """
    query = "".join(f"&var-{label}={{{{ $labels.{label} }}}}" for label in labels)
    cluster = "{{ with $labels.cluster }}&var-cluster={{ . }}{{ end }}"
    return f"%dashboardUrl%/d/{quote(uid)}?from=now-6h{cluster}{query}"


def _field(key: str, text: str, indent: int) -> Iterator[str]:
    """Yield a field whose text may have any character: a block, the lines of which are kept."""
    margin = " " * indent
    yield f"{margin}{key}: |-"
    for line in text.strip().splitlines():
        yield f"{margin}  {_templated(line)}"


def _templated(line: str) -> str:
    """Return a line as Helm must have it."""
    line = _FILLED_IN.sub(lambda found: f"{{{{`{found[0]}`}}}}", line)
    line = _VALUE.sub(r"{{ .Values.prometheusRule.\1 }}", line).replace("@own", _OWN)
    return re.sub(r"%(\w+)%", r"{{ .Values.prometheusRule.\1 }}", line)
