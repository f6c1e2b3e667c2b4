"""Play the engines of a lab without containers: a process per replica, and people who ask.

KWOK's pods run nothing and have addresses that lead nowhere. Of each pod that should serve, a
fake engine is started at an address of loopback of its own (127.64.0.0/16), on the port that
engines have; then the pod is given that address, as its kubelet would. So the operator reads real
metrics of real requests. The API server takes no loopback address into an EndpointSlice: requests
go to the engines themselves, not by way of the Service.
"""

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from tramontane.api.names import LABEL_INFERENCE, LABEL_SEAT
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.informer import Informer
from tramontane.kube.resources import PODS
from tramontane.lab.processes import Processes
from tramontane.lab.serving.model import write_model

PORT: Final = 8000
MODEL: Final = "claims"
_POLL_S: Final = 0.1
_PAUSE_S: Final = (0.05, 0.4)
# How the fake plays: first tokens take about a tenth of a second, and one request in fifty fails.
_BEHAVIOUR: Final[dict[str, Any]] = {"ttft": 0.08, "itl": 0.01, "tokens": 24, "errors": 0.02}

Raw = dict[str, Any]

log = logging.getLogger(__name__)


class Engines:
    """All engines of one lab; they work while `running` lasts."""

    def __init__(self, client: Client, processes: Processes, asking: int = 4) -> None:
        self._client = client
        self._processes = processes
        self._asking = asking  # people who ask, one request after the other, per engine
        self._model = processes.folder / "engine-model"
        self._pods = Informer(client, PODS, lambda raw: raw, label_selector=LABEL_INFERENCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._last = 0
        self._pods.add_listener(self._changed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Engines"]:
        """Play the engines while the block lasts."""
        if not self._model.exists():
            write_model(self._model, **_BEHAVIOUR)
        watching = asyncio.create_task(self._pods.run())
        try:
            yield self
        finally:
            tasks = [watching, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _changed(self, _: str, old: Raw | None, new: Raw | None) -> None:
        gone = old and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"])
        if old and gone and (task := self._tasks.pop(old["metadata"]["uid"], None)):
            task.cancel()
        if new and _serves(new) and new["metadata"]["uid"] not in self._tasks:
            self._tasks[new["metadata"]["uid"]] = asyncio.create_task(self._play(new["metadata"]))

    async def _play(self, pod: Raw) -> None:
        """Be the engine of one pod until it goes."""
        self._last += 1
        address = f"127.64.{self._last // 250}.{self._last % 250 + 1}"
        name = f"engine-{pod['name']}-{self._last}"
        self._processes.start(name, self._command(address), gentle=True)
        try:
            async with aiohttp.ClientSession(f"http://{address}:{PORT}") as session:
                await _healthy(session)
                await self._give_address(pod, address)
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._asking):
                        group.create_task(_ask_on(session))
        finally:
            self._processes.stop(name, gentle_s=1.0)

    async def die(self, deployment: str) -> None:
        """Let an engine of a deployment be killed, and its pod fail as its kubelet would say."""
        serving = (
            pod
            for pod in self._pods.cache.values()
            if pod["metadata"]["labels"][LABEL_INFERENCE] == deployment and _serves(pod)
        )
        pod = next(serving)
        died = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        containers = [
            {**one, "ready": False, "started": False, "state": died}
            for one in pod["status"]["containerStatuses"]
        ]
        meta = pod["metadata"]
        patch = {
            "metadata": {"uid": meta["uid"]},
            "status": {"phase": "Failed", "containerStatuses": containers},
        }
        await self._client.merge_patch(
            PODS, meta["name"], patch, meta["namespace"], subresource="status"
        )

    def _command(self, address: str) -> list[str | Path]:
        return [
            sys.executable, "-P", "-m", "tramontane.lab.fakevllm", "serve", self._model,
            "--host", address, "--port", str(PORT), "--served-model-name", MODEL,
            "--max-num-seqs", "64",
        ]  # fmt: skip

    async def _give_address(self, pod: Raw, address: str) -> None:
        status = {"podIP": address, "podIPs": [{"ip": address}]}
        patch = {"metadata": {"uid": pod["uid"]}, "status": status}
        with contextlib.suppress(NotFound):  # it has gone meanwhile
            await self._client.merge_patch(
                PODS, pod["name"], patch, pod["namespace"], subresource="status"
            )


def _serves(pod: Raw) -> bool:
    """Return whether the pod runs and is the one of its replica that answers requests."""
    leads = pod["metadata"]["labels"].get(LABEL_SEAT) == "0"
    return bool(leads and pod.get("status", {}).get("phase") == "Running")


async def _healthy(session: aiohttp.ClientSession) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with session.get("/health") as answer:
                if answer.ok:
                    return
        await asyncio.sleep(_POLL_S)


async def _ask_on(session: aiohttp.ClientSession) -> None:
    """Ask one request after the other, with pauses to think."""
    while True:
        body = {
            "model": MODEL,
            "prompt": "word " * random.randint(10, 200),
            "max_tokens": random.randint(8, 48),
            "stream": True,
        }
        with contextlib.suppress(aiohttp.ClientError):
            async with session.post("/v1/completions", json=body) as answer:
                await answer.read()
        await asyncio.sleep(random.uniform(*_PAUSE_S))
