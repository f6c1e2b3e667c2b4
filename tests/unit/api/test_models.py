"""Models read what the API server stores, and write it back with nothing lost."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from pydantic import ValidationError

from support.examples import crd_schema, example, examples
from tramontane.api.base import Object, to_camel
from tramontane.api.blade import Blade
from tramontane.api.crdgen import KINDS
from tramontane.api.gang import Gang
from tramontane.api.nodepool import LabelSelector, NodePool
from tramontane.api.trainingjob import DEFAULT_STEP_PATTERN, Progress, TrainingJob

MODELS: dict[str, type[Object]] = {kind.name: kind.model for kind in KINDS}
DOCUMENTS = [
    pytest.param(document, id=f"{name}/{document['metadata']['name']}")
    for name in MODELS
    for document in examples(name)
]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _with_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Return what the API server stores: a port of its defaulting."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name not in value and "default" in child:
                value[name] = deepcopy(child["default"])
            if name in value:
                _with_defaults(value[name], child)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            _with_defaults(item, schema["items"])
    return value


def _schema_paths(schema: dict[str, Any], path: str) -> Iterator[str]:
    yield path
    if path.endswith(".template"):
        return  # the same everywhere
    for name, child in schema.get("properties", {}).items():
        yield from _schema_paths(child, f"{path}.{name}")
    if "items" in schema:
        yield from _schema_paths(schema["items"], f"{path}[]")


def _value_paths(value: Any, path: str) -> Iterator[str]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _value_paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _value_paths(inner, f"{path}[]")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_lost(document: dict[str, Any]) -> None:
    model = MODELS[document["kind"]]
    parsed = model.model_validate(document)
    written = dict(_leaves(parsed.to_dict()))
    assert {path: written.get(path) for path, _ in _leaves(document)} == dict(_leaves(document))
    assert model.model_validate(parsed.to_dict()) == parsed


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_the_examples_name_every_field(kind: str, part: str) -> None:
    wanted = set(_schema_paths(crd_schema(kind)["properties"][part], part))
    named = {path for d in examples(kind) for path in _value_paths(d.get(part, {}), part)}
    assert wanted - named == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_model_and_schema_have_the_same_defaults(document: dict[str, Any]) -> None:
    kind = document["kind"]
    bare = {"metadata": document["metadata"], "spec": document["spec"]}
    stored = _with_defaults(deepcopy(bare), crd_schema(kind))
    parsed = MODELS[kind].model_validate(bare)
    assert MODELS[kind].model_validate(stored) == parsed
    # The model adds nothing that is not stored but empty lists and maps.
    assert dict(_leaves(parsed.to_dict()["spec"])) == dict(_leaves(stored["spec"]))


@pytest.mark.parametrize("kind", MODELS)
def test_a_status_that_nobody_wrote_says_nothing(kind: str) -> None:
    schema = crd_schema(kind)["properties"]["status"]
    assert _with_defaults({}, schema) == {}
    document = example(kind)
    del document["status"]
    unwritten = MODELS[kind].model_validate(document)
    assert unwritten == MODELS[kind].model_validate(document | {"status": {}})


def test_unknown_fields_of_a_newer_server_are_ignored() -> None:
    document = example("Gang")
    document["spec"]["colour"] = "blue"
    document["status"]["shape"] = {"round": True}
    assert Gang.model_validate(document) == Gang.model_validate(example("Gang"))


def test_a_model_does_not_change() -> None:
    blade = Blade.model_validate(example("Blade"))
    with pytest.raises(ValidationError, match="frozen"):
        blade.spec.pool = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("attribute", "alias"),
    [
        ("boot_id", "bootID"),
        ("pci_bus_id", "pciBusID"),
        ("guaranteed_gpus", "guaranteedGPUs"),
        ("gpus_per_node", "gpusPerNode"),
        ("weights_per_gpu", "weightsPerGPU"),
        ("ttft_p95_ratio", "ttftP95Ratio"),
        ("job_failures28d", "jobFailures28d"),
        ("from_", "from"),
    ],
)
def test_spelling(attribute: str, alias: str) -> None:
    assert to_camel(attribute) == alias


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        pytest.param(8, "8", id="number"),
        pytest.param("8", "8", id="string"),
        pytest.param("512Gi", "512Gi", id="suffix"),
    ],
)
def test_a_quantity_is_a_string(value: Any, parsed: str) -> None:
    document = example("Gang")
    document["spec"]["slots"][0]["requests"] = {"nvidia.com/gpu": value}
    slot = Gang.model_validate(document).spec.slots[0]
    assert slot.requests == {"nvidia.com/gpu": parsed}


@pytest.mark.parametrize("value", [True, "8 Gi", -8, 1.5])
def test_no_quantity(value: Any) -> None:
    document = example("Gang")
    document["spec"]["slots"][0]["requests"] = {"nvidia.com/gpu": value}
    with pytest.raises(ValidationError):
        Gang.model_validate(document)


@pytest.mark.parametrize("value", [4, "4", "10%"])
def test_max_unavailable(value: Any) -> None:
    document = example("NodePool")
    document["spec"]["remediation"]["maxUnavailable"] = value
    assert NodePool.model_validate(document).spec.remediation.max_unavailable == value


@pytest.mark.parametrize("value", ["101%", -1, "many"])
def test_no_max_unavailable(value: Any) -> None:
    document = example("NodePool")
    document["spec"]["remediation"]["maxUnavailable"] = value
    with pytest.raises(ValidationError, match="maxUnavailable"):
        NodePool.model_validate(document)


@pytest.mark.parametrize(
    ("progress", "pattern"),
    [
        pytest.param({}, DEFAULT_STEP_PATTERN, id="default"),
        pytest.param({"stepPattern": ""}, DEFAULT_STEP_PATTERN, id="empty"),
        pytest.param({"stepPattern": "it (?P<step>[0-9]+)"}, "it (?P<step>[0-9]+)", id="given"),
        pytest.param({"metrics": {"port": 1, "step": "s"}}, None, id="metrics"),
    ],
)
def test_step_pattern(progress: dict[str, Any], pattern: str | None) -> None:
    assert Progress.model_validate(progress).effective_step_pattern == pattern


def test_keys() -> None:
    assert TrainingJob.model_validate(example("TrainingJob")).key == "default/llama"
    assert Blade.model_validate(example("Blade")).key == "gpu-0017"


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        pytest.param({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True, id="label"),
        pytest.param({"matchLabels": {"a": "1"}}, {"a": "2"}, False, id="other-value"),
        pytest.param({"matchLabels": {"a": "1", "b": "2"}}, {"a": "1"}, False, id="all-labels"),
        pytest.param({"matchExpressions": [("a", "In", "1")]}, {"a": "1"}, True, id="in"),
        pytest.param({"matchExpressions": [("a", "In", "1")]}, {}, False, id="in-absent"),
        pytest.param({"matchExpressions": [("a", "NotIn", "1")]}, {"a": "1"}, False, id="not-in"),
        pytest.param({"matchExpressions": [("a", "NotIn", "1")]}, {}, True, id="not-in-absent"),
        pytest.param({"matchExpressions": [("a", "Exists", "")]}, {"a": ""}, True, id="exists"),
        pytest.param({"matchExpressions": [("a", "Exists", "")]}, {}, False, id="exists-absent"),
        pytest.param({"matchExpressions": [("a", "DoesNotExist", "")]}, {}, True, id="not-there"),
        pytest.param(
            {"matchExpressions": [("a", "DoesNotExist", "")]}, {"a": "1"}, False, id="there"
        ),
        pytest.param({}, {"a": "1"}, True, id="empty-takes-all"),
    ],
)
def test_label_selector(selector: dict[str, Any], labels: dict[str, str], matches: bool) -> None:
    given = dict(selector)
    given["matchExpressions"] = [
        {"key": key, "operator": operator, "values": [value] if value else []}
        for key, operator, value in selector.get("matchExpressions", [])
    ]
    assert LabelSelector.model_validate(given).matches(labels) is matches
