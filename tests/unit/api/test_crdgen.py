"""The generated schemas are structural, described, and what is committed."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from support.examples import CRD_DIR, crd_schema
from tramontane.api.base import Model, about
from tramontane.api.checks import Rule, checked, rules
from tramontane.api.crdgen import KINDS, definition, file_name, main, render, stale
from tramontane.api.errors import InvalidValue
from tramontane.api.schema import structural

MAX_FILE_BYTES = 64 * 1024
NOT_STRUCTURAL = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "prefixItems", "not"}
DROPPED = {"title", "examples", "discriminator", "propertyNames", "uniqueItems"}


def _nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _nodes(schema[key], f"{path}[]")


OBJECT_META = {f"{kind.name}.metadata" for kind in KINDS}
ALL_NODES = [
    (path, node) for kind in KINDS for path, node in _nodes(crd_schema(kind.name), kind.name)
]


def test_the_committed_files_are_what_the_models_say() -> None:
    assert stale(CRD_DIR) == []
    assert {path.name for path in CRD_DIR.glob("*.yaml")} == {file_name(kind) for kind in KINDS}


def test_check_fails_and_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
    edited = tmp_path / "tramontane.dev_gangs.yaml"
    edited.write_text(edited.read_text() + "# edited\n")
    assert main([str(tmp_path), "--check"]) == 1
    assert "tramontane.dev_gangs.yaml must be what the models say" in capsys.readouterr().err
    edited.unlink()
    assert main([str(tmp_path), "--check"]) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_is_small_and_plain(kind: Any) -> None:
    text = render(kind)
    assert len(text.encode()) <= MAX_FILE_BYTES
    assert text.startswith("# Generated from tramontane.api, do not edit")
    assert "&id" not in text


def test_every_field_is_described_with_an_example() -> None:
    fields = [
        (path, node)
        for path, node in ALL_NODES
        if "." in path and not path.endswith("[]") and path not in OBJECT_META
    ]
    assert len(fields) > 300
    assert [path for path, node in fields if not node.get("description")] == []
    assert [path for path, node in fields if "Example: " not in node["description"]] == []


def test_a_default_is_told() -> None:
    told = [
        path
        for path, node in ALL_NODES
        if node.get("default") not in (None, {}) and "Default: " not in node["description"]
    ]
    assert told == []


def test_structural() -> None:
    bad = [
        (path, key) for path, node in ALL_NODES for key in node if key in NOT_STRUCTURAL | DROPPED
    ]
    assert bad == []
    untyped = [
        path
        for path, node in ALL_NODES
        if "type" not in node and "x-kubernetes-int-or-string" not in node
    ]
    assert untyped == []


def test_lists_are_bounded_and_say_who_owns_items() -> None:
    lists = [(path, node) for path, node in ALL_NODES if node.get("type") == "array"]
    assert [path for path, node in lists if "maxItems" not in node] == []
    assert [path for path, node in lists if "x-kubernetes-list-type" not in node] == []
    for path, node in lists:
        if node["x-kubernetes-list-type"] == "map":
            for key in node["x-kubernetes-list-map-keys"]:
                items = node["items"]
                assert key in items["required"], path


def test_maps_are_bounded() -> None:
    maps = [
        (path, node)
        for path, node in ALL_NODES
        if isinstance(node.get("additionalProperties"), dict)
    ]
    assert [path for path, node in maps if "maxProperties" not in node] == []


def test_strings_are_bounded() -> None:
    unbounded = [
        path
        for path, node in ALL_NODES
        if node.get("type") == "string"
        and not node.keys() & {"maxLength", "enum", "format"}
        and path.count(".") > 1
    ]
    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_status_has_no_defaults(kind: Any) -> None:
    status = crd_schema(kind.name)["properties"]["status"]
    assert [path for path, node in _nodes(status, "status") if "default" in node] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_column_shows_a_field(kind: Any) -> None:
    known = {path.removeprefix(kind.name) for path, _ in _nodes(crd_schema(kind.name), kind.name)}
    for column in kind.columns:
        path = column.path.split("[")[0]
        assert path in known | {".metadata.creationTimestamp"}, column


def test_names() -> None:
    listed = {kind.name: definition(kind)["spec"] for kind in KINDS}
    assert {n: s["scope"] for n, s in listed.items()} == {
        "NodePool": "Cluster",
        "Blade": "Cluster",
        "Gang": "Namespaced",
        "TrainingJob": "Namespaced",
        "InferenceDeployment": "Namespaced",
    }
    spoken = {n: {s["names"]["singular"], *s["names"]["shortNames"]} for n, s in listed.items()}
    for name, short in {
        "NodePool": "np",
        "TrainingJob": "tj",
        "InferenceDeployment": "inf",
        "Blade": "blade",
        "Gang": "gang",
    }.items():
        assert short in spoken[name]


class Colour(StrEnum):
    """Doc."""

    RED = "Red"
    BLUE = "Blue"


class Shape(StrEnum):
    """Doc."""

    ROUND = "Round"


class Inner(Model):
    """Doc."""

    size: Annotated[int, about("Size.", example=3)] = 2
    model_config = checked(Rule("self.size > 0", "size must be positive", "%d", ("self.size",)))


class Outer(Model):
    """Doc."""

    colour: Annotated[Colour, about("Colour.", example="Red")] = Colour.BLUE
    either: Annotated[Colour | Shape | None, about("Either.")] = None
    maybe: Annotated[int | None, about("Maybe.", gt=0)] = None
    ratio: Annotated[float, about("Ratio.", gt=0, lt=1)] = 0.5
    one: Annotated[Literal["a"], about("One.")] = "a"
    tags: Annotated[frozenset[str], about("Tags.")] = frozenset()
    text: Annotated[str, about("Text.")] = "1.5"
    flag: Annotated[bool, about("Flag.")] = True
    inner: Annotated[Inner, about("Inner.", extra=rules(Rule("true", "must be", "x")))] = Inner()
    other: Annotated[Inner, about("Other.")] = Inner(size=5)
    inners: Annotated[tuple[Inner, ...], about("Inners.")] = (Inner(size=7),)


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        pytest.param(
            "colour",
            {
                "type": "string",
                "enum": ["Red", "Blue"],
                "default": "Blue",
                "description": "Colour. Default: Blue. Example: Red.",
            },
            id="enum-inline-with-its-default",
        ),
        pytest.param(
            "either",
            {"type": "string", "enum": ["Red", "Blue", "Round"], "description": "Either."},
            id="two-closed-lists-are-one",
        ),
        pytest.param(
            "maybe",
            {
                "type": "integer",
                "format": "int64",
                "minimum": 0,
                "exclusiveMinimum": True,
                "description": "Maybe.",
            },
            id="nullable-is-what-it-holds",
        ),
        pytest.param(
            "ratio",
            {
                "type": "number",
                "format": "double",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
                "default": 0.5,
                "description": "Ratio. Default: 0.5.",
            },
            id="open-interval",
        ),
        pytest.param(
            "one",
            {
                "type": "string",
                "enum": ["a"],
                "default": "a",
                "description": "One. Default: a.",
            },
            id="const",
        ),
        pytest.param(
            "tags",
            {
                "type": "array",
                "items": {"type": "string"},
                "x-kubernetes-list-type": "set",
                "description": "Tags.",
            },
            id="set-and-no-empty-default",
        ),
        pytest.param(
            "text",
            {"type": "string", "default": "1.5", "description": 'Text. Default: "1.5".'},
            id="a-number-in-quotes",
        ),
        pytest.param(
            "flag",
            {"type": "boolean", "default": True, "description": "Flag. Default: true."},
            id="yaml-booleans",
        ),
    ],
)
def test_dialect(name: str, schema: dict[str, Any]) -> None:
    assert structural(Outer)["properties"][name] == schema


def test_a_default_object_holds_only_what_differs() -> None:
    properties = structural(Outer)["properties"]
    assert properties["inner"]["default"] == {}
    assert properties["other"]["default"] == {"size": 5}
    assert properties["inners"]["default"] == [{"size": 7}]


def test_rules_of_a_model_and_of_its_field_both_hold() -> None:
    found = structural(Outer)["properties"]["inner"]["x-kubernetes-validations"]
    assert [rule["rule"] for rule in found] == ["self.size > 0", "true"]


class Union(Model):
    """Doc."""

    inner: Annotated[int | Inner, about("One of two types.")] = 1


class Pair(Model):
    """Doc."""

    pair: Annotated[tuple[int, str], about("A pair.")] = (1, "a")


class Tree(Model):
    """Doc."""

    children: Annotated[tuple["Tree", ...], Field(description="Itself.")] = ()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        pytest.param(Union, r"Union\.inner: must have one type \(got \"anyOf\"\)", id="union"),
        pytest.param(Pair, r"Pair\.pair: must have one type \(got \"prefixItems\"\)", id="pair"),
        pytest.param(Tree, r"Tree\.children.*: must not contain itself", id="recursion"),
    ],
)
def test_what_has_no_structural_form_is_refused(model: type[Model], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        structural(model)


@pytest.mark.parametrize(
    ("rule", "entry"),
    [
        pytest.param(
            Rule("r", "must be", "%d over %d", ("self.a", "self.b")),
            {
                "rule": "r",
                "message": "must be",
                "messageExpression": "'must be (got %d over %d)'.format([self.a, self.b])",
            },
            id="values",
        ),
        pytest.param(
            Rule("r", "it's 5% must", "%s", ("self",), "use '\\d'"),
            {
                "rule": "r",
                "message": "it's 5% must; use '\\d'",
                "messageExpression": "'it\\'s 5%% must (got %s); use \\'\\\\d\\''.format([self])",
            },
            id="quoted-and-remedy",
        ),
        pytest.param(
            Rule("r", "must be", "none"), {"rule": "r", "message": "must be (got none)"}, id="plain"
        ),
    ],
)
def test_a_rule_says_what_must_be_and_what_was_given(rule: Rule, entry: dict[str, str]) -> None:
    assert rule.to_schema() == entry
