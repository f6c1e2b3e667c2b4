"""What is not whole, or does not fit, is said by name before an engine starts."""

import json
import struct
from pathlib import Path

import pytest

from tramontane.controllers.inferencedeployment.podfiles import weightchecks, weightfiles
from tramontane.controllers.inferencedeployment.podfiles.weightfiles import Mismatch, Missing
from unit.inferencedeployment.modeldirs import (
    CONFIG,
    SHARDS,
    adapter_files,
    model,
    put,
    safetensors,
    without,
)

GGUF = b"GGUF\x03\0\0\0"
FIRST = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
TENSORS = safetensors({"x": [4]})


def check(root: Path, engine: str = "vllm") -> object:
    return weightchecks.check_model(str(root), weightfiles.sizes(str(root)), engine)


def refusal(root: Path, engine: str = "vllm") -> str:
    with pytest.raises(Mismatch) as caught:
        check(root, engine)
    return str(caught.value)


@pytest.mark.parametrize(
    ("files", "engine"),
    [
        (SHARDS, "vllm"),
        (SHARDS, "sglang"),
        ({"params.json": {"dim": 8}, "consolidated.safetensors": TENSORS}, "vllm"),
        ({"config.json": CONFIG, "pytorch_model.bin": b"x"}, "vllm"),
        ({"little.gguf": GGUF}, "llamacpp"),
        ({f"l-0000{i}-of-00002.gguf": GGUF for i in (1, 2)}, "llamacpp"),
        ({"l.gguf": GGUF, "mmproj-l.gguf": GGUF}, "llamacpp"),
        ({"anything": b"x"}, "custom"),
        ({**SHARDS, "adapters/de/adapter_model.safetensors": TENSORS}, "vllm"),
    ],
    ids=[
        "shards",
        "sglang",
        "mistral",
        "bin",
        "gguf",
        "split gguf",
        "projector",
        "custom",
        "beside adapters",
    ],
)
def test_what_can_be_served(tmp_path: Path, files: dict[str, object], engine: str) -> None:
    check(put(tmp_path, files), engine)


@pytest.mark.parametrize(
    ("files", "engine", "message"),
    [
        (without("config.json"), "vllm", "must have config.json or params.json (got "),
        ({"config.json": CONFIG}, "vllm", "must have *.safetensors (got config.json)"),
        (SHARDS, "llamacpp", "must have a .gguf file (got "),
        ({"x.gguf": b"GG"}, "llamacpp", "x.gguf: must be a GGUF file (got b'GG'"),
        (
            {"a.gguf": GGUF, "b.gguf": GGUF},
            "llamacpp",
            "must have one model in .gguf files (got a.gguf, b.gguf)",
        ),
        (
            {"l-00001-of-00003.gguf": GGUF, "l-00003-of-00003.gguf": GGUF},
            "llamacpp",
            "l-00001-of-00003.gguf: is one of 3 files (missing: l-00002-of-00003.gguf)",
        ),
        (without(FIRST), "vllm", f"{INDEX}: names files that must be there (got none of {FIRST})"),
        (without(FIRST, INDEX), "vllm", f"is one of 2 files (missing: {FIRST})"),
        (
            {**SHARDS, "consolidated.safetensors.index.json": {"weight_map": {"a": "../x"}}},
            "vllm",
            "consolidated.safetensors.index.json: names files that must be there",
        ),
        ({**SHARDS, INDEX: {"weight_map": ["a"]}}, "vllm", f"{INDEX}: must have weight_map"),
        ({**SHARDS, INDEX: {"weight_map": {"a": 1}}}, "vllm", f"{INDEX}: must have weight_map"),
        ({**SHARDS, INDEX: b""}, "vllm", f"{INDEX}: must not be empty"),
        (
            {**SHARDS, INDEX: {"weight_map": {"z": FIRST}}},
            "vllm",
            f"{FIRST}: must have the tensors that {INDEX} names (lacks z)",
        ),
    ],
    ids=[
        "no config",
        "no weights",
        "no gguf",
        "cut gguf",
        "two models",
        "missing gguf",
        "missing shard",
        "missing shard, no index",
        "shard elsewhere",
        "index of lists",
        "index of numbers",
        "empty index",
        "tensor elsewhere",
    ],
)
def test_what_is_not_whole(
    tmp_path: Path, files: dict[str, object], engine: str, message: str
) -> None:
    assert message in refusal(put(tmp_path, files), engine)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must not be empty"),
        (b" \n", "must not be empty"),
        (b"{}", "must not be empty (got {})"),
        (b"{", "must be JSON (got "),
        (b"\xff\xfe", "must be JSON (got "),
        (b"[1]", "must be a JSON object (got list)"),
        (b"[" * 200_000, "must be JSON (got too many brackets"),
        (b'{"a": "' + b"x" * (16 << 20) + b'"}', "must be at most 16 MiB (got more)"),
    ],
    ids=["empty", "blank", "nothing", "cut", "no utf-8", "list", "deep", "huge"],
)
@pytest.mark.parametrize("name", ["config.json", "params.json"])
def test_a_bad_config(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    put(tmp_path, {**without("config.json"), name: content})
    assert f"{name}: {message}" in refusal(tmp_path)


HEAD = len(TENSORS) - 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a safetensors file (got 0 bytes)"),
        (TENSORS[:7], "must be a safetensors file (got 7 bytes)"),
        (TENSORS[:20], f"is cut short in its head (needs {HEAD} bytes, got 20)"),
        (TENSORS[:-1], f"is cut short (needs {len(TENSORS)} bytes, got {len(TENSORS) - 1})"),
        (TENSORS + b"x", "is too long"),
        (b"\xff" * 16, "must be a safetensors file (got a head of 18446744073709551615 bytes)"),
        (bytes(16), "must be a safetensors file (got a head of 0 bytes)"),
        (struct.pack("<Q", 4) + b"oops", "head: must be JSON"),
        (struct.pack("<Q", 9) + b'{"x": {}}', "tensor x must have data_offsets"),
        (b"version https://git-lfs.github.com/spec/v1\n", "must be a safetensors file"),
    ],
    ids=["0", "7", "head", "data", "long", "huge head", "zeros", "no json", "no offsets", "lfs"],
)
def test_a_safetensors_file_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    put(tmp_path, {"config.json": CONFIG, "model.safetensors": content})
    said = refusal(tmp_path)
    assert said.startswith("model.safetensors: ")
    assert message in said


@pytest.mark.parametrize("length", range(0, len(TENSORS), 5), ids=str)
def test_every_cut_is_found(tmp_path: Path, length: int) -> None:
    put(tmp_path, {"config.json": CONFIG, "model.safetensors": TENSORS[:length]})
    assert "model.safetensors: " in refusal(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        (".metadata", "__0_0.distcp", "__1_0.distcp"),
        ("model_world_size_8_rank_0.pt", "optim_world_size_8_rank_0.pt"),
        ("global_step9/mp_rank_00_model_states.pt",),
        ("step-100/__0_0.distcp",),
    ],
    ids=["dcp", "fsdp", "deepspeed", "below"],
)
def test_a_trainers_checkpoint_is_to_be_consolidated(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    put(tmp_path, {"config.json": CONFIG} | dict.fromkeys(names, b"x"))
    said = refusal(tmp_path)
    assert "weights must be consolidated (got a trainer's checkpoint: " in said
    assert "save them as safetensors with config.json" in said


def test_a_file_that_goes_away_meanwhile(tmp_path: Path) -> None:
    found = weightfiles.sizes(str(model(tmp_path)))
    (tmp_path / FIRST).unlink()
    with pytest.raises(Missing, match=FIRST):
        weightchecks.check_model(str(tmp_path), found, "vllm")


# adapters


def adapter(
    root: Path,
    files: dict[str, object],
    max_rank: int | None = 16,
    config: dict[str, object] | None = None,
    names: tuple[str, ...] = (),
) -> None:
    put(root, files)
    known = CONFIG if config is None else config
    weightchecks.check_adapter(str(root), weightfiles.sizes(str(root)), max_rank, known, names)


@pytest.mark.parametrize(
    ("base", "config", "names"),
    [
        ("org/Little-1B", CONFIG, ()),
        ("/models/little-1b/", CONFIG, ()),
        ("/hub/models--org--Little-1B/snapshots/" + "a" * 40, CONFIG, ()),
        (None, CONFIG, ()),
        ("", CONFIG, ()),
        ("anything", {"hidden_size": 8}, ()),
        ("/checkpoints/final", CONFIG, ("claims/final/",)),
        (
            "org/Little-1B",
            {"_name_or_path": "org/Little-1B", "text_config": {"hidden_size": 8}},
            (),
        ),
        ("x", {"dim": 8, "n_layers": 2}, ()),
    ],
    ids=[
        "same",
        "path",
        "hub",
        "says nothing",
        "empty",
        "model says nothing",
        "where it lies",
        "with eyes",
        "mistral",
    ],
)
def test_an_adapter_of_this_model(
    tmp_path: Path, base: str | None, config: dict[str, object], names: tuple[str, ...]
) -> None:
    adapter(tmp_path, adapter_files(base=base), config=config, names=names)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            adapter_files(base="org/Other-7B"),
            "adapter must be one of this model, little-1b (got one of org/Other-7B)",
        ),
        (adapter_files(rank=32), "r must be at most 16 (got 32)"),
        (adapter_files(width=16), "lora_A.weight: must have the model's width 8 (got 16)"),
        (adapter_files(layer=2), "must be of one of the model's 2 layers"),
        (
            {**adapter_files(rank=32), "adapter_config.json": {"r": 8}},
            "lora_A.weight: rank must be at most 16 (got 32)",
        ),
        (
            {**adapter_files(), "adapter_config.json": {"r": 8, "rank_pattern": {"q": 64}}},
            "r must be at most 16 (got 64)",
        ),
        ({**adapter_files(), "adapter_config.json": {"r": 0}}, "r must be a whole number from 1"),
        ({**adapter_files(), "adapter_config.json": {"r": "8"}}, "r must be a whole number"),
        ({**adapter_files(), "adapter_config.json": {"r": True}}, "r must be a whole number"),
        (
            {**adapter_files(), "adapter_config.json": {"r": 8, "peft_type": "IA3"}},
            "adapter must be a LoRA (got peft_type IA3)",
        ),
        ({**adapter_files(), "adapter_config.json": b""}, "adapter_config.json: must not be empty"),
        ({"adapter_model.safetensors": TENSORS}, "adapter must have adapter_config.json (got "),
        (
            {"adapter_config.json": {"r": 8}},
            "adapter must have adapter_model.safetensors (got adapter_config.json)",
        ),
        (
            {"adapter_config.json": {"r": 8}, "adapter_model.bin": b"x"},
            "(got adapter_model.bin; save it as safetensors)",
        ),
        (
            {"adapter_config.json": {"r": 8}, "adapter_model.safetensors": TENSORS[:-1]},
            "adapter_model.safetensors: is cut short",
        ),
        (
            {"adapter_config.json": {"r": 8}, "adapter_model.safetensors": safetensors({})},
            "adapter_model.safetensors: must have tensors",
        ),
    ],
    ids=[
        "other base",
        "rank",
        "width",
        "layer",
        "rank of tensors",
        "rank of a layer",
        "rank 0",
        "rank of text",
        "rank true",
        "no lora",
        "empty config",
        "no config",
        "no weights",
        "pickle",
        "cut",
        "no tensors",
    ],
)
def test_an_adapter_that_does_not_fit(
    tmp_path: Path, files: dict[str, object], message: str
) -> None:
    with pytest.raises(Mismatch) as caught:
        adapter(tmp_path, files)
    assert message in str(caught.value)


def test_without_a_highest_rank_any_is_taken(tmp_path: Path) -> None:
    adapter(tmp_path, adapter_files(rank=512), max_rank=None)


@pytest.mark.parametrize(
    ("config", "base"),
    [
        ({"_name_or_path": "org/x"}, "org/x"),
        ({"base_model_name_or_path": "b", "_name_or_path": "org/x"}, "b"),
        ({"_name_or_path": ""}, None),
        ({"_name_or_path": "./"}, None),
        ({"_name_or_path": 7}, None),
        ({"_name_or_path": "a\nb"}, None),
        ({"_name_or_path": "x" * 999}, "x" * 256),
        ({}, None),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_what_it_was_made_from(config: dict[str, object], base: str | None) -> None:
    assert weightchecks.base_of(config) == base
