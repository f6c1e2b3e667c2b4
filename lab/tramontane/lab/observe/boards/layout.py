"""Put panels into rows and rows onto a board, and say what the board is.

Panels of a section stand side by side and wrap after 24 columns. Numbers of panels are given from
top to bottom, so that the same board always has the same bytes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tramontane.lab.observe.boards import links, variables
from tramontane.lab.observe.boards.panels import Draft
from tramontane.lab.observe.boards.sdk import JSONEncoder, model

COLUMNS: Final = 24
MOST_PANELS: Final = 24
_ENCODER: Final = JSONEncoder(indent=1, sort_keys=True, ensure_ascii=False)
_ROW_HEIGHT: Final = 1


@dataclass(frozen=True, slots=True)
class Section:
    """Some panels under a heading.

    Attributes:
        title: the heading; empty for none.
        height: of each panel, in Grafana's units of 30 px.
        optional: shows what others export, if they do: it is folded, and may be empty.
    """

    title: str
    height: int
    panels: Sequence[Draft]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """A board that is done.

    Attributes:
        uid: stable, links are made of it.
        json: what Grafana reads: classic dashboard JSON as plain values.
        optional: ids of the panels that are empty where others do not export.
    """

    uid: str
    title: str
    json: dict[str, Any]
    optional: frozenset[int]

    @property
    def file_name(self) -> str:
        """Return what the chart's file is called."""
        return f"{self.uid.removeprefix('tramontane-')}.json"

    def text(self) -> str:
        """Return the content of the file."""
        return f"{_ENCODER.encode(self.json)}\n"


def assemble(
    uid: str,
    text: str,
    *,
    choices: Iterable[model.VariableModel],
    marks: Iterable[model.AnnotationQuery],
    ways: Iterable[str],
    sections: Iterable[Section],
    window: str = "6h",
) -> Board:
    """Return the board.

    Args:
        uid: one of `links.TITLES`.
        text: what it is for.
        choices: variables besides the data source and the cluster.
        marks: annotations.
        ways: uids of the boards above and below, for the links on top.
        sections: the panels.
        window: how far back it looks at first.
    """
    panels, optional = _place(sections)
    made = model.Dashboard(
        uid=uid,
        title=links.TITLES[uid],
        description=text,
        tags=[links.TAG],
        editable=True,
        graph_tooltip=model.DashboardCursorSync.CROSSHAIR,
        time=model.DashboardDashboardTime(from_val=f"now-{window}", to="now"),
        refresh="1m",
        panels=panels,
        templating=model.DashboardDashboardTemplating(
            list_val=[variables.datasource(), variables.cluster(), *choices]
        ),
        annotations=model.AnnotationContainer(list_val=list(marks)),
        links=[*(links.board(way) for way in ways), links.everything()],
        timezone="browser",
    )
    return Board(uid, links.TITLES[uid], plain(made), optional)


def plain(made: object) -> dict[str, Any]:
    """Return the SDK's object as plain values."""
    values: dict[str, Any] = json.loads(_ENCODER.encode(made))
    return values


def _place(
    sections: Iterable[Section],
) -> tuple[list[model.Panel | model.RowPanel], frozenset[int]]:
    placed: list[model.Panel | model.RowPanel] = []
    optional: set[int] = set()
    y, number = 0, 0
    for section in sections:
        row = None
        if section.title:
            number += 1
            row = model.RowPanel(
                title=section.title,
                collapsed=section.optional,
                id_val=number,
                grid_pos=model.GridPos(h=_ROW_HEIGHT, w=COLUMNS, x=0, y=y),
                panels=[],
            )
            placed.append(row)
            y += _ROW_HEIGHT
        panels, bottom = _flow(section, number, y)
        number += len(panels)
        if row is not None and section.optional:
            row.panels = panels
            optional.update(panel.id_val or 0 for panel in panels)
        else:
            placed.extend(panels)
            y = bottom
    return placed, frozenset(optional)


def _flow(section: Section, number: int, y: int) -> tuple[list[model.Panel], int]:
    """Return the section's panels with ids after `number` and places from `y` down."""
    x, done = 0, []
    for index, one in enumerate(section.panels, start=1):
        if x + one.width > COLUMNS:
            x, y = 0, y + section.height
        one.panel.id_val = number + index
        one.panel.grid_pos = model.GridPos(h=section.height, w=one.width, x=x, y=y)
        x += one.width
        done.append(one.panel)
    return done, y + section.height
