"""Start the operator as a process of its own, and play the agents of its blades by hand."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plane.harness import SYSTEM, Plane
from tramontane.api.clock import utc
from tramontane.api.names import (
    API_VERSION,
    MANAGER_AGENT,
    TAINT_BLADE,
    heartbeat_lease,
)
from tramontane.kube.client import Client, NotFound
from tramontane.kube.lease import renew_heartbeat
from tramontane.kube.resources import BLADES, NODEPOOLS, NODES, Resource

SOON_S = 30.0
SELECTOR = {"matchLabels": {"node-role/gpu": "h200"}}


class Operator:
    """One operator process."""

    def __init__(self, plane: Plane, identity: str, log: Path, port: int = 0) -> None:
        self.identity = identity
        self.log = log
        self.port = port
        self._plane = plane
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tramontane.controllers",
                f"--namespace={SYSTEM}",
                f"--identity={self.identity}",
                f"--metrics-port={self.port}",
                env={**os.environ, "KUBECONFIG": str(self._plane.kubeconfig)},
                stderr=out,
            )

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, if it still runs; return the exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def ended(self) -> int:
        """Return the exit status once it has ended by itself."""
        assert self._process is not None
        return await self._process.wait()

    def said(self) -> str:
        return self.log.read_text()


@asynccontextmanager
async def operating(
    plane: Plane, tmp_path: Path, identity: str = "one", port: int = 0
) -> AsyncIterator[Operator]:
    """Run an operator; at the end it must stop cleanly and must not have logged a traceback."""
    operator = Operator(plane, identity, tmp_path / f"{identity}.log", port)
    await operator.start()
    try:
        yield operator
    finally:
        code = await operator.end()
    assert code in {0, -signal.SIGKILL}, operator.said()
    assert "traceback" not in operator.said(), operator.said()


async def seen(
    client: Client,
    resource: Resource,
    name: str,
    holds: Callable[[dict[str, Any]], bool],
    within_s: float = SOON_S,
) -> dict[str, Any]:
    """Return the object as soon as it is as wanted."""
    raw: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    raw = await client.get(resource, name)
                except NotFound:
                    raw = {}
                if raw and holds(raw):
                    return raw
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"{resource.kind} {name} stays as it is: {raw.get('status')} {raw}")


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = SOON_S) -> None:
    """Return as soon as it holds."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - the API server sets no event
            await asyncio.sleep(0.1)


async def gone(client: Client, resource: Resource, name: str, within_s: float = SOON_S) -> None:
    async with asyncio.timeout(within_s):
        while True:
            try:
                await client.get(resource, name)
            except NotFound:
                return
            await asyncio.sleep(0.02)


def state_of(raw: dict[str, Any]) -> str:
    return str((raw.get("status") or {}).get("state"))


def reason_of(raw: dict[str, Any]) -> str:
    return str((raw.get("status") or {}).get("reason"))


def is_in(state: str, reason: str | None = None) -> Callable[[dict[str, Any]], bool]:
    return lambda raw: state_of(raw) == state and reason in {None, reason_of(raw)}


def condition(raw: dict[str, Any], type_: str) -> dict[str, Any]:
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == type_), {})


def taint_of(node: dict[str, Any]) -> str | None:
    taints = node["spec"].get("taints") or ()
    return next((one.get("value") for one in taints if one["key"] == TAINT_BLADE), None)


def pool(name: str = "paris", selector: Any = SELECTOR, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"nodeSelector": selector, "gpu": {"count": 8}, **spec},
    }


async def make_pool(client: Client, name: str = "paris", **spec: Any) -> None:
    await client.create(NODEPOOLS, pool(name, **spec))


def fault(code: str = "xid-79", severity: str = "Fatal", **more: Any) -> dict[str, Any]:
    at = utc(time.time())
    return {
        "code": code,
        "check": "xid",
        "gpu": 3,
        "severity": severity,
        "action": "Drain",  # nothing that a repair would end
        "count": 1,
        "firstSeen": at,
        "lastSeen": at,
        "evidence": "NVRM: Xid 79",
        **more,
    }


async def report(
    client: Client,
    name: str,
    *faults: dict[str, Any],
    gpus: int = 8,
    boot: str = "boot-1",
    at: float | None = None,
    beats: bool = True,
) -> None:
    """Write what the agent of a blade would: its report and its heartbeat."""
    body = {
        "metadata": {"name": name},
        "status": {
            "report": {
                "agent": {
                    "version": "0.1.0",
                    "bootID": boot,
                    "driver": "580.95.05",
                    "time": utc(at if at is not None else time.time()),
                },
                "gpus": [
                    {"index": i, "uuid": f"GPU-{name}-{i}", "product": "NVIDIA-H200",
                     "memory": "141Gi"}
                    for i in range(gpus)
                ],
                "faults": list(faults),
                "checks": {"run": 41, "unknown": []},
            }
        },
    }  # fmt: skip
    if beats:
        await renew_heartbeat(client, heartbeat_lease(name), SYSTEM, name, 45)
    await client.apply(BLADES, body, manager=MANAGER_AGENT, subresource="status")


async def all_report(client: Client, names: Iterable[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(report(client, name))


async def all_in(
    client: Client, names: Iterable[str], state: str, within_s: float = SOON_S
) -> None:
    """Return when all of these blades are in that state."""
    wanted = set(names)
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(within_s):
            while not wanted <= {name for name, word in found.items() if word == state}:
                blades = await client.list_all(BLADES)
                found = {raw["metadata"]["name"]: state_of(raw) for raw in blades}
                await asyncio.sleep(0.02 + len(found) / 2000)
    except TimeoutError:
        pytest.fail(f"not all blades are {state}: {found}")


async def node_seen(client: Client, name: str, taint: str | None) -> dict[str, Any]:
    """Return the Node as soon as our taint on it has that value."""
    return await seen(client, NODES, name, lambda node: taint_of(node) == taint)
