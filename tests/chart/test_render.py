"""What the chart renders, for several sets of values, read object by object."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from chart.helm import CHART, NAMESPACE, ROOT, Helm, Object, is_hook, kinds, one
from chart.value_sets import VALUE_SETS

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
def test_lint_is_clean(helm: Helm, values: Mapping[str, Any]) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_are_short_and_unique(rendered: tuple[Object, ...]) -> None:
    names = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in rendered
    ]
    assert len(names) == len(set(names))
    for kind, _, name in names:
        assert kind == "CustomResourceDefinition" or len(name) <= 63, name


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
        mounted = {volume["name"] for volume in pod.get("volumes", ())}
        assert mounted <= {"ca"}, "only what the values add"


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
        assert container["args"][0] == f"--namespace={NAMESPACE}"
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
        "sys": "/sys",
    }
    library = "--nvml-library=/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
    assert library in pod["containers"][0]["args"]


def test_host_access_sees_the_network_devices_of_the_host(helm: Helm) -> None:
    objects = helm.template(VALUE_SETS["host-driver"])
    (container,) = one(objects, "DaemonSet", "tramontane-agent")["spec"]["template"]["spec"][
        "containers"
    ]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "sys"]
    assert mount["readOnly"] is True
    assert f"--sysfs-root={mount['mountPath']}" in container["args"]


def test_a_disruption_budget_needs_a_second_replica(helm: Helm) -> None:
    budgets = kinds(helm.template(), "PodDisruptionBudget")
    assert len(budgets) == 2
    for budget in budgets:  # else a pod that never becomes ready keeps its node from being drained
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
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


def test_only_what_doctor_needs_is_made_for_the_test_alone(defaults: tuple[Object, ...]) -> None:
    """A Role that is no hook would stay; an object of the release that is one would be missing."""
    hooks = {f"{item['kind']}/{item['metadata']['name']}" for item in defaults if is_hook(item)}
    named = {
        f"{item['kind']}/{item['metadata']['name']}"
        for item in defaults
        if item["metadata"]["name"] == "tramontane-doctor"
    }
    assert hooks == named
    assert len(hooks) == 6


def test_rendering_twice_gives_the_same_text(helm: Helm) -> None:
    arguments = ("template", "tramontane", str(CHART))
    assert helm.run(*arguments).stdout == helm.run(*arguments).stdout
