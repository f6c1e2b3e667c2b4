"""Say how many bytes a weight takes, by where it is in the model.

Quantization packs the matrices of the layers; embeddings, head and vision encoder stay as they
are, and the attention too where the configuration says so. Scales are counted in.
"""

import re
from dataclasses import dataclass
from typing import Final

from tramontane.api.errors import InvalidValue
from tramontane.controllers.inferencedeployment.sizing.configkeys import Keys, shown

PLAIN_B: Final = 2.0
# 4 bits and a scale of 8 per 16 (NVFP4) or 32 (MXFP4) weights.
_NVFP4_B: Final = 4.5 / 8
_MXFP4_B: Final = 4.25 / 8
_BY_METHOD: Final = {
    "fp8": 1.0,
    "fbgemm_fp8": 1.0,
    "modelopt": 1.0,
    "mxfp4": _MXFP4_B,
    "modelopt_fp4": _NVFP4_B,
    "nvfp4": _NVFP4_B,
}
# llama.cpp's K-quants mix sizes: bits per weight over a whole file, Q4_K_M and its neighbours.
_GGUF_BYTES: Final = {
    bits: mean / 8
    for bits, mean in {2: 3.35, 3: 3.91, 4: 4.85, 5: 5.69, 6: 6.59, 8: 8.5, 16: 16.0}.items()
}
_GROUP: Final = 128
# Words in the names of modules, of the narrowest part first.
_SIGNS: Final = {
    "experts": {"experts"},
    "attention": {"attn", "attention"},
    "mlp": {"mlp", "feed"},
}


@dataclass(frozen=True, slots=True)
class Quantization:
    """Hold bytes per weight.

    Attributes:
        attention, mlp, expert: of the layers' matrices.
        outer: of embeddings, head and vision encoder.
        kv_b: bytes of one value in the KV cache.
        block: a GPU's part of an MLP's width must be a multiple of it; 1 where any will do.
    """

    attention: float = PLAIN_B
    mlp: float = PLAIN_B
    expert: float = PLAIN_B
    outer: float = PLAIN_B
    kv_b: int = 2
    block: int = 1


def read_quantization(config: Keys, text: Keys, *, weighed: bool) -> Quantization:
    """Return the bytes per weight that a configuration tells.

    | quantization_config | bytes |
    |---|---|
    | absent | 2: float32 is served as bfloat16 |
    | fp8, fbgemm_fp8, modelopt FP8 | 1 |
    | modelopt NVFP4, mxfp4 | 0.56, 0.53 |
    | gptq, awq, bitsandbytes, compressed-tensors | of its bits and group size |
    | gguf | of its bits, embeddings too |

    Args:
        config: the whole configuration.
        text: the part of it that describes the language model.
        weighed: whether the bytes of all weights are known anyhow, so that an unknown method does
            no harm.

    Raises:
        InvalidValue: the method is not known.
    """
    holder = text if text.has("quantization_config") else config
    given = holder.part("quantization_config", "quantization")
    if not given.raw:
        return Quantization()
    packed = _packed(given, weighed=weighed)
    ignored = given.words("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
    plain = _plain_parts(ignored, text.count("num_hidden_layers", "n_layer", default=1))
    gguf = _method(given) == "gguf"
    return Quantization(
        attention=PLAIN_B if "attention" in plain else packed,
        mlp=PLAIN_B if "mlp" in plain else packed,
        expert=PLAIN_B if "experts" in plain else packed,
        outer=packed if gguf else PLAIN_B,
        kv_b=_kv_b(given),
        block=_block(given),
    )


def _method(given: Keys) -> str:
    for name in ("quant_method", "quant_algo", "qformat_weight"):
        if isinstance(value := given.raw.get(name), str):
            return value.lower()
    return "compressed-tensors" if given.has("config_groups") else ""


def _packed(given: Keys, *, weighed: bool) -> float:
    method = _method(given)
    algorithm = f"{given.raw.get('quant_algo') or ''} {given.raw.get('format') or ''}".lower()
    found: float | None = None
    if "nvfp4" in algorithm:
        found = _NVFP4_B
    elif method.startswith("fp8") or method in _BY_METHOD:
        found = _BY_METHOD.get(method, 1.0)
    elif method in {"gptq", "awq", "gptq_marlin", "awq_marlin", "auto-round"}:
        found = _grouped(given.count("bits", "w_bit", most=16), _group(given))
    elif method == "bitsandbytes":
        found = _grouped(4, 64) if given.raw.get("load_in_4bit") else 1.0
    elif method in {"compressed-tensors", "compressed_tensors"}:
        found = _compressed(given)
    elif method == "gguf":
        found = _GGUF_BYTES.get(given.count("bits", most=16))
    if found is None and not weighed:
        raise InvalidValue(
            f"{given.where} must have a quant_method and bits that are known",
            shown(given.raw.get("quant_method")),
            "give the bytes of all weights as model.config.weights_b",
        )
    return 1.0 if found is None else found


def _compressed(given: Keys) -> float:
    """Return the bytes of the first group's weights; most files have one group."""
    groups = given.part("config_groups")
    first = next(iter(groups.raw), None)
    if first is None:
        raise InvalidValue(f"{groups.where} must have a group", "none")
    weights = groups.part(first).part("weights")
    bits = weights.count("num_bits", most=16)
    if bits == 4 and weights.raw.get("type") == "float":  # noqa: PLR2004 - FP4
        return _NVFP4_B
    return bits / 8 if bits >= 8 else _grouped(bits, _group(weights))  # noqa: PLR2004 - a byte


def _group(given: Keys) -> int:
    """Return weights per scale; -1 stands for a whole row."""
    size = given.count("group_size", "q_group_size", default=_GROUP, least=-1, most=65536)
    return size if size > 0 else 4096


def _grouped(bits: int, group: int) -> float:
    """Return bytes per weight with a scale of 16 bits and a zero point per group."""
    return (bits + (16 + bits) / group) / 8


def _plain_parts(ignored: tuple[str, ...], layers: int) -> frozenset[str]:
    """Return which of attention, MLPs and experts are not quantized in most layers.

    Patterns name all layers (`model.layers.*.self_attn`, `re:.*self_attn.*`) or one
    (`model.layers.7.self_attn.q_proj`), and a few layers of many change little.
    """
    seen: dict[str, set[str]] = {}
    for pattern in ignored:
        # Routers and shared experts have "mlp" or "experts" in their names, too.
        if re.search(r"gate\b|router|vision|shared", pattern):
            continue
        words = set(re.findall(r"[a-z]+", pattern.replace("_", ".")))
        part = next((name for name, signs in _SIGNS.items() if words & signs), None)
        layer = re.search(r"layers\.(\d+)", pattern)
        if part is not None and (layer or "*" in pattern):
            seen.setdefault(part, set()).add(layer[1] if layer else "*")
    return frozenset(
        part for part, where in seen.items() if "*" in where or len(where) * 2 > layers
    )


def _kv_b(given: Keys) -> int:
    scheme = given.part("kv_cache_scheme")
    algorithm = str(given.raw.get("kv_cache_quant_algo") or "").lower()
    return 1 if scheme.count("num_bits", default=16, most=16) == 8 or "fp8" in algorithm else 2  # noqa: PLR2004 - FP8


def _block(given: Keys) -> int:
    size = given.raw.get("weight_block_size")
    if not isinstance(size, list) or not size or not isinstance(size[0], int):
        return 1
    return max(1, size[0])
