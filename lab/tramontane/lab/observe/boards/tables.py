"""Make tables: the labels of instant queries are columns, and cells lead on.

What a column is called, how wide it is, in which unit and where it leads is said per column;
columns that nobody asked for are hidden. Several queries are merged by the labels they share.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tramontane.lab.observe.boards import links, look
from tramontane.lab.observe.boards.panels import Draft, draft, instants
from tramontane.lab.observe.boards.queries import Query
from tramontane.lab.observe.boards.sdk import common, model
from tramontane.lab.observe.boards.sdk import table as tables

# What else Prometheus has in a row: nobody reads it, and some clusters do not have it.
_NOISE: Final = ("Time", "__name__", "instance", "pod", "container", "endpoint", "component")


@dataclass(frozen=True, slots=True)
class Column:
    """One column that is shown.

    Attributes:
        field: the label, or `Value`; with several queries `Value #A`, `Value #B` and so on.
        title: its heading.
        unit: of the values; none for labels.
        colours: words of it that have a colour.
        limits: colours by value.
        links: where a click on a cell leads; of several Grafana lets one choose.
    """

    field: str
    title: str
    unit: str = ""
    colours: dict[str, str] | None = None
    limits: model.ThresholdsConfig | None = None
    links: tuple[model.DashboardLink, ...] = ()
    decimals: int | None = None

    def override(self) -> model.DashboardFieldConfigSourceOverrides:
        """Return how Grafana is told."""
        said = [model.DynamicConfigValue("displayName", self.title)]
        if self.unit:
            said.append(model.DynamicConfigValue("unit", self.unit))
        if self.decimals is not None:
            said.append(model.DynamicConfigValue("decimals", self.decimals))
        if self.colours is not None:
            said.append(model.DynamicConfigValue("mappings", look.words(self.colours)))
        if self.limits is not None:
            said.append(model.DynamicConfigValue("thresholds", self.limits))
        if self.colours is not None or self.limits is not None:
            said.append(model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        if self.links:
            said.append(model.DynamicConfigValue("links", list(self.links)))
        return look.override(self.field, *said)


def table(
    title: str,
    text: str,
    *queries: Query,
    columns: Iterable[Column],
    sort: str = "",
    width: int = 12,
    hidden: Iterable[str] = ("cluster",),
    none: str | None = None,
) -> Draft:
    """Return a table of what the queries say now.

    `sort` is the heading of the column whose largest value is on top; `hidden` are further labels
    that the queries keep and nobody needs to see.
    """
    columns = tuple(columns)
    defaults = model.FieldConfig(
        unit="none",
        color=model.FieldColor(mode=model.FieldColorModeId.THRESHOLDS),
        thresholds=look.limits(base="text"),
        no_value=none,
        # Grafana's own least width of a column, 150 px, hides every fifth one.
        custom=common.TableFieldOptions(align=common.FieldTextAlignment.AUTO, min_width=50),
    )
    options = tables.Options(
        show_header=True,
        cell_height=common.TableCellHeight.SM,
        sort_by=[common.TableSortByFieldState(display_name=sort, desc=True)] if sort else None,
    )
    targets = instants(queries, rows=True)
    overrides = [one.override() for one in columns]
    made = draft(
        "table",
        title,
        text,
        width,
        defaults=defaults,
        targets=targets,
        options=options,
        overrides=overrides,
    )
    merge = [model.DataTransformerConfig(id_val="merge", options={})] if len(targets) > 1 else []
    made.panel.transformations = [*merge, _arranged(columns, (*_NOISE, *hidden))]
    return made


def _arranged(columns: tuple[Column, ...], hidden: tuple[str, ...]) -> model.DataTransformerConfig:
    shown = {one.field for one in columns}
    return model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {name: True for name in hidden if name not in shown},
            "indexByName": {one.field: index for index, one in enumerate(columns)},
            "renameByName": {},
        },
    )


#: The column that most tables begin with, and its way to the blade's board.
BLADE_COLUMN: Final = Column(
    "blade", "Blade", links=(links.cell(links.BLADE, "Open the blade", blade="blade"),)
)
