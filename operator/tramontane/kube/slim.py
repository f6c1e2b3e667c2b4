"""Leave out what we would import and never use: the agent runs on every blade, beside the work.

The loaders of credentials lie in `kubernetes.aio.config`. The `__init__` of `kubernetes` brings
the blocking client, requests, oauthlib and websocket along, that of `kubernetes.aio` urllib3,
pydoc and more, that of `kubernetes.aio.client` a list of all its models: 12 MB together, measured,
and none of it is called.
"""

import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType


def prepare() -> None:
    """Make `kubernetes.aio.config` importable without what we do not use of the client.

    The loaders name two classes of `kubernetes.aio.client`: they fill in the one, and the other
    is of use only to who wants their client.
    """
    for name in ("kubernetes", "kubernetes.aio", "kubernetes.aio.client"):
        skip_init(name)
    client = sys.modules["kubernetes.aio.client"]
    if not hasattr(client, "Configuration"):
        configuration = importlib.import_module("kubernetes.aio.client.configuration")
        vars(client).update(Configuration=configuration.Configuration, ApiClient=object)


def skip_init(name: str) -> None:
    """Make a package importable by its parts without running its own `__init__`.

    Its parent, if it has one, must be imported. Does nothing where the package is there already,
    or not installed.
    """
    parent, _, _ = name.rpartition(".")
    spec = PathFinder.find_spec(name, sys.modules[parent].__path__ if parent else None)
    if name in sys.modules or spec is None or spec.submodule_search_locations is None:
        return
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package
