"""What the boards ask Prometheus for: it exists, it is scoped, and it follows the window."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tramontane.lab.observe.alerts import ALERTS, RECORDS
from tramontane.lab.observe.boards import Board, all_boards, panels, promql, targets
from tramontane.lab.observe.boards.queries import Query, coded, in_trouble, quantile, scoped, worst
from tramontane.lab.observe.boards.unused import UNUSED_ON_PURPOSE
from tramontane.lab.observe.exported import families

# Windows that are part of what is shown (a burn rate, a week's median) and said in the text.
FIXED = {"2m", "5m", "30m", "1h", "6h", "1d", "7d", "5m:1m", "30m:1m", "1h:1m", "6h:1m"}
FOLLOWS = {"$__rate_interval", "$__range", "$__range:$__interval"}
# Of these a hall has hundreds or thousands; more lines than so many nobody can tell apart.
MANY = {"job", "deployment", "tenant", "blade"}
MOST_LINES = 20
BOARDS = [pytest.param(board, id=board.file_name.removesuffix(".json")) for board in all_boards()]
each_board = pytest.mark.parametrize("board", BOARDS)


def expressions(board: Board) -> Iterator[tuple[str, str]]:
    """Return every query with what it is for: panels', annotations'."""
    for target in targets(board):
        yield f"{target.panel} {target.ref_id}", target.expr
    for mark in board.json["annotations"]["list"]:
        yield mark["name"], mark["expr"]
        assert mark["target"]["expr"] == mark["expr"]


@each_board
def test_metrics_and_labels_are_there(board: Board) -> None:
    complaints = []
    for name, expr in expressions(board):
        try:
            promql.check(expr)
        except promql.PromqlError as error:
            complaints.append(f"{name}: {error}")
    assert complaints == []


@each_board
def test_every_selector_is_of_the_chosen_cluster(board: Board) -> None:
    for name, expr in expressions(board):
        selectors = re.findall(r"\b[A-Za-z_]\w*\{([^}]*)\}", expr)
        assert selectors, name
        for selector in selectors:
            assert 'cluster=~"$cluster"' in selector, (name, expr)


@each_board
def test_every_target_asks_the_chosen_data_source(board: Board) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(board):
        for target in panel.get("targets", ()):
            assert target["datasource"] == chosen
    for mark in board.json["annotations"]["list"]:
        assert mark["datasource"] == chosen


@each_board
def test_windows_follow_the_board_or_are_said(board: Board) -> None:
    for panel in panels(board):
        for target in panel.get("targets", ()):
            windows = set(re.findall(r"\[([^\]]+)\]", target["expr"]))
            assert windows <= FIXED | FOLLOWS, panel["title"]
            if windows - FOLLOWS:
                said = panel["description"]
                assert re.search(r"minute|hour|day|week", said), panel["title"]


@each_board
def test_variables_are_declared(board: Board) -> None:
    declared = {variable["name"] for variable in board.json["templating"]["list"]}
    for name, expr in expressions(board):
        used = set(re.findall(r"\$([a-z_]+)", expr)) - {"__rate_interval", "__range", "__interval"}
        assert used <= declared, name
    for variable in board.json["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found, variable["name"]
            assert found[2] in promql.check(found[1]).labels


@each_board
def test_legends_name_labels_of_the_result(board: Board) -> None:
    for panel in panels(board):
        for target in panel.get("targets", ()):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            there = promql.check(target["expr"]).labels | {"le"}
            assert named <= there, panel["title"]


@each_board
def test_lines_of_many_objects_are_the_worst_few_or_of_the_chosen_one(board: Board) -> None:
    chosen = {
        variable["name"]
        for variable in board.json["templating"]["list"]
        if not (variable.get("multi") or variable.get("includeAll"))
    }
    for panel in panels(board):
        if panel["type"] == "table":
            continue
        lines = 0
        for target in panel.get("targets", ()):
            expr = target["expr"]
            fixed = {label for label in chosen if f'{label}=~"${label}"' in expr}
            if not (MANY & of_a_line(target)) - fixed:
                continue
            few = re.search(r"topk\((\d+), ", expr)
            assert few, f"{panel['title']}: one line for each of thousands"
            # Else there are others at each moment, and of ages nearly all within some hours.
            assert target["instant"] or "@ end()" in expr, panel["title"]
            assert re.search(rf"\b{few[1]}\b", panel["description"]), panel["title"]
            lines += int(few[1])
        assert lines <= MOST_LINES, panel["title"]


def of_a_line(target: dict[str, Any]) -> set[str]:
    """Return the labels that tell the lines of a target apart."""
    if target["legendFormat"] == "__auto":
        return set(promql.check(target["expr"]).labels)
    return set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))


@each_board
def test_columns_and_their_links_are_of_the_result(board: Board) -> None:
    for panel in panels(board):
        if panel["type"] != "table":
            continue
        letters = [target["refId"] for target in panel["targets"]]
        values = {f"Value #{letter}" for letter in letters} if len(letters) > 1 else {"Value"}
        there = set(values)
        for target in panel["targets"]:
            there |= promql.check(target["expr"]).labels
        columns = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
        assert columns <= there, panel["title"]
        for field in re.findall(r"__data\.fields\.(\w+)", str(panel)):
            assert field in columns, panel["title"]
        arranged = panel["transformations"][-1]["options"]
        shown = there - set(arranged["excludeByName"])
        assert shown == columns, f"{panel['title']}: shown without a heading"


@each_board
def test_sorted_by_a_heading_that_is_there(board: Board) -> None:
    for panel in panels(board):
        for sort in panel.get("options", {}).get("sortBy", ()):
            headings = [
                one["value"]
                for override in panel["fieldConfig"]["overrides"]
                for one in override["properties"]
                if one["id"] == "displayName"
            ]
            assert sort["displayName"] in headings, panel["title"]


def test_alerts_ask_for_what_is_there() -> None:
    """As the boards; of their template only the values are left out."""
    rules = [(rule.name, rule.expr) for rule in RECORDS]
    rules += [(rule.name, rule.expr) for rule in ALERTS]
    recorded: promql.Recorded = frozenset()
    for name, template in rules:
        expr = re.sub(r"\$\{\w+\}", "1", template).replace("@own", "")
        recorded |= {(name, promql.check(expr, recorded).labels)}


def test_every_metric_is_looked_at_or_left_out_on_purpose() -> None:
    used: set[str] = set()
    for board in all_boards():
        for _, expr in expressions(board):
            used |= promql.check(expr).metrics
    dark = {family.name for family in families() if used.isdisjoint(family.series)}
    assert dark == set(UNUSED_ON_PURPOSE)


def test_others_metrics_are_asked_for_in_folded_rows_only() -> None:
    for board in all_boards():
        for target in targets(board):
            foreign = any(promql.FOREIGN.match(name) for name in promql.check(target.expr).metrics)
            assert foreign == target.optional, target.panel


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        pytest.param("sum by (pool) (tramontane_gpu", "must parse", id="unclosed"),
        pytest.param("tramontane_nothing", "no such metric", id="unknown metric"),
        pytest.param('tramontane_gpus{pol="a"}', "a matcher of", id="unknown matcher"),
        pytest.param("sum by (pol) (tramontane_gpus)", "sum by must name", id="unknown grouping"),
        pytest.param("rate(tramontane_gpus[5m])", "must be of a counter", id="rate of a gauge"),
        pytest.param(
            "histogram_quantile(1, sum by (pool) (rate(tramontane_blade_out_seconds_bucket[5m])))",
            "histogram_quantile must name labels that are there (got le",
            id="le lost",
        ),
        pytest.param(
            "sum by (pool) (tramontane_gpus) * on (blade) sum by (pool) (tramontane_gpus)",
            "* on must name",
            id="join on a label that was summed away",
        ),
        pytest.param(
            "tramontane_gpu_power_watts * on (blade) group_left (pol) tramontane_blade_state",
            "group_left must name",
            id="nothing to take over",
        ),
        pytest.param(
            "sum by (pool) (tramontane_gpus) / sum by (state) (tramontane_gpus)",
            "must say on which labels",
            id="sides that never match",
        ),
    ],
)
def test_what_would_show_nothing_is_refused(expr: str, why: str) -> None:
    with pytest.raises(promql.PromqlError, match=re.escape(why)):
        promql.check(expr)


@pytest.mark.parametrize(
    ("expr", "labels"),
    [
        pytest.param("sum(tramontane_gpus)", set(), id="aggregated"),
        pytest.param("sum without (state) (tramontane_gpus)", {"pool"}, id="without"),
        pytest.param("topk(3, sum by (pool) (tramontane_gpus))", {"pool"}, id="topk"),
        pytest.param("time() - sum by (pool) (tramontane_gpus)", {"pool"}, id="scalar"),
        pytest.param(
            'label_replace(sum by (pool) (tramontane_gpus), "tenant", "$1", "pool", "(.+)")',
            {"pool", "tenant"},
            id="label_replace",
        ),
    ],
)
def test_labels_of_a_result(expr: str, labels: set[str]) -> None:
    assert promql.check(expr).labels - promql.TARGET_LABELS == labels


def test_filled() -> None:
    text = 'rate(a_total{b=~"$blade", c=~"$cluster"}[$__rate_interval]) + x[$__range]'
    assert promql.filled(text, {"$blade": "gpu-1"}) == (
        'rate(a_total{b=~"gpu-1", c=~".*"}[1m]) + x[6h]'
    )


def test_scopes() -> None:
    assert scoped('a{@all} b{@pool, s="x"}') == (
        'a{cluster=~"$cluster"} b{cluster=~"$cluster", pool=~"$pool", s="x"}'
    )
    with pytest.raises(KeyError):
        scoped("a{@fleet}")
    assert Query("a{@all}\n  + b").promql == 'a{cluster=~"$cluster"} + b'


def test_quantile() -> None:
    assert quantile(0.5, "a{@all}", "job", window="1h") == (
        "(histogram_quantile(0.5, sum by (le, job) (rate(a_bucket{@all}[1h]))) >= 0)"
    )


def test_the_worst_few() -> None:
    assert worst(3, "a", "job") == (
        "(a) and on (job) topk(3, max_over_time((a)[$__range:$__interval] @ end()))"
    )
    assert worst(3, "a", "job", "b - c").endswith(
        "max_over_time((b - c)[$__range:$__interval] @ end()))"
    )


def test_who_is_in_trouble_comes_before_who_is_not() -> None:
    assert in_trouble("a", "job", "Bad|Worse", "job") == (
        'max by (job) (timestamp(a{@job, phase=~"Bad|Worse"})) or max by (job) (0 * a{@job})'
    )


def test_a_state_as_a_number() -> None:
    words = ["Good", "Bad"]
    assert coded("a", "blade", "state", words, "blade") == (
        'max by (blade) (a{@blade, state="Good"} * 1 or a{@blade, state="Bad"} * 2)'
    )


def test_numbers_of_states_are_those_of_their_words() -> None:
    """A query's number and the panel's word for it come from one list."""
    for board in all_boards():
        for panel in panels(board):
            for target in panel.get("targets", ()):
                pairs = re.findall(r'(?:state|phase)="(\w+)"\} \* (\d+)', target["expr"])
                assert not pairs or worded(panel) == {number: word for word, number in pairs}


def worded(panel: dict[str, Any]) -> dict[str, str]:
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    return {number: one["text"] for number, one in mapping["options"].items()}
