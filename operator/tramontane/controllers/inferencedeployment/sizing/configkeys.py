"""Read the keys of a model's configuration, whoever wrote them.

Libraries have many names for one number. Numbers are bounded here, so that no arithmetic behind
it meets a negative width or 10**30 layers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tramontane.api.errors import InvalidValue

Raw = Mapping[str, Any]

# A config.json has some fifty keys; an index of shards that was taken for one has thousands.
MAX_KEYS: Final = 2000
_MOST: Final = 10_000_000
_SHOWN: Final = 60
_PARAMS: Final = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "tied_embeddings": "tie_word_embeddings",
    "vision_encoder": "vision_config",
}
_PARAMS_MOE: Final = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "first_k_dense_replace": "first_k_dense_replace",
    "expert_hidden_dim": "moe_intermediate_size",
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Read numbers from a configuration; null counts as absent, as in the libraries."""

    raw: Raw
    where: str = "model.config"

    def has(self, *names: str) -> bool:
        """Return whether one of the keys is there."""
        return any(self.raw.get(name) is not None for name in names)

    def count(
        self, *names: str, default: int | None = None, least: int = 1, most: int = _MOST
    ) -> int:
        """Return the whole number under the first of these keys that is there.

        Raises:
            InvalidValue: it is no number within the bounds, or absent and without a default.
        """
        for name in names:
            value = self.raw.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                must = f"{self.where}.{name} must be a whole number from {least} to {most}"
                raise InvalidValue(must, shown(value))
            return value
        if default is None:
            got = f"{len(self.raw)} other keys" if self.raw else "no keys"
            raise InvalidValue(
                f"{self.where} must have {names[0]} (got {got})",
                remedy="copy the model's config.json or params.json there whole",
            )
        return default

    def part(self, *names: str) -> "Keys":
        """Return the object under the first of these keys that is there; empty if none is.

        Raises:
            InvalidValue: it is no object.
        """
        for name in names:
            value = self.raw.get(name)
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise InvalidValue(f"{self.where}.{name} must be an object", shown(value))
            return Keys(value, f"{self.where}.{name}")
        return Keys({}, f"{self.where}.{names[0]}")

    def words(self, *names: str) -> tuple[str, ...]:
        """Return the strings under all these keys: lists of modules, mostly."""
        return tuple(self._words(names))

    def _words(self, names: tuple[str, ...]) -> Iterator[str]:
        for name in names:
            value = self.raw.get(name)
            if isinstance(value, list):
                yield from (word for word in value if isinstance(word, str))


def keys_of(config: Raw) -> Keys:
    """Return the keys of a configuration, those of params.json under config.json's names.

    Raises:
        InvalidValue: it is no configuration at all.
    """
    if not isinstance(config, Mapping):
        raise InvalidValue("model.config must be an object", shown(config))
    if len(config) > MAX_KEYS:
        raise InvalidValue(
            f"model.config must have at most {MAX_KEYS} keys",
            len(config),
            "give config.json, not the index of the weights",
        )
    return Keys(_translated(config) if "dim" in config else config)


def _translated(params: Raw) -> dict[str, Any]:
    """Return Mistral's params.json as a config.json."""
    config = {_PARAMS.get(name, name): value for name, value in params.items()}
    moe = Keys(params).part("moe").raw
    config |= {_PARAMS_MOE.get(name, name): value for name, value in moe.items()}
    # yarn here is what rope_scaling is there, without the type.
    if isinstance(yarn := params.get("yarn"), Mapping):
        config["rope_scaling"] = {"rope_type": "yarn", **yarn}
    return config


def shown(value: object) -> object:
    """Return a value for a message: itself, or the beginning of it."""
    text = repr(value)
    return value if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
