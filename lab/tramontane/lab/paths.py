"""Where the lab keeps things: never in the checkout.

* the cache: what is dear to make and the same for everybody (binaries, the simulated NVML);
* a lab folder: what one running cluster needs (keys, logs, etcd's data, process table).
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

from tramontane.api.errors import TramontaneError

GO_MODULES = Path(__file__).parent / "go"


class LabError(TramontaneError):
    """Something about the lab that a person can put right; the message says how."""


def cache_dir() -> Path:
    """Return the folder of built binaries (`TRAMONTANE_CACHE`, else the user's cache)."""
    if chosen := os.environ.get("TRAMONTANE_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tramontane"


def state_dir() -> Path:
    """Return the folder of the lab that `tramontane lab up` starts when told no other."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tramontane" / "lab"


def own_command() -> str:
    """Return how a person calls the `tramontane` that runs: by its path where PATH has no such."""
    name, own = "tramontane", Path(sys.argv[0])
    if own.name != name or not own.is_file():  # a test, a plugin of kubectl
        return name
    found = shutil.which(name)
    known = found is not None and own.samefile(found)
    return name if known else shlex.quote(str(own.absolute()))


def crd_dir() -> Path:
    """Return the folder of the generated CRDs: the source tree's, or the wheel's.

    Raises:
        LabError: neither is there.
    """
    here = Path(__file__).resolve()
    for folder in (here.parents[3] / "crds", here.parent / "crds"):
        if any(folder.glob("*.yaml")):
            return folder
    raise LabError(
        f"crds: the generated CRDs must lie in {here.parents[3] / 'crds'} (got none);"
        " run `make generate`"
    )
