"""The manual's commands are run, page by page, as a reader would type them.

Each page has one shell, begun in a checkout that `make setup` has been through, with a home of its
own for the lab. What a page shows of a command's output must come, but for numbers and hashes.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tramontane.lab.binaries import bin_dir, ensure
from tramontane.lab.manual.blocks import Block, blocks, differs, printed, script

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TMP = "/tmp/"
LONGEST_S = 400


def pages() -> dict[str, list[Block]]:
    """Return the pages that have commands to run, by their path below docs/."""
    found = {str(path.relative_to(DOCS)): blocks(path.read_text()) for path in DOCS.rglob("*.md")}
    return {name: page for name, page in sorted(found.items()) if any(block.runs for block in page)}


PAGES = pages()


@pytest.fixture
def environment(_built: None, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the page's shell finds; a lab that the page leaves up is stopped."""
    ensure(("kubectl",))
    path = [str(ROOT / ".venv" / "bin"), os.environ["PATH"], str(bin_dir())]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "NO_COLOR": "1",
    }
    environment.pop("KUBECONFIG", None)
    yield environment
    subprocess.run(["tramontane", "lab", "down"], env=environment, check=False, timeout=60)


@pytest.mark.timeout(LONGEST_S + 100)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_can_be_typed(
    page: str, environment: dict[str, str], tmp_path: Path
) -> None:
    commands = script(PAGES[page]).replace(TMP, f"{tmp_path}/")
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, f"{page} stopped:\n{done.stdout}"
    came = printed(done.stdout)
    for block in PAGES[page]:
        if block.output:
            line = differs(block.output, came[block.line])
            got = "\n".join(came[block.line])
            assert not line, f"{page}:{block.line} must print {line!r} (got\n{got})"
