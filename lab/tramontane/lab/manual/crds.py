"""Write the reference of the kinds: every field of the CustomResourceDefinitions.

The tables are made from the same definitions that `crds/` is written from, so a field that is
served is a field that is described. Descriptions end with their default and an example there,
for `kubectl explain`; here these are set as code.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tramontane.api.crdgen import KINDS, Kind, definition
from tramontane.api.names import API_VERSION
from tramontane.api.quantity import (
    DURATION_OR_AUTO_PATTERN,
    DURATION_PATTERN,
    INT_OR_PERCENT_PATTERN,
    PERCENT_PATTERN,
    QUANTITY_PATTERN,
)
from tramontane.lab.manual.markdown import cell, code, page, table

Schema = Mapping[str, Any]

_WHO: Final = {
    "NodePool": "People write the spec, the operator the status.",
    "Blade": "One per GPU server. The operator makes it; people write `spec.hold` and"
    " `spec.release`, the blade's agent `status.report`, the operator everything else.",
    "Gang": "All pods that must run together. The operator writes the spec, the scheduler the"
    " status; people only read it.",
    "TrainingJob": "People write the spec, the operator the status.",
    "InferenceDeployment": "People write the spec, the operator the status.",
}
_PATTERNS: Final = {
    DURATION_PATTERN: "duration",
    DURATION_OR_AUTO_PATTERN: "duration or Auto",
    INT_OR_PERCENT_PATTERN: "number or percentage",
    PERCENT_PATTERN: "percentage",
    QUANTITY_PATTERN: "quantity",
    r"^-?[0-9]+(\.[0-9]+)?$": "decimal, as a string",  # base.DecimalString
}
_RULES: Final = "x-kubernetes-validations"
_TEMPLATE: Final = "template"
_HEAD: Final = ("Field", "Type", "What it is")


@dataclass(frozen=True, slots=True)
class Field:
    """One field by its path, as in `spec.topology.levels[].name`."""

    path: str
    schema: Schema
    required: bool


def fields(schema: Schema, path: str = "") -> Iterator[Field]:
    """Yield all fields below a schema, each before its own; those of pod templates are left out."""
    required = schema.get("required", ())
    for name, below in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield Field(here, below, name in required)
        if name != _TEMPLATE:
            yield from fields(below, here)
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from fields(schema["additionalProperties"], f"{path}.*")


def type_of(schema: Schema) -> str:
    """Return a field's type in words, with its bounds."""
    if "enum" in schema:
        return " · ".join(code(value) for value in schema["enum"])
    if named := _PATTERNS.get(schema.get("pattern", "")):
        return named
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {type_of(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"map of {type_of(schema['additionalProperties'])}"
    if schema.get("format") == "date-time":
        return "time"
    return (kind or "any") + _bounds(schema)


def _bounds(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    if least:
        return f", at least {least}"
    return f", at most {most}" if most is not None else ""


def said(schema: Schema) -> tuple[str, str, str]:
    """Return what a description says, its default and its example."""
    text = schema.get("description", "")
    text, _, example = text.partition(" Example: ")
    text = cell(re.sub(r" Default: .*$", "", text))
    default = schema.get("default")
    plain = "" if default is None else json.dumps(default, ensure_ascii=False)
    return text, plain.strip('"'), example.removesuffix(".")


def _row(field: Field) -> tuple[str, ...]:
    text, default, example = said(field.schema)
    if field.path.endswith(f".{_TEMPLATE}"):
        text += " Its fields are [below](#pod-template)."
    if default:
        text += f" Default: {code(default)}."
    if example:
        text += f" Example: {code(example)}."
    star = " *" if field.required else ""
    return code(field.path) + star, type_of(field.schema), text


def _rules(schema: Schema, path: str = "") -> Iterator[str]:
    """Yield what the API server itself refuses, as `path: message`."""
    for rule in schema.get(_RULES, ()):
        message = rule.get("message") or rule.get("messageExpression") or rule["rule"]
        yield f"* {code(path or 'the object')}: {cell(message)}"
    for name, below in schema.get("properties", {}).items():
        yield from _rules(below, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from _rules(schema["additionalProperties"], f"{path}.*")


def section(kind: Kind) -> str:
    """Return a kind's part of the page."""
    body = definition(kind)["spec"]
    version = body["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    short = " · short " + ", ".join(code(name) for name in kind.short_names)
    scope = "in a namespace" if kind.namespaced else "of the cluster"
    parts = [
        f"## {kind.name}",
        cell(schema["description"]) + " " + _WHO[kind.name],
        f"`{API_VERSION}` · `{kind.plural}`{short if kind.short_names else ''} · {scope}",
    ]
    for top in ("spec", "status"):
        rows = [_row(field) for field in fields(schema["properties"][top], top)]
        parts += [f"### {kind.name}: {top}", table(_HEAD, rows)]
    if rules := list(_rules(schema)):
        parts += [f"### {kind.name}: refused by the API server", "\n".join(rules)]
    columns = [
        (cell(one["name"]), code(one["jsonPath"]), "`-o wide`" if one.get("priority") else "")
        for one in version["additionalPrinterColumns"]
    ]
    parts += [f"### {kind.name}: columns", table(("Column", "Field", "With"), columns)]
    return "\n\n".join(parts)


def _pod_template() -> str:
    """Return what stands below each `template`, once: they are all of one model."""
    job = next(kind for kind in KINDS if kind.name == "TrainingJob")
    schema = definition(job)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    below = schema["properties"]["spec"]["properties"][_TEMPLATE]
    rows = [_row(field) for field in fields(below, _TEMPLATE)]
    text = (
        "A part of what core/v1 calls a PodTemplateSpec; its other fields are taken as they"
        " are. What an owner sets itself it refuses there, and says so."
    )
    fields_table = table(_HEAD, rows)
    return f"## Pod template\n\n{text}\n\n{fields_table}"


def render() -> str:
    """Return the page."""
    listed = "\n".join(f"* [{kind.name}](#{kind.name.lower()})" for kind in KINDS)
    opening = (
        "All fields of the five kinds, as the API server serves them; `kubectl explain` says the"
        " same. A star marks what must be given. A duration is written as in `90s` or `1h30m`, a"
        " quantity as in `500m` or `16Gi`. A status has no defaults: what nobody has written is"
        " not there."
    )
    sections = (section(kind) for kind in KINDS)
    return page("Kinds", opening, listed, *sections, _pod_template())
