"""Network policies: each component reaches what it needs, and nothing else."""

from typing import Any

import pytest

from chart.helm import Helm, Object, kinds, pods
from chart.value_sets import VALUE_SETS

API_SERVER: Object = {
    "ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}]
}
EVERY_POD: list[Object] = [{"namespaceSelector": {}}]


@pytest.fixture(scope="module")
def plain(helm: Helm) -> dict[str, Object]:
    return policies(helm.template({"networkPolicy": {"enabled": True}}))


def policies(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Return the policy of each component, which selects its pod and no other."""
    found = {}
    made = kinds(objects, "NetworkPolicy")
    for name, pod in pods(objects).items():
        labels = pod["metadata"]["labels"].items()
        (policy,) = [
            item for item in made if item["spec"]["podSelector"]["matchLabels"].items() <= labels
        ]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        found[name] = policy["spec"]
    assert len(found) == len(made)
    return found


def test_who_may_be_talked_to(plain: dict[str, Object]) -> None:
    scraped = {"ports": [{"protocol": "TCP", "port": "metrics"}], "from": EVERY_POD}
    waiting = {"ports": [{"protocol": "TCP", "port": "activator"}]}
    assert {name: spec.get("ingress") for name, spec in plain.items()} == {
        "operator": [scraped, waiting],
        "scheduler": [scraped],
        "agent": [scraped],
        "doctor": None,
    }


def test_whom_they_talk_to(plain: dict[str, Object]) -> None:
    assert {name: spec["egress"] for name, spec in plain.items()} == {
        "operator": [API_SERVER, {"to": EVERY_POD}],
        "scheduler": [API_SERVER],
        "agent": [API_SERVER],
        "doctor": [API_SERVER],
    }


def test_ports_go_by_the_names_that_the_containers_give_them(
    helm: Helm, plain: dict[str, Object]
) -> None:
    for name, pod in pods(helm.template({"metrics": {"port": 9400}})).items():
        ports = {port["name"]: port for port in pod["spec"]["containers"][0].get("ports", ())}
        used = {port["port"] for rule in plain[name].get("ingress", ()) for port in rule["ports"]}
        assert used == set(ports)
        if name == "operator":
            assert ports["activator"]["containerPort"] == 8000


def test_pods_with_the_nodes_addresses_can_be_named(helm: Helm) -> None:
    """What has hostNetwork no selector matches; only the operator talks to jobs and engines."""
    values: Any = VALUE_SETS["observed"]["networkPolicy"]
    added = {
        name: [rule["to"] for rule in spec["egress"][1:]]
        for name, spec in policies(helm.template(VALUE_SETS["observed"])).items()
    }
    assert added == {
        "operator": [[*EVERY_POD, *values["operatorTo"]]],
        "scheduler": [],
        "agent": [],
        "doctor": [],
    }


def test_scrapers_and_api_server_can_be_named(helm: Helm) -> None:
    values: Any = VALUE_SETS["observed"]["networkPolicy"]
    for name, spec in policies(helm.template(VALUE_SETS["observed"])).items():
        assert spec["egress"][0]["to"] == values["apiServer"]
        if name != "doctor":
            assert spec["ingress"][0]["from"] == values["metricsFrom"]
