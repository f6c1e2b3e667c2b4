"""The simulated NVML, compiled once per run, and machines that live in a test's folder."""

from pathlib import Path

import pytest

from tramontane.lab import paths
from tramontane.lab.nvml import StateFile, blade, build


@pytest.fixture(scope="session")
def library() -> Path:
    return build(paths.cache_dir())


@pytest.fixture
def machine(tmp_path: Path) -> StateFile:
    file = StateFile(tmp_path / "blade.nvml")
    file.write(blade("gpu-0001"))
    return file
