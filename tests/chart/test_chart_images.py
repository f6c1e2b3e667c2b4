"""Every image is one of two, and both are what the values say; no other stands anywhere."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from chart.helm import CHART, ROOT, Helm, pods
from chart.value_sets import DIGEST, VALUE_SETS
from tramontane.lab.manual.chart import made


@pytest.mark.parametrize(
    ("values", "before", "after"),
    [
        pytest.param({}, "", ":0.2.0", id="defaults"),
        pytest.param(
            VALUE_SETS["air-gapped"], "registry.hall:5000/mirror/gpu/", f":0.2.0@{DIGEST}",
            id="mirror-and-digest",
        ),
        pytest.param(
            {"global": {"imageRegistry": "umbrella/"}, "image": {"registry": "own"}},
            "umbrella/", ":0.2.0",
            id="the-umbrella-s-registry-wins",
        ),
        pytest.param(
            {"image": {"tag": "next"}, "agent": {"image": {"tag": "next"}}}, "", ":next", id="tag"
        ),
    ],
)  # fmt: skip
def test_there_are_two_images(
    helm: Helm, values: Mapping[str, Any], before: str, after: str
) -> None:
    main, agent = f"{before}tramontane{after}", f"{before}tramontane-agent{after}"
    containers = {
        name: pod["spec"]["containers"][0] for name, pod in pods(helm.template(values)).items()
    }
    used = {name: container["image"] for name, container in containers.items()}
    assert used == {"operator": main, "scheduler": main, "doctor": main, "agent": agent}
    repairs = {"name": "TRAMONTANE_IMAGE", "value": agent}
    assert repairs in containers["operator"]["env"]


def test_pull_secrets_are_those_of_the_release_and_of_the_umbrella(helm: Helm) -> None:
    ours = [{"name": "mirror"}, {"name": "both"}]
    theirs = [{"name": "umbrella"}, {"name": "both"}]
    values = {"imagePullSecrets": ours, "global": {"imagePullSecrets": theirs}}
    for name, pod in pods(helm.template(values)).items():
        named = [one["name"] for one in pod["spec"]["imagePullSecrets"]]
        assert named == ["umbrella", "both", "mirror"], name
        if name == "operator":  # for the pods that it makes of our image
            env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
            assert env["TRAMONTANE_PULL_SECRETS"] == "umbrella,both,mirror"


def test_no_template_and_no_component_names_an_image_by_itself() -> None:
    named = []
    for path in CHART.glob("templates/**/*.*"):
        named += [
            line
            for line in re.findall(r"image: .*", path.read_text())
            if not re.fullmatch(r'image: \{\{ include "tramontane\.(agentI|i)mage" \S+ \}\}', line)
        ]
    for source in ("operator", "scheduler", "health"):
        for path in (ROOT / source).rglob("*.py"):
            if "api" not in path.parts:  # the API's examples show what people may write
                named += re.findall(r"""["']image["']: f?["'].*""", path.read_text())
    assert not named


def test_images_txt_lists_what_is_pulled_by_default(helm: Helm) -> None:
    """Who mirrors images takes the list; what comes after its blank line only examples name."""
    text = (CHART / "images.txt").read_text()
    assert text == made()[CHART / "images.txt"], "run `make generate`"
    ours, _, _ = text.partition("\n\n")
    pulled = {pod["spec"]["containers"][0]["image"] for pod in pods(helm.template()).values()}
    assert {line for line in ours.splitlines() if not line.startswith("#")} == pulled
