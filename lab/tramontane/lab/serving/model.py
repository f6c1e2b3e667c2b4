"""Write a model directory, as a training job would: `python3 model.py FOLDER [OPTION ...]`.

The standard library only: a rank of a TrainingJob runs this file in its pod. What it writes is
complete and some kilobytes large; how the engine plays it (`fakevllm`) stands in a file beside the
weights, so that a revision can be a slow or a bad one.
"""

import argparse
import json
import random
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
_BYTES = 4096


def write_model(folder: Path, seed: int = 0, **behaviour: Any) -> Path:
    """Write a complete model directory; returns it.

    Args:
        folder: must not exist.
        seed: of the weights.
        behaviour: how the fake engine plays it, as `fakevllm`'s `Fake` says.
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    tensor = {"dtype": "U8", "shape": [_BYTES], "data_offsets": [0, _BYTES]}
    header = json.dumps({"w": tensor}).encode()
    weights = random.Random(seed).randbytes(_BYTES)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)
    if behaviour:
        (folder / "fake-vllm.json").write_text(json.dumps(behaviour))
    return folder


def train(folder: Path, steps: int, step_s: float, seed: int, behaviour: Mapping[str, Any]) -> None:
    """Print steps as a trainer does, then save the weights, whole or not at all."""
    if folder.exists():
        sys.stdout.write(f"{folder} is there already\n")
        return
    for step in range(1, steps + 1):
        time.sleep(step_s)
        sys.stdout.write(f"step {step} loss {9 / (step + 1):.4f}\n")
        sys.stdout.flush()
    write_model(folder.with_name(f".{folder.name}"), seed, **behaviour).rename(folder)
    sys.stdout.write(f"saved checkpoint step={steps}\n")


def main(arguments: list[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(description="Play a training that ends with weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--step-s", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--behaviour", type=json.loads, default={})
    given = parser.parse_args(arguments)
    train(given.folder, given.steps, given.step_s, given.seed, given.behaviour)


if __name__ == "__main__":
    main()
