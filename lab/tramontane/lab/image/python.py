"""Packages of uv.lock for an image: chosen and checked by uv, never resolved anew.

`uv export --frozen` writes versions with the digests of all their files, `uv pip install` takes
wheels for the image's Python, whatever Python runs here. Nothing is compiled and nothing newer
than the lock comes in.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tramontane.lab.calls import call
from tramontane.lab.image.recipe import ROOT
from tramontane.lab.paths import LabError

# Wheels for any glibc from 2.28 on: that of Debian 12 is 2.36.
PLATFORM = "x86_64-manylinux_2_28"


def uv() -> Path:
    """Return where uv is: in the checkout's environment, or on PATH.

    Raises:
        LabError: it is nowhere.
    """
    ours = ROOT / ".venv" / "uv" / "bin" / "uv"
    found = str(ours) if ours.is_file() else shutil.which("uv")
    if found is None:
        raise LabError("image: uv must be here (got none); run `make setup`")
    return Path(found)


def requirements(without: Iterable[str] = ()) -> str:
    """Return what the project needs to run, as pip reads it: versions and digests by uv.lock."""
    pruned = [word for name in without for word in ("--prune", name)]
    return _run(
        "export", "--frozen", "--quiet", "--no-default-groups", "--no-emit-project",
        "--no-annotate", "--no-header", *pruned,
    )  # fmt: skip


def install(listed: str, python: str, target: Path) -> None:
    """Install requirements into an empty folder, as wheels for that Python.

    Raises:
        LabError: a package cannot be had, or is not what the lock says.
    """
    target.mkdir(parents=True)
    file = target.with_name(f"{target.name}.requirements.txt")
    file.write_text(listed)
    _run(
        "pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--link-mode", "copy", "--no-compile-bytecode",
        "--python-version", python, "--python-platform", PLATFORM,
        "--target", str(target), "--requirements", str(file),
    )  # fmt: skip
    file.unlink()


def _run(*argv: str) -> str:
    """Run uv in the checkout; return what it printed."""
    return call(
        [uv(), *argv],
        f"image: `uv {' '.join(argv[:2])}` must succeed",
        "packages come from the index that uv is set to, or from its cache",
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(ROOT / ".venv")},
        cwd=ROOT,
    )
