"""The chart's values and their schema, and the path of each value that a person sets."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from chart.helm import CHART

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
