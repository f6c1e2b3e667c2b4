"""Reach the API server for the time of one command: find objects, and know who asks."""

import asyncio
import difflib
import getpass
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tramontane.api.errors import InvalidValue, TramontaneError
from tramontane.api.names import LABEL_POOL
from tramontane.kube.client import Client, NotFound
from tramontane.kube.resources import BLADES, NODEPOOLS, Resource

Raw = dict[str, Any]
T = TypeVar("T")

_MOST_CHARS = 253
_ALIKE = 0.5


class NoSuchObject(TramontaneError):  # noqa: N818 - named for what was found
    """Say that there is no object of that name, and which one was probably meant."""

    def __init__(self, resource: Resource, name: str, known: Sequence[str]) -> None:
        kind = resource.kind
        near = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if near:
            hint = f'did you mean "{near[0]}"?'
        elif known:
            hint = f"`tramontane {_COMMANDS[kind]} list` shows all {len(known)}"
        else:
            hint = f"there is no {kind} in this cluster"
        super().__init__(f"{kind} {name}: must exist (got none of that name); {hint}")


_COMMANDS = {BLADES.kind: "blade", NODEPOOLS.kind: "pool"}


def run(kubeconfig: Path | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Return what `work` does with a client that is there for this time only."""

    async def connected() -> T:
        async with await Client.connect(kubeconfig, user_agent="tramontane-cli") as client:
            return await work(client)

    return asyncio.run(connected())


async def get(client: Client, resource: Resource, name: str) -> Raw:
    """Return the object.

    Raises:
        NoSuchObject: there is none; the message names the nearest.
    """
    try:
        raw = await client.get(resource, name)
    except NotFound:
        known = [one["metadata"]["name"] for one in await every(client, resource)]
        raise NoSuchObject(resource, name, known) from None
    # For `-o json`: nobody reads who wrote which field.
    raw["metadata"].pop("managedFields", None)
    return raw


async def every(client: Client, resource: Resource, selector: str | None = None) -> list[Raw]:
    """Return all objects of a kind in cluster scope, by name."""
    found = await client.list_all(resource, label_selector=selector)
    for raw in found:
        raw["metadata"].pop("managedFields", None)
    return sorted(found, key=lambda raw: str(raw["metadata"]["name"]))


async def blades_of(client: Client, pool: str | None) -> list[Raw]:
    """Return the Blades of a pool, or of all pools, by name.

    Raises:
        NoSuchObject: there is no such pool.
    """
    found = await every(client, BLADES, None if pool is None else f"{LABEL_POOL}={pool}")
    if pool is not None and not found:
        await get(client, NODEPOOLS, pool)
    return found


def person(given: str | None, kubeconfig: Path | None) -> str:
    """Return who asks: as given, else the kubeconfig's user, else the one who is logged in.

    Raises:
        InvalidValue: nobody can be told, or the name is too long.
    """
    name = (given or "").strip() or _kubeconfig_user(kubeconfig) or _login()
    if not name:
        raise InvalidValue("--by must name who asks", remedy="give --by NAME")
    if len(name) > _MOST_CHARS:
        raise InvalidValue(f"--by must have at most {_MOST_CHARS} characters", len(name))
    return name


def _kubeconfig_user(kubeconfig: Path | None) -> str:
    """Return the user of the current context; empty where there is none, as in a pod."""
    paths = [kubeconfig] if kubeconfig else _usual_paths()
    contexts: dict[str, str] = {}
    current = ""
    for path in paths:
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if not isinstance(content, dict):
            continue
        # As kubectl merges them: the first file that says something wins.
        current = current or str(content.get("current-context") or "")
        for one in content.get("contexts") or ():
            user = (one.get("context") or {}).get("user")
            if user:
                contexts.setdefault(str(one.get("name")), str(user))
    return contexts.get(current, "")


def _usual_paths() -> list[Path]:
    named = os.environ.get("KUBECONFIG")
    if named:
        return [Path(path) for path in named.split(os.pathsep) if path]
    return [Path.home() / ".kube" / "config"]


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
