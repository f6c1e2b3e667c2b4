"""Start fake-vllm as a container would: a copy of its folder, run by a Python that has no more."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tramontane.lab import fakevllm
from tramontane.lab.controlplane import free_ports

LENGTH = 4096
START_S = 20.0
FOLDER = Path(fakevllm.__file__).parent


def write_model(folder: Path, **behaviour: Any) -> Path:
    """Write what is a model to vLLM's eyes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": LENGTH}))
    (folder / "model.safetensors").write_bytes(b"\0" * 2**20)
    if behaviour:
        (folder / "fake-vllm.json").write_text(json.dumps(behaviour))
    return folder


def write_adapter(folder: Path, rank: int = 8) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(b"\0")
    return folder


@dataclass
class Running:
    """A process of fake-vllm."""

    process: asyncio.subprocess.Process
    port: int
    log: Path
    session: aiohttp.ClientSession = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def text(self) -> str:
        return self.log.read_text()

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def exit_code(self, within_s: float = START_S) -> int:
        return await asyncio.wait_for(self.process.wait(), within_s)

    async def serves(self) -> "Running":
        """Return once it is healthy."""
        async with asyncio.timeout(START_S):
            while not await self.is_healthy():
                assert self.process.returncode is None, self.text()
                await asyncio.sleep(0.02)
        return self

    async def is_healthy(self) -> bool:
        try:
            async with self.session.get(f"{self.url}/health") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def logs(self, text: str) -> None:
        """Return once something is logged."""
        async with asyncio.timeout(START_S):
            while text not in self.text():  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.02)

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and body of an answer."""
        async with self.session.post(f"{self.url}{path}", json=body or {}) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"{self.url}{path}") as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json" and text
            return answer.status, json.loads(text) if is_json else text

    async def metrics(self) -> dict[str, float]:
        """Return the value of each sample by name and labels, as they are written."""
        _, text = await self.get("/metrics")
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    async def has(self, condition: Callable[[dict[str, float]], bool]) -> None:
        """Return once something holds of the metrics."""
        async with asyncio.timeout(START_S):
            while not condition(await self.metrics()):  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.02)

    async def steps(self) -> float:
        samples = await self.metrics()
        return sum(v for k, v in samples.items() if k.startswith("vllm:iteration_tokens_total_c"))


def ask(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


class Lab:
    """Start processes, and end them all."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self._session = session
        self._running: list[Running] = []
        self._code = folder / "engine"
        shutil.copytree(FOLDER, self._code)
        self.model = write_model(folder / "model")

    async def start(
        self, *words: str, model: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Running:
        """Start `serve MODEL ...` on a free port; it is not healthy yet."""
        [port] = free_ports(1)
        log = self.folder / f"log-{len(self._running)}"
        environ = {"PATH": os.environ["PATH"], "FAKE_VLLM_FAULTS": "1", **(env or {})}
        args = ["serve", str(model or self.model), "--served-model-name", "m"]
        args += ["--host", "127.0.0.1", "--port", str(port), *words]
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(self._code), *args,
                stdout=out, stderr=asyncio.subprocess.STDOUT, env=environ,
            )  # fmt: skip
        running = Running(process, port, log, self._session)
        self._running.append(running)
        return running

    async def close(self) -> None:
        for one in self._running:
            if one.process.returncode is None:
                one.process.kill()
            await one.process.wait()


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True)
    ) as session:
        one = Lab(folder, session)
        try:
            yield one
        finally:
            await one.close()


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream that came to its end."""
    assert text.endswith("data: [DONE]\n\n"), text[-200:]
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line[6:]) for line in lines[:-1]]
