"""The chart as it was: out of the repository's history, which a shallow clone lacks."""

import os
import subprocess
from pathlib import Path

import pytest

from chart.helm import ROOT

# The last commit with chart 0.1.0.
PREVIOUS = "7331a52"


def previous(folder: Path) -> Path:
    """Return the chart of the version before this one, written below `folder`."""
    archive = ["git", "-C", str(ROOT), "archive", PREVIOUS, "charts/tramontane"]
    done = subprocess.run(archive, capture_output=True, check=False)
    if done.returncode != 0:
        why = f"chart 0.1.0: needs commit {PREVIOUS} (got {done.stderr.decode().strip()})"
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=done.stdout, check=True)
    return folder / "charts" / "tramontane"
