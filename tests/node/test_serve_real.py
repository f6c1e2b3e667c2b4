"""Serve a real model with a real engine, and ask by OpenAI's own client: `make serve-real`.

SmolLM2-135M on the CPU of a real node: by llama-server, which the agent watches by its metrics,
and by llama-cpp-python's server, which has none. `-rP` shows what was measured.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from node.harness import Tier, until
from node.serving import NAMESPACE, Served, serving
from tramontane.kube.errors import NotFound
from tramontane.kube.resources import PODS
from tramontane.lab.nodes.plan import IMAGE
from tramontane.lab.nodes.pods import PYTHON, pod_spec
from tramontane.lab.realmodel.place import found

REAL = found()
CLIENT = Path(__file__).with_name("ask_openai.py")
CONTEXT, SLOTS = 2048, 2
STORY = 500
# From the model's config.json.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
WITHIN_S = 200.0
BY_VERSION = pytest.mark.parametrize("version", ["0.5", "python-0.3"])

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get("TRAMONTANE_SERVE_REAL") != "1" or not REAL.whole,
        reason="a real model is served by `make serve-real` only (it compiles for minutes, once)",
    ),
]


def spec(version: str, config: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return what differs from a spec of the played engine.

    Without a configuration no need of memory is known, and llama.cpp gets the CPU.
    """
    [packages] = (REAL.folder / "venv" / "lib").glob("python3*/site-packages")
    env = {
        "PATH": f"{REAL.engine}:{Path(PYTHON).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(packages),
        "LLAMA_CPP_LIB_PATH": str(REAL.engine),
    }
    base = pod_spec("python3", env=env, read_only=(REAL.engine, packages))
    [container] = base["containers"]
    common = {key: container[key] for key in ("imagePullPolicy", "env", "volumeMounts")}
    common["resources"] = {"requests": {"cpu": "50m"}, "limits": {"memory": "2Gi"}}
    [file] = REAL.model.glob("*.gguf")
    return {
        "model": {"config": {"weights_b": file.stat().st_size, **config}, "servedName": "smollm2"},
        "engine": {"name": "llamacpp", "image": IMAGE, "version": version},
        "capacity": {"contextTokens": CONTEXT, "concurrentRequests": SLOTS, "minReplicas": 1},
        "layout": {"mode": "Auto"},
        "rollout": {"steps": [], "drainTimeout": "2m"},
        "recovery": {"backoff": {"base": "1s", "max": "30s"}},
        "template": {
            "spec": {
                "containers": [{"name": "engine", **common}],
                "initContainers": [{"name": "weights", **common}],
                "volumes": base["volumes"],
            }
        },
    }


def tell(found: dict[str, Any]) -> None:
    """Show a person what was measured."""
    sys.stdout.write(json.dumps(found) + "\n")


@asynccontextmanager
async def asking(pod: dict[str, Any], *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the client against a pod."""
    url = f"http://{pod['status']['podIP']}:8000/v1"
    process = await asyncio.create_subprocess_exec(
        str(REAL.python), str(CLIENT), url, "smollm2", *words, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process, what: str) -> dict[str, Any]:
    """Return the next line about something."""
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        async for line in process.stdout:
            found: dict[str, Any] = json.loads(line)
            if found["what"] == what:
                tell(found)
                return found
    raise AssertionError(f"the client ended without {what!r}")


async def answers(pod: dict[str, Any], version: str) -> None:
    """Ask all that a client asks, and look whether a model has answered."""
    async with asking(pod) as client:
        assert (await said(client, "models"))["ids"] == ["smollm2"]
        streamed = await said(client, "stream")
        assert "Paris" in streamed["text"]
        assert streamed["chunks"] >= 5
        assert streamed["finish"] == "stop"
        whole = await said(client, "whole")
        assert whole["text"] == streamed["text"]
        usage = whole["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        if version == "0.5":  # the other one tells no usage of a stream
            assert streamed["usage"]["completion_tokens"] == usage["completion_tokens"]
        # Both serve their one model whatever name is asked for.
        assert (await said(client, "unknown model"))["status"] == 200
        too_long = await said(client, "too long")
        assert too_long["status"] == 400
        assert "context" in json.dumps(too_long["body"])
        # llama-cpp-python takes a client's mistake for its own.
        status = 400 if version == "0.5" else 500
        assert (await said(client, "no messages"))["status"] == status


async def serves(served: Served) -> dict[str, Any]:
    """Return the pod of the only replica once it serves."""
    took_s = await served.until(lambda it: it.get("phase") == "Serving", "Serving", WITHIN_S)
    [pod] = await served.pods()
    status = await served.status()
    plan = {key: status["plan"][key] for key in ("layout", "gpusPerReplica", "why")}
    tell({"what": "serving", "after_s": round(took_s, 1), "plan": plan})
    return pod


@BY_VERSION
async def test_a_real_model_answers_and_its_stream_outlives_the_order_to_end(
    tier: Tier, version: str
) -> None:
    async with serving(tier, "real", REAL.model, **spec(version)) as served:
        pod = await serves(served)
        await answers(pod, version)
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]

        async with asking(pod, str(STORY)) as client:
            await said(client, "first")
            told_at = time.monotonic()
            await served.client.delete(PODS, name, NAMESPACE)
            streamed = await said(client, "stream")
            over_s = time.monotonic() - told_at

        async def gone() -> bool:
            with suppress(NotFound):
                return bool(
                    (await served.client.get(PODS, name, NAMESPACE))["metadata"]["uid"] != uid
                )
            return True

        await until(gone, "the old pod gone", WITHIN_S)
        gone_s = time.monotonic() - told_at
        drained = {"stream_s": round(over_s, 1), "pod_s": round(gone_s, 1)}
        tell({"what": "drained", "chunks": streamed["chunks"], **drained})
        assert streamed["finish"] == "length"
        assert streamed["chunks"] >= STORY * 9 // 10
        await served.serves(1)


async def test_a_real_model_at_the_edge(tier: Tier) -> None:
    """No gang, no scheduler of ours: the lab has no kube-scheduler, so that the test is it."""
    edge = {**spec("0.5", CONFIG), "profile": "Edge"}
    async with serving(tier, "edge", REAL.model, **edge) as served:
        await served.bind(tier.nodes.names[0])
        await answers(await serves(served), "0.5")
