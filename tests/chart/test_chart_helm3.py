"""Helm 3 and Helm 4 render the same, by itself and as a part of an umbrella chart."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helm import CHART, Helm, kinds, pods
from chart.value_sets import VALUE_SETS


@pytest.fixture(scope="session", params=["helm", "helm3"])
def either(request: pytest.FixtureRequest) -> Helm:
    made: Helm = request.getfixturevalue(request.param)
    return made


def test_the_two_are_what_they_are_called(helm: Helm, helm3: Helm) -> None:
    assert helm.run("version", "--short").stdout.startswith("v4.")
    assert helm3.run("version", "--short").stdout.startswith("v3.")


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_helm_3_renders_what_helm_4_renders(
    helm: Helm, helm3: Helm, values: Mapping[str, Any]
) -> None:
    assert helm3.template(values) == helm.template(values)


def test_helm_3_refuses_what_the_schema_forbids(helm3: Helm) -> None:
    with pytest.raises(ValueError, match=r"operator\.replicas|/operator/replicas"):
        helm3.template({"operator": {"replicas": "three"}})


def test_helm_3_finds_nothing_to_complain_about(helm3: Helm) -> None:
    done = helm3.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def umbrella(tmp_path: Path) -> Path:
    """A chart of somebody else's that has ours among its parts."""
    folder = tmp_path / "hall"
    shutil.copytree(CHART, folder / "charts" / "tramontane")
    part = {"name": "tramontane", "version": ">=0.2.0", "condition": "tramontane.enabled"}
    (folder / "Chart.yaml").write_text(
        yaml.safe_dump(
            {"apiVersion": "v2", "name": "hall", "version": "1.0.0", "dependencies": [part]}
        )
    )
    return folder


def test_as_a_part_of_an_umbrella_chart(either: Helm, umbrella: Path) -> None:
    values = {
        "global": {
            "imageRegistry": "mirror.hall",
            "imagePullSecrets": [{"name": "mirror"}],
            "dryRun": True,
            "theirs": {"a": 1},
        },
        "tramontane": {
            "enabled": True,
            "monitoring": {"cluster": "paris"},
            **{one: {"enabled": True} for one in ("podMonitor", "prometheusRule", "dashboards")},
        },
    }
    objects = either.template(values, chart=umbrella, release="hall")
    for pod in pods(objects).values():
        (container,) = pod["spec"]["containers"]
        assert container["image"].startswith("mirror.hall/tramontane")
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    args = pods(objects)["operator"]["spec"]["containers"][0]["args"]
    assert "--dry-run" in args
    assert len(kinds(objects, "CustomResourceDefinition")) == 5
    assert kinds(objects, "PodMonitor", "PrometheusRule", "ConfigMap")


def test_as_a_part_that_is_switched_off(either: Helm, umbrella: Path) -> None:
    assert not either.template({"tramontane": {"enabled": False}}, chart=umbrella)


def test_an_umbrella_s_misspelt_value_is_refused(either: Helm, umbrella: Path) -> None:
    with pytest.raises(ValueError, match="replica"):
        either.template({"tramontane": {"operator": {"replica": 1}}}, chart=umbrella)


def test_a_package_is_the_same_twice(helm: Helm, tmp_path: Path) -> None:
    packages = []
    for name in ("a", "b"):
        done = helm.run("package", str(CHART), "--destination", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        packages.append((tmp_path / name / "tramontane-0.2.0.tgz").read_bytes())
    assert packages[0] == packages[1]
