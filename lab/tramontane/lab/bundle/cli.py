"""The command line for a machine without a network: wheels of uv.lock for each Python.

A wheel of our own, and of each package the files that uv.lock names, for x86-64 Linux. Which
version belongs to which Python is written in markers, which pip would read for the Python that
runs it; so they are read here first.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from tramontane.lab.calls import call
from tramontane.lab.image.layer import MTIME
from tramontane.lab.image.python import requirements, uv
from tramontane.lab.image.recipe import RECIPES, ROOT

PYTHONS = ("3.11", "3.12", "3.13")
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def cli(scratch: Path, out: Path) -> int:
    """Fill a folder with wheels and the script that installs them; return how many wheels."""
    wheels = out / "wheels"
    wheels.mkdir(parents=True)
    _build_ours(wheels)
    listed = requirements()
    for version in PYTHONS:
        file = scratch / f"requirements-{version}.txt"
        file.write_text("".join(of_python(listed, version)))
        _download(file, version, wheels)
    shutil.copy(RECIPES / "install-cli.sh", out)
    (out / "pythons.txt").write_text("".join(f"{version}\n" for version in PYTHONS))
    return len(list(wheels.iterdir()))


def of_python(listed: str, version: str) -> Iterator[str]:
    """Yield the requirements that a Python needs, each with its digests, without markers."""
    environment = {
        "python_version": version,
        "python_full_version": f"{version}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    for block in re.split(r"\n(?=\S)", listed.strip()):
        head, *hashes = block.split("\\\n")
        one = Requirement(head.strip())
        if one.marker is None or one.marker.evaluate(environment):
            yield " \\\n".join([f"{one.name}{one.specifier}", *map(str.rstrip, hashes)]) + "\n"


def _build_ours(out: Path) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(MTIME)}
    argv = [str(uv()), "build", "--wheel", "--quiet", "--out-dir", str(out), str(ROOT)]
    _run(argv, environment, "the project's wheel")
    (out / ".gitignore").unlink(missing_ok=True)


def _download(file: Path, version: str, out: Path) -> None:
    tag = f"cp{version.replace('.', '')}"
    argv = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--require-hashes", "--only-binary", ":all:",
        "--implementation", "cp", "--python-version", version,
        *(word for abi in (tag, "abi3", "none") for word in ("--abi", abi)),
        *(word for one in _PLATFORMS for word in ("--platform", one)),
        "--dest", str(out), "--requirement", str(file),
    ]  # fmt: skip
    _run(argv, dict(os.environ), f"wheels for Python {version}")


def _run(argv: list[str], environment: dict[str, str], what: str) -> None:
    remedy = "packages come from the index that pip and uv are set to"
    call(argv, f"bundle: {what} must be had", remedy, env=environment, cwd=ROOT)
