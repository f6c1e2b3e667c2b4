"""Start fake-vllm, both as a module of a package and as a folder of its own."""

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "fakevllm"


def main() -> int:
    """Serve; return the exit code."""
    package = __package__ or _package_of(Path(__file__).resolve().parent)
    code: int = importlib.import_module(f"{package}.server").main(sys.argv[1:])
    return code


def _package_of(folder: Path) -> str:
    """Import the folder as a package, whatever it is called; return the package's name."""
    # Its files must not shadow the standard library's.
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec
    assert spec.loader
    sys.modules[NAME] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return NAME


if __name__ == "__main__":
    sys.exit(main())
