"""Every manifest of every set of values, asked of the real API server, which keeps none of them.

Validation is strict, as is that of the Prometheus operator's own CRDs, so that a field in the wrong
place is an error. And what Helm stores of a release has to fit where it stores it.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from chart.helm import CHART, NAMESPACE, RELEASE, Helm, Object, kinds
from chart.value_sets import VALUE_SETS
from plane import chart_cluster, monitoring_kinds
from plane.chart_cluster import Answer, Cluster, path_of

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]

APPLY = "application/apply-patch+yaml"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
MOST_OF_A_SECRET_B = 1024 * 1024
OTHER = "dry-run"  # a second release, so that nothing of it is there already


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    foreign = monitoring_kinds.crds()
    folder = tmp_path_factory.mktemp("chart")
    with chart_cluster.installed(folder, "helm", CHART, *foreign) as cluster:
        for name in ("grafana", OTHER):
            cluster.admin.create(
                "/api/v1/namespaces",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
            )
        yield cluster


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    """What was asked before: most manifests are the same under most values."""
    return {}


def asked(cluster: Cluster, item: Object) -> Answer:
    place = f"{path_of(item, cluster.admin)}/{item['metadata']['name']}"
    query = "dryRun=All&fieldValidation=Strict&fieldManager=dry-run&force=true"
    return cluster.admin.call("PATCH", f"{place}?{query}", item, APPLY)


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_the_api_server_takes_every_manifest(
    installed: Cluster, answers: dict[str, Answer], values: Mapping[str, Any]
) -> None:
    refused = []
    for item in installed.helm.template(values, release=OTHER, namespace=OTHER):
        text = json.dumps(item)
        if text not in answers:
            answers[text] = asked(installed, item)
        if answers[text].status not in {200, 201}:
            what = f"{item['kind']} {item['metadata']['name']}"
            refused.append(f"{what}: {answers[text].message}")
        if item["kind"] == "ServiceAccount":  # without it its pod is refused
            installed.admin.call("POST", path_of(item, installed.admin), item)
    assert not refused


def test_the_foreign_kinds_are_among_them(installed: Cluster) -> None:
    for values, kind in (
        ("observed", "PodMonitor"),
        ("observed", "PrometheusRule"),
        ("observed-by-services", "ServiceMonitor"),
    ):
        assert kinds(installed.helm.template(VALUE_SETS[values]), kind)


def test_a_field_in_the_wrong_place_is_refused(installed: Cluster) -> None:
    (monitor,) = kinds(installed.helm.template(VALUE_SETS["observed"]), "PodMonitor")
    monitor["spec"]["honorLabels"] = True
    answer = asked(installed, monitor)
    assert answer.status >= 400
    assert "spec.honorLabels: field not declared" in answer.message


def test_the_hub_s_examples_are_accepted(installed: Cluster) -> None:
    hub = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    for item in yaml.safe_load(hub["artifacthub.io/crdsExamples"]):
        answer = asked(installed, item)
        assert answer.status == 201, answer.message


def test_a_release_with_everything_on_fits_into_its_secret(installed: Cluster) -> None:
    installed.release("upgrade", RELEASE, str(CHART), values=VALUE_SETS["observed"])
    sizes = {
        item["metadata"]["name"]: len(base64.b64decode(item["data"]["release"]))
        for item in installed.admin.call("GET", SECRETS).body["items"]
        if item["type"] == "helm.sh/release.v1"
    }
    assert len(sizes) == 2
    assert max(sizes.values()) < MOST_OF_A_SECRET_B * 0.7, sizes


def test_notes_tell_of_the_operator_that_is_there(installed: Cluster) -> None:
    said = notes(installed.helm, {})
    assert "This cluster has the Prometheus operator" in said
    assert "does not serve" not in notes(installed.helm, VALUE_SETS["observed"])


def notes(helm: Helm, values: Mapping[str, Any]) -> str:
    arguments = (
        "upgrade",
        RELEASE,
        str(CHART),
        "-n",
        NAMESPACE,
        "--dry-run=server",
        "--reset-values",
    )
    done = helm.run(*arguments, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]
