"""What a demo prints that is to be typed works where it is read."""

import shlex
import sys
from pathlib import Path

import pytest

from tramontane.lab.paths import own_command
from tramontane.lab.scenario import LOOK, staying


def script(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "tramontane"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command that runs, called as `make demo` does."""
    path = script(tmp_path / "a venv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["a venv/tramontane", "lab", "demo"])
    return path


def test_a_command_that_is_not_on_path_is_named_by_its_path(mine: Path) -> None:
    assert shlex.split(own_command()) == [str(mine)]


def test_one_that_is_on_path_is_named_by_its_name(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(mine.parent))
    assert own_command() == "tramontane"


def test_another_of_that_name_is_not_meant(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(script(tmp_path / "other").parent))
    assert shlex.split(own_command()) == [str(mine)]


@pytest.mark.parametrize("called", ["/usr/bin/pytest", "kubectl-tramontane", "/gone/tramontane"])
def test_who_runs_by_no_such_command_says_its_name(
    called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert own_command() == "tramontane"


def test_a_cluster_that_stays_up_is_ended_by_the_command_that_made_it(
    mine: Path, tmp_path: Path
) -> None:
    lines = staying(tmp_path / "lab", tmp_path / "lab" / "kubeconfig", LOOK).strip().splitlines()
    assert lines[0] == "The cluster stays up."
    assert lines[1] == f"  export KUBECONFIG={tmp_path}/lab/kubeconfig"
    assert shlex.split(lines[-1]) == [str(mine), "lab", "down", "--dir", str(tmp_path / "lab")]
