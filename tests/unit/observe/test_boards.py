"""The boards as Grafana gets them: files as generated, places, names, links, a strict reading."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tramontane.lab.observe.boards import Board, all_boards, links, panels
from tramontane.lab.observe.boards.__main__ import FOLDER, write
from tramontane.lab.observe.boards.layout import COLUMNS, MOST_PANELS, Section, assemble
from tramontane.lab.observe.boards.panels import guide
from tramontane.lab.observe.boards.sdk import JSONEncoder, model, register_default_plugins

RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks"
LARGEST_FILE = 200 * 1024
BOARDS = [pytest.param(board, id=board.file_name.removesuffix(".json")) for board in all_boards()]
UIDS = {
    "tramontane-fleet",
    "tramontane-training",
    "tramontane-queue",
    "tramontane-blade",
    "tramontane-inference",
    "tramontane-power",
    "tramontane-operator",
}

each_board = pytest.mark.parametrize("board", BOARDS)


def drawn(board: Board) -> list[dict[str, Any]]:
    """Return the panels that show data."""
    return [panel for panel in panels(board) if panel["type"] != "text"]


def strings(value: Any) -> Iterator[str]:
    """Return every string in some JSON."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from strings(inner)
    for inner in value if isinstance(value, list) else ():
        yield from strings(inner)


def test_uids_are_what_links_and_alerts_rely_on() -> None:
    assert {board.uid for board in all_boards()} == UIDS == set(links.TITLES)


def test_the_files_are_what_the_code_says(tmp_path: Path) -> None:
    (tmp_path / "gone.json").write_text("{}")
    write(tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in FOLDER.iterdir()}, "make generate"


def test_the_same_twice() -> None:
    first = {board.uid: board.text() for board in all_boards()}
    all_boards.cache_clear()
    assert first == {board.uid: board.text() for board in all_boards()}


@each_board
def test_a_file_fits_a_config_map(board: Board) -> None:
    assert len(board.text().encode()) < LARGEST_FILE


@each_board
def test_grafanas_own_types_know_every_key(board: Board) -> None:
    """What is not theirs would be dropped on the way through them."""
    register_default_plugins()
    read = model.Dashboard.from_json(json.loads(board.text()))
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    for entry in [*again["links"], *again["annotations"]["list"]]:
        del entry["placement"]  # theirs by default, left out by us: see links.py
    assert again == board.json
    assert board.json["schemaVersion"] == 42


@each_board
def test_panels_say_what_they_show(board: Board) -> None:
    for panel in drawn(board):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
    titles = [panel["title"] for panel in drawn(board)]
    assert len(titles) == len(set(titles))


@each_board
def test_not_more_panels_than_one_can_read(board: Board) -> None:
    assert len(panels(board)) <= MOST_PANELS


@each_board
def test_it_begins_with_words(board: Board) -> None:
    assert panels(board)[0]["type"] == "text"
    assert board.json["description"].endswith("?") or board.json["description"].endswith(".")


@each_board
def test_ids_and_letters_are_given_once(board: Board) -> None:
    rows = [panel for panel in board.json["panels"] if panel["type"] == "row"]
    ids = [panel["id"] for panel in [*panels(board), *rows]]
    assert len(ids) == len(set(ids))
    for panel in panels(board):
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(letters) == len(set(letters)), panel["title"]


@each_board
def test_panels_lie_side_by_side(board: Board) -> None:
    """Nothing sticks out and nothing covers another; a folded row is a board of its own."""
    folded = [row["panels"] for row in board.json["panels"] if row.get("collapsed")]
    for places in (board.json["panels"], *folded):
        grids = [panel["gridPos"] for panel in places]
        for grid in grids:
            assert grid["x"] >= 0
            assert grid["x"] + grid["w"] <= COLUMNS
        for one, other in combinations(grids, 2):
            apart = (
                one["x"] + one["w"] <= other["x"]
                or other["x"] + other["w"] <= one["x"]
                or one["y"] + one["h"] <= other["y"]
                or other["y"] + other["h"] <= one["y"]
            )
            assert apart, (one, other)


@each_board
def test_rows_are_full(board: Board) -> None:
    """A hole in a row looks like a panel that failed to load."""
    folded = [row["panels"] for row in board.json["panels"] if row.get("collapsed")]
    for places in (board.json["panels"], *folded):
        widths: dict[int, int] = {}
        for panel in places:
            grid = panel["gridPos"]
            widths[grid["y"]] = widths.get(grid["y"], 0) + grid["w"]
        assert set(widths.values()) == {COLUMNS}, widths


@pytest.mark.parametrize(
    "runbook", [pytest.param(path, id=path.stem) for path in sorted(RUNBOOKS.glob("*.md"))]
)
def test_runbooks_send_to_panels_that_are_there(runbook: Path) -> None:
    """`Board *Fleet*: "Pools"`: what is quoted up to the next board is a panel of this one."""
    titles = {
        board.title.removeprefix("Tramontane / "): {panel["title"] for panel in drawn(board)}
        for board in all_boards()
    }
    text = runbook.read_text()
    sent = re.findall(r"Board \*(\w+)\*((?:(?!Board \*|\n\n|\n[*|]).)*)", text, re.DOTALL)
    assert sent
    for name, said in sent:
        quoted = {" ".join(title.split()) for title in re.findall(r'"([^"]+)"', said)}
        assert quoted, f"board {name}: which panel?"
        assert quoted <= titles[name]
    # Of a Deployment kubectl takes one pod, which may be the standby.
    assert "logs deploy/" not in text


@each_board
def test_links_lead_to_boards_that_are_there(board: Board) -> None:
    led = {uid for text in strings(board.json) for uid in re.findall(r"/d/([\w-]+)", text)}
    assert led <= UIDS
    above = {link.get("url", "").removeprefix("/d/") for link in board.json["links"]}
    assert board.uid == links.FLEET or links.FLEET in above, "no way back to the fleet"


def test_every_board_is_one_click_from_the_fleet() -> None:
    (fleet,) = (board for board in all_boards() if board.uid == links.FLEET)
    led = {uid for text in strings(fleet.json) for uid in re.findall(r"/d/([\w-]+)", text)}
    assert led == UIDS - {links.FLEET}


@each_board
def test_links_set_variables_that_the_other_board_has(board: Board) -> None:
    has = {
        one.uid: {variable["name"] for variable in one.json["templating"]["list"]}
        for one in all_boards()
    }
    for text in strings(board.json):
        for uid, rest in re.findall(r"/d/([\w-]+)\?([^)\s]*)", text):
            assert set(re.findall(r"var-(\w+)=", rest)) <= has[uid], text


@each_board
def test_states_look_the_same_everywhere(board: Board) -> None:
    """One word has one colour, whatever panel it is in."""
    colours: dict[str, set[str]] = {}
    for panel in drawn(board):
        for word, colour in coloured(panel):
            colours.setdefault(word.lower(), set()).add(colour)
    assert {word: found for word, found in colours.items() if len(found) > 1} == {}


def coloured(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the words of a panel that have a colour, with it."""
    config = panel["fieldConfig"]
    overridden = [one for override in config["overrides"] for one in override["properties"]]
    mappings = [*config["defaults"].get("mappings", ())]
    mappings += [one for each in overridden if each["id"] == "mappings" for one in each["value"]]
    for mapping in mappings:
        for value in mapping["options"].values():
            yield value["text"], value["color"]
    for override in config["overrides"]:
        for one in override["properties"]:
            if one["id"] == "color":
                yield override["matcher"]["options"], one["value"]["fixedColor"]


def test_a_folded_row_holds_its_panels_and_they_may_be_empty() -> None:
    board = assemble(
        links.FLEET,
        "A test.",
        choices=[],
        marks=[],
        ways=[],
        sections=[
            Section("first", 3, [guide("a", width=12), guide("b", width=12), guide("c")]),
            Section("of others", 4, [guide("d")], optional=True),
        ],
    )
    row = board.json["panels"][-1]
    assert row["collapsed"]
    assert [panel["id"] for panel in row["panels"]] == sorted(board.optional)
    assert [panel["gridPos"]["y"] for panel in board.json["panels"]] == [0, 1, 1, 4, 7]
