"""Read what the operator wants of a serving rank: environment, annotations, what was measured.

Standard library only, Python 3.8 or later.
"""
# ruff: noqa: PTH118, PTH123 - pathlib costs a third of the start-up time

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tramontane.controllers.inferencedeployment.podfiles.servingengine import EngineApi
    from tramontane.controllers.trainingjob import rankagent
else:  # in the pod, the files lie side by side
    import rankagent
    from servingengine import EngineApi

MASTER = "$(TRAMONTANE_MASTER)"
MODEL_FILE = "$(TRAMONTANE_MODEL_FILE)"


@dataclass(frozen=True)
class Settings:
    """Hold what the operator has set."""

    seat: int
    nodes: int
    pod_ip: str
    folder: str
    state_folder: str
    agent_port: int
    hang_after_s: float
    drain_s: float
    drains_itself: bool
    settle_s: float
    start_base_s: float
    weights_b: float
    ready_variable: str
    lora: str
    lost_after_s: float
    look_s: float
    termination_log: str
    api: EngineApi

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        """Return what the environment says; raises ValueError where a number is none."""

        def text(name: str, default: str = "") -> str:
            return env.get("TRAMONTANE_" + name) or default

        def amount(name: str, default: str) -> float:
            try:
                value = float(text(name, default))
            except ValueError:
                value = -1.0
            if not 0 <= value < math.inf:
                given = text(name)
                raise ValueError(f"TRAMONTANE_{name} must be a number from 0 up (got {given!r})")
            return value

        return cls(
            seat=int(amount("SEAT", "0")),
            nodes=int(amount("NODES", "1")),
            pod_ip=text("POD_IP"),
            folder=text("AGENT_FOLDER", "/tramontane/pod"),
            state_folder=text("STATE", "/tramontane/state"),
            agent_port=int(amount("AGENT_PORT", "8901")),
            hang_after_s=amount("HANG_AFTER_S", "60"),
            drain_s=amount("DRAIN_S", "600"),
            drains_itself=text("DRAINS_ITSELF") == "1",
            settle_s=amount("SETTLE_S", "3"),
            start_base_s=amount("START_BASE_S", "300"),
            weights_b=amount("WEIGHTS_BYTES", "0"),
            ready_variable=text("READY_VARIABLE"),
            lora=text("LORA", "none"),
            lost_after_s=amount("LOST_AFTER_S", "10"),
            look_s=amount("LOOK_S", "1"),
            termination_log=text("TERMINATION_LOG", "/dev/termination-log"),
            api=EngineApi(
                port=int(amount("API_PORT", "8000")),
                health_path=text("HEALTH_PATH", "/health"),
                steps_metric=text("STEPS_METRIC"),
                busy_metrics=tuple(filter(None, text("BUSY_METRICS").split(","))),
                key=env.get("VLLM_API_KEY", ""),
            ),
        )


class Wanted(rankagent.Wanted):
    """Read what the operator wants of this pod, from the files of a downward-API volume."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, 1)
        self._adapters: dict[str, str] = {}

    def adapters(self) -> dict[str, str]:
        """Return the wanted adapters' paths by name; the last ones seen while none can be read."""
        with suppress(ValueError, KeyError, TypeError):
            listed = json.loads(self._read("adapters"))
            self._adapters = {str(one["name"]): str(one["path"]) for one in listed or []}
        return self._adapters


def with_master(text: str, address: str) -> str:
    """Return the text with seat 0's address in place; an IPv6 address before a port in brackets."""
    if ":" in address:
        text = text.replace(MASTER + ":", f"[{address}]:")
    return text.replace(MASTER, address)


def with_model_file(text: str, found: Mapping[str, Any]) -> str:
    """Return the text with the file in place that the init container has found to load."""
    return text.replace(MODEL_FILE, str(found.get("file") or MODEL_FILE))


def lacks_model_file(words: Sequence[str], folder: str) -> bool:
    """Return whether there is an argument for a file that nobody has found."""
    return any(MODEL_FILE in word for word in words) and not measured(folder).get("file")


def measured(folder: str) -> dict[str, Any]:
    """Return what the init container has measured, empty where it has not."""
    with suppress(OSError, ValueError):
        with open(os.path.join(folder, "weights.json"), encoding="utf-8") as file:
            found = json.load(file)
        return found if isinstance(found, dict) else {}
    return {}
