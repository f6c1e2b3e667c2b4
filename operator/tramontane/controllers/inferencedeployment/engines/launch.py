"""Say what an engine is started for, and what of it an engine cannot do."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from typing import Any, Final

from tramontane.api.inferencedeployment import EngineName
from tramontane.controllers.inferencedeployment.engines.catalogue import EngineData
from tramontane.controllers.inferencedeployment.layout import Layout

#: The rank agent writes the address of seat 0 in its place, in arguments and environment.
MASTER: Final = "$(TRAMONTANE_MASTER)"
#: And the one .gguf file in the directory, or the first of its parts.
MODEL_FILE: Final = "$(TRAMONTANE_MODEL_FILE)"

# What vLLM takes as --max-lora-rank; others are refused.
LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Adapters that one batch mixes; each costs memory on every GPU, used or not.
_MAX_LORAS: Final = 4


class ModelFormat(StrEnum):
    """Say in which form the weights lie; AUTO where that is not known, and the engine looks."""

    AUTO = "auto"
    HF = "hf"
    MISTRAL = "mistral"
    GGUF = "gguf"


@dataclass(frozen=True, slots=True)
class Launch:
    """Hold what one replica's engine is started for, alike on all seats.

    Attributes:
        path: directory of the weights in the pod.
        nodes: pods of the replica; None for as many as the layout has.
        adapters: how many LoRA adapters there are; their names and paths come by the agent.
        max_lora_rank: highest rank of any adapter.
        drain_s: longest wait for open streams after SIGTERM.
        command: of the template's container, with its arguments; for engine custom alone.
        ready_s: the engine's own limit for its start, where it has one; the agent, which knows how
            fast the storage is, overrides it.
    """

    path: str
    served_name: str
    layout: Layout
    context_tokens: int
    concurrent_requests: int
    port: int = 8000
    nodes: int | None = None
    extra_args: tuple[str, ...] = ()
    adapters: int = 0
    max_lora_rank: int = 16
    drain_s: float = 600.0
    files: ModelFormat = ModelFormat.AUTO
    command: tuple[str, ...] = ()
    ready_s: int | None = None

    @property
    def seats(self) -> int:
        """Return the pods of the replica."""
        return self.layout.nodes if self.nodes is None else self.nodes

    @property
    def model(self) -> str:
        """Return what llama.cpp loads: one file, whatever the directory is called."""
        return MODEL_FILE

    @property
    def sequences(self) -> int:
        """Return the requests that each data-parallel engine works on at once."""
        return math.ceil(self.concurrent_requests / self.layout.data)

    @property
    def shutdown_s(self) -> int:
        """Return the whole seconds that streams have to finish."""
        return math.ceil(self.drain_s)

    @property
    def lora_rank(self) -> int:
        """Return the smallest rank that vLLM allows and every adapter fits in."""
        return next((rank for rank in LORA_RANKS if rank >= self.max_lora_rank), LORA_RANKS[-1])

    @property
    def lora_slots(self) -> int:
        """Return how many adapters one batch may mix."""
        return min(int(self.adapters), _MAX_LORAS)


def format_of_files(names: Iterable[str]) -> ModelFormat:
    """Return the form of weights by the names of their files.

    What Transformers saved is not in Mistral's form, even of Mistral's own models.

    | there are | form |
    |---|---|
    | *.gguf | GGUF |
    | config.json and no consolidated*.safetensors | HF |
    | params.json and consolidated*.safetensors | MISTRAL, even beside a config.json |
    | anything else | AUTO |
    """
    found = list(names)
    if any(fnmatch(name, "*.gguf") for name in found):
        return ModelFormat.GGUF
    has_consolidated = any(fnmatch(name, "consolidated*.safetensors") for name in found)
    if "params.json" in found and has_consolidated:
        return ModelFormat.MISTRAL
    if "config.json" in found and not has_consolidated:
        return ModelFormat.HF
    return ModelFormat.AUTO


def format_of_config(config: Mapping[str, Any] | None) -> ModelFormat:
    """Return the form of weights by their config, given in the spec; AUTO where that is silent."""
    if not config:
        return ModelFormat.AUTO
    if "model_type" in config or "architectures" in config:
        return ModelFormat.HF
    is_params = "n_layers" in config and "dim" in config
    return ModelFormat.MISTRAL if is_params else ModelFormat.AUTO


def cannot(engine: EngineData, launch: Launch) -> str | None:
    """Return why an engine cannot be started so, the first reason only, or None.

    | wanted | from | why not |
    |---|---|---|
    | a name like a flag | any | it would be read as one |
    | adapters | any but vllm | it cannot load one while it serves |
    | adapters of a higher rank than 512 | vllm | it has no such rank |
    | data parallel groups that are cut by a blade's edge | vllm | it has no such groups |
    | data parallel on several blades, without expert | sglang | only its attention spans blades |
    | several blades, pipeline or data | llamacpp | it is one process with one copy |
    """
    return next(_problems(engine, launch), None)


def _problems(engine: EngineData, launch: Launch) -> Iterator[str]:
    layout, seats = launch.layout, launch.seats
    if launch.served_name.startswith("-"):
        yield f'spec.model.servedName must not begin with "-" (got "{launch.served_name}")'
    if launch.adapters and engine.lora == "none":
        yield (
            f"spec.model.adapters must be empty with {engine}, which cannot load one while it "
            f"serves (got {int(launch.adapters)}); use engine vllm"
        )
    if launch.adapters and launch.max_lora_rank > LORA_RANKS[-1]:
        yield f"adapters must have rank {LORA_RANKS[-1]} at most (got {launch.max_lora_rank})"
    match engine.name:
        case EngineName.VLLM if layout.data % seats and seats % layout.data:
            yield (
                "layout must put whole data parallel groups on a blade, or a group on whole "
                f"blades (got data {layout.data} on {seats} blades)"
            )
        case EngineName.SGLANG if layout.data > 1 and seats > 1 and not layout.expert:
            yield (
                "layout must have expert: true with sglang and data on several blades "
                f"(got data {layout.data} on {seats}); or use more replicas instead"
            )
        case EngineName.LLAMACPP if max(seats, layout.pipeline, layout.data) > 1:
            yield (
                "layout must be one blade without pipeline and data with llamacpp "
                f"(got {layout} on {seats}); use more replicas instead"
            )
        case _:
            pass
