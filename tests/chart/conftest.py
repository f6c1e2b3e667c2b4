"""The helm binary, built from Go modules where the machine has none."""

from pathlib import Path
from typing import Any

import pytest

from chart.helm import Helm
from tramontane.lab import binaries

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing now: it takes minutes, which no test's time-out allows for."""
    wanted = any(HERE in item.path.parents for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    capture: Any = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        binaries.ensure(["helm"])


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(binaries.ensure(["helm"])["helm"], tmp_path_factory.mktemp("helm"))
