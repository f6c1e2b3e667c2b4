"""Load and unload LoRA adapters, with the checks and the errors of vLLM."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import logs
from .asks import Refused

_PLACE = "serving.py:222"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")


@dataclass(slots=True)
class Adapters:
    """Hold the adapters that requests can ask for.

    Attributes:
        names: of the base model.
        is_enabled: whether the engine was started with --enable-lora.
        loaded: path and time of loading, by name.
    """

    names: tuple[str, ...]
    is_enabled: bool
    max_rank: int
    loaded: dict[str, tuple[str, int]] = field(default_factory=dict)

    def check(self, body: Mapping[str, Any]) -> tuple[str, str]:
        """Return name and path of an adapter that can be loaded.

        Raises:
            Refused: it cannot; with vLLM's status and text.
        """
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            raise _user("Both 'lora_name' and 'lora_path' must be provided.")
        name, path = str(name), str(path)
        if name in self.names:
            raise _user(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.loaded and not body.get("load_inplace"):
            raise _user(
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True."
            )
        if not self.is_enabled:
            raise _engine("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        self._check_files(name, Path(path))
        return name, path

    def _check_files(self, name: str, folder: Path) -> None:
        try:
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        except OSError as error:
            message = f"Loading lora {name} failed: No adapter found for {folder}"
            raise Refused(404, message, "NotFoundError") from error
        except ValueError as error:
            raise _engine(f"adapter_config.json: {error}") from error
        rank = config.get("r", 0) if isinstance(config, dict) else 0
        if rank > self.max_rank:
            raise _engine(f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}.")
        if not any((folder / weights).is_file() for weights in _WEIGHTS):
            raise _engine(f"{folder} doesn't contain tensors")

    def add(self, name: str, path: str) -> str:
        """Have an adapter; return what to say."""
        self.loaded[name] = (path, int(time.time()))
        logs.info(_PLACE, f"Loaded new LoRA adapter: name '{name}', path '{path}'")
        return f"Success: LoRA adapter '{name}' added successfully."

    def drop(self, body: Mapping[str, Any]) -> str:
        """Have an adapter no more; return what to say.

        Raises:
            Refused: it is not there.
        """
        name = body.get("lora_name")
        if not name:
            raise _user("'lora_name' needs to be provided to unload a LoRA adapter.")
        if name not in self.loaded:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del self.loaded[name]
        logs.info(_PLACE, f"Removed LoRA adapter: name '{name}'")
        return f"Success: LoRA adapter '{name}' removed successfully."


def _user(message: str) -> Refused:
    return Refused(400, message, "InvalidUserInput")


def _engine(message: str) -> Refused:
    return Refused(500, message, "InternalServerError")
