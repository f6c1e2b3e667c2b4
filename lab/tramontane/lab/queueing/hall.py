"""Lay out a hall of healthy blades in records, without an API server."""

from dataclasses import dataclass, field, replace
from typing import Final

from tramontane.scheduler.fleet import HEALTHY, Fleet, build_fleet, refresh
from tramontane.scheduler.gangs import Ask
from tramontane.scheduler.records import GPU, BladeRecord, NodeRecord, PoolRecord, amounts

POOL: Final = "p"
LEVELS: Final = (("block", "topology/block"), ("rack", "topology/rack"))
CAPACITY: Final = amounts({GPU: "8", "cpu": "192", "memory": "2Ti"})
WHOLE: Final = Ask(amounts({GPU: "8", "cpu": "64", "memory": "512Gi"}))


@dataclass(slots=True)
class Hall:
    """Hold the blades of one pool in racks and blocks, and which of them are out of service."""

    blades: int
    rack: int = 16
    racks_per_block: int = 8
    pools: dict[str, PoolRecord] = field(default_factory=dict)
    records: dict[str, BladeRecord] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        self.pools.setdefault(POOL, PoolRecord(POOL, LEVELS))
        for number in range(self.blades):
            name, rack = f"b{number:05d}", number // self.rack
            labels = {
                "topology/block": f"block-{rack // self.racks_per_block}",
                "topology/rack": f"rack-{rack}",
            }
            self.records[name] = BladeRecord(name, POOL, HEALTHY, "None", 0.0, deleting=False)
            self.nodes[name] = NodeRecord(
                name, labels, CAPACITY, (), cordoned=False, ready=True, deleting=False
            )
        self.fleet = build_fleet(self.records, self.nodes, self.pools)

    def turn(self, name: str, state: str) -> None:
        """Give a blade another state: Healthy, or out of service."""
        self.records[name] = replace(self.records[name], state=state)
        self.fleet = refresh(self.fleet, [name], self.records, self.nodes, self.pools)
