"""What an audit of a GPU cluster looks for, found in what the chart installs.

Such audits ask whether gangs are scheduled as gangs, whether places in the network are known by
labels, whether faults take blades out by themselves, and whether there is something to look at.
"""

from typing import Any

import pytest
import yaml

from chart.helm import CHART, Helm, Object, kinds, one, pods
from chart.value_sets import VALUE_SETS


@pytest.fixture(scope="module")
def hall(helm: Helm) -> tuple[Object, ...]:
    return helm.template(VALUE_SETS["observed"])


def crd(objects: tuple[Object, ...], plural: str) -> Any:
    """Return the properties of the spec of one of our kinds."""
    found = one(objects, "CustomResourceDefinition", f"{plural}.tramontane.dev")
    schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema["properties"]["spec"]["properties"]


def test_gangs_are_scheduled_as_gangs(hall: tuple[Object, ...]) -> None:
    assert "slots" in crd(hall, "gangs")
    container = pods(hall)["scheduler"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "tramontane.scheduler"]
    scheduler = one(hall, "ClusterRole", "tramontane-scheduler")
    granted = {
        (resource, verb)
        for rule in scheduler["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {("gangs/status", "patch"), ("pods/binding", "create")} <= granted


def test_places_are_known_by_labels(hall: tuple[Object, ...]) -> None:
    levels = crd(hall, "nodepools")["topology"]["properties"]["levels"]
    assert {"name", "label"} <= set(levels["items"]["properties"])
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    pool, _ = yaml.safe_load(annotations["artifacthub.io/crdsExamples"])
    assert [level["name"] for level in pool["spec"]["topology"]["levels"]] == ["block", "rack"]


def test_priorities_are_there_to_be_named(hall: tuple[Object, ...]) -> None:
    values = {item["metadata"]["name"]: item["value"] for item in kinds(hall, "PriorityClass")}
    assert values == {
        "tramontane-training": 50_000,
        "tramontane-build-preemptible": 75_000,
        "tramontane-build": 100_000,
        "tramontane-inference": 125_000,
    }
    assert not any(item.get("globalDefault") for item in kinds(hall, "PriorityClass"))


def test_health_is_watched_on_every_gpu_node(hall: tuple[Object, ...]) -> None:
    pod = pods(hall)["agent"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_there_is_something_to_look_at(hall: tuple[Object, ...]) -> None:
    boards = kinds(hall, "ConfigMap")
    assert boards
    assert all(item["metadata"]["labels"]["grafana_dashboard"] == "1" for item in boards)
    assert kinds(hall, "PodMonitor")
    (rules,) = kinds(hall, "PrometheusRule")
    assert any("alert" in rule for group in rules["spec"]["groups"] for rule in group["rules"])


def test_nothing_single_stands_in_the_way_of_an_upgrade(hall: tuple[Object, ...]) -> None:
    for name in ("operator", "scheduler"):
        assert one(hall, "Deployment", f"tramontane-{name}")["spec"]["replicas"] == 2
        assert one(hall, "PodDisruptionBudget", f"tramontane-{name}")
        (spread,) = pods(hall)[name]["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"


def test_no_webhook_stands_between_people_and_the_api_server(hall: tuple[Object, ...]) -> None:
    assert not [item for item in hall if item["kind"].endswith("WebhookConfiguration")]
    assert kinds(hall, "ValidatingAdmissionPolicy")
