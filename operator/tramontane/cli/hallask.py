"""Read what a hall looks like, cheaply: a hall of 12,500 Blades is 50 MB of objects.

Pools carry counts. Which blades are not at work is asked of the Nodes' labels, which the operator
keeps, without the objects' contents; only those that are shown by name are read. Domains and the
map need the labels of all Nodes, and the gangs' seats.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tramontane.api.blade import Blade
from tramontane.api.names import LABEL_BLADE_STATE, LABEL_POOL
from tramontane.api.nodepool import NodePool
from tramontane.cli import bladeword, looks, session
from tramontane.cli.hallview import MOST_BLADES, Cell, Hall
from tramontane.kube.client import Client, Forbidden, NotFound
from tramontane.kube.resources import BLADES, GANGS, NODEPOOLS, NODES

Raw = dict[str, Any]

_ON_ITS_WAY = frozenset({"Delivered", "Qualifying"})
_HEALTHY = "Healthy"


async def look(client: Client, pool: str | None, *, with_cells: bool) -> Hall:
    """Return the hall, or one pool of it.

    Raises:
        NoSuchObject: there is no such pool.
    """
    if pool is None:
        raws = await session.every(client, NODEPOOLS)
    else:
        raws = [await session.get(client, NODEPOOLS, pool)]
    pools = [NodePool.model_validate(raw) for raw in raws]
    of_pool = LABEL_POOL if pool is None else f"{LABEL_POOL}={pool}"
    selector = of_pool if with_cells else f"{of_pool},{LABEL_BLADE_STATE} notin ({_HEALTHY})"
    nodes = await client.list_all(NODES, label_selector=selector, metadata_only=True)
    marked = [(one["metadata"]["name"], dict(one["metadata"].get("labels") or {})) for one in nodes]
    # A node that left a pool may keep its label until the operator has seen it.
    names = {one.metadata.name for one in pools}
    marked = [(name, labels) for name, labels in marked if labels.get(LABEL_POOL) in names]
    states = {name: _state(labels) for name, labels in marked}
    bad = [(name, labels) for name, labels in marked if _is_bad(states[name])]
    bad.sort(key=lambda one: (looks.WORST.index(states[one[0]]), one[0]))
    count = Counter((labels[LABEL_POOL], states[name]) for name, labels in bad)
    shown = await asyncio.gather(*(_blade(client, name) for name, _ in bad[:MOST_BLADES]))
    cells = await _cells(client, pools, marked) if with_cells else []
    return Hall(pools, [one for one in shown if one is not None], dict(count), cells)


async def _blade(client: Client, name: str) -> Blade | None:
    try:
        return Blade.model_validate(await client.get(BLADES, name))
    except NotFound:
        return None


async def _cells(
    client: Client, pools: Sequence[NodePool], marked: Sequence[tuple[str, Mapping[str, str]]]
) -> list[Cell]:
    try:
        seats, spares = bladeword.on_blades(await client.list_all(GANGS))
    except (Forbidden, NotFound):
        seats, spares = {}, {}
    levels = {
        one.metadata.name: tuple(level.label for level in one.spec.topology.levels) for one in pools
    }
    return [
        Cell(
            name,
            labels[LABEL_POOL],
            _state(labels),
            looks.look(_state(labels), has_seat=name in seats, is_spare=name in spares),
            tuple(labels.get(label, "?") for label in levels[labels[LABEL_POOL]]),
        )
        for name, labels in marked
    ]


def _state(labels: Mapping[str, str]) -> str:
    """Return the state that the label says; empty where it says none, or one of another version."""
    state = labels.get(LABEL_BLADE_STATE, "")
    return state if state == _HEALTHY or state in looks.WORST else ""


def _is_bad(state: str) -> bool:
    return state != _HEALTHY and state not in _ON_ITS_WAY
