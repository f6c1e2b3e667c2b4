"""What is optional still says what it needs, and downloads nothing that is not pinned."""

import re
import sys
from pathlib import Path

import pytest

from tramontane.lab.gobuild import BuildFailed
from tramontane.lab.realmodel import build, place

PINNED = re.compile(r"[\w.-]+==[\w.]+( ; [^\\]+)?( \\\n +| )--hash=sha256:[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAMONTANE_CACHE", str(tmp_path))


@pytest.mark.parametrize("file", [place.REQUIREMENTS, place.SOURCES], ids=lambda file: file.name)
def test_every_package_has_a_version_and_a_hash(file: Path) -> None:
    text = file.read_text()
    packages = re.findall(r"^[a-z].*", text, re.MULTILINE)
    assert len(packages) == len(PINNED.findall(text)) > 0


def test_it_is_there_once_the_stamp_is_of_this_recipe() -> None:
    here = place.found()
    assert not here.whole
    here.folder.mkdir()
    here.stamp.write_text("another")
    assert not here.whole
    here.stamp.write_text(place.recipe())
    assert here.whole
    assert build.build() == here


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildFailed, match="apt-get install cmake g\\+\\+ make"):
        build.build()
    assert not place.found().folder.exists()


def test_a_step_that_fails_shows_its_last_lines() -> None:
    script = "import sys; print('[ 50%] x.cpp'); print('x.cpp:1: error'); sys.exit(3)"
    with pytest.raises(
        BuildFailed, match=r"exit code 3\); its last lines:\n.*\n  x.cpp:1: error\n"
    ):
        build._run(sys.executable, "-c", script)
