"""One cluster of four real nodes for all tests of a run, whole again after each of them.

    async def test_x(tier: Tier) -> None:
        async with await tier.client() as client:
            await tier.nodes.power_off("real-0002")

It needs root, containerd, runc, CNI plugins and a static busybox; without them the tests are
skipped with the reason. In CI, where packages can be installed, a missing one is a failure.
Programs are built
before the first test, where no time-out counts.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.harness import NODES, Tier, pool
from tramontane.lab.binaries import CONTROL_PLANE, REAL_NODES, ensure
from tramontane.lab.cluster import Lab, Setup
from tramontane.lab.fleet import Layout
from tramontane.lab.gobuild import BuildFailed
from tramontane.lab.nodes.machine import PACKAGES, lacking, lacking_rights

HERE = Path(__file__).parent
_unbuilt: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.node)
    # One lab at a time: those that bring their own go before the one that stays to the end.
    ours.sort(key=lambda item: "tier" in getattr(item, "fixturenames", ()))
    items[:] = [*(item for item in items if item not in ours), *ours]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now: it takes minutes, which no test's time-out allows for."""
    wanted = any(HERE in item.path.parents for item in session.items)
    if not wanted or session.config.option.collectonly or lacking():
        return
    capture: Any = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            ensure((*CONTROL_PLANE, *REAL_NODES))
        except BuildFailed as error:
            _unbuilt.append(str(error))


@pytest.fixture(scope="session")
def _able() -> None:
    """Skip where the machine cannot have real nodes; fail in CI if only packages are missing."""
    if rights := lacking_rights():
        pytest.skip(f"real nodes need {', '.join(rights)}")
    missing = [f"real nodes need {one}; apt-get install {PACKAGES}" for one in lacking()]
    for reason in (*missing, *_unbuilt):
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def _tier(_able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tier]:
    layout = Layout(blades=0)
    lab = Lab(
        tmp_path_factory.mktemp("lab"),
        Setup(layout, pool=pool(layout), real_nodes=NODES, log_level="debug"),
    )

    async def start() -> None:
        await lab.start()
        await lab.close()  # each test has a loop, and so a client, of its own

    asyncio.run(start())
    try:
        yield Tier(lab, tmp_path_factory.mktemp("shared"))
    finally:
        lab.stop()


@pytest.fixture
async def tier(_tier: Tier, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tier]:
    """Four real nodes, healthy blades of one pool, operator and scheduler, and no job."""
    monkeypatch.setenv("KUBECONFIG", str(_tier.kubeconfig))
    _tier.lab.processes.check()
    yield _tier
    await _tier.reset()
