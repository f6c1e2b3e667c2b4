"""What the chart says of itself: its annotations, its README."""

from typing import Any

import pytest
import yaml

from chart.helm import CHART, Helm, kinds, pods
from tramontane.lab.manual.chart import made, readme

META = yaml.safe_load((CHART / "Chart.yaml").read_text())
HUB = {key.removeprefix("artifacthub.io/"): value for key, value in META["annotations"].items()}


def test_the_images_are_those_that_are_pulled(helm: Helm) -> None:
    said = {one["image"] for one in yaml.safe_load(HUB["images"])}
    assert said == {pod["spec"]["containers"][0]["image"] for pod in pods(helm.template()).values()}


def test_the_kinds_are_those_that_are_installed(helm: Helm) -> None:
    said: list[Any] = yaml.safe_load(HUB["crds"])
    installed = {
        (item["metadata"]["name"], item["spec"]["names"]["kind"], version["name"])
        for item in kinds(helm.template(), "CustomResourceDefinition")
        for version in item["spec"]["versions"]
    }
    assert {(one["name"], one["kind"], one["version"]) for one in said} == installed
    assert all(one["description"] for one in said)


def test_changes_and_examples_are_of_the_forms_that_the_hub_reads() -> None:
    changes = yaml.safe_load(HUB["changes"])
    assert {one["kind"] for one in changes} <= {"added", "changed", "fixed", "removed", "security"}
    assert [one["kind"] for one in yaml.safe_load(HUB["crdsExamples"])] == [
        "NodePool",
        "TrainingJob",
    ]
    assert (HUB["operator"], HUB["license"]) == ("true", "Apache-2.0")


def test_chart_and_application_have_one_version() -> None:
    assert META["version"] == META["appVersion"]


@pytest.mark.parametrize("name", ["README.md", "images.txt"])
def test_what_is_generated_is_up_to_date(name: str) -> None:
    path = CHART / name
    assert path.read_text() == made()[path], f"{name}: run `make generate`"


def test_a_readme_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="must have"):
        readme("# Tramontane\n", "")
