"""Every value is described, typed and used; what is wrong is refused where it is written."""

import re
from typing import Any

import pytest

from chart.described import LEAVES, SCHEMA, schema_of
from chart.helm import CHART, Helm

# Labels that the chart writes, and selects by.
OURS = (
    "helm.sh/chart",
    *(
        f"app.kubernetes.io/{name}"
        for name in ("name", "instance", "version", "managed-by", "part-of", "component")
    ),
)
ADDRESSES = (
    *("0.0.0.0/0", "192.168.255.0/24", "10.0.0.1/32"),
    *("::/0", "fd00:1::/48", "2001:db8::ffff:10.0.0.1/128"),
)
# Without a budget of power there is no alert; three blades are a storm where the ratio is 0.
THRESHOLDS = [
    path[1]
    for path in LEAVES
    if path[0] == "prometheusRule"
    and schema_of(path).get("type") == "number"
    and path[1] not in {"powerBudgetWatts", "quarantineStormRatio", "goodputObjective"}
]


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_each_value_is_in_the_schema(path: tuple[str, ...]) -> None:
    assert schema_of(path)


def test_each_value_has_a_comment() -> None:
    undocumented = []
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"^ *[A-Za-z]+:( \S.*)$", line) and not re.match(
            r"^ *(requests|limits):", line
        ):
            comment = number - 1
            while lines[comment].lstrip().startswith("# ") and "# --" not in lines[comment]:
                comment -= 1
            if "# -- " not in lines[comment]:
                undocumented.append(line)
    assert not undocumented


def test_each_map_of_the_schema_is_closed_or_open_on_purpose() -> None:
    open_on_purpose = {
        *("global", "items"),  # of an umbrella chart; kinds of volumes, which the API server knows
        *("nodeAffinity", "podAffinity", "podAntiAffinity"),
        *("namespaceSelector", "podSelector", "valueFrom"),
    }
    open_maps = []

    def walk(name: str, node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties", True) is True:
                open_maps.append(name)
            for key, value in node.items():
                walk(key, value)

    walk("", SCHEMA)
    assert set(open_maps) == open_on_purpose


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"replicas": 3}, ["additional properties 'replicas'"], id="unknown-key"),
        pytest.param(
            {"operator": {"replica": 3}},
            ["/operator", "additional properties 'replica'"],
            id="misspelt-key-of-a-component",
        ),
        pytest.param({"operator": {"replicas": "3"}}, ["/operator/replicas", "integer"], id="type"),
        pytest.param({"crds": {"keep": "yes"}}, ["/crds/keep", "boolean"], id="boolean-as-text"),
        pytest.param({"metrics": {"port": 0}}, ["/metrics/port", "1,024"], id="probes-need-a-port"),
        pytest.param({"logLevel": "verbose"}, ["/logLevel", "'debug'"], id="enum"),
        pytest.param({"image": {"digest": "sha256:1"}}, ["/image/digest", "pattern"], id="digest"),
        pytest.param({"agent": {"access": "Root"}}, ["/agent/access", "'Runtime'"], id="access"),
        pytest.param(
            {"agent": {"resources": {"limits": {"memory": "1 GB"}}}},
            ["/agent/resources/limits/memory", "pattern"],
            id="quantity",
        ),
        pytest.param(
            {"agent": {"maxUnavailable": "0%"}}, ["/agent/maxUnavailable"], id="nobody-may-stop"
        ),
        pytest.param({"fullnameOverride": "a" * 45}, ["/fullnameOverride", "44"], id="long-name"),
        pytest.param({"agent": None}, ["agent"], id="a-component-removed"),
        pytest.param(
            {"global": {"imageRegistry": 5}}, ["/global/imageRegistry", "string"], id="global-type"
        ),
        pytest.param(
            {"metrics": {"port": 8000}}, ["/metrics/port"], id="the-port-of-waiting-requests"
        ),
        pytest.param({"metrics": {"detail": "all"}}, ["/metrics/detail", "'low'"], id="detail"),
        pytest.param(
            {"agent": {"image": {"registry": "r"}}},
            ["/agent/image", "additional properties 'registry'"],
            id="one-registry-for-both-images",
        ),
        pytest.param({"podMonitor": {"interval": "30"}}, ["/podMonitor/interval"], id="duration"),
        pytest.param(
            {"prometheusRule": {"goodputObjective": 95}},
            ["/prometheusRule/goodputObjective"],
            id="percentage-for-a-part",
        ),
        pytest.param(
            {"prometheusRule": {"dashboardUrl": "https://grafana.hall/"}},
            ["/prometheusRule/dashboardUrl", "pattern"],
            id="slash-at-the-end",
        ),
        pytest.param(
            {"dashboards": {"labels": {"grafana_dashboard": 1}}},
            ["/dashboards/labels/grafana_dashboard", "string"],
            id="label-as-number",
        ),
        pytest.param(
            {"networkPolicy": {"apiServer": [{"ipBlock": {"cidr": "10.0.0.1"}}]}},
            ["/networkPolicy/apiServer/0/ipBlock/cidr"],
            id="address-without-its-prefix",
        ),
        *(
            pytest.param(
                {"networkPolicy": {"operatorTo": [{"ipBlock": {"cidr": cidr}}]}},
                ["/networkPolicy/operatorTo/0/ipBlock/cidr", "pattern"],
                id=f"no-such-addresses-{cidr}",
            )
            for cidr in ("999.1.1.1/8", "10.0.0.0/99", "10.0.0/8", "fd00::/129", "fd00/8")
        ),
        pytest.param(
            {"networkPolicy": {"apiServer": [{"ipBlock": {"cidr": "::/0", "except": ["10/8"]}}]}},
            ["/networkPolicy/apiServer/0/ipBlock/except/0", "pattern"],
            id="no-such-exception",
        ),
        pytest.param(
            {"operator": {"extraEnv": [{"key": "A"}]}}, ["/operator/extraEnv/0"], id="variable"
        ),
        pytest.param(
            {"agent": {"extraVolumeMounts": [{"name": "a", "mountPath": "b"}]}},
            ["/agent/extraVolumeMounts/0/mountPath"],
            id="relative-mount",
        ),
        pytest.param(
            {"imagePullSecrets": ["mirror"]}, ["/imagePullSecrets/0"], id="secret-by-name"
        ),
        pytest.param({"agent": {"interval": 0.04}}, ["/agent/interval", "0.05"], id="too-often"),
        pytest.param(
            {"monitoring": {"cluster": 'pa"ris'}}, ["/monitoring/cluster", "pattern"], id="quote"
        ),
        *(
            pytest.param(
                {"prometheusRule": {threshold: 0}},
                [f"/prometheusRule/{threshold}", "exclusiveMinimum"],
                id=f"always-above-{threshold}",
            )
            for threshold in THRESHOLDS
        ),
        *(
            pytest.param(
                {"commonLabels": {key: "x"}},
                [f"/commonLabels/{key.replace('/', '~1')}", "false schema"],
                id=f"label-of-ours-{key}",
            )
            for key in OURS
        ),
        *(
            pytest.param(
                {part: {key: {"app.kubernetes.io/component": "x"}}},
                [f"/{part}/{key}/app.kubernetes.io~1component"],
                id=f"label-of-ours-in-{part}",
            )
            for part, key in (
                *((component, "podLabels") for component in ("operator", "scheduler", "agent")),
                *((one, "labels") for one in ("podMonitor", "serviceMonitor")),
                *((one, "labels") for one in ("prometheusRule", "dashboards")),
            )
        ),
        pytest.param(
            {"commonLabels": {"-team": "x"}}, ["/commonLabels", "'-team'"], id="no-key-of-a-label"
        ),
        pytest.param(
            {"agent": {"nodeSelector": {"gpu": "a b"}}},
            ["/agent/nodeSelector/gpu", "pattern"],
            id="no-value-of-a-label",
        ),
        pytest.param(
            {"dashboards": {"annotations": {"a b": "x"}}},
            ["/dashboards/annotations", "'a b'"],
            id="no-key-of-an-annotation",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(
    helm: Helm, values: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ValueError, match="schema") as refused:
        helm.template(values)
    for words in said:
        assert words in str(refused.value)


def test_two_scrapers_of_the_same_pods_are_refused(helm: Helm) -> None:
    both = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    with pytest.raises(ValueError, match="one of them must be true at most"):
        helm.template(both)


def test_the_labels_that_are_ours_are_all_that_the_chart_writes(helm: Helm) -> None:
    objects = helm.template({"rbac": {"aggregate": False}})  # that goes by labels of Kubernetes
    written = {key for item in objects for key in item["metadata"]["labels"]}
    assert written == set(OURS)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"agent": {"interval": 0.05}}, id="as-often-as-can-be"),
        pytest.param({"prometheusRule": {"powerBudgetWatts": 0}}, id="no-budget"),
        pytest.param({"monitoring": {"cluster": "paris-1.gpu_a"}}, id="cluster"),
        pytest.param({"commonLabels": {"hall.example/team-1": ""}}, id="label-with-a-domain"),
        pytest.param({"agent": {"nodeSelector": {"kubernetes.io/os": "linux"}}}, id="node"),
        *(
            pytest.param({"networkPolicy": {"metricsFrom": [{"ipBlock": {"cidr": one}}]}}, id=one)
            for one in ADDRESSES
        ),
    ],
)
def test_what_is_right_is_taken(helm: Helm, values: dict[str, Any]) -> None:
    assert helm.template(values)
