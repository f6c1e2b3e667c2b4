"""Plan a manifest's model with the operator's own planner, and say the outcome."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import yaml
from pydantic import ValidationError

from tramontane.api.errors import InvalidValue
from tramontane.api.inferencedeployment import InferenceDeployment, Profile
from tramontane.api.inferencestatus import PlanStatus
from tramontane.api.nodepool import NodePool
from tramontane.api.quantity import parse_quantity
from tramontane.cli import tables
from tramontane.controllers.inferencedeployment.layout import CPU_ONLY, Refusal, Sizing
from tramontane.controllers.inferencedeployment.sizing import words
from tramontane.controllers.inferencedeployment.sizing.ask import LENIENT, ask_of
from tramontane.controllers.inferencedeployment.sizing.gpus import KINDS, gpu_of
from tramontane.controllers.inferencedeployment.sizing.plan import plan_layout

Raw = dict[str, Any]
T = TypeVar("T", InferenceDeployment, NodePool)

_COMPARED: Final = ("h100", "h200", "b200", "b300")
# The API server takes objects of 1.5 MB; a config.json has a few thousand bytes.
_MOST_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold what the files say: the deployment, and the pool that they have for it."""

    deployment: InferenceDeployment
    pool: NodePool | None


@dataclass(frozen=True, slots=True)
class Planned:
    """Hold what became of a deployment on one pool's GPUs; None is a host without any."""

    pool: NodePool | None
    found: Sizing | Refusal

    @property
    def fits(self) -> bool:
        """Return whether there is a layout for all that is asked."""
        return isinstance(self.found, Sizing)

    @property
    def gpus(self) -> str:
        """Return what the blades have, such as `8 x H200`."""
        if self.pool is None:
            return "no GPU"
        gpu = self.pool.spec.gpu
        memory_b = None if gpu.memory is None else int(parse_quantity(gpu.memory))
        kind = gpu_of(gpu.product, memory_b)
        return f"{gpu.count} x {kind.name if kind else 'GPU'}"

    def to_dict(self) -> Raw:
        """Return it for programs; a plan is as in the deployment's status."""
        whole: Raw = {"gpus": self.gpus, "fits": self.fits}
        if isinstance(self.found, Sizing):
            return whole | {"plan": _status(self.found)}
        whole |= {"reason": str(self.found.reason), "message": self.found.message}
        if self.found.nearest is not None:
            whole["nearest"] = _status(self.found.nearest)
        return whole


def read(text: str, where: str, pool: Path | None, config: Path | None) -> Asked:
    """Return the deployment of a manifest, and its pool: of a file of its own, else beside it.

    Raises:
        InvalidValue: a file has not one of what it must have, or not as the API wants it.
    """
    documents = _documents(text, where)
    raw = _one(documents, "InferenceDeployment", where)
    if config is not None:
        raw = _with_config(raw, config)
    deployment = _valid(InferenceDeployment, raw, where)
    if pool is not None:
        given = _documents(pool.read_text(), str(pool))
        return Asked(deployment, _valid(NodePool, _pool(given, deployment, str(pool)), str(pool)))
    if any(one.get("kind") == "NodePool" for one in documents):
        return Asked(deployment, _valid(NodePool, _pool(documents, deployment, where), where))
    return Asked(deployment, None)


def places(asked: Asked, gpu: str | None, gpus_per_blade: int) -> list[NodePool | None]:
    """Return the pools to plan for.

    | --gpu | pool in a file | Edge without GPUs | planned for |
    |---|---|---|---|
    | given | any | any | blades of that kind |
    | absent | yes | any | that pool |
    | absent | no | yes | a host without GPUs |
    | absent | no | no | blades of each kind that is compared |

    Raises:
        InvalidValue: nothing is known of that kind.
    """
    if gpu is not None:
        return [_blades_of(gpu, gpus_per_blade)]
    if asked.pool is not None:
        return [asked.pool]
    spec = asked.deployment.spec
    if spec.profile is Profile.EDGE and spec.engine.name in LENIENT:
        return [None]
    return [_blades_of(name, gpus_per_blade) for name in _COMPARED]


def plans(
    asked: Asked, pools: Sequence[NodePool | None], blades: int, ram: str | None
) -> list[Planned]:
    """Return what becomes of the deployment on each of these pools.

    Raises:
        InvalidValue: `ram` is no quantity.
    """
    ram_b = None if ram is None else int(parse_quantity(ram))
    found = []
    for pool in pools:
        ask = ask_of(asked.deployment.spec, pool, blades, ram_b=ram_b)
        found.append(Planned(pool, ask if isinstance(ask, Refusal) else plan_layout(ask)))
    return found


def to_dict(asked: Asked, plans: Sequence[Planned]) -> Raw:
    """Return the answer for programs."""
    return {
        "deployment": asked.deployment.metadata.key,
        "plans": [one.to_dict() for one in plans],
    }


def show(asked: Asked, plans: Sequence[Planned]) -> None:
    """Print the answer for people: all of one plan, or several side by side."""
    spec = asked.deployment.spec
    load = words.requests(spec.capacity.concurrent_requests, spec.capacity.context_tokens)
    pairs = [("Deployment", asked.deployment.metadata.key), ("Asks for", load)]
    if len(plans) == 1:
        click.echo("\n".join(tables.facts([*pairs, *_facts(plans[0])])))
        return
    click.echo("\n".join(tables.facts(pairs)) + "\n")
    headings = ("GPUS", "FITS", "LAYOUT", "PER REPLICA", "WEIGHTS/GPU", "KV TOKENS", "REQUESTS")
    tables.show(tables.Table(headings, [_row(one) for one in plans]))
    for one in plans:
        if isinstance(one.found, Refusal):
            click.echo(f"\n{one.gpus}: {one.found.message}")


def _facts(one: Planned) -> list[tuple[str, str]]:
    found = one.found
    if isinstance(found, Refusal):
        return [("GPUs", one.gpus), ("Reason", str(found.reason)), ("Message", found.message)]
    return [
        ("GPUs", one.gpus),
        ("Layout", words.place(found.layout)),
        (
            "Weights",
            f"{words.gib(found.weights_b)} each, {words.gib(found.total_weights_b)} in all",
        ),
        ("KV tokens", f"{found.kv_tokens:,}" if found.kv_tokens else "not known"),
        ("Requests", f"{found.requests:,}" if found.kv_tokens else "not known"),
        ("Why", found.why),
    ]


def _row(one: Planned) -> tuple[str, ...]:
    found = one.found
    if isinstance(found, Refusal):
        return (one.gpus, str(found.reason), "", "", "", "", "")
    return (
        one.gpus,
        "yes",
        _layout(found),
        f"{found.layout.gpus} on {found.layout.nodes}",
        words.gib(found.weights_b),
        f"{found.kv_tokens:,}",
        f"{found.requests:,}",
    )


def _layout(sizing: Sizing) -> str:
    return "CPU" if sizing.layout == CPU_ONLY else str(sizing.layout)


def _status(sizing: Sizing) -> Raw:
    return PlanStatus(
        gpus_per_replica=sizing.layout.gpus,
        nodes_per_replica=sizing.layout.nodes,
        layout=_layout(sizing),
        weights_per_gpu=str(sizing.weights_b),
        kv_tokens=sizing.kv_tokens,
        concurrent_requests=sizing.requests,
        fits=sizing.fits,
        why=sizing.why,
    ).to_dict()


def _blades_of(name: str, gpus: int) -> NodePool:
    kind = KINDS.get(name.lower())
    if kind is None:
        raise InvalidValue(
            f"--gpu must be one of {', '.join(sorted(KINDS))}",
            name,
            "for another, write a NodePool with spec.gpu.memory and give --pool",
        )
    product = "-".join(("NVIDIA", *kind.words))
    spec = {
        "nodeSelector": {"matchLabels": {"gpu": name}},
        "gpu": {"product": product, "count": gpus},
    }
    return NodePool.model_validate({"metadata": {"name": kind.name.lower()}, "spec": spec})


def _documents(text: str, where: str) -> list[Raw]:
    try:
        return [one for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except yaml.YAMLError as error:
        raise InvalidValue(f"{where}: must be YAML ({_line(error)})") from error


def _one(documents: Sequence[Raw], kind: str, where: str) -> Raw:
    found = [one for one in documents if one.get("kind") == kind]
    if len(found) != 1:
        kinds = ", ".join(str(one.get("kind", "no kind")) for one in documents) or "nothing"
        raise InvalidValue(f"{where}: must have one {kind} (got {kinds})")
    return found[0]


def _pool(documents: Sequence[Raw], deployment: InferenceDeployment, where: str) -> Raw:
    """Return the pool that the deployment names, else the only one."""
    named = [
        one
        for one in documents
        if one.get("kind") == "NodePool"
        and (one.get("metadata") or {}).get("name") == deployment.spec.node_pool
    ]
    return _one(named or documents, "NodePool", where)


def _with_config(raw: Raw, path: Path) -> Raw:
    """Return the manifest with the model's configuration of a file."""
    if path.stat().st_size > _MOST_BYTES:
        must = f"{path}: must be a config.json of at most {_MOST_BYTES:,} bytes"
        raise InvalidValue(must, f"{path.stat().st_size:,}")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidValue(f"{path}: must be JSON ({error})") from error
    spec = raw.get("spec")
    model = spec.get("model") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(model, Mapping):
        return raw
    return {**raw, "spec": {**spec, "model": {**model, "config": config}}}


def _valid(kind: type[T], raw: Raw, where: str) -> T:
    meta = {"name": "unnamed", **(raw.get("metadata") or {})}
    if kind is InferenceDeployment:
        meta.setdefault("namespace", "default")
    try:
        return kind.model_validate({**raw, "metadata": meta, "status": {}})
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        more = error.error_count() - 1
        others = f" (and {more} more)" if more else ""
        raise InvalidValue(f"{where}: {at}: {first['msg']}{others}") from error


def _line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
