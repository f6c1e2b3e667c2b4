"""The manual is whole: every page is reached, every command is one that exists."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from tramontane.api.crdgen import KINDS
from tramontane.cli.main import main
from tramontane.lab.manual.blocks import blocks

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text())
PAGES = sorted(DOCS.rglob("*.md"))
# The reference of kinds has fields by name, such as nodePool.
PROSE = [path for path in PAGES if path != DOCS / "reference" / "crds.md"]
# Pages whose commands a reader types from top to bottom: all guides, but boards.md, which has none,
# and air-gap.md, which needs a machine on either side of a gap (tests/node/test_bundle.py).
OTHERS = {"boards.md", "air-gap.md"}
GUIDES = [path for path in sorted((DOCS / "guides").glob("*.md")) if path.name not in OTHERS]
TYPED = [DOCS / "start.md", DOCS / "install.md", *GUIDES]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def listed(nav: object) -> Iterator[str]:
    """Yield the pages of the navigation, at any depth."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for below in nav.values():
            yield from listed(below)
    elif isinstance(nav, list):
        for below in nav:
            yield from listed(below)


def test_every_page_is_in_the_navigation_once() -> None:
    pages = list(listed(CONFIG["project"]["nav"]))
    assert sorted(pages) == [str(path.relative_to(DOCS)) for path in PAGES]


@pytest.mark.parametrize("path", TYPED, ids=named)
def test_every_block_says_whether_it_is_run(path: Path) -> None:
    found = blocks(path.read_text())
    assert found, "a page of commands has some"
    assert "```sh" not in path.read_text(), "commands are ```console, so that they are looked at"
    assert not [block.line for block in found if block.unsaid]


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_a_page_has_one_title_and_no_level_is_skipped(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    depths = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert depths[:1] == [1]
    assert depths.count(1) == 1
    skipped = [(one, two) for one, two in pairwise(depths) if two > one + 1]
    if path.name != "faq.md":  # questions are small
        assert not skipped


@pytest.mark.parametrize("path", PROSE, ids=named)
def test_kinds_are_spelled_as_the_api_spells_them(path: Path) -> None:
    """In prose: what is in code may be a resource's name, a label or a variable."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)|https?://\S+", "", text)
    kinds = {kind.name for kind in KINDS} - {"Blade", "Gang"}  # words of their own, too
    pattern = "|".join(rf"\b{re.sub('(?<!^)(?=[A-Z])', '[ -]?', kind)}s?\b" for kind in kinds)
    wrong = [
        found
        for found in re.findall(pattern, text, re.IGNORECASE)
        if re.sub(r"s$", "", found) not in kinds and " " not in found
    ]
    assert not wrong


def commands_in(text: str) -> Iterator[str]:
    """Yield the calls of `tramontane` in blocks of commands and in quoted code."""
    for body in re.findall(r"^```(?:console|sh|)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        joined = body.replace("\\\n", " ")
        yield from re.findall(r"^(?:\$ |sudo )?(tramontane .*)$", joined, re.MULTILINE)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(one.split()) for one in re.findall(r"`(tramontane\s[^`]+)`", prose))


def problem_of(call: str) -> str:
    """Return what the command line would not know of a call; empty: it knows all."""
    words = shlex.split(call.replace("…", "X"), comments=True)
    words = words[1 : next((i for i, word in enumerate(words) if word in SHELL), len(words))]
    command: click.Command = main
    context = click.Context(main, info_name="tramontane")
    while isinstance(command, click.Group) and words and words[0][0] not in "-[":
        name = words.pop(0)
        below = command.get_command(context, name)
        if below is None:
            return f"{context.command_path} has no command {name!r}"
        command, context = below, click.Context(below, parent=context, info_name=name)
    options = {"--help", "-h"} | {
        name
        for param in command.params
        if isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts)
    }
    unknown = [
        word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in options
    ]
    return f"{context.command_path} has no option {unknown[0]!r}" if unknown else ""


SHELL = {"|", ">", ">>", "&&", "||", ";", "&", "<"}


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=named)
def test_every_command_of_ours_exists(path: Path) -> None:
    said = {call: problem_of(call) for call in commands_in(path.read_text())}
    assert not {call: problem for call, problem in said.items() if problem}


def test_a_command_that_does_not_exist_is_noticed() -> None:
    text = "```console\ntramontane fleets\n```\nand `tramontane why --loudly x`"
    assert [problem_of(call) for call in commands_in(text)] == [
        "tramontane has no command 'fleets'",
        "tramontane why has no option '--loudly'",
    ]
