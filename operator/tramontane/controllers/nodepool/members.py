"""Know which Nodes belong to which pool, kept up to date one change at a time."""

from collections import defaultdict
from collections.abc import Mapping

from tramontane.api.blade import Blade
from tramontane.api.nodepool import NodePool
from tramontane.controllers.nodepool import owners, policy
from tramontane.controllers.nodepool.care import Raw
from tramontane.controllers.nodepool.owners import NOBODY, Claim
from tramontane.controllers.nodepool.policy import Policy
from tramontane.kube.views import NodeView


class Members:
    """Claims on Nodes, as `owners` decides them, with the pools' policies.

    Reads the caches it is given, holds nothing that cannot be computed from them.
    """

    def __init__(
        self,
        pools: Mapping[str, NodePool],
        nodes: Mapping[str, NodeView],
        blades: Mapping[str, Blade],
        reset: Raw | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self._reset = reset
        self._dry_run = dry_run
        self._pools = pools
        self._nodes = nodes
        self._blades = blades
        self._by_age: tuple[NodePool, ...] = ()
        self._claims: dict[str, Claim] = {}
        self._owned: dict[str, set[str]] = defaultdict(set)
        self._contested: dict[str, set[str]] = defaultdict(set)
        self._policies: dict[str, tuple[NodePool, Policy]] = {}

    def claim(self, node: str) -> Claim:
        """Return who owns the Node."""
        return self._claims.get(node, NOBODY)

    def owned(self, pool: str) -> frozenset[str]:
        """Return the Nodes that the pool owns."""
        return frozenset(self._owned.get(pool, ()))

    def contested(self, pool: str) -> Mapping[str, Claim]:
        """Return the Nodes that the pool matches and some other pool matches too."""
        return {node: self._claims[node] for node in self._contested.get(pool, ())}

    def policy(self, pool: str) -> Policy | None:
        """Return what the pool wants of its blades, or None where there is no such pool."""
        found = self._pools.get(pool)
        if found is None:
            self._policies.pop(pool, None)
            return None
        known = self._policies.get(pool)
        if known is None or known[0] is not found:
            known = self._policies[pool] = (
                found,
                policy.read(found, self._reset, dry_run=self._dry_run),
            )
        return known[1]

    def look_at(self, node: str) -> frozenset[str]:
        """Decide anew who owns a Node; return the pools for which that changed something."""
        view, blade = self._nodes.get(node), self._blades.get(node)
        current = blade.spec.pool if blade is not None else None
        new = NOBODY if view is None else owners.claim(view.labels, self._by_age, current)
        old = self._claims.get(node, NOBODY)
        if new == old:
            return frozenset()
        self._forget(node, old)
        if new is not NOBODY:
            self._claims[node] = new
            if new.owner is not None:
                self._owned[new.owner].add(node)
            for pool in new.rivals:
                self._contested[pool].add(node)
        touched = {old.owner, new.owner, *old.rivals, *new.rivals}
        return frozenset(pool for pool in touched if pool is not None)

    def look_at_all(self) -> tuple[list[str], frozenset[str]]:
        """Decide anew after a pool changed; return the Nodes and pools with a change. O(nodes)."""
        self._by_age = owners.by_age(self._pools.values())
        nodes: list[str] = []
        pools: set[str] = set()
        for node in list(self._nodes):
            before = self._claims.get(node, NOBODY)
            pools |= self.look_at(node)
            if self._claims.get(node, NOBODY) != before:
                nodes.append(node)
        return nodes, frozenset(pools)

    def _forget(self, node: str, claim: Claim) -> None:
        self._claims.pop(node, None)
        if claim.owner is not None:
            self._owned[claim.owner].discard(node)
        for pool in claim.rivals:
            self._contested[pool].discard(node)
