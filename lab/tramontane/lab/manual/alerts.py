"""Write the reference of alerts, from the list that the chart's rules are written from.

Expressions have `${value}` where an owner's limit stands; the values are the chart's, and the
table says which of them an alert reads.
"""

from collections.abc import Iterable

from tramontane.lab.manual.markdown import cell, code, fenced, page, table
from tramontane.lab.observe.alertrules import Alert
from tramontane.lab.observe.alerts import ALERTS, RECORDS

_OPENING = """\
The chart's `prometheusRule.enabled` brings them. A critical one wakes a person, a warning is a
ticket; each carries the address of its runbook (`prometheusRule.runbookUrl`) and of its board
(`prometheusRule.dashboardUrl`). Where an expression says `${x}`, the value is `prometheusRule.x`
of the [chart](values.md#prometheusrule)."""


def _row(alert: Alert) -> tuple[str, ...]:
    link = f"[{alert.full_name}](#{alert.full_name.lower()})"
    limits = ", ".join(code(value) for value in alert.values)
    return link, alert.severity.value, alert.wait, limits, cell(alert.summary)


def _section(alert: Alert) -> str:
    facts = f"{alert.severity.value} · {f'after {alert.wait}' if alert.wait else 'at once'}"
    links = f"[runbook](../runbooks/{alert.name}.md) · board {code(alert.board[0])}"
    return "\n\n".join(
        (
            f"## {alert.full_name}",
            f"{cell(alert.summary)} {facts} · {links}",
            fenced(alert.expr, "promql"),
        )
    )


def render(alerts: Iterable[Alert] = ALERTS) -> str:
    """Return the page."""
    found = sorted(alerts, key=lambda one: one.name)
    head = ("Alert", "Severity", "After", "Limits", "Says")
    recorded = "\n\n".join(fenced(f"{one.name} =\n{one.expr}", "promql") for one in RECORDS)
    return page(
        "Alerts",
        _OPENING,
        table(head, map(_row, found)),
        *map(_section, found),
        "## Recorded series",
        "What several of them read, evaluated once.",
        recorded,
    )
