"""Which engine, in which version, an image has; and what is not known of it."""

import pytest

from tramontane.api.inferencedeployment import Engine, EngineName
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.engines.catalogue import (
    EngineData,
    engine_of,
    known_versions,
)
from tramontane.controllers.inferencedeployment.engines.launch import (
    Launch,
    ModelFormat,
    cannot,
    format_of_config,
    format_of_files,
)
from tramontane.controllers.inferencedeployment.layout import Layout, Refusal
from unit.inferencedeployment.engines import a_launch, an_engine, data

DIGEST = "@sha256:" + "0" * 64

FOUND = {
    "from the spec": ("vllm", "0.32", "hall/vllm", "vllm 0.32"),
    "from the spec, with a patch release": ("vllm", "0.32.4", "hall/vllm", "vllm 0.32"),
    "from the spec, with a v": ("vllm", "v0.31.0", "hall/vllm", "vllm 0.31"),
    "the spec before the tag": ("vllm", "0.31", "hall/vllm:0.32", "vllm 0.31"),
    "from the tag": ("vllm", None, "hall/vllm:0.33.0", "vllm 0.33"),
    "from the tag beside a digest": ("vllm", None, "hall/vllm:v0.32.0" + DIGEST, "vllm 0.32"),
    "from the tag, with what it was built for": ("vllm", None, "h/v:v0.32.0-cu130", "vllm 0.32"),
    "from the tag, behind a word": ("vllm", None, "hall/vllm:openai-v0.32.0", "vllm 0.32"),
    "from the tag, not that of CUDA": ("vllm", None, "h/v:cuda12.9-0.32.0", "vllm 0.32"),
    "not from the registry's port": ("vllm", None, "10.0.0.1:5000/vllm:0.33", "vllm 0.33"),
    "a post release": ("sglang", "0.5.22.post1", "hall/sglang", "sglang 0.5.22"),
    "an own build": ("sglang", "0.5.23+hall.3", "hall/sglang", "sglang 0.5.23"),
    "a release that is not there yet": ("vllm", "0.33.0rc1", "hall/vllm", "vllm 0.33"),
    "llama-server": ("llamacpp", "0.5.0", "hall/llama", "llamacpp 0.5"),
    "llama-cpp-python by version": ("llamacpp", "python-0.3.36", "h/l", "llamacpp-python 0.3"),
    "llama-cpp-python by image": (
        "llamacpp", None, "hall/llama-cpp-python:0.3.36", "llamacpp-python 0.3",
    ),
    "llama-cpp-python by image, with its version": (
        "llamacpp", "0.3.36", "hall/llama-cpp-python", "llamacpp-python 0.3",
    ),
    "llama-server in an image of that name": (
        "llamacpp", "0.5", "hall/llama-cpp-python:1", "llamacpp 0.5",
    ),
    "custom, whatever the version": ("custom", "7", "hall/mine", "custom"),
    "custom without a version": ("custom", None, "hall/mine", "custom"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "version", "image", "wanted"), FOUND.values(), ids=FOUND)
def test_the_version_is_found(name: str, version: str | None, image: str, wanted: str) -> None:
    found = engine_of(Engine(name=EngineName(name), version=version, image=image))
    assert isinstance(found, EngineData)
    assert str(found) == wanted
    assert found.name is EngineName(name)


UNKNOWN = {
    "newer": ("vllm", "0.99", "hall/vllm", 'got "0.99"'),
    "older": ("vllm", None, "hall/vllm:v0.6.3", 'got "0.6.3"'),
    "no version, by digest": ("vllm", None, "hall/vllm" + DIGEST, "none in the tag"),
    "no version, no tag": ("vllm", None, "hall:5000/vllm", "none in the tag"),
    "a tag that says nothing": ("vllm", None, "hall/vllm:latest", "none in the tag"),
    "a date is no version": ("vllm", None, "hall/vllm:20261101", "none in the tag"),
    "a word in the spec": ("vllm", "newest", "hall/vllm:0.32", 'got "newest"'),
    "not exact enough": ("sglang", "0.5", "hall/sglang", 'got "0.5"'),
    "between two that are known": ("sglang", "0.5.21", "hall/sglang", "0.5.22, 0.5.23"),
    "a build number": ("llamacpp", "b9999", "hall/llama", 'got "b9999"'),
    "of llama-cpp-python": ("llamacpp", "python-0.2", "hall/llama", ": 0.5, python-0.3 (got"),
}


@pytest.mark.parametrize(("name", "version", "image", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_refused_with_what_is(
    name: str, version: str | None, image: str, words: str
) -> None:
    found = engine_of(Engine(name=EngineName(name), version=version, image=image))
    assert isinstance(found, Refusal)
    assert found.reason == InferenceReason.MISCONFIGURED
    assert words in found.message
    assert "use engine custom" in found.message


def test_a_refusal_says_what_must_be_what_is_and_what_to_do() -> None:
    found = engine_of(an_engine(version="0.30"))
    assert isinstance(found, Refusal)
    assert found.message == (
        "spec.engine.version must be one of vllm whose flags are known: 0.31, 0.32, 0.33 "
        '(got "0.30"); set it to what the image has, or use engine custom with the command in '
        "spec.template"
    )


def test_versions_come_in_order_of_their_numbers() -> None:
    assert known_versions("vllm") == ["0.31", "0.32", "0.33"]
    assert known_versions("sglang") == ["0.5.22", "0.5.23"]
    assert known_versions("nobody") == []


TOLD = {
    "vllm": ("vllm", "0.32", (True, "vllm", "VLLM_ENGINE_READY_TIMEOUT_S", "/health")),
    "sglang": ("sglang", "0.5.23", (True, "none", "SGLANG_WARMUP_TIMEOUT", "/health")),
    "llamacpp": ("llamacpp", "0.5", (False, "none", "", "/health")),
    "llamacpp-python": ("llamacpp", "python-0.3", (False, "none", "", "/v1/models")),
    "custom": ("custom", None, (False, "none", "", "/health")),
}


@pytest.mark.parametrize(("name", "version", "told"), TOLD.values(), ids=TOLD)
def test_what_the_agent_is_told(
    name: str, version: str | None, told: tuple[bool, str, str, str]
) -> None:
    found = data(name, version)
    ours = (found.drains_itself, found.lora, found.ready_variable, found.health_path)
    assert ours == told
    assert (found.steps_metric, found.busy_metrics) == (found.metrics.steps, found.metrics.busy)


CANNOT = {
    "llamacpp on two blades": ("llamacpp", a_launch(layout=Layout(2, nodes=2)), "one blade"),
    "llamacpp twice": ("llamacpp", a_launch(layout=Layout(data=2)), "one blade"),
    "adapters with sglang": ("sglang", a_launch(adapters=2), "use engine vllm"),
    "adapters with custom": ("custom", a_launch(adapters=1), "adapters must be empty"),
    "an adapter of huge rank": ("vllm", a_launch(adapters=1, max_lora_rank=513), "rank 512"),
    "sglang's copies on two blades": (
        "sglang", a_launch(layout=Layout(8, data=2, nodes=2)), "expert: true",
    ),
    "a data parallel group cut by a blade's edge": (
        "vllm", a_launch(layout=Layout(2, data=3, nodes=2)), "whole data parallel groups",
    ),
    "a name like a flag": ("vllm", a_launch(served_name="--trust-remote-code"), "servedName"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "launch", "words"), CANNOT.values(), ids=CANNOT)
def test_what_an_engine_cannot_do_is_said_before_it_starts(
    name: str, launch: Launch, words: str
) -> None:
    versions = {"vllm": "0.32", "sglang": "0.5.23", "llamacpp": "0.5"}
    assert words in (cannot(data(name, versions.get(name)), launch) or "")


CAN = {
    "adapters with vllm": ("vllm", a_launch(adapters=1, max_lora_rank=512)),
    "sglang's attention over blades": (
        "sglang", a_launch(layout=Layout(8, data=2, expert=True, nodes=2)),
    ),
    "custom without a command, which comes with the pod": ("custom", a_launch()),
    "groups over whole blades": ("vllm", a_launch(layout=Layout(16, data=2, nodes=4))),
}  # fmt: skip


@pytest.mark.parametrize(("name", "launch"), CAN.values(), ids=CAN)
def test_what_an_engine_can_do(name: str, launch: Launch) -> None:
    versions = {"vllm": "0.32", "sglang": "0.5.23", "llamacpp": "0.5"}
    assert cannot(data(name, versions.get(name)), launch) is None


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["config.json", "model-00001-of-00002.safetensors"], ModelFormat.HF),
        (["params.json", "consolidated.safetensors", "tekken.json"], ModelFormat.MISTRAL),
        (["params.json", "consolidated-00001-of-00002.safetensors"], ModelFormat.MISTRAL),
        (["params.json", "config.json", "consolidated.safetensors"], ModelFormat.MISTRAL),
        (["params.json", "config.json", "model.safetensors"], ModelFormat.HF),
        (["params.json", "model.safetensors"], ModelFormat.AUTO),
        (["config.json", "consolidated.safetensors"], ModelFormat.AUTO),
        (["m-q4.gguf"], ModelFormat.GGUF),
        ([], ModelFormat.AUTO),
    ],
    ids=["hf", "mistral", "in shards", "both", "saved by Transformers", "half", "half, too", "gguf",
         "nothing"],
)  # fmt: skip
def test_the_format_of_weights_by_their_files(names: list[str], wanted: ModelFormat) -> None:
    assert format_of_files(names) is wanted


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "mistral", "num_hidden_layers": 2}, ModelFormat.HF),
        ({"dim": 4096, "n_layers": 32}, ModelFormat.MISTRAL),
        ({"vocab_size": 7}, ModelFormat.AUTO),
        (None, ModelFormat.AUTO),
    ],
    ids=["hf", "params", "silent", "none"],
)
def test_the_format_of_weights_by_their_config(
    config: dict[str, object] | None, wanted: ModelFormat
) -> None:
    assert format_of_config(config) is wanted


@pytest.mark.parametrize(("asked", "rank"), [(1, 1), (2, 8), (16, 16), (17, 32), (512, 512)])
def test_a_rank_is_rounded_up_to_one_that_vllm_takes(asked: int, rank: int) -> None:
    assert a_launch(max_lora_rank=asked).lora_rank == rank
