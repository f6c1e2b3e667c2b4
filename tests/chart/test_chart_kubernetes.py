"""Every manifest is what Kubernetes knows, from the oldest version that the chart takes on.

The real API server of tests/plane is one version; here the schemas of the others are asked, which
refuse an unknown field as well.
"""

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart.helm import CHART, Helm, Object, kinds
from chart.value_sets import VALUE_SETS

OLDEST, NEWEST = "1.32", "1.37"
FOREIGN = "monitoring.coreos.com/"


def complaints(item: Object, version: str) -> str:
    return _complaints(json.dumps(item), version)


@functools.cache
def _complaints(text: str, version: str) -> str:
    """Ask once: most manifests are the same under most values."""
    item = json.loads(text)
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = "/".join(map(str, error.path))
        return f"{version} {item['kind']} {item['metadata']['name']} {where}: {error.message}"
    return ""


def test_the_oldest_is_what_the_chart_says() -> None:
    wanted = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert wanted == f">={OLDEST}.0-0"


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_manifests_are_valid_under_the_oldest_and_the_newest(
    helm: Helm, values: Mapping[str, Any]
) -> None:
    known = [item for item in helm.template(values) if not item["apiVersion"].startswith(FOREIGN)]
    assert known
    said = [complaints(item, version) for item in known for version in (OLDEST, NEWEST)]
    assert not list(filter(None, said))


def test_an_unknown_field_would_be_found(helm: Helm) -> None:
    (daemon,) = kinds(helm.template(), "DaemonSet")
    broken = copy.deepcopy(daemon)
    broken["spec"]["template"]["spec"]["runtimeClass"] = "nvidia"
    assert "runtimeClass" in complaints(broken, OLDEST)
