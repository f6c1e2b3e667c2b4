"""Monitors, alerts and boards: what a Prometheus and a Grafana in the cluster are told."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.helm import CHART, NAMESPACE, Helm, Object, kinds, one, pods
from chart.value_sets import VALUE_SETS

MOST_OF_A_BOARD_B = 200 * 1024
COMPONENTS = ("operator", "scheduler", "agent")


@pytest.fixture(scope="module")
def observed(helm: Helm) -> tuple[Object, ...]:
    return helm.template(VALUE_SETS["observed"])


def endpoint(objects: tuple[Object, ...]) -> tuple[Object, Object]:
    """Return the spec of the only monitor and its only endpoint."""
    (monitor,) = kinds(objects, "PodMonitor", "ServiceMonitor")
    spec = monitor["spec"]
    (found,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
    return spec, found


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    assert all(rule["operator"] == "In" for rule in selector["matchExpressions"])
    return selector["matchLabels"].items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector["matchExpressions"]
    )


def relabelled(relabelings: list[Object], meta: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that a target gets, as Prometheus replaces them."""
    labels: dict[str, str] = {}
    for rule in relabelings:
        value = ";".join(meta.get(name, "") for name in rule.get("sourceLabels", ()))
        if found := re.fullmatch(rule.get("regex", "(.*)"), value):
            template = rule.get("replacement", "$1").replace("$1", r"\1")
            labels[rule["targetLabel"]] = found.expand(template)
    return {name: value for name, value in labels.items() if value}


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_pod_monitor_finds_every_component(
    observed: tuple[Object, ...], component: str
) -> None:
    spec, scraped = endpoint(observed)
    pod = pods(observed)[component]
    assert selects(spec["selector"], pod["metadata"]["labels"])
    assert spec["namespaceSelector"] == {"matchNames": [NAMESPACE]}
    (container,) = pod["spec"]["containers"]
    assert scraped["port"] in {port["name"] for port in container["ports"]}
    assert (scraped["interval"], scraped["path"]) == ("15s", "/metrics")
    assert scraped["honorLabels"] is True, "a job's series has namespace and job of its own"


def test_the_pod_monitor_leaves_the_test_s_pod_alone(observed: tuple[Object, ...]) -> None:
    spec, _ = endpoint(observed)
    assert not selects(spec["selector"], pods(observed)["doctor"]["metadata"]["labels"])


@pytest.mark.parametrize("values", ["observed", "observed-by-services"])
def test_targets_carry_component_and_agents_their_blade(helm: Helm, values: str) -> None:
    _, scraped = endpoint(helm.template(VALUE_SETS[values]))
    given = {
        component: relabelled(
            scraped["relabelings"],
            {
                "__meta_kubernetes_pod_label_app_kubernetes_io_component": component,
                "__meta_kubernetes_pod_node_name": "gpu-0417",
            },
        )
        for component in COMPONENTS
    }
    cluster = {"cluster": "paris"} if values == "observed" else {}
    assert given == {
        "operator": {"component": "operator", **cluster},
        "scheduler": {"component": "scheduler", **cluster},
        "agent": {"component": "agent", "blade": "gpu-0417", **cluster},
    }


def test_the_service_monitor_brings_the_services_that_it_selects(helm: Helm) -> None:
    objects = helm.template(VALUE_SETS["observed-by-services"])
    spec, scraped = endpoint(objects)
    services = kinds(objects, "Service")
    assert len(services) == len(COMPONENTS)
    for service in services:
        assert selects(spec["selector"], service["metadata"]["labels"])
        assert [port["name"] for port in service["spec"]["ports"]] == [scraped["port"]]


def test_monitors_and_rules_carry_the_labels_that_a_prometheus_selects_by(
    observed: tuple[Object, ...],
) -> None:
    for item in kinds(observed, "PodMonitor", "PrometheusRule"):
        assert item["metadata"]["labels"]["release"] == "prometheus"


def test_the_rules_are_groups_with_our_thresholds(observed: tuple[Object, ...]) -> None:
    (rule,) = kinds(observed, "PrometheusRule")
    alerts = [
        one
        for group in rule["spec"]["groups"]
        for one in group["rules"]
        if one.get("alert") is not None
    ]
    assert len(alerts) == len({one["alert"] for one in alerts}) >= 14
    for one_ in alerts:
        runbook = one_["alert"].removeprefix("Tramontane")
        assert one_["annotations"]["runbook_url"] == f"https://wiki.hall/runbooks/{runbook}"
        assert one_["annotations"]["dashboard_url"].startswith("https://grafana.hall/d/tramontane-")
    assert "900000" in yaml.safe_dump(rule)
    assert ".Values" not in yaml.safe_dump(rule)


def test_there_is_a_config_map_for_each_board(observed: tuple[Object, ...]) -> None:
    files = sorted((CHART / "files" / "dashboards").glob("*.json"))
    assert files
    made = kinds(observed, "ConfigMap")
    assert len(made) == len(files)
    for path in files:
        board = one(observed, "ConfigMap", f"tramontane-board-{path.stem}")
        assert board["metadata"]["namespace"] == "grafana"
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["metadata"]["annotations"] == {"grafana_folder": "Tramontane"}
        assert list(board["data"]) == [path.name]
        text = board["data"][path.name]
        assert text == path.read_text().rstrip("\n")
        assert json.loads(text)["uid"] == f"tramontane-{path.stem}"
        assert len(text.encode()) < MOST_OF_A_BOARD_B, path.name


@pytest.fixture
def without_files(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("dashboards", "rules")
    return Path(shutil.copytree(CHART, tmp_path / "chart", ignore=ignored))


def test_a_chart_without_boards_renders(helm: Helm, without_files: Path) -> None:
    values: dict[str, Any] = {"dashboards": {"enabled": True}}
    assert not kinds(helm.template(values, chart=without_files), "ConfigMap")


def test_a_chart_without_rules_says_so(helm: Helm, without_files: Path) -> None:
    with pytest.raises(ValueError, match="must hold the alerts"):
        helm.template({"prometheusRule": {"enabled": True}}, chart=without_files)
