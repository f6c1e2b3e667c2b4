"""What Helm tells after an install: what to do next, and what is not as it should be.

Helm 4 tells it without a cluster; that Helm 3 tells the same is seen in tests/plane.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from chart.helm import CHART, ROOT, Helm


def notes(helm: Helm, values: Mapping[str, Any]) -> str:
    done = helm.run(
        "install", "t", str(CHART), "--dry-run=client", "--namespace", "gpu", values=values
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


def test_three_commands_come_next(helm: Helm) -> None:
    said = notes(helm, {})
    commands = [line.split("#")[0].strip() for line in said.splitlines() if "  # " in line]
    assert commands == [
        "helm test t -n gpu --logs",
        "kubectl apply -f nodepool.yaml",
        "kubectl get nodepools,blades",
    ]
    assert "device plugin" in said
    assert "WARNING" not in said
    assert "DRY RUN" not in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({"dryRun": True}, "DRY RUN", id="dry-run"),
        pytest.param({"global": {"dryRun": True}}, "DRY RUN", id="dry-run-of-the-umbrella"),
        pytest.param(
            {"podMonitor": {"enabled": True}}, "does not serve monitoring", id="monitor-without-crd"
        ),
        pytest.param(
            {"prometheusRule": {"enabled": True}},
            "does not serve monitoring",
            id="rules-without-crd",
        ),
        pytest.param({}, "has no Prometheus operator", id="nobody-scrapes"),
        pytest.param({"doctor": {"enabled": False}}, "tramontane doctor -n gpu", id="no-test"),
        pytest.param({"agent": {"enabled": False}}, "health agent is off", id="no-agent"),
        pytest.param({}, "gpu needs the label", id="privileged-resets"),
        pytest.param({}, "enforce=privileged", id="label-of-the-namespace"),
        pytest.param(
            {"agent": {"access": "Host"}}, "the agents are privileged, too", id="privileged-agents"
        ),
        pytest.param({}, "need the RuntimeClass nvidia", id="runtime-class"),
        pytest.param({"crds": {"enabled": False}}, "Apply crds/", id="no-crds"),
        pytest.param(
            {"admissionPolicy": {"enabled": False}}, "policies are off", id="no-admission-policy"
        ),
    ],
)
def test_what_is_not_as_usual_is_said(helm: Helm, values: dict[str, Any], words: str) -> None:
    assert words in notes(helm, values)


def test_alerts_that_cannot_fire_are_named(helm: Helm) -> None:
    """Their runbooks say so, too."""
    runbooks = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
    silent = [path.stem for path in runbooks if "`metrics.detail: low`" in path.read_text()]
    assert len(silent) == 5
    rules = {"prometheusRule": {"enabled": True}}
    said = notes(helm, {**rules, "metrics": {"detail": "low"}})
    assert f"{', '.join(silent[:-1])} and {silent[-1]}." in said
    assert "nothing to look at" not in notes(helm, rules)
    assert "nothing to look at" not in notes(helm, {"metrics": {"detail": "low"}})
