from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.scripted import Scripted, kubeconfig, scripted_server
from tramontane.kube.client import Client


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def client(server: Scripted, tmp_path: Path) -> AsyncIterator[Client]:
    path = kubeconfig(tmp_path / "kubeconfig", server.url)
    async with await Client.connect(path, user_agent="tests") as client:
        yield client
