"""Read an engine's flags from its source, and print them as a file of `flags/`.

    python -m tramontane.controllers.inferencedeployment.engines.readflags vllm 0.32.0 FOLDER

FOLDER is an unpacked wheel or source archive. Nothing of it is imported or run: Python is read as
a syntax tree, C++ as text, so that neither CUDA nor the engine's dependencies are needed. For
people who add a version; the operator reads only what this has written.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tramontane.controllers.inferencedeployment.engines.flagtable import Flag, merged
from tramontane.controllers.inferencedeployment.engines.reading.llamacpp import (
    llama_server_flags,
    settings_flags,
)
from tramontane.controllers.inferencedeployment.engines.reading.sglang import sglang_flags
from tramontane.controllers.inferencedeployment.engines.reading.vllm import vllm_flags

READERS: Final[dict[str, Callable[[Path], Iterator[Flag]]]] = {
    "vllm": vllm_flags,
    "sglang": sglang_flags,
    "llamacpp": llama_server_flags,
    "llamacpp-python": settings_flags,
}

_USAGE_EXIT: Final = 64


def file_of(engine: str, version: str, folder: Path) -> str:
    """Return the text of the file for one engine and version."""
    lines = [str(flag) for flag in merged(READERS[engine](folder))]
    head = f"# {engine} {version}: read from its source by readflags.py; do not edit."
    return "\n".join((head, *lines)) + "\n"


def main(arguments: list[str]) -> int:
    """Print that file; return the exit status."""
    match arguments:
        case [engine, version, folder] if engine in READERS:
            sys.stdout.write(file_of(engine, version, Path(folder)))
            return 0
        case _:
            sys.stderr.write(f"usage: readflags {{{','.join(READERS)}}} VERSION FOLDER\n")
            return _USAGE_EXIT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
