"""The kinds of the Prometheus operator, as its own CRDs define them.

They are read from its Go module, by Go's own client and checked against the sum below: nothing of
them is kept here. Without Go the tests that want them are skipped with the reason, never in CI.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from chart.helm import Object

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
SUM = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
KINDS = ("podmonitors", "servicemonitors", "prometheusrules")


def crds() -> list[Object]:
    """Return the CRDs of the three kinds that the chart may make."""
    folder = _module() / "example" / "prometheus-operator-crd"
    return [
        yaml.safe_load((folder / f"monitoring.coreos.com_{kind}.yaml").read_text())
        for kind in KINDS
    ]


def _module() -> Path:
    go = shutil.which("go")
    done = go and subprocess.run(
        [go, "mod", "download", "-json", MODULE], capture_output=True, text=True, check=False
    )
    if not done or done.returncode != 0:
        why = f"{MODULE}: must be downloaded by go (got {done.stdout if done else 'no go'})"
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    said = json.loads(done.stdout)
    assert said["Sum"] == SUM, f"{MODULE}: must be what was looked at (got {said['Sum']})"
    return Path(said["Dir"])
