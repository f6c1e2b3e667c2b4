"""What the chart renders, for several sets of values, read object by object."""

import json
import re
from typing import Any

import pytest
import yaml

from chart.helm import CHART, NAMESPACE, ROOT, Helm, Object, kinds, one

VALUE_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "air-gapped": {
        "image": {
            "registry": "registry.hall:5000/mirror",
            "repository": "gpu/tramontane",
            "digest": "sha256:" + "a" * 64,
        },
        "imagePullSecrets": [{"name": "mirror"}],
        "commonLabels": {"team": "platform"},
    },
    "host-driver": {
        "agent": {
            "access": "Host",
            "driverRoot": "/run/nvidia/driver",
            "nvmlLibrary": "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        }
    },
    "single": {"operator": {"replicas": 1}, "scheduler": {"replicas": 1}},
    "metrics": {"metrics": {"port": 9400, "service": {"enabled": True, "annotations": {"a": "b"}}}},
    "bare": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "admissionPolicy": {"enabled": False},
        "agent": {"enabled": False},
        "operator": {"serviceAccount": {"create": False, "name": "mine"}},
    },
    "long-names": {"fullnameOverride": "a" * 44, "metrics": {"service": {"enabled": True}}},
}
MODULES = {
    "operator": "tramontane.controllers",
    "scheduler": "tramontane.scheduler",
    "agent": "tramontane.health",
}


@pytest.fixture(scope="session", params=VALUE_SETS, ids=str)
def rendered(request: pytest.FixtureRequest, helm: Helm) -> tuple[Object, ...]:
    return helm.template(VALUE_SETS[request.param])


@pytest.fixture(scope="session")
def defaults(helm: Helm) -> tuple[Object, ...]:
    return helm.template()


def workloads(objects: tuple[Object, ...]) -> list[Object]:
    return kinds(objects, "Deployment", "DaemonSet")


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_lint_is_clean(helm: Helm, values: dict[str, Any]) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_are_short_and_unique(rendered: tuple[Object, ...]) -> None:
    names = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in rendered
    ]
    assert len(names) == len(set(names))
    for kind, _, name in names:
        assert kind == "CustomResourceDefinition" or len(name) <= 63


def test_a_long_release_name_is_cut(helm: Helm) -> None:
    for item in helm.template(VALUE_SETS["metrics"], release="r" * 53):
        name = item["metadata"]["name"]
        assert item["kind"] == "CustomResourceDefinition" or len(name) <= 63


def test_every_object_has_the_chart_s_labels(rendered: tuple[Object, ...]) -> None:
    for item in rendered:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "tramontane"
        assert all(len(str(value)) <= 63 for value in labels.values())


def test_no_role_has_a_wildcard_or_reads_secrets(rendered: tuple[Object, ...]) -> None:
    for role in kinds(rendered, "Role", "ClusterRole"):
        for rule in role["rules"]:
            granted = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in granted, role["metadata"]["name"]
            assert "secrets" not in granted, role["metadata"]["name"]
            assert not {"bind", "escalate", "impersonate"} & set(rule["verbs"])


def test_every_binding_meets_a_role_and_a_service_account(rendered: tuple[Object, ...]) -> None:
    accounts = {item["metadata"]["name"] for item in kinds(rendered, "ServiceAccount")}
    for binding in kinds(rendered, "RoleBinding", "ClusterRoleBinding"):
        role = binding["roleRef"]
        assert one(
            [
                item
                for item in rendered
                if item["metadata"].get("namespace") == binding["metadata"].get("namespace")
            ],
            role["kind"],
            role["name"],
        )
        (subject,) = binding["subjects"]
        assert subject["namespace"] == NAMESPACE
        assert subject["name"] in {*accounts, "mine"}


def test_every_workload_is_probed_limited_and_hardened(rendered: tuple[Object, ...]) -> None:
    assert workloads(rendered)
    for item in workloads(rendered):
        pod = item["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        if security.get("privileged"):
            assert container["name"] == "agent"
            continue
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "volumes" not in pod


def test_only_host_access_is_privileged(helm: Helm) -> None:
    privileged = {
        name: [
            item["metadata"]["name"]
            for item in workloads(helm.template(values))
            if item["spec"]["template"]["spec"]["containers"][0]["securityContext"].get(
                "privileged"
            )
        ]
        for name, values in VALUE_SETS.items()
    }
    assert {name: found for name, found in privileged.items() if found} == {
        "host-driver": ["tramontane-agent"]
    }


def test_every_component_starts_its_module(defaults: tuple[Object, ...]) -> None:
    started = {}
    for item in workloads(defaults):
        (container,) = item["spec"]["template"]["spec"]["containers"]
        started[container["name"]] = container["command"][-1]
        assert f"--namespace={NAMESPACE}" in container["args"]
        variables = {item["name"] for item in container["env"]}
        assert set(re.findall(r"\$\((\w+)\)", " ".join(container["args"]))) <= variables
        assert "--metrics-port=8080" in container["args"]
        assert "--metrics-bind=$(POD_IP)" in container["args"]
    assert started == MODULES


def test_selectors_are_within_the_pod_labels(rendered: tuple[Object, ...]) -> None:
    for item in workloads(rendered):
        selector = item["spec"]["selector"]["matchLabels"]
        assert selector.items() <= item["spec"]["template"]["metadata"]["labels"].items()
        assert len(selector) == 3


def test_the_agent_runs_on_every_gpu_node_whatever_its_taints(
    defaults: tuple[Object, ...],
) -> None:
    pod = one(defaults, "DaemonSet", "tramontane-agent")["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["runtimeClassName"] == "nvidia"
    (container,) = pod["containers"]
    assert container["env"][0] == {
        "name": "NODE_NAME",
        "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}},
    }


def test_host_access_reads_the_driver_below_its_root(helm: Helm) -> None:
    objects = helm.template(VALUE_SETS["host-driver"])
    pod = one(objects, "DaemonSet", "tramontane-agent")["spec"]["template"]["spec"]
    assert "runtimeClassName" not in pod
    assert {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]} == {
        "dev": "/dev",
        "driver": "/run/nvidia/driver",
    }
    library = "--nvml-library=/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    assert library in pod["containers"][0]["args"]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("defaults", "tramontane:0.1.0"),
        ("air-gapped", f"registry.hall:5000/mirror/gpu/tramontane:0.1.0@sha256:{'a' * 64}"),
    ],
)
def test_there_is_one_image(helm: Helm, name: str, image: str) -> None:
    text = yaml.safe_dump_all(helm.template(VALUE_SETS[name] | {"crds": {"enabled": False}}))
    assert set(re.findall(r"image: (.*)", text)) == {image}


def test_a_disruption_budget_needs_a_second_replica(helm: Helm) -> None:
    assert len(kinds(helm.template(), "PodDisruptionBudget")) == 2
    assert not kinds(helm.template(VALUE_SETS["single"]), "PodDisruptionBudget")


def test_metrics_services_name_the_port(helm: Helm) -> None:
    services = kinds(helm.template(VALUE_SETS["metrics"]), "Service")
    assert {item["metadata"]["name"] for item in services} == {
        f"tramontane-{component}-metrics" for component in MODULES
    }
    assert {item["spec"]["ports"][0]["port"] for item in services} == {9400}


def test_bare_leaves_the_two_deployments(helm: Helm) -> None:
    objects = helm.template(VALUE_SETS["bare"])
    assert {item["kind"] for item in objects} == {
        "Deployment",
        "PodDisruptionBudget",
        "ServiceAccount",
    }
    operator = one(objects, "Deployment", "tramontane-operator")
    assert operator["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


def test_crds_are_those_of_the_repository(helm: Helm) -> None:
    copies = sorted((CHART / "files" / "crds").glob("*.yaml"))
    sources = sorted((ROOT / "crds").glob("*.yaml"))
    assert [path.name for path in copies] == [path.name for path in sources]
    assert len(sources) == 5
    for copy, source in zip(copies, sources, strict=True):
        assert copy.read_bytes() == source.read_bytes(), f"{copy.name}: run `make generate`"

    rendered = kinds(helm.template(), "CustomResourceDefinition")
    assert len(rendered) == 5
    for crd in rendered:
        source = ROOT / "crds" / f"tramontane.dev_{crd['spec']['names']['plural']}.yaml"
        wanted = yaml.safe_load(source.read_text())
        assert crd["spec"] == wanted["spec"]
        assert crd["metadata"]["name"] == wanted["metadata"]["name"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_fit_into_the_annotation_of_a_client_side_apply() -> None:
    """`kubectl apply -f crds/` keeps the whole object in an annotation of at most 256 KiB."""
    for path in (ROOT / "crds").glob("*.yaml"):
        assert len(json.dumps(yaml.safe_load(path.read_text()))) < 200_000, path.name


def test_crds_without_keep_have_no_policy(helm: Helm) -> None:
    for crd in kinds(helm.template({"crds": {"keep": False}}), "CustomResourceDefinition"):
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})


def test_the_agent_s_policy_compares_every_status_field_but_the_report(
    defaults: tuple[Object, ...],
) -> None:
    crd = yaml.safe_load((ROOT / "crds" / "tramontane.dev_blades.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    policy = one(defaults, "ValidatingAdmissionPolicy", "tramontane-agent-report")
    compared = {
        found[1]
        for rule in policy["spec"]["validations"]
        if (found := re.match(r"object\.\?status\.\?(\w+) == ", rule["expression"]))
    }
    assert compared == set(schema["properties"]["status"]["properties"]) - {"report"}
    assert "state" in compared


def test_policies_speak_of_the_agent_s_own_account(helm: Helm) -> None:
    objects = helm.template({"agent": {"serviceAccount": {"name": "eyes"}}}, namespace="gpu")
    for policy in kinds(objects, "ValidatingAdmissionPolicy"):
        (condition,) = policy["spec"]["matchConditions"]
        assert condition["expression"] == (
            "request.userInfo.username == 'system:serviceaccount:gpu:eyes'"
        )
        assert policy["spec"]["failurePolicy"] == "Fail"
    assert len(kinds(objects, "ValidatingAdmissionPolicyBinding")) == 2


def test_rendering_twice_gives_the_same_text(helm: Helm) -> None:
    arguments = ("template", "tramontane", str(CHART))
    assert helm.run(*arguments).stdout == helm.run(*arguments).stdout
