"""Make panels: few kinds, each with the settings that we want everywhere.

A panel says what it shows (`text` becomes the description behind the "i"), in which unit, by which
queries. Legends are shown, hovers show all series, and letters for the queries are given here.
"""

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tramontane.lab.observe.boards import look
from tramontane.lab.observe.boards.queries import Query
from tramontane.lab.observe.boards.sdk import (
    bargauge,
    common,
    heatmap,
    model,
    prometheus,
    stat,
    statetimeline,
)
from tramontane.lab.observe.boards.sdk import text as textpanel
from tramontane.lab.observe.boards.sdk import timeseries as graphs
from tramontane.lab.observe.boards.variables import DATASOURCE

_LAST: Final = ["lastNotNull"]
Links = Iterable[model.DashboardLink]


@dataclass(frozen=True, slots=True)
class Draft:
    """A panel that has no place yet; `width` is in 24ths of the board."""

    panel: model.Panel
    width: int


def draft(
    kind: str,
    title: str,
    text: str,
    width: int,
    *,
    defaults: model.FieldConfig,
    targets: list[prometheus.Dataquery],
    options: object,
    overrides: Iterable[model.DashboardFieldConfigSourceOverrides] = (),
) -> Draft:
    """Return a panel of any kind."""
    panel = model.Panel(
        type_val=kind,
        title=title,
        description=" ".join(text.split()),
        datasource=DATASOURCE,
        targets=list(targets),
        options=options,
        field_config=model.FieldConfigSource(defaults=defaults, overrides=list(overrides)),
    )
    return Draft(panel, width)


def ranges(queries: Iterable[Query]) -> list[prometheus.Dataquery]:
    """Return targets over the dashboard's window."""
    return [_target(letter, query, instant=False) for letter, query in _lettered(queries)]


def instants(queries: Iterable[Query], *, rows: bool = False) -> list[prometheus.Dataquery]:
    """Return targets at the end of the window; `rows` makes a table of labels and value."""
    targets = [_target(letter, query, instant=True) for letter, query in _lettered(queries)]
    for target in targets if rows else ():
        target.format_val = prometheus.PromQueryFormat.TABLE
    return targets


def _lettered(queries: Iterable[Query]) -> Iterable[tuple[str, Query]]:
    return zip(string.ascii_uppercase, queries, strict=False)


def _target(letter: str, query: Query, *, instant: bool) -> prometheus.Dataquery:
    return prometheus.Dataquery(
        ref_id=letter,
        datasource=DATASOURCE,
        editor_mode=prometheus.QueryEditorMode.CODE,
        expr=query.promql,
        legend_format=query.legend or "__auto",
        instant=instant,
        range_val=not instant,
    )


def tile(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    limits: model.ThresholdsConfig = look.NEUTRAL,
    mappings: Iterable[model.ValueMapping] = (),
    links: Links = (),
    width: int = 4,
    trend: bool = False,
    names: bool = False,
    decimals: int | None = None,
    none: str | None = None,
) -> Draft:
    """Return one number, or a few, in the colour of its limits.

    `trend` draws behind the number how it came about, `names` says which series each number is
    of, and `none` is what stands there without data, where that is an answer.
    """
    defaults = model.FieldConfig(
        unit=unit,
        decimals=decimals,
        mappings=list(mappings),
        thresholds=limits,
        color=model.FieldColor(mode=model.FieldColorModeId.THRESHOLDS),
        links=list(links),
        no_value=none,
    )
    options = stat.Options(
        graph_mode=common.BigValueGraphMode.AREA if trend else common.BigValueGraphMode.NONE,
        color_mode=common.BigValueColorMode.VALUE,
        text_mode=common.BigValueTextMode.VALUE_AND_NAME if names else common.BigValueTextMode.AUTO,
        text=common.VizTextDisplayOptions(title_size=16, value_size=24) if names else None,
        reduce_options=common.ReduceDataOptions(calcs=_LAST, fields="", values=False),
    )
    targets = ranges(queries) if trend else instants(queries)
    return draft("stat", title, text, width, defaults=defaults, targets=targets, options=options)


def graph(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    stack: bool = False,
    bars: bool = False,
    colours: Mapping[str, str] | None = None,
    least: float | None = 0,
    most: float | None = None,
    links: Links = (),
    dashed: Iterable[str] = (),
    gaps_s: int = 0,
    none: str | None = None,
) -> Draft:
    """Return lines over time; stacked where the sum means something.

    `dashed` are the legends of lines that are a limit, not a measurement; gaps up to `gaps_s` are
    drawn over: of what is told only now and then.
    """
    custom = common.GraphFieldConfig(
        draw_style=common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE,
        line_width=1,
        fill_opacity=60 if stack or bars else 0,
        show_points=common.VisibilityMode.NEVER,
        span_nulls=gaps_s * 1000 or False,
        stacking=common.StackingConfig(
            mode=common.StackingMode.NORMAL if stack else common.StackingMode.NONE, group="A"
        ),
    )
    defaults = model.FieldConfig(
        unit=unit,
        min_val=least,
        max_val=most,
        color=model.FieldColor(mode=model.FieldColorModeId.PALETTE_CLASSIC),
        custom=custom,
        links=list(links),
        no_value=none,
    )
    options = graphs.Options(legend=_legend(), tooltip=_tooltip())
    named = {query.legend for query in queries}
    known = {name: one for name, one in look.PERCENTILE_COLOURS.items() if name in named}
    overrides = [*look.by_name(colours or known), *(_dashes(name) for name in dashed)]
    return draft(
        "timeseries",
        title,
        text,
        width,
        defaults=defaults,
        targets=ranges(queries),
        options=options,
        overrides=overrides,
    )


def _dashes(name: str) -> model.DashboardFieldConfigSourceOverrides:
    return look.override(
        name,
        model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
        model.DynamicConfigValue("custom.fillOpacity", 0),
        model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": look.BAD}),
    )


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions(
        display_mode=common.LegendDisplayMode.LIST,
        placement=common.LegendPlacement.BOTTOM,
        show_legend=True,
        calcs=[],
    )


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions(
        mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING
    )


def gauges(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    limits: model.ThresholdsConfig = look.NEUTRAL,
    colours: Mapping[str, str] | None = None,
    links: Links = (),
    most: float | None = None,
    none: str | None = None,
) -> Draft:
    """Return one bar per series, as they stand now."""
    defaults = model.FieldConfig(
        unit=unit,
        min_val=0,
        max_val=most,
        thresholds=limits,
        color=model.FieldColor(mode=model.FieldColorModeId.THRESHOLDS),
        links=list(links),
        no_value=none,
    )
    options = bargauge.Options(
        display_mode=common.BarGaugeDisplayMode.BASIC,
        value_mode=common.BarGaugeValueMode.COLOR,
        name_placement=common.BarGaugeNamePlacement.LEFT,
        text=common.VizTextDisplayOptions(title_size=12, value_size=14),
        max_viz_height=28,
        orientation=common.VizOrientation.HORIZONTAL,
        reduce_options=common.ReduceDataOptions(calcs=_LAST, fields="", values=False),
        legend=common.VizLegendOptions(
            display_mode=common.LegendDisplayMode.LIST,
            placement=common.LegendPlacement.BOTTOM,
            show_legend=False,
            calcs=[],
        ),
    )
    overrides = look.by_name(colours or {})
    return draft(
        "bargauge",
        title,
        text,
        width,
        defaults=defaults,
        targets=instants(queries),
        options=options,
        overrides=overrides,
    )


def timeline(
    title: str,
    text: str,
    *queries: Query,
    colours: Mapping[str, str],
    width: int = 24,
    links: Links = (),
) -> Draft:
    """Return which state things were in; the queries are `queries.coded` in `colours`' order."""
    defaults = model.FieldConfig(
        unit="none",
        mappings=look.numbered(colours),
        thresholds=look.limits(base=look.GREY),
        color=model.FieldColor(mode=model.FieldColorModeId.THRESHOLDS),
        custom=statetimeline.FieldConfig(line_width=0, fill_opacity=80),
        links=list(links),
    )
    options = statetimeline.Options(
        show_value=common.VisibilityMode.AUTO,
        row_height=0.8,
        merge_values=True,
        legend=_legend(),
        tooltip=_tooltip(),
    )
    return draft(
        "state-timeline",
        title,
        text,
        width,
        defaults=defaults,
        targets=ranges(queries),
        options=options,
    )


def heat(title: str, text: str, unit: str, query: Query, *, width: int = 12) -> Draft:
    """Return how a histogram's buckets fill over time; the query keeps `le`."""
    targets = ranges([query])
    for target in targets:
        target.format_val, target.legend_format = prometheus.PromQueryFormat.HEATMAP, "{{le}}"
    options = heatmap.Options(
        calculate=False,
        color=heatmap.HeatmapColorOptions(
            mode=heatmap.HeatmapColorMode.SCHEME,
            scheme="Blues",
            fill="dark-blue",
            scale=heatmap.HeatmapColorScale.EXPONENTIAL,
            exponent=0.5,
            steps=32,
        ),
        y_axis=heatmap.YAxisConfig(unit=unit, axis_placement=common.AxisPlacement.LEFT),
        cell_gap=1,
        filter_values=heatmap.FilterValueRange(le=1e-9),
        legend=heatmap.HeatmapLegend(show=True),
        tooltip=heatmap.HeatmapTooltip(mode=common.TooltipDisplayMode.SINGLE, y_histogram=True),
    )
    defaults = model.FieldConfig(unit=unit, custom=heatmap.FieldConfig())
    return draft("heatmap", title, text, width, defaults=defaults, targets=targets, options=options)


def guide(markdown: str, *, width: int = 24) -> Draft:
    """Return a panel of text: what the board is for, and where to go on."""
    panel = model.Panel(
        type_val="text",
        title="",
        transparent=True,
        options=textpanel.Options(mode=textpanel.TextMode.MARKDOWN, content=markdown),
    )
    return Draft(panel, width)
