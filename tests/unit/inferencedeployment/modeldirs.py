"""Make small directories of weights, as trainers and hubs lay them out."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONFIG = {
    "_name_or_path": "org/Little-1B",
    "hidden_size": 8,
    "num_hidden_layers": 2,
}


def safetensors(tensors: Mapping[str, Sequence[int]]) -> bytes:
    """Return a safetensors file of F32 tensors of these shapes."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors.items():
        size = 4
        for one in shape:
            size *= one
        head[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + bytes(i % 251 for i in range(at))


def put(root: Path, files: Mapping[str, object]) -> Path:
    """Write files: bytes and text as they are, anything else as JSON."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return root


SHARDS: dict[str, object] = {
    "config.json": CONFIG,
    "tokenizer.json": {"model": {}},
    "model-00001-of-00002.safetensors": safetensors({"a": [4, 8], "b": [8]}),
    "model-00002-of-00002.safetensors": safetensors({"c": [16]}),
    "model.safetensors.index.json": {
        "metadata": {},
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors",
        },
    },
}


def model(root: Path) -> Path:
    """Write a whole model of two shards."""
    return put(root, SHARDS)


def without(*names: str) -> dict[str, object]:
    """Return the files of the model but some."""
    return {name: content for name, content in SHARDS.items() if name not in names}


def adapter_files(
    rank: int = 4, base: str | None = "org/Little-1B", width: int = 8, layer: int = 1
) -> dict[str, object]:
    """Return the files of a LoRA adapter for that model."""
    config: dict[str, object] = {"peft_type": "LORA", "r": rank, "target_modules": ["q_proj"]}
    if base is not None:
        config["base_model_name_or_path"] = base
    stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
    return {
        "adapter_config.json": config,
        "adapter_model.safetensors": safetensors(
            {f"{stem}.lora_A.weight": [rank, width], f"{stem}.lora_B.weight": [width, rank]}
        ),
    }
