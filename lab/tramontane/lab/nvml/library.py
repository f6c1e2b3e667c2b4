"""Compile the simulated NVML with the system's C compiler, once per source.

The result lies in `<cache>/nvml-<hash of sources and flags>/libnvidia-ml.so.1`; a folder is
renamed into place when it is complete, so that two builders do no harm to one another.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tramontane.api.errors import TramontaneError

SOURCES = Path(__file__).parent / "src"
SONAME = "libnvidia-ml.so.1"
FLAGS = ("-shared", "-fPIC", "-O2", "-std=c11", "-fvisibility=hidden", f"-Wl,-soname,{SONAME}")


class BuildError(TramontaneError):
    """The library could not be compiled; the message ends with what the compiler said."""


def build(cache_dir: Path) -> Path:
    """Return the path of the compiled library, compiling it where the cache lacks it.

    Raises:
        BuildError: there is no C compiler, or it refused.
    """
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(f"{FLAGS} {platform.machine()}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = cache_dir / f"nvml-{digest.hexdigest()[:16]}"
    if (folder / SONAME).exists():
        return folder / SONAME
    cache_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="nvml-", dir=cache_dir))
    try:
        _compile([source for source in sources if source.suffix == ".c"], work / SONAME)
        work.chmod(0o755)
        work.rename(folder)
    except OSError:
        if not (folder / SONAME).exists():  # else another builder was faster, with the same result
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / SONAME


def _compile(sources: list[Path], target: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BuildError(
            "simulated NVML: a C compiler must be on the PATH (got none); install gcc, or set CC"
        )
    command = [compiler, *FLAGS, "-o", str(target), *map(str, sources), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own sources
    if done.returncode != 0:
        raise BuildError(
            f"simulated NVML: {compiler} must compile it (got exit status {done.returncode}):"
            f" {done.stderr.strip()}"
        )
