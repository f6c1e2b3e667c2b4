"""Find out whether a directory of weights is whole, before an engine stumbles over it.

Only heads of files are read, so that the answer comes in seconds and names the file:

| what lies there | what is said |
|---|---|
| neither config.json nor params.json (llama.cpp: no .gguf) | what must be there |
| JSON that is empty, larger than it can be, or no JSON | which file, and how large |
| an index that names a shard which is not there | the shard |
| `x-00002-of-00004.safetensors` without all its sisters | the numbers that are missing |
| a safetensors file whose head and size do not agree | cut short, or too long, by how much |
| checkpoint shards of a trainer (DCP, FSDP, DeepSpeed) instead of weights | to consolidate them |
| an adapter of another base, too high a rank, other sizes than the model's | both values |

Names of models are compared by their last path part, without case: `org/Mistral-7B`,
`/models/mistral-7b/` and a hub's cache `models--org--Mistral-7B/snapshots/<commit>` are one. The
names of a model are `_name_or_path` of its config.json, the last part of where it lies, and those
the source gives as `names`. Where the model or the adapter says nothing, nothing is compared.

Standard library only, Python 3.8 or later.
"""
# ruff: noqa: PTH110, PTH118, PTH123, PTH202 - as in weightfiles.py

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from tramontane.controllers.inferencedeployment.podfiles.weightfiles import (
        Mismatch,
        Missing,
        some,
    )
else:
    from weightfiles import Mismatch, Missing, some

CONFIGS = ("config.json", "params.json")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_B = 16 << 20
MAX_INDEX_B = 128 << 20
# As the library of that format has it.
MAX_HEAD_B = 100_000_000
MAX_NAME = 256

_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")
_INDEX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.\w+)")
_TRAINER = re.compile(
    r"(^|/)(__\d+_\d+\.distcp|.*_optim_states\.pt|.*_model_states\.pt|(model|optim)_world_size_.*\.pt)$"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LAYER = re.compile(r"\.layers\.(\d+)\..*\b(q_proj|k_proj|v_proj|gate_proj|up_proj)\.lora_A")
_PACKED_HEAD = 8
_PICKLED = ("adapter_model.bin", "adapter_model.pt")


def check_model(root: str, found: Collection[str], engine: str) -> Mapping[str, Any]:
    """Return the model's configuration; empty where there is none.

    Args:
        root: the directory.
        found: its files, as `weightfiles.sizes` returns them.
        engine: name of the engine; a custom one may need anything, so only what is there is read.

    Raises:
        Mismatch: the model is not whole.
        Missing: a file went away meanwhile.
    """
    weights = [path for path in found if path.endswith(_WEIGHTS) and not _TRAINER.search(path)]
    if engine == "llamacpp":
        weights = [path for path in weights if path.endswith(".gguf")]
    configs = {name: read_json(root, name, MAX_CONFIG_B) for name in CONFIGS if name in found}
    if engine != "custom":
        _present(root, found, weights, engine, configs)
    for index in sorted(path for path in found if path.endswith(_INDEX)):
        _check_index(root, index, found)
    _check_sisters(found)
    for path in sorted(found):
        if path.endswith(".safetensors"):
            read_head(root, path)
        elif path.endswith(".gguf"):
            _check_gguf(root, path)
    return configs.get(CONFIGS[0]) or configs.get(CONFIGS[1]) or {}


def _present(
    root: str,
    found: Collection[str],
    weights: Collection[str],
    engine: str,
    configs: Collection[str],
) -> None:
    trainers = [path for path in found if _TRAINER.search(path)]
    if not weights and (trainers or os.path.exists(os.path.join(root, ".metadata"))):
        raise Mismatch(
            "weights must be consolidated (got a trainer's checkpoint: "
            f"{some(trainers) or '.metadata'}); save them as safetensors with config.json"
        )
    if engine == "llamacpp":
        if not weights:
            raise Mismatch(f"directory must have a .gguf file (got {some(found)})")
        if len(firsts := _first_ggufs(weights)) > 1:
            raise Mismatch(
                f"directory must have one model in .gguf files (got {some(firsts)}); give each "
                "model a directory of its own"
            )
        return
    if not configs:
        raise Mismatch(f"directory must have {' or '.join(CONFIGS)} (got {some(found)})")
    if not weights:
        raise Mismatch(f"directory must have *.safetensors (got {some(found)})")


def gguf_to_load(found: Iterable[str]) -> str | None:
    """Return the file that is to be loaded: the only one, or the first of its parts; or None."""
    firsts = _first_ggufs(found)
    return firsts[0] if len(firsts) == 1 else None


def _first_ggufs(found: Iterable[str]) -> list[str]:
    """Return the first file of each model; a projector (mmproj) belongs to another's images."""
    firsts = []
    for path in sorted(found):
        match = _SHARD.fullmatch(path)
        is_later = match is not None and int(match.group("number")) > 1
        is_projector = path.rpartition("/")[2].startswith("mmproj")
        if path.endswith(".gguf") and not is_later and not is_projector:
            firsts.append(path)
    return firsts


def read_json(root: str, path: str, limit_b: int) -> dict[str, Any]:
    """Return a file that holds one JSON object.

    Raises:
        Mismatch: it does not, or is larger than `limit_b`.
        Missing: it went away, or cannot be read.
    """
    try:
        with open(os.path.join(root, path), "rb") as file:
            data = file.read(limit_b + 1)
    except OSError as error:
        raise Missing(f"{path}: must be readable (got {error.strerror})") from error
    if len(data) > limit_b:
        raise Mismatch(f"{path}: must be at most {limit_b >> 20} MiB (got more)")
    if not data.strip():
        raise Mismatch(f"{path}: must not be empty")
    value = _parsed(path, data)
    if not value:
        raise Mismatch(f"{path}: must not be empty (got {{}})")
    return value


def _parsed(what: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode())
    except RecursionError:
        raise Mismatch(f"{what}: must be JSON (got too many brackets in each other)") from None
    except ValueError as error:
        raise Mismatch(f"{what}: must be JSON (got {error})") from None
    if not isinstance(value, dict):
        raise Mismatch(f"{what}: must be a JSON object (got {type(value).__name__})")
    return value


def _check_index(root: str, index: str, found: Collection[str]) -> None:
    shard_of = read_json(root, index, MAX_INDEX_B).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(one, str) for one in shard_of.values()):
        raise Mismatch(f"{index}: must have weight_map, from tensors to files")
    folder = index[: index.rfind("/") + 1]
    gone = {shard for shard in shard_of.values() if folder + shard not in found}
    if gone:
        raise Mismatch(f"{index}: names files that must be there (got none of {some(gone)})")
    heads = {
        shard: read_head(root, folder + shard)
        for shard in set(shard_of.values())
        if shard.endswith(".safetensors")
    }
    lacking = [name for name, shard in shard_of.items() if name not in heads.get(shard, shard_of)]
    if lacking:
        where = shard_of[min(lacking)]
        raise Mismatch(f"{where}: must have the tensors that {index} names (lacks {some(lacking)})")


def _check_sisters(found: Collection[str]) -> None:
    for path in sorted(found):
        match = _SHARD.fullmatch(path)
        if match is None:
            continue
        stem, count, end = match.group("stem", "count", "end")
        sisters = [f"{stem}-{i:05d}-of-{count}{end}" for i in range(1, int(count) + 1)]
        gone = [name for name in sisters if name not in found]
        if gone:
            raise Mismatch(f"{path}: is one of {int(count)} files (missing: {some(gone)})")


def read_head(root: str, path: str) -> dict[str, Any]:
    """Return the tensors that the head of a safetensors file lists, by name.

    Raises:
        Mismatch: head and size do not agree.
        Missing: the file went away, or cannot be read.
    """
    whole = os.path.join(root, path)
    try:
        size = os.path.getsize(whole)
        with open(whole, "rb") as file:
            start = file.read(_PACKED_HEAD)
            length = struct.unpack("<Q", start)[0] if len(start) == _PACKED_HEAD else 0
            if not 0 < length <= MAX_HEAD_B:
                what = f"{size} bytes" if len(start) < _PACKED_HEAD else f"a head of {length} bytes"
                raise Mismatch(f"{path}: must be a safetensors file (got {what})")
            if _PACKED_HEAD + length > size:
                raise Mismatch(
                    f"{path}: is cut short in its head (needs {_PACKED_HEAD + length} bytes, "
                    f"got {size})"
                )
            head = _parsed(f"{path}: head", file.read(length))
    except OSError as error:
        raise Missing(f"{path}: must be readable (got {error.strerror})") from error
    head.pop("__metadata__", None)
    needed = _PACKED_HEAD + length + _end_of(path, head)
    if needed != size:
        fault = "is cut short" if size < needed else "is too long"
        raise Mismatch(f"{path}: {fault} (needs {needed} bytes, got {size})")
    return head


def _end_of(path: str, head: Mapping[str, Any]) -> int:
    last = 0
    for name, tensor in head.items():
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not (isinstance(offsets, list) and [type(one) for one in offsets] == [int, int]):
            raise Mismatch(f"{path}: tensor {name} must have data_offsets")
        last = max(last, offsets[1])
    return last


def _check_gguf(root: str, path: str) -> None:
    try:
        with open(os.path.join(root, path), "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise Missing(f"{path}: must be readable (got {error.strerror})") from error
    if start != b"GGUF":
        raise Mismatch(f"{path}: must be a GGUF file (got {start!r} as its first bytes)")


def base_of(config: Mapping[str, Any]) -> str | None:
    """Return what a model or an adapter says it was made from; None where it says nothing."""
    for key in ("base_model_name_or_path", "_name_or_path"):
        name = config.get(key)
        if isinstance(name, str) and name.strip(" ./") and name.isprintable():
            return name.strip()[:MAX_NAME]
    return None


def last_part(name: str) -> str:
    """Return what the names of one model have in common."""
    parts = [part for part in name.strip().lower().split("/") if part]
    if parts and _COMMIT.fullmatch(parts[-1]):
        hub = [part for part in parts if part.startswith("models--")]
        if hub:
            return hub[-1].rsplit("--", 1)[-1]
    return parts[-1] if parts else ""


def check_adapter(
    root: str,
    found: Collection[str],
    max_rank: int | None,
    model: Mapping[str, Any],
    names: Collection[str],
) -> Mapping[str, Any]:
    """Return the adapter's configuration.

    Args:
        root: directory of the adapter.
        found: its files, as `weightfiles.sizes` returns them.
        max_rank: highest rank that the engine takes; None: any.
        model: the model's configuration.
        names: further names of the model.

    Raises:
        Mismatch: it is no adapter, is not whole, or is not one of this model.
        Missing: a file went away meanwhile.
    """
    if ADAPTER_CONFIG not in found:
        raise Mismatch(f"adapter must have {ADAPTER_CONFIG} (got {some(found)})")
    config = read_json(root, ADAPTER_CONFIG, MAX_CONFIG_B)
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise Mismatch(f"adapter must be a LoRA (got peft_type {config['peft_type']})")
    _check_ranks(config, max_rank)
    if ADAPTER_WEIGHTS not in found:
        pickled = [name for name in _PICKLED if name in found]
        got = f"{pickled[0]}; save it as safetensors" if pickled else some(found)
        raise Mismatch(f"adapter must have {ADAPTER_WEIGHTS} (got {got})")
    base = base_of({key: config[key] for key in config if key != "_name_or_path"})
    known = {last_part(name) for name in (base_of(model), *names) if name} - {""}
    if base is not None and base_of(model) is not None and last_part(base) not in known:
        raise Mismatch(
            f"adapter must be one of this model, {' or '.join(sorted(known))} (got one of {base})"
        )
    _check_shapes(read_head(root, ADAPTER_WEIGHTS), max_rank, model)
    return config


def _check_ranks(config: Mapping[str, Any], max_rank: int | None) -> None:
    rank = config.get("r")
    if type(rank) is not int or rank < 1:
        raise Mismatch(f"{ADAPTER_CONFIG}: r must be a whole number from 1 (got {rank})")
    pattern = config.get("rank_pattern")
    others = pattern.values() if isinstance(pattern, dict) else ()
    highest = max([rank, *(one for one in others if type(one) is int)])
    if max_rank is not None and highest > max_rank:
        raise Mismatch(f"{ADAPTER_CONFIG}: r must be at most {max_rank} (got {highest})")


def _check_shapes(head: Mapping[str, Any], max_rank: int | None, model: Mapping[str, Any]) -> None:
    """Find an adapter of another model by its sizes: names can be alike, or say nothing."""
    inner = model.get("text_config")
    text = inner if isinstance(inner, dict) else model
    width, layers = text.get("hidden_size", text.get("dim")), text.get("num_hidden_layers")
    layers = text.get("n_layers") if layers is None else layers
    if not head:
        raise Mismatch(f"{ADAPTER_WEIGHTS}: must have tensors")
    for name in sorted(head):
        match, shape = _LAYER.search(name), head[name].get("shape")
        if match is None or "vision" in name or not isinstance(shape, list) or len(shape) != 2:  # noqa: PLR2004 - a matrix
            continue
        if max_rank is not None and type(shape[0]) is int and shape[0] > max_rank:
            raise Mismatch(f"{name}: rank must be at most {max_rank} (got {shape[0]})")
        if type(width) is int and shape[1] != width:
            raise Mismatch(f"{name}: must have the model's width {width} (got {shape[1]})")
        if type(layers) is int and int(match.group(1)) >= layers:
            raise Mismatch(f"{name}: must be of one of the model's {layers} layers")
