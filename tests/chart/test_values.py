"""Every value is described, typed and used; what is wrong is refused where it is written."""

import re
from typing import Any

import pytest

from chart.described import LEAVES, SCHEMA, schema_of
from chart.helm import CHART, Helm


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
