"""One real control plane for all plane tests of a run, empty again after each of them.

    async def test_x(plane: Plane) -> None:
        async with await plane.client() as client:
            await client.create(NODEPOOLS, {...})

The programs are built before the first test, where no time-out counts. Without Go the tests are
skipped with the reason; in CI (CI=true) that is a failure.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from plane.harness import SYSTEM, Plane
from tramontane.kube.client import Client
from tramontane.lab.binaries import CONTROL_PLANE, ensure
from tramontane.lab.cluster import apply_crds, ensure_namespace
from tramontane.lab.controlplane import ControlPlane, NodeTiming, Options
from tramontane.lab.gobuild import BuildFailed

HERE = Path(__file__).parent
_unbuilt: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.plane)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now: it takes minutes, which no test's time-out allows for."""
    wanted = any(HERE in item.path.parents for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    capture: Any = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            live = any(item.path.name == "test_live_boards.py" for item in session.items)
            ensure((*CONTROL_PLANE, *(["prometheus"] if live else [])))
        except BuildFailed as error:
            _unbuilt.append(str(error))


@pytest.fixture(scope="session")
def _built() -> None:
    """Skip where the control plane could not be built; in CI that is a failure."""
    if _unbuilt:
        if os.environ.get("CI") == "true":
            pytest.fail(_unbuilt[0], pytrace=False)
        pytest.skip(_unbuilt[0])


@pytest.fixture(scope="session")
def _plane(_built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    control = ControlPlane(tmp_path_factory.mktemp("plane"), Options(nodes=NodeTiming.quick()))

    async def start() -> None:
        await control.start()
        async with await Client.connect(control.kubeconfig, user_agent="tests") as client:
            await apply_crds(client)
            await ensure_namespace(client, SYSTEM)

    try:
        asyncio.run(start())
        yield Plane(control)
    finally:
        control.stop()


@pytest.fixture
async def plane(_plane: Plane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plane]:
    """A control plane with our CRDs and the system namespace, and nothing else in it."""
    monkeypatch.setenv("KUBECONFIG", str(_plane.kubeconfig))
    yield _plane
    await _plane.reset()
