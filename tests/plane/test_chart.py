"""The chart on a real API server: it installs, upgrades, and leaves the data when it goes."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from chart.helm import CHART, NAMESPACE, RELEASE, ROOT, Helm, Object, is_hook, kinds
from plane import chart_cluster
from plane.chart_cluster import WAIT_S, Cluster, path_of
from plane.chart_versions import previous
from tramontane.lab import binaries

# A first helm is built in a fixture, which takes minutes.
pytestmark = [pytest.mark.plane, pytest.mark.timeout(300, func_only=True)]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with chart_cluster.installed(tmp_path_factory.mktemp("chart")) as cluster:
        yield cluster


def test_install_creates_every_object(installed: Cluster) -> None:
    rendered = [item for item in installed.helm.template() if not is_hook(item)]
    assert len(kinds(rendered, "CustomResourceDefinition")) == 5
    missing = []
    for item in rendered:
        place = f"{path_of(item, installed.admin)}/{item['metadata']['name']}"
        if installed.admin.call("GET", place).status != 200:
            missing.append(place)
    assert not missing


def test_the_crds_are_established(installed: Cluster) -> None:
    for item in installed.admin.call("GET", CRDS).body["items"]:
        conditions = {one["type"]: one["status"] for one in item["status"]["conditions"]}
        assert conditions["Established"] == "True", item["metadata"]["name"]
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_the_policies_type_check(installed: Cluster) -> None:
    """The API server checks each expression against the CRD; a misspelt field is a warning."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        policies = installed.admin.call("GET", path).body["items"]
        assert len(policies) == 2
        if all("typeChecking" in item.get("status", {}) for item in policies):
            break
        time.sleep(0.1)
    for item in policies:
        assert item["status"]["typeChecking"] == {}, item["metadata"]["name"]


def documents(path: Path) -> Iterator[Object]:
    """Yield the objects of a YAML file, or of the YAML blocks of a Markdown file."""
    text = path.read_text()
    blocks = (
        re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if path.suffix == ".md"
        else [text]
    )
    for block in blocks:
        yield from yaml.safe_load_all(block)


EXAMPLES = [
    *(ROOT / name for name in ("README.md", "docs/serving.md")),
    *sorted((ROOT / "docs" / "examples").glob("*.yaml")),
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_are_accepted(installed: Cluster, path: Path) -> None:
    found = list(documents(path))
    assert found
    for item in found:
        place = path_of(item, installed.admin)
        answer = installed.admin.call("POST", f"{place}?dryRun=All&fieldValidation=Strict", item)
        assert answer.status == 201, answer.message


def test_an_upgrade_meets_no_conflict_and_changes_what_it_is_told(installed: Cluster) -> None:
    installed.release(
        "upgrade",
        RELEASE,
        str(CHART),
        values={"operator": {"replicas": 3}, "metrics": {"service": {"enabled": True}}},
    )
    place = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/tramontane-operator"
    assert installed.admin.call("GET", place).body["spec"]["replicas"] == 3
    assert len(chart_cluster.served_blades(installed.admin)) == 2


def test_a_field_that_a_component_wrote_would_be_a_conflict(installed: Cluster) -> None:
    """That no upgrade meets one says something: Helm 4 does not write over others' fields."""
    name = "tramontane-scheduler"
    place = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}"
    written = installed.admin.call(
        "PATCH",
        f"{place}?fieldManager=tramontane-operator&force=true",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {"replicas": 4},
        },
        "application/apply-patch+yaml",
    )
    assert written.status == 200, written.message
    change = ("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE)
    values = {"scheduler": {"replicas": 5}}
    refused = installed.helm.run(*change, values=values)
    assert refused.returncode != 0
    assert "tramontane-operator" in refused.stderr
    forced = installed.helm.run(*change, "--force-conflicts", values=values)
    assert forced.returncode == 0, forced.stderr


def test_an_uninstall_keeps_crds_and_data_and_a_new_install_takes_them_up(
    installed: Cluster,
) -> None:
    installed.release("uninstall", RELEASE)
    assert len(installed.admin.call("GET", CRDS).body["items"]) == 5
    assert len(chart_cluster.served_blades(installed.admin)) == 2
    roles = installed.admin.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles")
    names = {item["metadata"]["name"] for item in roles.body["items"]}
    assert not {name for name in names if name.startswith("tramontane")}
    installed.release("install", RELEASE, str(CHART))
    assert len(chart_cluster.served_blades(installed.admin)) == 2


@pytest.fixture
def helm4() -> Path:
    """The newer of the two Helms, both built here, where no time-out counts."""
    return binaries.ensure(["helm", "helm3"])["helm"]


def test_a_release_of_helm_3_goes_on_under_helm_4(helm4: Path, tmp_path: Path) -> None:
    """It stays with client-side apply, as it was born; asked for, Helm 4 takes it over."""
    old = previous(tmp_path)
    with chart_cluster.installed(tmp_path, "helm3", old) as cluster:
        newer = replace(cluster, helm=Helm(helm4, tmp_path, cluster.helm.environment))
        said = newer.release("upgrade", RELEASE, str(CHART), values={"logLevel": "debug"})
        assert "helm test tramontane" in said
        newer.release(
            "upgrade", RELEASE, str(CHART), "--server-side=true", values={"logLevel": "info"}
        )
        said = cluster.release("upgrade", RELEASE, str(CHART), values={"dryRun": True})
        assert "DRY RUN" in said
        assert len(newer.admin.call("GET", CRDS).body["items"]) == 5
        assert len(chart_cluster.served_blades(newer.admin)) == 2
