"""Build the manual: `python -m tramontane.lab.manual.site [DIR]`; DIR is site/ if absent.

The build is strict: a link to a page or a heading that is not there fails it. What comes of it is
read in halls without a network, from a web server or a folder, so a page that fetches a script,
a font or a picture from elsewhere fails it, too.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
CONFIG = "zensical.toml"
# Attributes that make a browser fetch something; a plain link does not.
_FETCHES = re.compile(
    r"<(?:script|img|iframe|source|link(?! rel=\"canonical\"))\b[^>]*?\b(?:src|href)=\"?"
    r"((?:https?:)?//[^\" >]+)|url\(\s*[\"']?((?:https?:)?//[^\"')]+)"
)


def fetched(folder: Path) -> dict[str, list[str]]:
    """Return what the pages and style sheets of a site would fetch from elsewhere, by file."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".html", ".css"}:
            text = path.read_text(encoding="utf-8")
            if targets := [one or other for one, other in _FETCHES.findall(text)]:
                found[str(path.relative_to(folder))] = targets
    return found


def build(folder: Path, root: Path = ROOT) -> str:
    """Build the site of a checkout into a folder; returns what was wrong, empty if nothing was.

    It is built elsewhere and put in place whole: the builder keeps a cache beside its
    configuration, which has no business in a checkout.
    """
    with tempfile.TemporaryDirectory(prefix="tramontane-manual-") as temporary:
        work = Path(temporary)
        shutil.copy(root / CONFIG, work)
        shutil.copytree(root / "docs", work / "docs")
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, cwd=work, capture_output=True, text=True, check=False
        )
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
        if done.returncode:
            return said.partition("Traceback")[0].strip()
        elsewhere = fetched(work / "site")
        if elsewhere:
            lines = [f"{name}: {', '.join(targets)}" for name, targets in elsewhere.items()]
            return "pages must fetch nothing from elsewhere (got\n" + "\n".join(lines) + ")"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / "site", folder)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; return the exit status."""
    parser = argparse.ArgumentParser(prog="tramontane.lab.manual.site", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "site", metavar="DIR")
    folder = parser.parse_args(arguments).folder
    if wrong := build(folder):
        sys.stderr.write(f"manual: {wrong}\n")
        return 1
    sys.stdout.write(f"{folder / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
