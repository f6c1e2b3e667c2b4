"""Every value is described, typed and used; what is wrong is refused where it is written."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from chart.helm import CHART, Helm

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each value that a person sets: a map that the schema leaves open is one."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, dict) and value and "properties" in schema_of(here):
            yield from leaves(value, here)
        else:
            yield here


def schema_of(path: tuple[str, ...]) -> dict[str, Any]:
    node: dict[str, Any] = SCHEMA
    for key in path:
        node = node["properties"][key]
        if "$ref" in node:
            node = SCHEMA["definitions"][node["$ref"].rsplit("/", 1)[1]]
    return node


LEAVES = [path for path in leaves(VALUES) if path[-1] not in {"requests", "limits"}]


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_each_value_is_in_the_schema(path: tuple[str, ...]) -> None:
    assert schema_of(path)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_each_value_is_read_by_a_template(path: tuple[str, ...]) -> None:
    templates = "".join(
        file.read_text() for file in sorted(CHART.glob("templates/**/*")) if file.is_file()
    )
    component = path[0] in {"operator", "scheduler", "agent"}
    tail = ".".join(path[1:] if component else path)
    heads = (f".Values.{path[0]}", "$values") if component else (".Values",)
    shared = path[0] in {"operator", "scheduler"} and path[1] == "replicas"
    assert shared or any(f"{head}.{tail}" in templates for head in heads)


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
    open_on_purpose = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity"}
    open_maps = []

    def walk(name: str, node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
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
    ],
)
def test_a_wrong_value_is_refused_with_its_path(
    helm: Helm, values: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ValueError, match="schema") as refused:
        helm.template(values)
    for words in said:
        assert words in str(refused.value)


def test_a_parent_chart_may_pass_its_own_keys(helm: Helm) -> None:
    assert helm.template({"global": {"imageRegistry": "registry.hall"}, "enabled": True})
