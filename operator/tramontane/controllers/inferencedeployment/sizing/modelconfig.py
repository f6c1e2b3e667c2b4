"""Read from config.json or params.json what sizing must know of a model.

Parameters are counted from the widths, as the architectures publish them; norms and biases are
left out, being less than a thousandth. What a configuration leaves open is taken for the worse.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from tramontane.api.errors import InvalidValue
from tramontane.controllers.inferencedeployment.sizing.configkeys import Keys, keys_of, shown
from tramontane.controllers.inferencedeployment.sizing.quantization import (
    Quantization,
    read_quantization,
)

# These have two matrices in an MLP; all others have a gate, too.
_UNGATED: Final = frozenset(
    {"gpt2", "opt", "gpt_neox", "falcon", "phi", "bloom", "starcoder2", "gpt_bigcode", "gptj"}
)
# Frequency scalings after which max_position_embeddings is already the longer context.
_SCALED: Final = frozenset({"", "default", "llama3", "su", "longrope", "mrope", "proportional"})
_MOST_WEIGHTS_B: Final = 1 << 50
_MOST_FACTOR: Final = 10_000


@dataclass(frozen=True, slots=True)
class Model:
    """Hold what sizing must know of a model.

    Attributes:
        kv_heads: key and value heads; 1 with MLA, whose latent no tensor rank can split.
        kv_values: values that one layer keeps per token: 2·kv_heads·head_dim, or the latent.
        kv_value_b: bytes of one of them.
        max_context: the longest request and answer together; 0 where it is not told.
        widths: MLP widths that tensor ranks divide; `expert_width` that of a routed expert.
        block: a rank's part of a width must be a multiple of it.
        body_b: weights of all layers but for routed experts, which are `expert_b`.
        input_b: embeddings and vision encoder; `output_b`: the head.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    kv_values: int
    mla: bool
    vocabulary: int
    max_context: int
    widths: tuple[int, ...]
    body_b: int
    input_b: int
    output_b: int
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    expert_b: int = 0
    block: int = 1
    kv_value_b: int = 2

    @property
    def weights_b(self) -> int:
        """Return the bytes of all weights."""
        return self.body_b + self.expert_b + self.input_b + self.output_b

    @property
    def kv_token_b(self) -> int:
        """Return the bytes that all layers keep per token."""
        return self.layers * self.kv_values * self.kv_value_b

    @property
    def attention(self) -> str:
        """Return the kind of attention: MLA, MHA, MQA or GQA."""
        if self.mla:
            return "MLA"
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else "GQA"

    def weighing(self, weights_b: int) -> Self:
        """Return the model with so many bytes of weights, its parts in proportion."""
        scale = weights_b / self.weights_b
        body_b, expert_b, output_b = (
            int(part * scale) for part in (self.body_b, self.expert_b, self.output_b)
        )
        return replace(
            self,
            body_b=body_b,
            expert_b=expert_b,
            output_b=output_b,
            input_b=weights_b - body_b - expert_b - output_b,
        )


@dataclass(frozen=True, slots=True)
class _Experts:
    count: int = 0
    per_token: int = 0
    width: int = 0
    shared_width: int = 0
    layers: int = 0


def read_model(config: Mapping[str, Any]) -> Model:
    """Return the model that a config.json (Hugging Face) or params.json (Mistral) describes.

    `weights_b` beside its keys is the bytes of all weights, where they are known better.

    Raises:
        InvalidValue: a number that sizing needs is missing, or is none.
    """
    whole = keys_of(config)
    nested = whole.part("text_config", "llm_config", "language_config")
    text = Keys({**whole.raw, **nested.raw}, nested.where if nested.raw else whole.where)
    weights_b = known_weights_b(config)
    quantization = read_quantization(whole, text, weighed=weights_b is not None)
    layers = text.count("num_hidden_layers", "n_layer", "num_layers", "n_layers", most=10_000)
    hidden = text.count("hidden_size", "n_embd", "d_model", most=1_000_000)
    experts = _experts(text, layers)
    model = _attention(text, layers, hidden, quantization)
    width = text.count(
        "intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden
    )
    dense = layers - experts.layers
    matrices = 2 if str(text.raw.get("model_type")) in _UNGATED else 3
    mlp = matrices * hidden * (dense * width + experts.layers * experts.shared_width)
    routers = experts.layers * hidden * experts.count
    routed = experts.layers * experts.count * matrices * hidden * experts.width
    model = replace(
        model,
        widths=tuple(one for one in (width if dense else 0, experts.shared_width) if one),
        body_b=model.body_b + int(mlp * quantization.mlp + routers * quantization.outer),
        experts=experts.count,
        experts_per_token=experts.per_token,
        expert_width=experts.width,
        expert_b=int(routed * quantization.expert),
        input_b=model.input_b + int(_vision(whole) * quantization.outer),
    )
    return model if weights_b is None else model.weighing(weights_b)


def known_weights_b(config: Mapping[str, Any]) -> int | None:
    """Return the bytes of all weights, where the configuration has `weights_b`."""
    keys = keys_of(config)
    return keys.count("weights_b", most=_MOST_WEIGHTS_B) if keys.has("weights_b") else None


def _attention(text: Keys, layers: int, hidden: int, quantization: Quantization) -> Model:
    """Return the model with attention, embeddings and head, and nothing of its MLPs."""
    heads = text.count("num_attention_heads", "n_head", most=100_000)
    latent = text.count("kv_lora_rank", default=0, least=0)
    if latent:
        rope = text.count("qk_rope_head_dim", least=0)
        nope, value = text.count("qk_nope_head_dim"), text.count("v_head_dim")
        rank = text.count("q_lora_rank", default=0, least=0)
        queries = heads * (nope + rope)
        per_layer = (
            (rank * (hidden + queries) if rank else hidden * queries)
            + hidden * (latent + rope)
            + latent * heads * (nope + value)
            + heads * value * hidden
        )
        kv_heads, kv_values = 1, latent + rope
    else:
        head = text.count("head_dim", "kv_channels", default=max(1, hidden // heads))
        one = text.raw.get("multi_query") is True
        kv_heads = text.count("num_key_value_heads", "num_kv_heads", default=1 if one else heads)
        if kv_heads > heads or heads % kv_heads:
            must = f"{text.where}.num_key_value_heads must divide the {heads} heads"
            raise InvalidValue(must, kv_heads)
        per_layer = 2 * hidden * head * (heads + kv_heads)
        kv_values = 2 * kv_heads * head
    vocabulary = text.count("vocab_size", "padded_vocab_size", most=100_000_000)
    tied = text.raw.get("tie_word_embeddings") is True
    return Model(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        kv_values=kv_values,
        mla=bool(latent),
        vocabulary=vocabulary,
        max_context=_max_context(text),
        widths=(),
        body_b=int(layers * per_layer * quantization.attention),
        input_b=int(vocabulary * hidden * quantization.outer),
        output_b=0 if tied else int(vocabulary * hidden * quantization.outer),
        block=quantization.block,
        kv_value_b=quantization.kv_b,
    )


def _experts(text: Keys, layers: int) -> _Experts:
    count = text.count(
        "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts",
        default=0, least=0, most=100_000,
    )  # fmt: skip
    if count <= 1:
        return _Experts()
    width = text.count("moe_intermediate_size", "intermediate_size")
    always = 1 if str(text.raw.get("model_type")).startswith("llama4") else 0
    shared = text.count(
        "n_shared_experts", "num_shared_experts", default=always, least=0, most=10_000
    )
    return _Experts(
        count,
        text.count(
            "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", most=count
        ),
        width,
        text.count("shared_expert_intermediate_size", default=shared * width, least=0),
        _sparse_layers(text, layers),
    )


def _sparse_layers(text: Keys, layers: int) -> int:
    """Return the layers that have experts."""
    if isinstance(pattern := text.raw.get("moe_layer_freq"), list):
        return min(layers, sum(1 for one in pattern if one))
    first = text.count("first_k_dense_replace", default=0, least=0)
    step = text.count(
        "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", default=1
    )
    never = text.raw.get("mlp_only_layers")
    never = never if isinstance(never, list) else []
    return sum(
        1 for layer in range(first, layers) if (layer + 1) % step == 0 and layer not in never
    )


def _vision(whole: Keys) -> int:
    """Return the parameters of the vision encoder, 0 without one."""
    vision = whole.part("vision_config")
    if not vision.has("hidden_size") or not vision.has("num_hidden_layers", "depth"):
        return 0
    hidden = vision.count("hidden_size")
    width = vision.count("intermediate_size", default=4 * hidden)
    return vision.count("num_hidden_layers", "depth") * hidden * (4 * hidden + 3 * width)


def _max_context(text: Keys) -> int:
    """Return the longest context as engines derive it; 0 where nothing tells it.

    Yarn multiplies the context that the model was trained with, other scalings what is written.
    """
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
    written = text.count(*names, default=0, most=1_000_000_000)
    rope = text.part("rope_scaling", "rope_parameters")
    kind = str(rope.raw.get("rope_type") or rope.raw.get("type") or "")
    factor = rope.raw.get("factor", 1)
    if kind in _SCALED:
        return written
    if not isinstance(factor, int | float) or not 1 <= factor <= _MOST_FACTOR:
        must = f"{rope.where}.factor must be a number from 1 to {_MOST_FACTOR}"
        raise InvalidValue(must, shown(factor))
    if kind == "yarn":
        trained = rope.count("original_max_position_embeddings", default=written, least=0)
        # Some write the longer context, some the shorter one; the library takes the product.
        return max(int(trained * factor), written)
    return int(written * factor)
