"""Dashboards as typed Python: seven boards, and the JSON that the chart ships.

    fleet        is anything wrong, and where?
    training     where did a job's time go?
    queue        why does a gang wait, and what would fit?
    blade        everything about one server
    inference    does a model answer as fast as promised?
    power        what is drawn, by whom, and what does a step cost?
    operator     do we ourselves work?

Each module makes one board of the shared vocabulary: `queries` (PromQL that never forgets its
cluster), `panels` and `tables` (few kinds of panel), `look` (one colour per state), `variables`,
`annotations`, `links`, and `layout`, which puts it together. `python -m
tramontane.lab.observe.boards` writes the files; `promql` reads their queries back for the tests.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from tramontane.lab.observe.boards import (
    blade,
    fleet,
    inference,
    operator,
    power,
    queue,
    training,
)
from tramontane.lab.observe.boards.layout import Board

__all__ = ["Board", "Target", "all_boards", "panels", "targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel, as Prometheus gets it but for Grafana's variables.

    Attributes:
        optional: others export what it asks for, so it may find nothing.
    """

    panel: str
    ref_id: str
    expr: str
    optional: bool


@cache
def all_boards() -> tuple[Board, ...]:
    """Return the boards, the one to begin with first."""
    modules = (fleet, training, queue, blade, inference, power, operator)
    return tuple(module.board() for module in modules)


def panels(board: Board) -> list[dict[str, Any]]:
    """Return the panels, also those in folded rows, without the rows."""
    found: list[dict[str, Any]] = []
    for panel in board.json["panels"]:
        found += panel["panels"] if panel["type"] == "row" else [panel]
    return found


def targets(board: Board) -> tuple[Target, ...]:
    """Return the queries of all panels."""
    return tuple(
        Target(panel["title"], target["refId"], target["expr"], panel["id"] in board.optional)
        for panel in panels(board)
        for target in panel.get("targets", ())
    )
