"""Look at what a person's word on blades would touch, and write it."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tramontane.api.blade import Blade
from tramontane.api.names import GPU_RESOURCE, LABEL_GANG
from tramontane.api.nodepool import NodePool
from tramontane.cli import session
from tramontane.cli.effects import Use
from tramontane.kube.client import Client, Forbidden, NotFound
from tramontane.kube.resources import BLADES, GANGS, INFERENCEDEPLOYMENTS, NODEPOOLS, PODS

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """Hold the blades that are meant, their pools by name, and who uses them."""

    blades: Sequence[Blade]
    pools: Mapping[str, NodePool]
    uses: Mapping[str, Use] = field(default_factory=dict)


async def look(client: Client, names: Sequence[str], *, with_uses: bool = False) -> Scene:
    """Return what there is to know before the word is written.

    Raises:
        NoSuchObject: one of the blades is not there.
    """
    raws = [await session.get(client, BLADES, name) for name in names]
    blades = [Blade.model_validate(raw) for raw in raws]
    pools = {}
    for name in {one.spec.pool for one in blades}:
        try:
            pools[name] = NodePool.model_validate(await client.get(NODEPOOLS, name))
        except (NotFound, Forbidden):
            continue
    return Scene(blades, pools, await uses(client, names) if with_uses else {})


async def uses(client: Client, names: Sequence[str]) -> dict[str, Use]:
    """Return who uses the blades: gangs by the scheduler's word, and pods of others with GPUs."""
    try:
        gangs = await client.list_all(GANGS)
    except (Forbidden, NotFound):
        gangs = []
    seats, spares = on_blades(gangs)
    serving = {_key(raw) for raw in gangs if _serves(raw)}
    pods = await asyncio.gather(*(_others(client, name) for name in names))
    return {
        name: Use(
            tuple(seats.get(name, ())),
            tuple(spares.get(name, ())),
            others,
            tuple(key for key in seats.get(name, ()) if key in serving),
        )
        for name, others in zip(names, pods, strict=True)
    }


def on_blades(gangs: Sequence[Raw]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return, by blade, the gangs that have a seat there, and those that hold it as a spare."""
    seats: dict[str, list[str]] = defaultdict(list)
    spares: dict[str, list[str]] = defaultdict(list)
    for raw in gangs:
        placement = (raw.get("status") or {}).get("placement") or {}
        key = _key(raw)
        for blade in dict.fromkeys(placement.get("seats") or ()):
            seats[blade].append(key)
        for blade in placement.get("spares") or ():
            spares[blade].append(key)
    return seats, spares


def _key(raw: Raw) -> str:
    return f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _serves(gang: Raw) -> bool:
    """Return whether the gang is a replica of a model."""
    owners = gang["metadata"].get("ownerReferences") or ()
    return any(one.get("kind") == INFERENCEDEPLOYMENTS.kind for one in owners)


async def write(
    client: Client, names: Sequence[str], word: Callable[[Blade], Raw | None]
) -> list[str]:
    """Write a word to all blades, if all of them exist; return those that needed it."""
    # A name that is wrong must not leave half of the blades held.
    blades = [Blade.model_validate(await session.get(client, BLADES, name)) for name in names]
    done = []
    for one in blades:
        patch = word(one)
        if patch is not None:
            await client.merge_patch(BLADES, one.metadata.name, patch)
            done.append(one.metadata.name)
    return done


async def _others(client: Client, blade: str) -> tuple[str, ...] | None:
    """Return the pods with GPUs on a blade that are no gang's; None where one may not look."""
    try:
        pods = await client.list_all(PODS, field_selector=f"spec.nodeName={blade}")
    except Forbidden:
        return None
    return tuple(
        f"{raw['metadata']['namespace']}/{raw['metadata']['name']}"
        for raw in pods
        if raw.get("spec", {}).get("nodeName") == blade and _is_other(raw)
    )


def _is_other(pod: Raw) -> bool:
    if LABEL_GANG in (pod["metadata"].get("labels") or {}):
        return False
    if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return False
    return any(
        GPU_RESOURCE in ((one.get("resources") or {}).get("limits") or {})
        or GPU_RESOURCE in ((one.get("resources") or {}).get("requests") or {})
        for one in pod["spec"].get("containers") or ()
    )
