"""Serve a model on real nodes: real agents and probes over an engine that only plays vLLM.

    async with serving(tier, "claims", replicas=2) as served:
        await served.serves(2)
        async with served.streams().running() as streams:
            ...

The model is a folder that the operator mounts from the node, with weights of some kilobytes; how
the engine behaves stands in a file beside them, so that a revision can be a bad one.
"""

import contextlib
import json
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp

from node.harness import POOL, Tier, until
from node.streams import Streams
from node.templates import PYTHON, pod_spec
from tramontane.api.names import API_VERSION, LABEL_INFERENCE, LABEL_ROTATION, LABEL_SEAT
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.resources import INFERENCEDEPLOYMENTS, PODS
from tramontane.lab.nodes.plan import IMAGE

NAMESPACE = "default"
PATIENCE_S = 90.0
GPUS = 8

Raw = dict[str, Any]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def write_model(folder: Path, **behaviour: Any) -> Path:
    """Write a complete model directory; `behaviour` is how the engine plays it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "U8", "shape": [4096], "data_offsets": [0, 4096]}}).encode()
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + bytes(range(256)) * 16
    )
    if behaviour:
        (folder / "fake-vllm.json").write_text(json.dumps(behaviour))
    return folder


def _shim(folder: Path) -> Path:
    """Return a folder with an executable `vllm` and the engine beside it."""
    bin_ = folder / "bin"
    if not bin_.exists():
        found = find_spec("tramontane.lab.fakevllm")
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, folder / "engine" / "fakevllm")
        bin_.mkdir()
        package = str(folder / "engine" / "fakevllm")
        run = f"import runpy; runpy.run_path({package!r}, run_name='__main__')"
        (bin_ / "vllm").write_text(f"#!{PYTHON}\n{run}\n")
        (bin_ / "vllm").chmod(0o755)
    return bin_


def template(tier: Tier) -> Raw:
    """Return what is laid over the pods: the machine's Python, and the engine."""
    bin_ = _shim(tier.shared)
    env = {"FAKE_VLLM_FAULTS": "1", "PATH": f"{bin_}:{Path(PYTHON).parent}:/usr/bin:/bin"}
    base = pod_spec("python3", env=env, read_only=(bin_.parent,))
    [container] = base["containers"]
    kept = ("imagePullPolicy", "env", "resources", "volumeMounts")
    common = {key: container[key] for key in kept}
    return {
        "spec": {
            "containers": [{"name": "engine", **common}],
            "initContainers": [{"name": "weights", **common}],
            "volumes": base["volumes"],
        }
    }


@dataclass(slots=True)
class Served:
    """An InferenceDeployment on real nodes."""

    tier: Tier
    client: Client
    name: str
    spec: Raw

    async def change(self, **spec: Any) -> None:
        await self.client.merge_patch(INFERENCEDEPLOYMENTS, self.name, {"spec": spec}, NAMESPACE)

    async def status(self) -> Raw:
        found = await self.client.get(INFERENCEDEPLOYMENTS, self.name, NAMESPACE)
        return dict(found.get("status") or {})

    async def pods(self, seat: int | None = None) -> list[Raw]:
        """Return the pods of all replicas, or only those of one seat."""
        found = [
            pod
            for pod in await self.client.list_all(PODS, NAMESPACE)
            if pod["metadata"].get("labels", {}).get(LABEL_INFERENCE) == self.name
        ]
        if seat is None:
            return found
        return [pod for pod in found if pod["metadata"]["labels"].get(LABEL_SEAT) == str(seat)]

    async def until(
        self, holds: Callable[[Raw], bool], what: str, within_s: float = PATIENCE_S
    ) -> float:
        """Return after how many seconds something held of the status."""
        status: Raw = {}

        async def reached() -> bool:
            nonlocal status
            status = await self.status()
            return holds(status)

        try:
            return await until(reached, what, within_s)
        except AssertionError as error:
            phases = {pod["metadata"]["name"]: pod["status"] for pod in await self.pods()}
            raise AssertionError(
                f"{error}; status {json.dumps(status, indent=1)}\n"
                f"pods {json.dumps(phases, indent=1)[:6000]}"
            ) from None

    async def serves(self, replicas: int, phase: str = "Serving") -> None:
        """Return once so many replicas serve, and that is all there are."""

        def done(status: Raw) -> bool:
            states = [one["state"] for one in status.get("replicas", ())]
            return status.get("phase") == phase and states == ["Serving"] * replicas

        await self.until(done, f"{replicas} replicas {phase}")

    def streams(self, **options: Any) -> Streams:
        return Streams(self.client, self.name, self.name, **options)

    async def fault(self, pod: Raw, fault: str, **body: Any) -> None:
        """Let the engine of a seat 0 break."""
        url = f"http://{pod['status']['podIP']}:8000/fake/{fault}"
        async with aiohttp.ClientSession() as session:
            with contextlib.suppress(aiohttp.ClientError):
                await session.post(url, json=body)

    async def in_rotation(self) -> list[str]:
        """Return the pods that get requests, as the Service selects them."""
        return [
            pod["metadata"]["name"]
            for pod in await self.pods(0)
            if pod["metadata"]["labels"].get(LABEL_ROTATION) == "in"
            and any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in pod["status"].get("conditions", ())
            )
        ]


def spec_of(tier: Tier, model: Path, *, replicas: int = 1, tensor: int = GPUS, **more: Any) -> Raw:
    """Return a spec whose replicas take whole nodes."""
    nodes = max(1, tensor // GPUS)
    return {
        "nodePool": POOL,
        "model": {"source": {"hostPath": str(model)}, "config": CONFIG, **more.pop("model", {})},
        "engine": {"name": "vllm", "image": IMAGE, "version": "0.32"},
        "capacity": {
            "contextTokens": 4096,
            "concurrentRequests": 64,
            "minReplicas": replicas,
            "maxReplicas": replicas,
        },
        "layout": {"mode": "Fixed", "tensor": tensor, "nodes": nodes},
        "rollout": {"steps": [], "drainTimeout": "30s"},
        "recovery": {"backoff": {"base": "1s", "max": "30s"}, "hangAfter": "10s"},
        "template": template(tier),
        **more,
    }


@contextlib.asynccontextmanager
async def serving(
    tier: Tier, name: str, model: Path | None = None, **spec: Any
) -> AsyncIterator[Served]:
    """Create a deployment, and delete it at the end."""
    async with await tier.client() as client:
        folder = model or write_model(tier.shared / "models" / name / "v1")
        body: Raw = {
            "apiVersion": API_VERSION,
            "kind": "InferenceDeployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec_of(tier, folder, **spec),
        }
        await client.create(INFERENCEDEPLOYMENTS, body)
        served = Served(tier, client, name, body["spec"])
        try:
            yield served
        finally:
            with contextlib.suppress(NotFound):
                await client.delete(INFERENCEDEPLOYMENTS, name, NAMESPACE, propagation="Background")
