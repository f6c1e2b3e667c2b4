"""The reference says what the code says, all of it, and the same each time."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from tramontane.api import meanings
from tramontane.api.crdgen import KINDS, definition
from tramontane.api.quantity import DURATION_PATTERN
from tramontane.health import catalogue
from tramontane.health.checks import CHECKS
from tramontane.lab.manual import alerts, cli, crds, faults, metrics, reasons, values
from tramontane.lab.manual.__main__ import main
from tramontane.lab.manual.markdown import cell, code, table
from tramontane.lab.manual.pages import PAGES, write
from tramontane.lab.observe.alerts import ALERTS
from tramontane.lab.observe.exported import Family, families

ROOT = Path(__file__).resolve().parents[3]

SCHEMA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "description": "Its name. Example: paris."},
        "levels": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"label": {"type": "string", "description": "A label."}},
            },
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": {"type": "object", "properties": {"spec": {"type": "object"}}},
    },
}


def test_all_fields_are_found_but_those_of_pod_templates() -> None:
    assert [(one.path, one.required) for one in crds.fields(SCHEMA)] == [
        ("name", True), ("levels", False), ("levels[].label", False), ("labels", False),
        ("template", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 64}, "integer, 1 to 64"),
        ({"type": "integer", "minimum": 1}, "integer, at least 1"),
        ({"type": "integer", "minimum": 0}, "integer"),
        ({"type": "string", "enum": ["A", "B"]}, "`A` · `B`"),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "map of integer"),
        ({"type": "string", "format": "date-time"}, "time"),
        ({"type": "string", "pattern": DURATION_PATTERN}, "duration"),
        ({"x-kubernetes-preserve-unknown-fields": True}, "any"),
    ],
)
def test_a_type_is_said_in_words(schema: dict[str, object], text: str) -> None:
    assert crds.type_of(schema) == text


def test_a_description_is_told_from_its_default_and_example() -> None:
    schema = {"description": "Port of seat 0. Default: 29500. Example: 29400.", "default": 29500}
    assert crds.said(schema) == ("Port of seat 0.", "29500", "29400")


def test_every_field_of_every_kind_is_described() -> None:
    page = crds.render()
    for kind in KINDS:
        schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in ("spec", "status"):
            for field in crds.fields(schema["properties"][part], part):
                assert f"| `{field.path}`" in page, field.path
                assert crds.said(field.schema)[0], f"{kind.name} {field.path} has no description"


def test_every_check_and_code_is_there() -> None:
    page = faults.render()
    for check in CHECKS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{check.name}` |")]
        assert len(row.split("|")[2].split()) > 2, f"{check.name} has no sentence"
    for code_ in (*catalogue.table(), *catalogue.switch_table()):
        assert f"\n| {code_} | " in page


VALUES = """\
# -- What all objects are called.
# And more of it.
name: ""

# A remark that belongs to nobody.

image:
  # -- Where it is pulled from.
  registry: ""   # not this
  # -- Both of them.
  pull: {secrets: [a, b], policy: Always}
silent: true
"""


def test_the_comments_of_values_are_read() -> None:
    assert values.values(VALUES) == [
        values.Value("name", '""', "What all objects are called. And more of it."),
        values.Value("image.registry", '""', "Where it is pulled from."),
        values.Value("image.pull", "{secrets: [a, b], policy: Always}", "Both of them."),
    ]


def test_a_metric_of_several_components_is_said_once() -> None:
    ours = [
        Family("tramontane_a", "gauge", "A", ("pool",), "operator"),
        Family("tramontane_c", "counter", "C", (), "scheduler"),
        Family("tramontane_c", "counter", "C", (), "operator"),
    ]
    groups = metrics.grouped(ours)
    assert {group: [one.name for one in members] for group, members in groups.items()} == {
        "Operator": ["tramontane_a"],
        "All components": ["tramontane_c"],
    }
    assert metrics.render(ours).count("tramontane_c") == 1


def test_every_metric_and_every_alert_is_there() -> None:
    page = metrics.render()
    assert not [one.name for one in families() if f"| `{one.name}` |" not in page]
    page = alerts.render()
    assert not [one.name for one in ALERTS if f"\n## {one.full_name}\n" not in page]


def test_every_reason_is_there_and_what_counts_it() -> None:
    page = reasons.render()
    for heading, words in reasons.LISTS.items():
        body = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        rows = [line.split(" | ") for line in body.splitlines() if line.startswith("| `")]
        assert [row[0] for row in rows] == [f"| `{word.value}`" for word in words]
        assert all(len(row) == 3 and all(row) for row in rows), heading
    assert "| `tramontane_scheduler_pending_gangs` | scheduler |" in page
    assert "tramontane_gpu" not in page.partition("## Metrics by reason")[2]


def test_a_reason_that_the_manual_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [one for one in meanings.reasons() if one.word != "Lemon"]
    monkeypatch.setattr(meanings, "reasons", lambda: tuple(known))
    with pytest.raises(LookupError, match='must explain Lemon under "Why a blade is out"'):
        reasons.render()


@click.group()
def hall() -> None:
    """Look at the hall."""


@hall.command(epilog="\b\nExamples:\n  hall show gpu-1 | less")
@click.argument("name")
@click.option("--wide", is_flag=True, help="More | all.")
@click.option("--secret", hidden=True)
def show(name: str, wide: bool, secret: str) -> None:
    """Show <one> blade.

    And say
    why.
    """


@hall.command(hidden=True)
def unseen() -> None:
    """Not for people."""


def test_a_command_is_written_as_its_help_says() -> None:
    page = cli.render(hall)
    assert "\n## tramontane show\n\nShow &lt;one&gt; blade.\n\nAnd say why.\n" in page
    assert "```text\ntramontane show [OPTIONS] NAME\n```" in page
    assert "| `--wide` | More \\| all. |" in page
    assert "```text\nExamples:\n  hall show gpu-1 | less\n```" in page
    assert "secret" not in page
    assert "`--help`" not in page, "all have it"
    assert "unseen" not in page


def test_all_of_the_command_line_is_there() -> None:
    page = cli.render()
    for name in ("fleet", "why", "blade list", "lab up", "weights verify"):
        assert f" tramontane {name}\n" in page


@pytest.mark.parametrize(
    ("text", "written"), [("a|b", r"a\|b"), ("a\n  b", "a b"), ("<b>", "&lt;b&gt;")]
)
def test_text_stays_text_in_a_table(text: str, written: str) -> None:
    assert cell(text) == written


def test_code_may_have_backquotes() -> None:
    assert [code("a|b"), code("a `b`"), code("")] == [r"`a\|b`", "`` a `b` ``", ""]
    assert table(("A", "B"), [("1", ""), ("", "2")]).splitlines()[2:] == ["| 1 | |", "| | 2 |"]


def test_what_is_written_is_what_another_process_writes(tmp_path: Path) -> None:
    """Sets and hashes have another order in each process."""
    write(tmp_path / "one")
    command = [sys.executable, "-m", "tramontane.lab.manual", str(tmp_path / "two")]
    subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONHASHSEED": "7"})
    for name in PAGES:
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_page_that_is_not_what_the_code_says_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    assert main([str(tmp_path), "--check"]) == 0
    (tmp_path / "crds.md").write_text("# Kinds\n")
    assert main([str(tmp_path), "--check"]) == 1
    assert "crds.md must be what the code says" in capsys.readouterr().err
