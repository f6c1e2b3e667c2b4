"""Reach the API server for the time of one command: find objects, and know who asks."""

import asyncio
import difflib
import getpass
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tramontane.api.errors import InvalidValue, TramontaneError
from tramontane.api.names import GROUP, LABEL_POOL
from tramontane.cli.options import MOST_CHARS, Cluster
from tramontane.kube.client import Client, NotFound
from tramontane.kube.resources import BLADES, NODEPOOLS, Resource

Raw = dict[str, Any]
T = TypeVar("T")

# The loaders of credentials log what we say better ourselves.
_SILENT = logging.NullHandler()
_ALIKE = 0.5


class NoSuchObject(TramontaneError):  # noqa: N818 - named for what was found
    """Say that there is no object of that name, and which one was probably meant."""

    def __init__(self, resource: Resource, name: str, known: Sequence[str]) -> None:
        kind = resource.kind
        near = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
        if near:
            hint = f'did you mean "{near[0]}"?'
        elif known:
            shows = _COMMANDS.get(kind, f"kubectl get {resource.plural} -A")
            hint = f"`{shows}` shows all {len(known)}"
        else:
            hint = f"there is no {kind} in this cluster"
        super().__init__(f"{kind} {name}: must exist (got none of that name); {hint}")


class NotInstalled(TramontaneError):  # noqa: N818 - the same
    """Say that the cluster does not know our kinds."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(
            f"the cluster must have the kind {resource.kind} (got none of {resource.api_version}); "
            "install Tramontane's chart, or see `tramontane doctor`"
        )


_COMMANDS = {BLADES.kind: "tramontane blade list", NODEPOOLS.kind: "tramontane pool list"}


def run(cluster: Cluster, work: Callable[[Client], Awaitable[T]]) -> T:
    """Return what `work` does with a client that is there for this time only."""

    async def connected() -> T:
        async with await connect(cluster) as client:
            return await work(client)

    return asyncio.run(connected())


async def connect(cluster: Cluster, timeout_s: float = 30.0) -> Client:
    """Return a client of the cluster that is meant; use it as a context manager."""
    logging.getLogger().addHandler(_SILENT)
    return await Client.connect(
        cluster.kubeconfig,
        context=cluster.context,
        user_agent="tramontane-cli",
        timeout_s=timeout_s,
    )


async def get(client: Client, resource: Resource, name: str, namespace: str | None = None) -> Raw:
    """Return the object.

    Raises:
        NoSuchObject: there is none; the message names the nearest.
    """
    try:
        raw = await client.get(resource, name, namespace)
    except NotFound:
        # Names alone: a hall of 12,500 Blades is 50 MB of objects.
        listed = await every(client, resource, namespace, metadata_only=True)
        known = [one["metadata"]["name"] for one in listed]
        raise NoSuchObject(resource, name, known) from None
    # For `-o json`: nobody reads who wrote which field.
    raw["metadata"].pop("managedFields", None)
    return raw


async def every(
    client: Client,
    resource: Resource,
    namespace: str | None = None,
    *,
    selector: str | None = None,
    fields: str | None = None,
    metadata_only: bool = False,
) -> list[Raw]:
    """Return all objects of a kind, by name; of one namespace where it is given.

    Raises:
        NotInstalled: the cluster does not know the kind.
    """
    try:
        found = await client.list_all(
            resource,
            namespace,
            label_selector=selector,
            field_selector=fields,
            metadata_only=metadata_only,
        )
    except NotFound:
        if resource.group == GROUP:
            raise NotInstalled(resource) from None
        raise
    for raw in found:
        raw["metadata"].pop("managedFields", None)
    return sorted(found, key=_name)


async def blades_of(client: Client, pool: str | None) -> list[Raw]:
    """Return the Blades of a pool, or of all pools, by name.

    Raises:
        NoSuchObject: there is no such pool.
    """
    selector = None if pool is None else f"{LABEL_POOL}={pool}"
    found = await every(client, BLADES, selector=selector)
    if pool is not None and not found:
        await get(client, NODEPOOLS, pool)
    return found


def person(given: str | None, cluster: Cluster) -> str:
    """Return who asks: as given, else the kubeconfig's user, else the one who is logged in.

    Raises:
        InvalidValue: nobody can be told, or the name is too long.
    """
    name = (given or "").strip() or _of_context(cluster, "user") or _login()
    if not name:
        raise InvalidValue("--by must name who asks", remedy="give --by NAME")
    if len(name) > MOST_CHARS:
        raise InvalidValue(f"--by must have at most {MOST_CHARS} characters", len(name))
    return name


def namespace_of(cluster: Cluster) -> str | None:
    """Return the namespace that the context of the kubeconfig names; None where it names none."""
    return _of_context(cluster, "namespace") or None


def _of_context(cluster: Cluster, field: str) -> str:
    """Return a field of the context that counts; empty where there is none, as in a pod."""
    paths = [cluster.kubeconfig] if cluster.kubeconfig else usual_paths()
    contexts: dict[str, str] = {}
    current = cluster.context or ""
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
            value = (one.get("context") or {}).get(field)
            if value:
                contexts.setdefault(str(one.get("name")), str(value))
    return contexts.get(current, "")


def usual_paths() -> list[Path]:
    """Return the kubeconfigs that are read where none is named."""
    named = os.environ.get("KUBECONFIG")
    if named:
        return [Path(path) for path in named.split(os.pathsep) if path]
    return [Path.home() / ".kube" / "config"]


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


def _name(raw: Raw) -> tuple[str, str]:
    meta = raw["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])
