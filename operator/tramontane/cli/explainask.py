"""Read an object, and what it blocks or is blocked by, to explain it."""

from typing import Any

from tramontane.cli import bladeword, objects
from tramontane.cli.explainview import Explained
from tramontane.kube.client import Client, Forbidden, NotFound
from tramontane.kube.resources import (
    BLADES,
    GANGS,
    NODEPOOLS,
    TRAININGJOBS,
    Resource,
)

Raw = dict[str, Any]


async def read(client: Client, said: str, namespace: str | None, near: str | None) -> Explained:
    """Return the object that is meant, with what stands around it.

    Raises:
        NoSuchObject: there is none.
    """
    kind, raw = await objects.find_any(client, said, namespace, near)
    meta, spec = raw["metadata"], raw.get("spec") or {}
    if kind is BLADES:
        use = (await bladeword.uses(client, [meta["name"]]))[meta["name"]]
        pool = await _get(client, NODEPOOLS, spec.get("pool", ""))
        return Explained(kind, raw, pool, use=use, waiting=await _waiting(client, spec["pool"]))
    if kind is NODEPOOLS:
        return Explained(kind, raw, raw, waiting=await _waiting(client, meta["name"]))
    if kind is TRAININGJOBS:
        gang = await _get(client, GANGS, meta["name"], meta["namespace"])
        return Explained(kind, raw, gang=gang)
    return Explained(kind, raw)


async def _get(
    client: Client, kind: Resource, name: str, namespace: str | None = None
) -> Raw | None:
    try:
        return await client.get(kind, name, namespace) if name else None
    except (NotFound, Forbidden):
        return None


async def _waiting(client: Client, pool: str) -> list[Raw]:
    """Return the gangs of a pool that wait, by their position; none where one may not look."""
    try:
        gangs = await client.list_all(GANGS)
    except (Forbidden, NotFound):
        return []
    found = [
        raw
        for raw in gangs
        if (raw.get("spec") or {}).get("pool") == pool
        and (raw.get("status") or {}).get("phase") == "Pending"
    ]
    return sorted(found, key=lambda raw: int(raw["status"].get("position") or 0))
