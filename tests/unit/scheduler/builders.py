"""Build fleets, gangs and pods in a line each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tramontane.scheduler.engine import Outcome, Pass, decide
from tramontane.scheduler.fleet import Fleet, build_fleet
from tramontane.scheduler.gangs import Ask, GangRecord, Placement, Slot, Told
from tramontane.scheduler.integrity import Finding
from tramontane.scheduler.records import (
    GPU,
    BladeRecord,
    NodeRecord,
    PodRecord,
    PoolRecord,
    Taint,
    TenantRecord,
    amounts,
)
from tramontane.scheduler.snapshot import Pods, Snapshot, take_snapshot

NOW = 1_000_000.0
LEVELS = (("block", "topology/block"), ("rack", "topology/rack"))
WHOLE = amounts({GPU: "8", "cpu": "64", "memory": "512Gi"})
CAPACITY = amounts({GPU: "8", "cpu": "128", "memory": "1Ti"})


def blade(name: str, pool: str = "p", state: str = "Healthy", **more: Any) -> BladeRecord:
    return BladeRecord(
        name, pool, state, more.get("severity", "None"), more.get("lemon", 0.0), deleting=False
    )


def node(name: str, labels: Mapping[str, str], **more: Any) -> NodeRecord:
    return NodeRecord(
        name,
        labels,
        more.get("capacity", CAPACITY),
        tuple(Taint(key, "x", "NoSchedule") for key in more.get("taints", ())),
        cordoned=more.get("cordoned", False),
        ready=more.get("ready", True),
        deleting=False,
    )


@dataclass
class Hall:
    """A hall under construction: `racks` lists blades per rack, two racks to a block."""

    racks: Sequence[int]
    racks_per_block: int = 2
    levels: tuple[tuple[str, str], ...] = LEVELS
    blades: dict[str, BladeRecord] = field(default_factory=dict)
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    pods: Pods = field(default_factory=Pods)
    tenants: tuple[TenantRecord, ...] = ()

    def __post_init__(self) -> None:
        for rack, count in enumerate(self.racks):
            for _ in range(count):
                self.add(rack)

    def add(self, rack: int, **more: Any) -> str:
        """Add a blade to a rack; its name says where it is: r2-0."""
        taken = sum(name.startswith(f"r{rack}-") for name in self.blades)
        name = str(more.pop("name", f"r{rack}-{taken}"))
        labels = {
            "topology/block": f"b{rack // self.racks_per_block}",
            "topology/rack": f"r{rack}",
            **more.pop("labels", {}),
        }
        self.blades[name] = blade(name, **{k: v for k, v in more.items() if k in BLADE})
        self.nodes[name] = node(name, labels, **{k: v for k, v in more.items() if k not in BLADE})
        return name

    def break_(self, *names: str, state: str = "Quarantined") -> None:
        for name in names:
            self.blades[name] = replace(self.blades[name], state=state)

    def occupy(self, *names: str, gpus: int = 8, gang: str = "", seat: int = -1) -> None:
        """Put a pod on each of these blades."""
        for name in names:
            record = PodRecord(name, gang, seat, deleting=False, requests=((GPU, gpus),))
            self.pods.change(f"ns/pod-{name}-{seat}", None, record)

    @property
    def fleet(self) -> Fleet:
        return build_fleet(
            self.blades, self.nodes, {"p": PoolRecord("p", self.levels, self.tenants)}
        )

    def snapshot(self, *gangs: GangRecord) -> Snapshot:
        return take_snapshot(self.fleet, {gang.key: gang for gang in gangs}, self.pods)

    def decide(
        self,
        *gangs: GangRecord,
        now: float = NOW,
        found: Mapping[str, Finding] | None = None,
    ) -> Pass:
        return decide(self.fleet, {gang.key: gang for gang in gangs}, self.pods, now, found)


BLADE = frozenset({"pool", "state", "severity", "lemon"})


def gang(name: str = "g", seats: int = 1, **more: Any) -> GangRecord:
    """Return a gang of one slot whose pods take whole blades, unless `more` says otherwise."""
    ask = more.pop("ask", Ask(WHOLE))
    slots = more.pop("slots", (Slot("worker", seats, ask),))
    more.setdefault("created_s", NOW - 60)
    key = name if "/" in name else f"ns/{name}"
    return GangRecord(key=key, uid=f"uid-{name}", pool=more.pop("pool", "p"), slots=slots, **more)


def placed(name: str, seats: Iterable[str], spares: Iterable[str] = (), **more: Any) -> GangRecord:
    """Return a gang that sits on these blades already."""
    seats = tuple(seats)
    more.setdefault("told", Told(phase="Placed", epoch=1, ready=True, ready_since_s=NOW - 50))
    more.setdefault("spares", len(tuple(spares)))
    return gang(name, len(seats), placement=Placement(seats, tuple(spares)), **more)


def after(record: GangRecord, outcome: Outcome, now: float = NOW) -> GangRecord:
    """Return the gang as it reads once the outcome is written."""
    since = record.told.ready_since_s if record.told.ready is outcome.ready else now
    told = Told(
        phase=outcome.phase,
        epoch=outcome.epoch,
        reason=outcome.reason,
        message=outcome.message,
        position=outcome.position,
        ready=outcome.ready,
        ready_since_s=since,
        observed=record.generation,
        placed_s=outcome.placed_s,
        order=outcome.order,
        estimate=outcome.estimate,
        advised_size=outcome.advised_size,
    )
    return replace(record, told=told, placement=outcome.placement)


def racks_of(names: Iterable[str]) -> list[str]:
    """Return the racks in the order of the seats, each once per run."""
    runs: list[str] = []
    for name in names:
        rack = name.split("-")[0]
        if not runs or runs[-1] != rack:
            runs.append(rack)
    return runs
