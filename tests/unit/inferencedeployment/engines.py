"""Build engines and launches for the tests of `engines`."""

from typing import Any

from tramontane.api.inferencedeployment import Engine, EngineName
from tramontane.controllers.inferencedeployment.engines.catalogue import EngineData, engine_of
from tramontane.controllers.inferencedeployment.engines.launch import Launch
from tramontane.controllers.inferencedeployment.layout import Layout, Refusal

NEWEST = {"vllm": "0.33", "sglang": "0.5.23", "llamacpp": "0.5", "custom": None}


def an_engine(name: str = "vllm", version: str | None = "0.32", **fields: Any) -> Engine:
    return Engine(
        name=EngineName(name), version=version, image=fields.pop("image", "hall/e"), **fields
    )


def data(name: str = "vllm", version: str | None = "0.32", **fields: Any) -> EngineData:
    found = engine_of(an_engine(name, version, **fields))
    assert not isinstance(found, Refusal), found.message
    return found


def a_launch(**fields: Any) -> Launch:
    given: dict[str, Any] = {
        "path": "/tramontane/volumes/0/claims-v7",
        "served_name": "claims",
        "layout": Layout(tensor=8),
        "context_tokens": 65536,
        "concurrent_requests": 32,
        **fields,
    }
    return Launch(**given)
