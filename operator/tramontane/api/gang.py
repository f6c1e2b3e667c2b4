"""Define Gang: all ranks that must run together, and the blades they got.

The operator writes the spec, the scheduler the status. Seats are numbered across all slots, in
the slots' order: with slots of 2 and 3, seats 0 and 1 are the first slot's.
"""

from enum import StrEnum
from typing import Annotated

from tramontane.api.base import (
    DecimalString,
    Duration,
    Key,
    Label,
    LabelValue,
    Model,
    Name,
    Object,
    Quantity,
    Text,
    Timestamp,
    about,
)
from tramontane.api.checks import Rule, checked, immutable, rules
from tramontane.api.conditions import Conditions
from tramontane.api.reasons import PendingReason

# 100,000 GPUs are 12,500 blades; a gang may be larger than any hall of today.
MAX_SEATS = 20_000
MAX_SIZES = 64
MAX_SPARES = 1_000

SIZES_DESCEND = Rule(
    "self.map(n, -n).isSorted() && self.all(n, self.exists_one(m, m == n))",
    "sizes must differ and be listed largest first",
    "%s",
    ("self",),
)


class TopologyMode(StrEnum):
    """Say whether a gang waits for the domain it asks for."""

    REQUIRED = "Required"
    PREFERRED = "Preferred"


class GangPhase(StrEnum):
    """Say whether a gang has its seats."""

    PENDING = "Pending"
    PLACED = "Placed"
    PREEMPTING = "Preempting"
    INACTIVE = "Inactive"


class TolerationOperator(StrEnum):
    """Say how a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """List what a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """Accept a taint, as in a Pod."""

    key: Annotated[Key | None, about("Key of the taint; absent: any.", example="dedicated")] = None
    operator: Annotated[TolerationOperator, about("Exists or Equal.", example="Exists")] = (
        TolerationOperator.EQUAL
    )
    value: Annotated[
        LabelValue | None, about("Value of the taint, with Equal.", example="research")
    ] = None
    effect: Annotated[
        TaintEffect | None, about("Effect of the taint; absent: any.", example="NoSchedule")
    ] = None
    toleration_seconds: Annotated[
        int | None, about("Seconds that a NoExecute taint is borne; absent: for ever.", example=300)
    ] = None


class NodeOperator(StrEnum):
    """Say how a node affinity compares a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class NodeRequirement(Model):
    """Want something of a Node's label, as in a Pod."""

    key: Annotated[Key, about("Key of the label.", example="disk")]
    operator: Annotated[NodeOperator, about("How it compares.", example="In")]
    values: Annotated[
        tuple[LabelValue, ...],
        about(
            "Values to compare with; none with Exists and DoesNotExist.",
            example=["nvme"],
            list_type="atomic",
            max_length=1000,
        ),
    ] = ()


class NodeTerm(Model):
    """Want several things of a Node at once."""

    match_expressions: Annotated[
        tuple[NodeRequirement, ...],
        about(
            "All must hold.",
            example=[{"key": "disk", "operator": "In", "values": ["nvme"]}],
            list_type="atomic",
            min_length=1,
            max_length=32,
        ),
    ]


class Slot(Model):
    """Describe a group of identical pods of a gang."""

    name: Annotated[Label, about("Name of the slot.", example="worker")]
    count: Annotated[int, about("Pods, one per blade.", example=128, ge=1, le=MAX_SEATS)]
    requests: Annotated[
        dict[str, Quantity],
        about(
            "What each pod needs of its blade, by resource.",
            example={"nvidia.com/gpu": "8", "cpu": "64", "memory": "512Gi"},
            max_length=32,
        ),
    ] = {}  # noqa: RUF012 - pydantic copies it
    node_selector: Annotated[
        dict[str, LabelValue],
        about("Labels that a Node must have.", example={"disk": "nvme"}, max_length=32),
    ] = {}  # noqa: RUF012 - pydantic copies it
    node_affinity: Annotated[
        tuple[NodeTerm, ...],
        about(
            "Terms of which a Node must satisfy one; empty: any Node.",
            example=[{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}],
            list_type="atomic",
            max_length=16,
        ),
    ] = ()
    tolerations: Annotated[
        tuple[Toleration, ...],
        about(
            "Taints that the pods accept.",
            example=[{"key": "dedicated", "operator": "Exists"}],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()


class Slice(Model):
    """Describe the part of a gang that must share one domain."""

    size: Annotated[int, about("Pods that share one domain.", example=16, ge=1, le=MAX_SEATS)]
    level: Annotated[
        Label,
        about("Topology level of the NodePool that they share.", example="rack"),
    ]


class GangTopology(Model):
    """Say how near to each other the blades of a gang must be."""

    pack: Annotated[
        Label | None,
        about(
            "Topology level of the NodePool in one domain of which the whole gang goes; "
            "absent: anywhere in the pool.",
            example="rack",
        ),
    ] = None
    mode: Annotated[
        TopologyMode,
        about(
            "Required waits for such a domain; Preferred takes the nearest blades there are.",
            example="Required",
        ),
    ] = TopologyMode.PREFERRED
    relax_after: Annotated[
        Duration | None,
        about("Waiting time after which Required becomes Preferred; absent: never.", example="10m"),
    ] = None
    slice: Annotated[
        Slice | None,
        about(
            "Parts of the gang that must each share one domain, always.",
            example={"size": 16, "level": "rack"},
        ),
    ] = None

    model_config = checked(
        Rule(
            "!has(self.mode) || self.mode != 'Required' || has(self.pack) || has(self.slice)",
            "topology with mode Required must name a level in pack or slice",
            "neither",
        )
    )


class LostSeat(Model):
    """Say that a seat may no longer be on a blade."""

    seat: Annotated[int, about("Number of the seat.", example=17, ge=0, lt=MAX_SEATS)]
    blade: Annotated[Name, about("Blade that it left.", example="gpu-0017")]


class Cost(Model):
    """Say what a preemption now would cost."""

    lost_work: Annotated[
        DecimalString,
        about("GPU-hours since the last checkpoint that would be lost.", example="120"),
    ] = "0"


class GangSpec(Model):
    """Say what a gang needs; the owner's controller writes it."""

    pool: Annotated[
        Name,
        about(
            "NodePool that the gang is placed in.",
            example="paris-a",
            extra=rules(immutable("spec.pool")),
        ),
    ]
    slots: Annotated[
        tuple[Slot, ...],
        about(
            "Groups of identical pods; seats are numbered across them.",
            example=[{"name": "worker", "count": 128, "requests": {"nvidia.com/gpu": "8"}}],
            list_type="map",
            keys=("name",),
            min_length=1,
            max_length=16,
        ),
    ]
    sizes: Annotated[
        tuple[Annotated[int, about("A count.", ge=1, le=MAX_SEATS)], ...],
        about(
            "Acceptable counts of the first slot, best first; empty: its count only.",
            example=[128, 120, 112],
            list_type="atomic",
            max_length=MAX_SIZES,
            extra=rules(SIZES_DESCEND),
        ),
    ] = ()
    spares: Annotated[
        int,
        about("Blades held beside the seats as replacements.", example=2, ge=0, le=MAX_SPARES),
    ] = 0
    topology: Annotated[
        GangTopology,
        about("How near the blades must be.", example={"pack": "rack", "mode": "Required"}),
    ] = GangTopology()
    priority: Annotated[
        int,
        about(
            "Who goes first; higher is sooner.",
            example=1000,
            ge=-2_147_483_648,
            le=2_147_483_647,
        ),
    ] = 0
    preemptible: Annotated[
        bool, about("Whether the gang may have to give way to higher priority.", example=True)
    ] = True
    max_runtime: Annotated[
        Duration | None,
        about("Longest run from placement; absent: no end is known.", example="72h"),
    ] = None
    grace: Annotated[
        Duration,
        about(
            "Time for a last checkpoint where the gang must give way; 30 minutes at most count.",
            example="120s",
        ),
    ] = "120s"
    tenant: Annotated[
        Label | None, about("Tenant of the NodePool whose GPUs these are.", example="research")
    ] = None
    lost: Annotated[
        tuple[LostSeat, ...],
        about(
            "Seats that must be moved. An entry whose blade is no longer the seat's is ignored.",
            example=[{"seat": 17, "blade": "gpu-0017"}],
            list_type="atomic",
            max_length=MAX_SEATS,
        ),
    ] = ()
    avoid: Annotated[
        tuple[Name, ...],
        about(
            "Blades that this gang does not take.",
            example=["gpu-0099"],
            list_type="set",
            max_length=1000,
        ),
    ] = ()
    active: Annotated[bool, about("Whether to hold seats at all.", example=False)] = True
    resize: Annotated[
        int | None,
        about(
            "Count of the first slot, one of sizes, that the gang is ready to be placed anew at: "
            "its pods are gone. Where it does not fit, the placement stays.",
            example=128,
            ge=1,
            le=MAX_SEATS,
        ),
    ] = None
    cost: Annotated[
        Cost | None,
        about("What a preemption now would cost.", example={"lostWork": "120"}),
    ] = None


class Placement(Model):
    """Hold all seats of a gang: all or nothing."""

    size: Annotated[
        int, about("Count of the first slot in this placement.", example=128, ge=1, le=MAX_SEATS)
    ]
    seats: Annotated[
        tuple[Name, ...],
        about(
            "Blade of each seat; the index is the seat.",
            example=["gpu-0001", "gpu-0002"],
            list_type="atomic",
            max_length=MAX_SEATS,
        ),
    ] = ()
    spares: Annotated[
        tuple[Name, ...],
        about(
            "Blades held as replacements.",
            example=["gpu-0090", "gpu-0091"],
            list_type="atomic",
            max_length=MAX_SPARES,
        ),
    ] = ()


class EstimatedStart(Model):
    """Say when a waiting gang is likely to start."""

    p50: Annotated[
        Timestamp | None, about("As likely before as after.", example="2026-11-24T18:00:00Z")
    ] = None
    p90: Annotated[
        Timestamp | None, about("Before this in nine of ten cases.", example="2026-11-25T02:00:00Z")
    ] = None


class Preempt(Model):
    """Order a gang to give way."""

    by: Annotated[
        str,
        about(
            "Gang that takes the blades, as namespace/name.", example="ml/urgent", max_length=317
        ),
    ]
    deadline: Annotated[
        Timestamp | None,
        about("When the blades must be free.", example="2026-11-24T15:04:07Z"),
    ] = None
    reason: Annotated[
        Text | None, about("Why, with numbers.", example="priority 2000 over 1000")
    ] = None


class GangStatus(Model):
    """Say where a gang is placed, or why it is not; the scheduler writes it."""

    observed_generation: Annotated[
        int | None, about("Generation of the spec that this status speaks of.", example=7, ge=0)
    ] = None
    phase: Annotated[
        GangPhase | None, about("Whether the gang has its seats.", example="Placed")
    ] = None
    epoch: Annotated[int, about("Grows at every change of placement.", example=7, ge=0)] = 0
    placement: Annotated[
        Placement | None,
        about(
            "The blades; absent until all of the gang has a place.",
            example={"size": 2, "seats": ["gpu-0001", "gpu-0002"], "spares": ["gpu-0090"]},
        ),
    ] = None
    placed_at: Annotated[
        Timestamp | None,
        about(
            "When the gang got its place; from here on maxRuntime counts.",
            example="2026-11-24T15:04:07Z",
        ),
    ] = None
    advised_size: Annotated[
        int | None,
        about(
            "Count of the first slot that serves the gang better now: a larger one that there is "
            "room for, or a smaller one instead of waiting for a lost seat. Absent: as it is.",
            example=128,
            ge=1,
            le=MAX_SEATS,
        ),
    ] = None
    reason: Annotated[
        PendingReason | None,
        about("Why the gang, or a seat of it, waits.", example="WaitingForCapacity"),
    ] = None
    message: Annotated[
        Text | None,
        about("The reason for people, with numbers.", example="needs 128 blades (got 120 free)"),
    ] = None
    position: Annotated[
        int | None, about("Place in the pool's queue, from 1.", example=2, ge=0)
    ] = None
    estimated_start: Annotated[
        EstimatedStart | None,
        about("When a waiting gang is likely to start.", example={"p50": "2026-11-24T18:00:00Z"}),
    ] = None
    preempt: Annotated[
        Preempt | None,
        about("Set when this gang must give way.", example={"by": "ml/urgent"}),
    ] = None
    conditions: Annotated[
        Conditions,
        about(
            "Findings by type: Ready.",
            example=[{"type": "Ready", "status": "True", "reason": "Placed"}],
            list_type="map",
            keys=("type",),
            max_length=32,
        ),
    ] = ()


class Gang(Object):
    """All ranks that must run together, and the blades they got. Components write it."""

    kind: str = "Gang"
    spec: Annotated[
        GangSpec,
        about(
            "What the gang needs.",
            example={"pool": "paris-a", "slots": [{"name": "worker", "count": 128}]},
        ),
    ]
    status: Annotated[
        GangStatus, about("Where it is placed, or why not.", example={"phase": "Placed"})
    ] = GangStatus()
