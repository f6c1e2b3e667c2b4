"""Leave out what the agent would import and never use: it runs on every blade, beside the work.

`kubernetes.aio`, which kube.config loads, lies in a package whose `__init__` brings the blocking
client, requests, oauthlib and websocket along: 7 MiB of 60, measured, and none of it is called.
"""

import sys
from importlib.machinery import PathFinder
from types import ModuleType

_HEAVY = "kubernetes"


def skip_init(name: str = _HEAVY) -> None:
    """Make a package importable by its parts without running its own `__init__`.

    Does nothing where the package is there already, or not installed.
    """
    spec = PathFinder.find_spec(name)
    if name in sys.modules or spec is None or spec.submodule_search_locations is None:
        return
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package
