"""`tramontane simulate fleet`: answers, refusals, exit codes, and `simulate -f` beside it."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tramontane.cli import fleetview
from tramontane.cli.main import main
from tramontane.lab.sim import charts, study
from tramontane.lab.sim.faults import Model
from tramontane.lab.sim.study import Case

SMALL = ("--blades", "12", "--days", "20", "--failure-rate", "20", "--max-unavailable", "4")


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", "fleet", *arguments])


def test_it_answers_what_a_planner_asks() -> None:
    seen = simulate(*SMALL, "--spares", "2", "--seeds", "2")
    assert seen.exit_code == 0, seen.output
    for word in (
        "save every",
        "spares for 99 %",
        "expected goodput",
        "in-place, 2 spares",
        "gang restart",
    ):
        assert word in seen.output


def test_json_is_for_programs_and_holds_all_figures() -> None:
    seen = simulate(*SMALL, "--spares", "1,2", "--policy", "in-place", "-o", "json")
    assert seen.exit_code == 0, seen.output
    content = json.loads(seen.stdout)
    assert [case["spares"] for case in content["cases"]] == [1, 2]
    first = content["cases"][0]
    assert first["gpus"] == 11 * 8
    assert 0.9 < first["ettr"] < 1
    assert first["ettr"] == pytest.approx(first["ettrLedger"], rel=0.01)
    assert content["mttfSeconds"] == pytest.approx(1000 / 11 / 20 * 86400, rel=0.01)


def test_the_same_seed_gives_the_same_answer() -> None:
    runs = [simulate(*SMALL, "--seed", "7", "-o", "json").stdout for _ in range(2)]
    assert runs[0] == runs[1] != simulate(*SMALL, "--seed", "8", "-o", "json").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ["--blades", "8", "--spares", "8"], "fewer than the 8 blades", id="all spares"
        ),
        pytest.param(
            ["--blades", "8", "--job-blades", "8", "--spares", "1"],
            "give more --blades",
            id="no room",
        ),
        pytest.param(["--blades", "0"], "0 is not in the range", id="no blades"),
        pytest.param(["--blades", "-4"], "not in the range", id="negative"),
        pytest.param(["--spares", "-1"], "numbers of at least 0", id="negative spares"),
        pytest.param(["--days", "0"], "not in the range", id="no days"),
        pytest.param(["--checkpoint", "soon"], "must be a duration such as 30s", id="no duration"),
        pytest.param(["--checkpoint", "0s"], "must be longer than 0s", id="free checkpoints"),
        pytest.param(["--checkpoint-interval", "x"], "must be a duration", id="no interval"),
        pytest.param(["--parts", "120%"], "from 0% to 100%", id="more than all"),
        pytest.param(
            ["--policy", "hope"], "must be among in-place, gang (got hope)", id="no policy"
        ),
        pytest.param(["--failure-rate", "-1"], "not in the range", id="negative rate"),
        pytest.param(["--max-unavailable", "lots"], "a number or a percentage", id="no budget"),
        pytest.param(["--plot", "chart.pdf"], "must end with .svg or .png", id="no picture"),
        pytest.param(["--plot", "/nowhere/at/all.svg"], "its folder must exist", id="no folder"),
    ],
)
def test_nonsense_is_refused_with_words(arguments: list[str], words: str) -> None:
    seen = simulate(*arguments)
    assert seen.exit_code == 2
    assert words in " ".join(seen.output.split())


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "lost.svg"
    seen = simulate(*SMALL, "--policy", "in-place", "--plot", str(path))
    assert seen.exit_code == 0, seen.output
    assert path.read_text().startswith("<svg")
    assert "in-place" in path.read_text()


def test_a_png_without_matplotlib_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    seen = simulate(*SMALL, "--plot", str(tmp_path / "lost.png"))
    assert seen.exit_code == 2
    assert "tramontane[plot]" in seen.output


def test_help_names_every_option() -> None:
    seen = simulate("--help")
    assert seen.exit_code == 0
    for option in ("--spares", "--checkpoint-interval", "--sweep", "--plot", "--detect", "--seeds"):
        assert option in seen.output


def test_simulate_alone_still_wants_a_file() -> None:
    seen = CliRunner().invoke(main, ["simulate"])
    assert seen.exit_code == 2
    assert "Missing option '-f'" in seen.output


def test_a_sweep_changes_one_thing_at_a_time() -> None:
    base = Case("base", 136, 128, 8)
    names = [case.name for case in study.sweep(base)]
    assert len(names) == len(set(names))
    assert names[0] == "base"
    assert {"spares 0", "checkpoint 10s", "reload 600s", "detection 600s"} <= set(names)
    assert names[-1].startswith("gang restart")


def test_no_spares_are_asked_for_where_there_is_no_room() -> None:
    seen = simulate("--blades", "1", "--days", "1", "--policy", "in-place", "-o", "json")
    assert seen.exit_code == 0, seen.output
    assert json.loads(seen.stdout)["cases"][0]["spares"] == 0


def test_views_say_never_where_nothing_fails() -> None:
    (answer,) = study.ask([Case("calm", 4, 4, 0, days=1, model=Model(rate=0))], [1])
    assert any("never" in line for line in fleetview.summary(answer))
    assert fleetview.content([answer])["mttfSeconds"] is None
    assert "calm" in charts.svg([answer])
