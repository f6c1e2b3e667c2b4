"""Know the engines: which versions, what each can do, how it is asked how it does.

What a version knows is data (`flags/`, named `<kind>-<series>.txt`); a new version is a new file.

| kind | a version is filed as | serves with |
|---|---|---|
| vllm | 0.32 | vllm serve |
| sglang | 0.5.23: it adds flags with every release | sglang.launch_server |
| llamacpp | 0.5 | llama-server |
| llamacpp-python | 0.3 | llama_cpp.server |
| custom | nothing | the template's command |

Engine llamacpp is llamacpp-python where the version is python-0.3, or the image is named so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from tramontane.api.inferencedeployment import Engine, EngineName
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.engines.flagtable import Flag, parsed
from tramontane.controllers.inferencedeployment.engines.metricnames import (
    METRICS,
    NO_METRICS,
    MetricNames,
)
from tramontane.controllers.inferencedeployment.engines.versions import (
    in_order,
    repository,
    series,
    version_of,
)
from tramontane.controllers.inferencedeployment.layout import Refusal

_PYTHON_PREFIX: Final = "python-"
_PYTHON_IMAGES: Final = ("llama-cpp-python", "llama_cpp_python")


@dataclass(frozen=True, slots=True)
class EngineData:
    """Hold what is known of an engine in one version.

    Attributes:
        kind: which template and which flags; the same as the name but for llamacpp-python.
        version: the series by which its flags are filed; empty for custom.
        flags: by every spelling; empty for custom, of which nothing is known.
        health_path: answers 200 while the engine serves.
        drains_itself: whether it finishes its streams after SIGTERM, and ends then.
        ready_variable: name of the variable that takes its own limit for the start (s), or empty.
        lora: how adapters are loaded while it runs: "vllm" or "none".
        rank_variables: what differs from pod to pod, so that no template may set it.
    """

    name: EngineName
    kind: str
    version: str = ""
    flags: Mapping[str, Flag] = field(default_factory=dict, repr=False, compare=False)
    metrics: MetricNames = NO_METRICS
    health_path: str = "/health"
    drains_itself: bool = False
    ready_variable: str = ""
    lora: str = "none"
    rank_variables: frozenset[str] = frozenset()

    @property
    def steps_metric(self) -> str:
        """Return the counter that grows with every step; empty where there is none."""
        return self.metrics.steps

    @property
    def busy_metrics(self) -> tuple[str, ...]:
        """Return the gauges that tell whether there is work."""
        return self.metrics.busy

    def knows(self, flag: str) -> bool:
        """Return whether this version takes a flag; templates ask."""
        return flag in self.flags

    def __str__(self) -> str:
        return f"{self.kind} {self.version}".rstrip()


# How many numbers of a version name its series.
_PARTS: Final = {"vllm": 2, "sglang": 3, "llamacpp": 2, "llamacpp-python": 2}

# All but version and flags.
_ENGINES: Final[Mapping[str, EngineData]] = {
    "vllm": EngineData(
        EngineName.VLLM,
        "vllm",
        metrics=METRICS[EngineName.VLLM],
        drains_itself=True,
        ready_variable="VLLM_ENGINE_READY_TIMEOUT_S",
        lora="vllm",
        rank_variables=frozenset(
            {
                "VLLM_HOST_IP",
                "VLLM_PORT",
                "VLLM_DP_MASTER_IP",
                "VLLM_DP_MASTER_PORT",
                "VLLM_DP_RANK",
                "VLLM_DP_RANK_LOCAL",
                "VLLM_DP_SIZE",
            }
        ),
    ),
    # From SIGTERM on it answers 503 to /health and waits for its requests without a limit; the
    # agent ends it when the time is up. The only limit of its start is that of the first request,
    # which compiles kernels: 600 s.
    "sglang": EngineData(
        EngineName.SGLANG,
        "sglang",
        metrics=METRICS[EngineName.SGLANG],
        drains_itself=True,
        ready_variable="SGLANG_WARMUP_TIMEOUT",
        rank_variables=frozenset({"SGLANG_HOST_IP", "HOST_IP"}),
    ),
    # SIGTERM stops its loop, whatever streams are open.
    "llamacpp": EngineData(EngineName.LLAMACPP, "llamacpp", metrics=METRICS[EngineName.LLAMACPP]),
    # It has neither a health page nor metrics; the list of models is there once the model is.
    "llamacpp-python": EngineData(EngineName.LLAMACPP, "llamacpp-python", health_path="/v1/models"),
    "custom": EngineData(EngineName.CUSTOM, "custom", metrics=METRICS[EngineName.CUSTOM]),
}


def engine_of(engine: Engine) -> EngineData | Refusal:
    """Return what is known of the engine that a spec asks for, or why it cannot be used."""
    kind = _kind_of(engine)
    if engine.name is EngineName.CUSTOM:
        return _ENGINES[kind]
    version = version_of(engine)
    wanted, known = series(version, _PARTS[kind]), known_versions(kind)
    if wanted in known:
        return replace(_ENGINES[kind], version=wanted, flags=_flags(kind, wanted))
    got = f'"{engine.version or version}"'
    if not engine.version and not version:
        got = f'none, and none in the tag of "{engine.image}"'
    kinds = [kind for kind, data in _ENGINES.items() if data.name is engine.name]
    shown = ", ".join(_as_written(kind, one) for kind in kinds for one in known_versions(kind))
    return Refusal(
        InferenceReason.MISCONFIGURED,
        f"spec.engine.version must be one of {engine.name} whose flags are known: {shown} "
        f"(got {got}); set it to what the image has, or use engine custom with the command in "
        "spec.template",
    )


def known_versions(kind: str) -> list[str]:
    """Return the series whose flags are known, from the oldest to the newest."""
    return in_order([version for one, version in _files() if one == kind])


def knowing(kind: str, flag: str) -> list[str]:
    """Return the series of a kind that know a flag."""
    return [version for version in known_versions(kind) if flag in _flags(kind, version)]


def _kind_of(engine: Engine) -> str:
    if engine.name is EngineName.LLAMACPP:
        by_version = (engine.version or "").startswith(_PYTHON_PREFIX)
        by_image = any(name in repository(engine.image) for name in _PYTHON_IMAGES)
        is_servers = series(version_of(engine), _PARTS["llamacpp"]) in known_versions("llamacpp")
        if by_version or (by_image and not is_servers):
            return "llamacpp-python"
    return str(engine.name)


def _as_written(kind: str, version: str) -> str:
    return f"{_PYTHON_PREFIX}{version}" if kind == "llamacpp-python" else version


@cache
def _files() -> Mapping[tuple[str, str], str]:
    """Return the texts of all files of flags, by kind and series."""
    found = {}
    for path in (files(__package__) / "flags").iterdir():
        kind, _, version = path.name.removesuffix(".txt").rpartition("-")
        found[kind, version] = path.read_text()
    return MappingProxyType(found)


@cache
def _flags(kind: str, version: str) -> Mapping[str, Flag]:
    return MappingProxyType(parsed(_files()[kind, version]))
