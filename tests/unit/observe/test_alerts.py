"""The list of alerts: what it asks for exists, and what Helm and Prometheus are to fill in is told
apart."""

import re

import pytest

from tramontane.lab.observe.alertrules import (
    Alert,
    Severity,
    rules_at_once,
    rules_file,
    with_values,
)
from tramontane.lab.observe.alerts import ALERTS, RECORDS
from tramontane.lab.observe.boards import all_boards
from tramontane.lab.observe.boards.promql import check
from tramontane.lab.observe.live import alert_values

ONE = Alert(
    "TooHot",
    Severity.WARNING,
    'max by (pool) (heat) > ${limit} * 60 or absent(heat{kind="a"@own})',
    "It is hot.",
    "Pool {{ $labels.pool }} has {{ $value }} (limit: ${limit}).",
    ("tramontane-fleet", "pool"),
    off_at_zero="limit",
)


def expanded(expr: str) -> str:
    """Write out what is recorded, so that only exported metrics are asked for; offsets go."""
    for record in reversed(RECORDS):
        expr = expr.replace(record.name, f"({record.expr})")
    return re.sub(r" offset \d+[hm]", "", expr)


@pytest.mark.parametrize("alert", [pytest.param(one, id=one.name) for one in ALERTS])
def test_metrics_and_labels_of_an_alert_exist(alert: Alert) -> None:
    found = check(with_values(expanded(alert.expr), alert_values()))
    assert found.metrics
    for label in alert.board[1:]:
        assert label in found.labels, f"the link to the board needs the label {label}"


def test_names_are_told_once_and_boards_exist() -> None:
    names = [alert.name for alert in ALERTS]
    assert len(names) == len(set(names)) == 14
    assert {alert.board[0] for alert in ALERTS} <= {board.uid for board in all_boards()}


def test_the_chart_has_every_value_that_an_alert_needs() -> None:
    needed = {key for alert in ALERTS for key in alert.values}
    assert needed <= alert_values().keys()


def test_helm_fills_in_values_and_leaves_prometheus_its_own() -> None:
    text = rules_file((), (ONE,))
    assert "> {{ .Values.prometheusRule.limit }} * 60" in text
    assert 'kind="a"{{ with .Values.monitoring.cluster }}, cluster="{{ . }}"{{ end }}}' in text
    assert "Pool {{`{{ $labels.pool }}`}} has {{`{{ $value }}`}}" in text
    assert "{{- if .Values.prometheusRule.limit }}\n  - alert: TramontaneTooHot" in text
    assert "{{ .Values.prometheusRule.runbookUrl }}/TooHot" in text


def test_without_helm_values_are_filled_in_as_well() -> None:
    groups = rules_at_once((), (ONE,), {"limit": 5})["groups"]
    [rule] = groups[-1]["rules"]
    assert rule["expr"] == 'max by (pool) (heat) > 5 * 60 or absent(heat{kind="a"})'
    assert "for" not in rule
    assert rules_at_once((), (ONE,), {"limit": 0})["groups"][-1]["rules"] == []


def test_a_value_that_is_missing_is_told_of() -> None:
    with pytest.raises(KeyError, match="limit"):
        with_values(ONE.expr, {})
