"""Gather what a layout is planned for: the model, the load, the GPUs that there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tramontane.api import inferencedeployment as api
from tramontane.api.errors import InvalidValue
from tramontane.api.inferencedeployment import EngineName, InferenceDeploymentSpec, LayoutMode
from tramontane.api.names import ENGINE_CONTAINER, GPU_RESOURCE
from tramontane.api.nodepool import NodePool
from tramontane.api.quantity import parse_duration, parse_quantity
from tramontane.api.reasons import InferenceReason
from tramontane.controllers.inferencedeployment.layout import Layout, Refusal
from tramontane.controllers.inferencedeployment.sizing.gpus import GpuKind, gpu_of
from tramontane.controllers.inferencedeployment.sizing.memory import UTILISATION
from tramontane.controllers.inferencedeployment.sizing.modelconfig import (
    Model,
    known_weights_b,
    read_model,
)

#: Engines whose memory nobody can foresee, or whose files tell no config: people may decide.
LENIENT: Final = frozenset({EngineName.LLAMACPP, EngineName.CUSTOM})
_UTILISATION_FLAGS: Final = ("--gpu-memory-utilization", "--mem-fraction-static")
_KV_FLAG: Final = "--kv-cache-dtype"


@dataclass(frozen=True, slots=True)
class Ask:
    """Hold what is to fit where.

    Attributes:
        model: None where no configuration is known.
        gpus_per_blade: 0 for a host without GPUs, whose memory is `ram_b`.
        gpu_memory_b: memory of a GPU as the driver counts it.
        blades: of the pool; 0 where they are not counted yet.
        fixed: the layout that people set; None plans one.
        weights_b: bytes of all weights, where they are known better than from `model`.
        bandwidth_b: bytes per second of a GPU's memory; 0 where it is not known.
        utilisation: the part of the memory that the engine takes.
        kv_value_b: bytes of a value in the KV cache; None: as the model's configuration says.
    """

    model: Model | None
    engine: EngineName
    gpus_per_blade: int
    gpu_memory_b: int
    blades: int
    context_tokens: int
    concurrent_requests: int
    fixed: api.Layout | None = None
    weights_b: int | None = None
    ttft_p95_s: float | None = None
    itl_p95_s: float | None = None
    ram_b: int | None = None
    bandwidth_b: int = 0
    utilisation: float = UTILISATION
    kv_value_b: int | None = None


def ask_of(
    spec: InferenceDeploymentSpec,
    pool: NodePool | None,
    blades: int,
    *,
    weights_b: int | None = None,
    ram_b: int | None = None,
) -> Ask | Refusal:
    """Return what a deployment asks for of a pool, or what is missing.

    Args:
        spec: of the deployment.
        pool: None where there is none, as for the profile Edge.
        blades: of the pool; 0 where they are not counted yet.
        weights_b: bytes of the weights, where somebody has seen them.
        ram_b: memory of the host that is to serve without GPUs; the template's limit comes first.
    """
    try:
        return _ask(spec, pool, blades, weights_b, ram_b)
    except InvalidValue as error:
        return misconfigured(str(error))


def _ask(
    spec: InferenceDeploymentSpec,
    pool: NodePool | None,
    blades: int,
    seen_b: int | None,
    ram_b: int | None,
) -> Ask | Refusal:
    model, told_b = _model(spec.model.config)
    fixed = _fixed(spec)
    kind = None if pool is None else _kind(pool)
    edge = spec.profile is api.Profile.EDGE
    lenient = spec.engine.name in LENIENT
    on_cpu = lenient and fixed is None and (edge or kind is None or model is None)
    if kind is None and not lenient:
        return misconfigured(_no_memory(spec, pool))
    slo = spec.slo or api.Slo()
    return Ask(
        model=model,
        engine=spec.engine.name,
        gpus_per_blade=0 if on_cpu or pool is None else pool.spec.gpu.count,
        gpu_memory_b=0 if on_cpu or kind is None else kind.memory_b,
        blades=1 if edge else blades,
        context_tokens=spec.capacity.context_tokens,
        concurrent_requests=spec.capacity.concurrent_requests,
        fixed=fixed,
        weights_b=told_b if seen_b is None else seen_b,
        ttft_p95_s=None if slo.ttft_p95 is None else parse_duration(slo.ttft_p95),
        itl_p95_s=None if slo.itl_p95 is None else parse_duration(slo.itl_p95),
        ram_b=_template_ram_b(spec) or ram_b,
        bandwidth_b=0 if on_cpu or kind is None else kind.bandwidth_b,
        utilisation=_utilisation(spec.engine.extra_args),
        kv_value_b=_kv_value_b(spec.engine.extra_args),
    )


def layout_of(fixed: api.Layout) -> Layout:
    """Return the layout that people set, with what they left out."""
    return Layout(
        tensor=fixed.tensor or 1,
        pipeline=fixed.pipeline or 1,
        data=fixed.data or 1,
        expert=bool(fixed.expert),
        nodes=fixed.nodes or 1,
    )


def misconfigured(message: str) -> Refusal:
    """Return the refusal of an input that no pool makes right."""
    return Refusal(InferenceReason.MISCONFIGURED, message)


def _model(config: Mapping[str, Any] | None) -> tuple[Model | None, int | None]:
    """Return the model and the bytes of its weights, as far as the configuration tells them."""
    if config is None:
        return None, None
    weights_b = known_weights_b(config)
    if config.keys() == {"weights_b"}:
        return None, weights_b
    return read_model(config), weights_b


def _kind(pool: NodePool) -> GpuKind | None:
    gpu = pool.spec.gpu
    return gpu_of(gpu.product, None if gpu.memory is None else int(parse_quantity(gpu.memory)))


def _no_memory(spec: InferenceDeploymentSpec, pool: NodePool | None) -> str:
    engine = spec.engine.name
    if pool is None:
        return f"engine {engine} must have a NodePool with GPUs (got none); set nodePool"
    product = pool.spec.gpu.product or "none"
    return (
        f"NodePool {pool.key} must say how much memory its GPUs have (got product {product} and "
        "no memory); set its spec.gpu.memory"
    )


def _fixed(spec: InferenceDeploymentSpec) -> api.Layout | None:
    """Return the layout that people set: in the spec, or for a lenient engine in the template."""
    if spec.layout.mode is LayoutMode.FIXED:
        return spec.layout
    if spec.engine.name not in LENIENT:
        return None
    gpus = sum(
        int(parse_quantity(amount))
        for container in _containers(spec)
        if (amount := _limit(container, GPU_RESOURCE)) is not None
    )
    return api.Layout(mode=LayoutMode.FIXED, tensor=gpus) if gpus else None


def _template_ram_b(spec: InferenceDeploymentSpec) -> int | None:
    """Return the memory that the template gives the engine."""
    containers = _containers(spec)
    named = [one for one in containers if one.get("name") == ENGINE_CONTAINER]
    amounts = [_limit(one, "memory") for one in named or containers[:1]]
    return next((int(parse_quantity(one)) for one in amounts if one is not None), None)


def _containers(spec: InferenceDeploymentSpec) -> list[Mapping[str, Any]]:
    pod = (spec.template or {}).get("spec")
    containers = pod.get("containers") if isinstance(pod, Mapping) else None
    return [one for one in containers or () if isinstance(one, Mapping)]


def _limit(container: Mapping[str, Any], resource: str) -> Any:
    """Return the amount that the kubelet will hold the container to; None where it has none."""
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        amount = (resources.get(kind) or {}).get(resource)
        if amount is not None:
            return amount
    return None


def _utilisation(arguments: Sequence[str]) -> float:
    """Return the part of the memory that the engine is told to take, else what we plan with.

    Raises:
        InvalidValue: it is no part.
    """
    for flag in _UTILISATION_FLAGS:
        given = _value(arguments, flag)
        if given is None:
            continue
        try:
            part = float(given)
        except ValueError:
            part = 0.0
        if not 0 < part <= 1:
            raise InvalidValue(f"engine.extraArgs: {flag} must be above 0 and at most 1", given)
        return part
    return UTILISATION


def _kv_value_b(arguments: Sequence[str]) -> int | None:
    given = _value(arguments, _KV_FLAG)
    if given is None or given == "auto":
        return None
    return 1 if given.startswith("fp8") else 2


def _value(arguments: Sequence[str], flag: str) -> str | None:
    """Return the value of a flag, written `--flag value` or `--flag=value`; the last one counts."""
    found = None
    for index, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == flag and equals:
            found = value
        elif name == flag and index + 1 < len(arguments):
            found = arguments[index + 1]
    return found
