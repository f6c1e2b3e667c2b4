"""Say which pool a Node belongs to. No pool takes a Node from another.

| pools that match | Blade's pool among them | owner                                    |
|------------------|-------------------------|------------------------------------------|
| none             |                         | none                                     |
| one              | any                     | that one                                 |
| several          | yes                     | the Blade's; all that match are told     |
| several          | no, or no Blade         | the oldest (then by name); all are told  |
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tramontane.api.nodepool import NodePool

# A pool's name is a label value on its Nodes.
MOST_NAME_CHARS = 63


@dataclass(frozen=True, slots=True)
class Claim:
    """Who owns a Node. `rivals`: all pools that match, where there are several; sorted."""

    owner: str | None = None
    rivals: tuple[str, ...] = ()


NOBODY = Claim()


def by_age(pools: Iterable[NodePool]) -> tuple[NodePool, ...]:
    """Return the pools that may own Nodes, oldest first.

    Not one that is being deleted, nor one whose name no label can carry.
    """
    able = [
        pool
        for pool in pools
        if pool.metadata.deletion_timestamp is None and len(pool.metadata.name) <= MOST_NAME_CHARS
    ]
    able.sort(key=lambda pool: (pool.metadata.creation_timestamp or "", pool.metadata.name))
    return tuple(able)


def claim(labels: Mapping[str, str], pools: tuple[NodePool, ...], current: str | None) -> Claim:
    """Return who owns a Node with these labels. O(pools · requirements).

    Args:
        labels: of the Node.
        pools: as `by_age` gives them.
        current: the pool of the Node's Blade, or None.
    """
    matching = [pool.metadata.name for pool in pools if pool.spec.node_selector.matches(labels)]
    if not matching:
        return NOBODY
    owner = current if current in matching else matching[0]
    return Claim(owner, tuple(sorted(matching)) if len(matching) > 1 else ())
