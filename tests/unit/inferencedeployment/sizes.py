"""Ask for plans: published models by name, GPUs by kind."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tramontane.api.inferencedeployment import EngineName, InferenceDeploymentSpec
from tramontane.api.nodepool import NodePool
from tramontane.controllers.inferencedeployment.layout import Refusal, Sizing
from tramontane.controllers.inferencedeployment.sizing.ask import Ask
from tramontane.controllers.inferencedeployment.sizing.gpus import KINDS
from tramontane.controllers.inferencedeployment.sizing.modelconfig import Model, read_model
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout

MODELS = Path(__file__).parent / "models"
GIB = 1 << 30
Raw = dict[str, Any]


def config(name: str, **changes: Any) -> Raw:
    """Return a model's configuration, with changes; None takes a key out."""
    whole = {**json.loads((MODELS / f"{name}.json").read_text()), **changes}
    return {key: value for key, value in whole.items() if value is not None}


@cache
def model(name: str) -> Model:
    return read_model(config(name))


def ask(name: str | Model = "llama-3.3-70b", gpu: str = "h200", **fields: Any) -> Ask:
    """Return what 8 requests of 8,192 tokens ask of 4 blades of 8 GPUs."""
    usual: Raw = {
        "model": model(name) if isinstance(name, str) else name,
        "engine": EngineName.VLLM,
        "gpus_per_blade": 8,
        "gpu_memory_b": KINDS[gpu].memory_b,
        "bandwidth_b": KINDS[gpu].bandwidth_b,
        "blades": 4,
        "context_tokens": 8192,
        "concurrent_requests": 8,
    }
    return Ask(**usual | fields)


def planned(asked: Ask) -> Sizing:
    found = plan_layout(asked)
    assert isinstance(found, Sizing), found.message
    return found


def refused(asked: Ask) -> Refusal:
    found = plan_layout(asked)
    assert isinstance(found, Refusal), found.why
    return found


def spec(**fields: Any) -> InferenceDeploymentSpec:
    """Return a spec of vLLM for the 70B model."""
    return InferenceDeploymentSpec.model_validate(
        {
            "nodePool": "hall",
            "model": {"source": {"hostPath": "/models/m"}, "config": config("llama-3.3-70b")},
            "engine": {"name": "vllm", "image": "registry.hall/vllm:0.32"},
            "capacity": {"contextTokens": 8192, "concurrentRequests": 8},
            **fields,
        }
    )


def pool(**gpu: Any) -> NodePool:
    return NodePool.model_validate(
        {
            "metadata": {"name": "hall"},
            "spec": {
                "nodeSelector": {"matchLabels": {"gpu": "h200"}},
                "gpu": {"count": 8, "product": "NVIDIA-H200", **gpu},
            },
        }
    )
