"""Turn a model into a structural OpenAPI v3 schema, as the API server demands it.

| pydantic emits | the schema gets |
|---|---|
| `$ref`, `$defs` | the definition inline; the field's own keys win, CEL rules of both are kept |
| `anyOf: [X, null]`, `default: null` | X, no default: the API server drops nulls |
| an empty list or map as the default | no default: absent means empty |
| `anyOf` of closed lists | one closed list |
| `exclusiveMinimum: 0` | `minimum: 0, exclusiveMinimum: true`; the same for maximum |
| `const: X` | `enum: [X]` |
| `integer` | `format: int64`; `number`: `format: double` |
| `uniqueItems` | `x-kubernetes-list-type: set` |
| `title`, `examples`, `discriminator`, `propertyNames` | dropped; an example ends the description |
| any other union, tuples, recursion, what is unbounded | refused, with the path |

A status has no defaults: what no component has written must not look written.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from tramontane.api.base import Model
from tramontane.api.checks import KEY as RULES
from tramontane.api.errors import InvalidValue

Schema = dict[str, Any]

_DROPPED: Final = frozenset({"title", "examples", "discriminator", "propertyNames", "$defs"})
_NOT_STRUCTURAL: Final = ("oneOf", "allOf", "prefixItems", "not", "if")


class _Generator(GenerateJsonSchema):
    """Emit nullable fields as what they hold, and defaults as people would write them."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def encode_default(self, dft: Any) -> Any:
        return _plain(dft)


def _plain(value: Any) -> Any:
    """Return a default without what is a default itself: the API server fills in the rest."""
    if isinstance(value, Model):
        return value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    return value.value if isinstance(value, StrEnum) else value


def structural(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a model.

    Raises:
        InvalidValue: something in the model has no structural form; the path says where.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _node(raw, raw.get("$defs", {}), (model.__name__,))


def without_defaults(schema: Schema) -> Schema:
    """Return the schema without any default, at any depth."""
    result = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in result:
        result["properties"] = {k: without_defaults(v) for k, v in result["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), dict):
            result[key] = without_defaults(result[key])
    return result


def _node(given: Mapping[str, Any], defs: Mapping[str, Schema], path: tuple[str, ...]) -> Schema:
    # 1. One flat node: definitions inline, closed lists merged.
    node = _closed_lists(_inline(given, defs, path), defs)
    for key in ("anyOf", *_NOT_STRUCTURAL):
        if key in node:
            raise InvalidValue(f"{'.'.join(path)}: must have one type", key)
    # 2. The dialect of OpenAPI 3.0, and the API server's additions to it.
    node = _dialect(node)
    if node.get("default", "") in (None, []) or (
        node.get("default") == {} and "properties" not in node
    ):
        del node["default"]
    if "description" in node:
        node["description"] = _described(node)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    # 3. What lies inside.
    if "properties" in result:
        result["properties"] = {
            name: _node(child, defs, (*path, name)) for name, child in result["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), dict):
            result[key] = _node(result[key], defs, (*path, "[]"))
    return result


def _inline(given: Mapping[str, Any], defs: Mapping[str, Schema], path: tuple[str, ...]) -> Schema:
    node = dict(given)
    seen: list[str] = []
    while "$ref" in node:
        name = node.pop("$ref").removeprefix("#/$defs/")
        if name in seen or len(path) > 32:  # noqa: PLR2004 - deeper than any resource: a cycle
            raise InvalidValue(f"{'.'.join(path)}: must not contain itself", name)
        seen.append(name)
        merged = {**defs[name], **node}
        if RULES in defs[name] and RULES in node:
            merged[RULES] = [*defs[name][RULES], *node[RULES]]
        node = merged
    return node


def _closed_lists(node: Schema, defs: Mapping[str, Schema]) -> Schema:
    if "anyOf" not in node:
        return node
    options = [_inline(option, defs, ()) for option in node["anyOf"]]
    if not all(option.get("type") == "string" and "enum" in option for option in options):
        return node
    merged = list(dict.fromkeys(value for option in options for value in option["enum"]))
    return {key: v for key, v in node.items() if key != "anyOf"} | {
        "type": "string",
        "enum": merged,
    }


def _dialect(node: Schema) -> Schema:
    result = dict(node)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in result:
            result[bound] = result[exclusive]
            result[exclusive] = True
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if result.get("type") == "integer":
        result.setdefault("format", "int64")
    if result.get("type") == "number":
        result.setdefault("format", "double")
    if result.pop("uniqueItems", False):
        result["x-kubernetes-list-type"] = "set"
    return result


def _described(node: Schema) -> str:
    text: str = node["description"]
    if node.get("default") not in (None, {}):
        text += f" Default: {_shown(node['default'])}."
    if node.get("examples"):
        text += f" Example: {_shown(node['examples'][0])}."
    return text


def _shown(value: Any) -> str:
    """Return a value in YAML's flow style, as it would stand in a manifest."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(v) for v in value) + "]"
    if isinstance(value, str) and (not value or value.replace(".", "", 1).isdigit()):
        return f'"{value}"'
    return str(value)
