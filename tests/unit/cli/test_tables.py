"""Tables and the command itself."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from tramontane.cli import tables
from tramontane.cli.main import main
from tramontane.cli.tables import Table


def test_columns_are_aligned_and_nothing_is_cut_off() -> None:
    long = "x" * 300
    lines = tables.plain(Table(("NAME", "WHY"), [("gpu-0001", ""), ("g", long)], "Blades"))
    assert lines == ["Blades", "NAME      WHY", "gpu-0001", f"g         {long}"]


def test_facts_without_a_value_are_left_out() -> None:
    assert tables.facts([("A", "1"), ("Long name", ""), ("Bcd", "2")]) == ["A:   1", "Bcd: 2"]
    assert tables.facts([("A", "")]) == []


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(-5, "0s", id="a clock that is behind"),
        pytest.param(0, "0s", id="now"),
        pytest.param(119, "119s", id="seconds"),
        pytest.param(120, "2m", id="minutes"),
        pytest.param(7199, "119m", id="two hours, nearly"),
        pytest.param(7200, "2h", id="hours"),
        pytest.param(172_800, "2d", id="days"),
        pytest.param(86_400 * 400, "400d", id="many days"),
    ],
)
def test_age(seconds: float, expected: str) -> None:
    assert tables.age(seconds) == expected


def test_a_terminal_gets_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")  # one that is dumb has none
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    tables.show(Table(("NAME", "STATE"), [("gpu-0001", "Quarantined")], "Blades"))
    said = capsys.readouterr().out
    assert "\x1b[31mQuarantined" in said
    assert "gpu-0001" in said


@pytest.mark.parametrize("group", ["blade", "pool", "breaker"])
def test_help_of_each_group_imports_nothing_heavy(group: str) -> None:
    code = (
        "import sys\n"
        "from tramontane.cli.main import main\n"
        f"try:\n    main(['{group}', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'aiohttp', 'kubernetes', 'pydantic', 'rich', 'numpy', 'yaml', 'asyncio'}\n"
        "print('LOADED', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_the_list_of_groups_says_what_each_is_for() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    for name in ("blade", "breaker", "lab", "pool"):
        assert f"\n  {name} " in said
    for name in ("blade", "breaker", "pool"):
        group = CliRunner().invoke(main, [name, "--help"]).output
        assert "Commands:" in group
