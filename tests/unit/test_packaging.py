"""Four source roots share one namespace; a stray file in one of them would break Python itself."""

import importlib.metadata
import operator
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = ("operator", "scheduler", "health", "lab")


def test_operator_is_the_standard_library() -> None:
    stdlib = Path(sysconfig.get_path("stdlib")).resolve()
    assert Path(operator.__file__).resolve().is_relative_to(stdlib)


@pytest.mark.parametrize("root", SOURCE_ROOTS)
def test_no_init_where_it_would_shadow(root: str) -> None:
    assert (ROOT / root).is_dir()
    assert not (ROOT / root / "__init__.py").exists()
    assert not (ROOT / root / "tramontane" / "__init__.py").exists()


@pytest.mark.parametrize("folder", [ROOT, *(ROOT / root for root in SOURCE_ROOTS)], ids=str)
def test_python_starts_anywhere_in_the_checkout(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", "import collections, operator; operator.eq"],
        cwd=folder,
        check=True,
    )


def test_every_package_is_importable_from_one_distribution() -> None:
    distribution = importlib.metadata.distribution("tramontane")
    assert distribution.version
    for name in ("api", "kube", "controllers", "cli", "scheduler", "health", "lab"):
        subprocess.run(
            [sys.executable, "-c", f"import tramontane.{name}"], cwd=ROOT.parent, check=True
        )
