"""The helm binaries, built from Go modules where the machine has none."""

from pathlib import Path
from typing import Any

import pytest

from chart.helm import Helm
from tramontane.lab import binaries

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now: it takes minutes, which no test's time-out allows for."""
    ours = [item for item in session.items if HERE in item.path.parents]
    fixtures = {name for item in ours for name in getattr(item, "fixturenames", ())}
    wanted = sorted({"helm", "helm3"} & fixtures)
    if not wanted or session.config.option.collectonly:
        return
    capture: Any = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        binaries.ensure(wanted)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(binaries.ensure(["helm"])["helm"], tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The last Helm 3: what it renders has to be what Helm 4 renders."""
    return Helm(binaries.ensure(["helm3"])["helm3"], tmp_path_factory.mktemp("helm3"))
