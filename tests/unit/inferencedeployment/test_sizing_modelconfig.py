"""What is read from config.json and params.json: weights, KV cache, longest context."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tramontane.api.errors import InvalidValue
from tramontane.controllers.inferencedeployment.sizing.modelconfig import Model, read_model
from unit.inferencedeployment.sizes import GIB, MODELS, config, model

# Published weights (GiB), KV cache per token (KiB), attention, longest context.
PUBLISHED = [
    ("ministral-3-3b-fp8", 4.35, 104, "GQA", 262_144),
    ("ministral-3-8b-fp8", 9.70, 136, "GQA", 262_144),
    ("ministral-3-14b-fp8", 14.65, 160, "GQA", 262_144),
    ("mixtral-8x7b", 87.0, 128, "GQA", 32_768),
    ("mixtral-8x22b", 261.9, 224, "GQA", 65_536),
    ("llama-3.3-70b", 131.4, 320, "GQA", 131_072),
    ("llama-3.3-70b-fp8", 67.7, 320, "GQA", 131_072),
    ("mistral-small-4-119b-fp8", 112.63, 22.5, "MLA", 1_048_576),
    ("mistral-medium-3.5-128b-fp8", 124.4, 352, "GQA", 262_144),
    ("mistral-large-3-fp8", 634.70, 68.625, "MLA", 294_912),
    ("mistral-large-3-nvfp4", 358, 68.625, "MLA", 294_912),
    # 671 billion parameters, 1.87 of them twice as wide; 235.1 billion; 65.2 GB.
    ("deepseek-v3-fp8", 626.7, 68.625, "MLA", 163_840),
    ("qwen3-235b-a22b-fp8", 220.2, 188, "GQA", 40_960),
    ("gpt-oss-120b", 60.7, 72, "GQA", 131_072),
]
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 1000,
}


def small(**changes: Any) -> Model:
    return read_model({**SMALL, **changes})


@pytest.mark.parametrize(
    ("name", "weights_gib", "kv_kib", "attention", "longest"), PUBLISHED, ids=str
)
def test_published_models(
    name: str, weights_gib: float, kv_kib: float, attention: str, longest: int
) -> None:
    found = model(name)
    assert found.weights_b / GIB == pytest.approx(weights_gib, rel=0.01)
    assert found.kv_token_b / 1024 == kv_kib
    assert found.attention == attention
    assert found.max_context == longest


def test_every_model_is_checked() -> None:
    assert {path.stem for path in MODELS.glob("*.json")} == {row[0] for row in PUBLISHED}


@pytest.mark.parametrize(
    ("changes", "attention", "kv_b"),
    [
        pytest.param({}, "MHA", 2 * 2 * 64 * 2, id="as many KV heads as heads"),
        pytest.param({"num_key_value_heads": 2}, "GQA", 2 * 2 * 32 * 2, id="fewer"),
        pytest.param({"num_key_value_heads": 1}, "MQA", 2 * 2 * 16 * 2, id="one"),
        pytest.param({"multi_query": True}, "MQA", 2 * 2 * 16 * 2, id="one, in older words"),
        pytest.param(
            {"num_key_value_heads": None, "head_dim": 32}, "MHA", 2 * 2 * 128 * 2, id="null, wide"
        ),
        pytest.param(
            {
                "kv_lora_rank": 32,
                "qk_rope_head_dim": 8,
                "qk_nope_head_dim": 16,
                "v_head_dim": 16,
            },
            "MLA",
            2 * 40 * 2,
            id="latent",
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8}}},
            "MHA",
            2 * 2 * 64,
            id="cache of 8 bits",
        ),
    ],
)
def test_attention_and_its_cache(changes: dict[str, Any], attention: str, kv_b: int) -> None:
    found = small(**changes)
    assert found.attention == attention
    assert found.kv_token_b == kv_b


# Of the two layers: 4·64·64 of attention and 3·64·256 of MLP each.
ATTENTION, MLP, OUTER = 2 * 4 * 64 * 64, 2 * 3 * 64 * 256, 2 * 1000 * 64
LISTED = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(2)]
GROUPS = {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}


@pytest.mark.parametrize(
    ("quantization", "attention_b", "mlp_b"),
    [
        pytest.param({"quant_method": "fp8"}, 1, 1, id="fp8"),
        pytest.param({"quant_method": "fbgemm_fp8"}, 1, 1, id="fbgemm"),
        pytest.param({"quant_method": "modelopt", "quant_algo": "FP8"}, 1, 1, id="modelopt"),
        pytest.param(
            {"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5625, 0.5625, id="nvfp4"
        ),
        pytest.param({"quant_method": "mxfp4"}, 0.53125, 0.53125, id="mxfp4"),
        pytest.param(
            {"quant_method": "awq", "bits": 4, "group_size": 128}, 0.5195, 0.5195, id="awq"
        ),
        pytest.param(
            {"quant_method": "gptq", "bits": 8, "group_size": -1}, 1.0, 1.0, id="gptq, whole rows"
        ),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.539, 0.539, id="bnb"
        ),
        pytest.param(
            {"quant_method": "compressed-tensors", "config_groups": GROUPS}, 0.52, 0.52, id="w4a16"
        ),
        pytest.param(
            {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.*.self_attn"]},
            2,
            1,
            id="attention is plain by a pattern",
        ),
        pytest.param(
            {"quant_method": "fp8", "ignored_layers": LISTED}, 2, 1, id="attention, layer by layer"
        ),
        pytest.param(
            {"quant_method": "fp8", "ignored_layers": LISTED[:1]}, 1, 1, id="one layer of two"
        ),
        pytest.param({"quant_method": "fp8", "ignore": ["re:.*gate$"]}, 1, 1, id="routers only"),
    ],
)
def test_bytes_per_weight(quantization: dict[str, Any], attention_b: float, mlp_b: float) -> None:
    found = small(quantization_config=quantization)
    assert found.body_b == pytest.approx(ATTENTION * attention_b + MLP * mlp_b, rel=0.01)
    assert found.input_b + found.output_b == OUTER * 2


def test_gguf_packs_all_of_it() -> None:
    found = small(quantization_config={"quant_method": "gguf", "bits": 4})
    assert found.weights_b == pytest.approx((ATTENTION + MLP + OUTER) * 4.85 / 8, rel=0.001)


def test_tied_embeddings_count_once() -> None:
    assert small().weights_b - small(tie_word_embeddings=True).weights_b == 1000 * 64 * 2


def test_known_weights_come_before_the_arithmetic() -> None:
    found = read_model(config("mistral-large-3-fp8", weights_b=700 * GIB))
    assert found.weights_b == 700 * GIB
    usual = model("mistral-large-3-fp8")
    assert found.expert_b / found.weights_b == pytest.approx(usual.expert_b / usual.weights_b)


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        pytest.param({}, 4, id="all"),
        pytest.param({"first_k_dense_replace": 1}, 3, id="but the first"),
        pytest.param({"decoder_sparse_step": 2}, 2, id="every other"),
        pytest.param({"mlp_only_layers": [0, 3]}, 2, id="but some"),
        pytest.param({"moe_layer_freq": [0, 1, 1, 0]}, 2, id="as listed"),
    ],
)
def test_layers_with_experts(changes: dict[str, Any], layers: int) -> None:
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    found = small(num_hidden_layers=4, **experts, **changes)
    assert found.expert_b == layers * 8 * 3 * 64 * 32 * 2


@pytest.mark.parametrize(
    ("rope", "longest"),
    [
        pytest.param(None, 4096, id="none"),
        pytest.param({"rope_type": "llama3", "factor": 8.0}, 4096, id="llama3: already longer"),
        pytest.param({"type": "linear", "factor": 2}, 8192, id="linear"),
        pytest.param(
            {"type": "yarn", "factor": 4, "original_max_position_embeddings": 4096},
            16_384,
            id="yarn, from the shorter",
        ),
        pytest.param(
            {"type": "yarn", "factor": 4, "original_max_position_embeddings": 1024},
            4096,
            id="yarn, already longer",
        ),
        pytest.param(
            {"full_attention": {"rope_type": "default"}}, 4096, id="one per kind of layer"
        ),
    ],
)
def test_longest_context(rope: Any, longest: int) -> None:
    assert small(max_position_embeddings=4096, rope_scaling=rope).max_context == longest


@pytest.mark.parametrize(
    ("given_config", "message"),
    [
        pytest.param({}, "must have num_hidden_layers (got no keys); copy the model's", id="empty"),
        pytest.param({"a": 1}, "must have num_hidden_layers (got 1 other keys)", id="another file"),
        pytest.param(["a"], "must be an object", id="a list"),
        pytest.param(
            {f"layers.{i}": 0 for i in range(5000)},
            "must have at most 2000 keys (got 5000); give config.json, not the index",
            id="huge",
        ),
        pytest.param({**SMALL, "num_hidden_layers": 10**30}, "from 1 to 10000", id="huge number"),
        pytest.param({**SMALL, "hidden_size": -4}, "hidden_size must be a whole", id="negative"),
        pytest.param({**SMALL, "vocab_size": "32k"}, "vocab_size must be a whole", id="a word"),
        pytest.param({**SMALL, "vocab_size": True}, "vocab_size must be a whole", id="a truth"),
        pytest.param({**SMALL, "text_config": 5}, "text_config must be an object", id="no part"),
        pytest.param(
            {**SMALL, "num_key_value_heads": 3}, "must divide the 4 heads (got 3)", id="KV heads"
        ),
        pytest.param(
            {**SMALL, "quantization_config": {"quant_method": "magic"}},
            "give the bytes of all weights as model.config.weights_b",
            id="unknown quantization",
        ),
        pytest.param(
            {**SMALL, "rope_scaling": {"type": "yarn", "factor": float("inf")}},
            "factor must be a number from 1",
            id="endless",
        ),
        pytest.param({**SMALL, "kv_lora_rank": 32}, "must have qk_rope_head_dim", id="half an MLA"),
    ],
)
def test_bad_configurations_are_refused(given_config: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_model(given_config)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_unknown_quantization_does_no_harm_where_the_weights_are_known() -> None:
    assert small(quantization_config={"quant_method": "magic"}, weights_b=10**6).weights_b == 10**6


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = sorted(
    {key for path in MODELS.glob("*.json") for key in config(path.stem)}
    | {"rope_scaling", "moe_layer_freq", "mlp_only_layers", "weights_b", "n_embd", "depth"}
)


@given(
    name=st.sampled_from([row[0] for row in PUBLISHED]),
    changes=st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=4),
)
@example(name="mixtral-8x7b", changes={"model_type": []})
def test_junk_is_refused_and_never_breaks_it(name: str, changes: dict[str, Any]) -> None:
    try:
        found = read_model(config(name) | changes)
    except InvalidValue:
        return
    assert found.weights_b > 0
    assert found.kv_token_b > 0
