"""Know where the real model, its engines and its client lie, and whether they are there."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tramontane.lab.paths import cache_dir

HERE = Path(__file__).parent
REQUIREMENTS, SOURCES = HERE / "requirements.txt", HERE / "sources.txt"
#: What must be on the machine: program, and the Debian package that has it.
PROGRAMS = {"cmake": "cmake", "c++": "g++", "make": "make"}
QUICK_MATHS = HERE / "ggml.cmake"
# How llama.cpp is built; without network, without what only people look at. Its arithmetic, ggml,
# is optimised as in any release; the rest only a little, which halves the compiler's time.
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",
    "-DGGML_CCACHE=OFF",
    "-DGGML_NATIVE=OFF",  # a virtual machine's processor may not do all that its model can
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_COMMIT=unknown",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_IS_DEV=OFF",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_TOOLS_INSTALL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)


@dataclass(frozen=True, slots=True)
class RealModel:
    """Hold where things lie.

    Attributes:
        folder: all of it, in the cache.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Return the interpreter that has OpenAI's client and llama-cpp-python."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def engine(self) -> Path:
        """Return the folder of `llama-server` and its libraries."""
        return self.folder / "engine"

    @property
    def model(self) -> Path:
        """Return the folder of the .gguf file."""
        return self.folder / "models" / "smollm2-135m"

    @property
    def stamp(self) -> Path:
        """Return the file that is written last."""
        return self.folder / "stamp"

    @property
    def whole(self) -> bool:
        """Return whether all of it is there, of this recipe."""
        return self.stamp.is_file() and self.stamp.read_text() == recipe()


def found() -> RealModel:
    """Return the place in the cache, filled or not."""
    return RealModel(cache_dir() / "serve-real")


def recipe() -> str:
    """Return what changes when anything must be built anew."""
    files = (REQUIREMENTS, SOURCES, QUICK_MATHS)
    parts = [*(file.read_bytes() for file in files), *(option.encode() for option in OPTIONS)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def lacking() -> list[str]:
    """Return the Debian packages of programs that the build needs and the machine has not."""
    return [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
