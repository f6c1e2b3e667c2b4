"""The site is built strictly, and fetches nothing from anywhere."""

import shutil
from pathlib import Path

import pytest

from tramontane.lab.manual.site import CONFIG, ROOT, build, fetched


def test_the_manual_builds_and_needs_no_network(tmp_path: Path) -> None:
    wrong = build(tmp_path / "site")
    assert not wrong, wrong
    start = (tmp_path / "site" / "start.html").read_text()
    assert 'id="5-break-a-gpu"' in start, "anchors are those that GitHub makes"
    assert "tramontane lab inject" in start
    assert "&lt;!--" not in start, "what the tests read is no text"
    assert (tmp_path / "site" / "search.json").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of two pages."""
    text = (ROOT / CONFIG).read_text()
    begin, end = text.index("nav = ["), text.index("[project.theme]")
    (tmp_path / CONFIG).write_text(f'{text[:begin]}nav = ["index.md", "two.md"]\n\n{text[end:]}')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# One\n\nSee [two](two.md#here).\n")
    (tmp_path / "docs" / "two.md").write_text("# Two\n\n## Here\n")
    return tmp_path


def test_two_pages_are_built(checkout: Path) -> None:
    assert build(checkout / "site", checkout) == ""
    assert (checkout / "site" / "two.html").exists()


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        pytest.param("[x](three.md)", "page does not exist", id="no such page"),
        pytest.param("[x](two.md#there)", "anchor does not exist", id="no such heading"),
        pytest.param("![x](https://hall.example/x.png)", "hall.example", id="a picture of others"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_replaced(
    checkout: Path, written: str, complaint: str
) -> None:
    shutil.copytree(checkout / "docs", checkout / "site")
    (checkout / "docs" / "index.md").write_text(f"# One\n\n{written}\n\n[two](two.md)\n")
    assert complaint in build(checkout / "site", checkout)
    assert (checkout / "site" / "two.md").exists()


@pytest.mark.parametrize(
    ("html", "targets"),
    [
        pytest.param('<a href="https://x.example/">x</a>', [], id="a link is no fetch"),
        pytest.param('<script src="https://x.example/a.js"></script>', ["https://x.example/a.js"],
                     id="script"),
        pytest.param('<link href="//x.example/a.css" rel="stylesheet">', ["//x.example/a.css"],
                     id="style sheet"),
        pytest.param("<style>body{background:url(https://x.example/a.png)}</style>",
                     ["https://x.example/a.png"], id="style"),
        pytest.param('<img src="images/a.svg">', [], id="our own"),
    ],
)  # fmt: skip
def test_what_a_page_fetches(tmp_path: Path, html: str, targets: list[str]) -> None:
    (tmp_path / "a.html").write_text(html)
    assert fetched(tmp_path) == ({"a.html": targets} if targets else {})
