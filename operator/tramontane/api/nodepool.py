"""Define NodePool: which machines, what they must be, how they are looked after."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from tramontane.api import names
from tramontane.api.base import (
    DecimalString,
    Duration,
    IntOrPercent,
    Key,
    Label,
    LabelValue,
    Line,
    Model,
    Object,
    PodTemplate,
    Quantity,
    Timestamp,
    Word,
    about,
)
from tramontane.api.blade import Action
from tramontane.api.checks import Rule, checked, rules
from tramontane.api.conditions import Conditions

_TEMPLATE_EXAMPLE = {
    "spec": {"containers": [{"name": "burn-in", "image": "registry.local/burn:4"}]}
}


class SelectorOperator(StrEnum):
    """Say how a label requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class RemediationMode(StrEnum):
    """Say whether faults have consequences."""

    AUTO = "Auto"
    DRY_RUN = "DryRun"
    OFF = "Off"


class DrainWhen(StrEnum):
    """Say when running work leaves a faulty blade."""

    NOW = "Now"
    AT_CHECKPOINT = "AtCheckpoint"
    WHEN_IDLE = "WhenIdle"


class ResetBy(StrEnum):
    """Say what a fault gets that asks for a reset."""

    RESET = "Reset"
    REBOOT = "Reboot"


class RuleSeverity(StrEnum):
    """Say how bad a matched fault is to this pool."""

    IGNORE = "Ignore"
    INFO = "Info"
    DEGRADED = "Degraded"
    FATAL = "Fatal"


class BreakerState(StrEnum):
    """Say whether quarantines go on: Open means that they stopped."""

    CLOSED = "Closed"
    OPEN = "Open"


class Requirement(Model):
    """Ask for one label."""

    key: Annotated[Key, about("Key of the label.", example="node-role/gpu")]
    operator: Annotated[SelectorOperator, about("In, NotIn, Exists or DoesNotExist.", example="In")]
    values: Annotated[
        tuple[LabelValue, ...],
        about("Values for In and NotIn.", example=["h200"], list_type="atomic", max_length=256),
    ] = ()

    model_config = checked(
        Rule(
            "self.operator in ['In', 'NotIn'] == (has(self.values) && self.values.size() > 0)",
            "values must be given with In and NotIn, and only with them",
            "%s with %d values",
            ("self.operator", "has(self.values) ? self.values.size() : 0"),
        )
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether `labels` meet the requirement."""
        value = labels.get(self.key)
        match self.operator:
            case SelectorOperator.IN:
                return value in self.values
            case SelectorOperator.NOT_IN:
                return value not in self.values
            case SelectorOperator.EXISTS:
                return value is not None
            case SelectorOperator.DOES_NOT_EXIST:
                return value is None


class LabelSelector(Model):
    """Choose objects by their labels; all requirements must be met."""

    match_labels: Annotated[
        dict[str, LabelValue],
        about("Labels and their values.", example={"node-role/gpu": "h200"}, max_length=64),
    ] = {}  # noqa: RUF012 - pydantic copies it
    match_expressions: Annotated[
        tuple[Requirement, ...],
        about(
            "Further requirements.",
            example=[{"key": "node-role/gpu", "operator": "In", "values": ["h200"]}],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()

    model_config = checked(
        Rule(
            "(has(self.matchLabels) && self.matchLabels.size() > 0) || "
            "(has(self.matchExpressions) && self.matchExpressions.size() > 0)",
            "nodeSelector must name at least one label",
            "none",
            remedy="an empty selector would take every Node",
        )
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels is chosen; an empty selector takes all."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class ExpectedInventory(Model):
    """Say what every blade of the pool must show."""

    product: Annotated[
        Word | None,
        about("NVML's product name, spaces as dashes; absent: not checked.", example="NVIDIA-H200"),
    ] = None
    count: Annotated[int, about("GPUs per blade.", example=8, ge=1, le=64)]
    memory: Annotated[
        Quantity | None,
        about("Least memory per GPU, in bytes; absent: not checked.", example="141Gi"),
    ] = None
    nvlink_links: Annotated[
        int,
        about("NVLinks that must be active per GPU; 0: not checked.", example=18, ge=0, le=64),
    ] = 0
    min_driver: Annotated[
        str | None,
        about(
            "Oldest driver version; absent: not checked.",
            example="580.65",
            pattern=r"^[0-9]+(\.[0-9]+)*$",
            max_length=32,
        ),
    ] = None
    infiniband_ports: Annotated[
        int, about("InfiniBand ports that must be up; 0: not checked.", example=8, ge=0, le=64)
    ] = 0
    infiniband_rate: Annotated[
        int,
        about("Least rate per port, in Gb/s; 0: not checked.", example=400, ge=0, le=100_000),
    ] = 0


class Level(Model):
    """Name a level of the network and the Node label that tells its domains apart."""

    name: Annotated[
        Label,
        about(
            "Name of the level, as TrainingJobs call it.",
            example="rack",
            extra=rules(
                Rule(
                    "self != 'blade'",
                    "a level must have another name than blade",
                    "blade",
                    remedy="the blade is always the last level and is not listed",
                )
            ),
        ),
    ]
    label: Annotated[
        Key,
        about("Node label whose values are the domains.", example="topology.tramontane.dev/rack"),
    ]


class PoolTopology(Model):
    """Describe the network of the pool."""

    levels: Annotated[
        tuple[Level, ...],
        about(
            "Levels, widest first; the blade itself is the last and not listed.",
            example=[{"name": "rack", "label": "topology.tramontane.dev/rack"}],
            list_type="map",
            keys=("name",),
            max_length=8,
            extra=rules(
                Rule(
                    "self.all(a, self.exists_one(b, b.label == a.label))",
                    "each level must have a label of its own",
                    "%s",
                    ("self.map(a, a.label)",),
                )
            ),
        ),
    ] = ()


class BurnIn(Model):
    """Describe the pod that works a blade hard."""

    template: Annotated[
        PodTemplate,
        about("Pod to run on the blade; exit code 0 passes.", example=_TEMPLATE_EXAMPLE),
    ]
    timeout: Annotated[
        Duration,
        about(
            "Longest run: ten minutes more than the test's own. Longer fails, or says nothing "
            "where the test is our own, which ends by itself.",
            example="1h",
        ),
    ] = "30m"


class Collective(Model):
    """Describe the pods that measure a group of blades together."""

    template: Annotated[
        PodTemplate,
        about(
            "Pod to run on each blade of a group; its last line tells the bandwidth, as JSON with "
            "a `value`.",
            example=_TEMPLATE_EXAMPLE,
        ),
    ]
    group_size: Annotated[
        int,
        about("Blades that run together; failing groups are bisected.", example=32, ge=2, le=1024),
    ] = 16
    min_bandwidth: Annotated[
        float, about("Least bus bandwidth, in GB/s.", example=300, gt=0, le=1_000_000)
    ]
    timeout: Annotated[Duration, about("Longest run; see burnIn.", example="30m")] = "20m"


class Qualification(Model):
    """Say what a new or repaired blade passes before it may work, in this order."""

    soak: Annotated[
        Duration, about("Time that all passive checks must be clean.", example="30m")
    ] = "10m"
    burn_in: Annotated[
        BurnIn | None,
        about("A pod on each blade; absent: no burn-in.", example={"template": _TEMPLATE_EXAMPLE}),
    ] = None
    collective: Annotated[
        Collective | None,
        about(
            "Pods on groups of blades; absent: no collective test.",
            example={"template": _TEMPLATE_EXAMPLE, "minBandwidth": 300},
        ),
    ] = None
    repeat_idle_every: Annotated[
        Duration,
        about(
            "How often idle healthy blades run burnIn again, preemptible by any work; 0s: never.",
            example="24h",
        ),
    ] = "168h"


class FaultMatch(Model):
    """Choose faults by code or by the check that found them."""

    code: Annotated[Word | None, about("Code of the fault.", example="xid-94", min_length=1)] = None
    check: Annotated[
        Word | None, about("Check that found it.", example="pcie-replay", min_length=1)
    ] = None

    model_config = checked(
        Rule(
            "has(self.code) || has(self.check)",
            "match must name a code or a check",
            "neither",
        )
    )


class HealthRule(Model):
    """Override the built-in catalogue for some faults."""

    match: Annotated[FaultMatch, about("Faults this is about.", example={"code": "xid-94"})]
    count: Annotated[
        int,
        about(
            "How often within the window before the rule applies.", example=3, ge=1, le=1_000_000
        ),
    ] = 1
    window: Annotated[
        Duration | None, about("Window of the count; needed when it is above 1.", example="24h")
    ] = None
    severity: Annotated[
        RuleSeverity, about("How bad it is to this pool; Ignore drops it.", example="Fatal")
    ]
    action: Annotated[
        Action | None, about("What ends it; absent: the catalogue's action.", example="Reset")
    ] = None

    model_config = checked(
        Rule(
            "!has(self.count) || self.count == 1 || has(self.window)",
            "window must be given when count is above 1",
            "count %d without a window",
            ("self.count",),
        ),
        Rule(
            "self.severity != 'Ignore' || !has(self.action)",
            "action must be absent when severity is Ignore",
            "%s",
            ("self.action",),
        ),
    )


class Health(Model):
    """Say how evidence becomes a verdict."""

    clear_after: Annotated[
        Duration,
        about(
            "Time without a fault after which it clears; after a reset or more, also a "
            "passed burn-in.",
            example="30m",
        ),
    ] = "10m"
    unknown_after: Annotated[
        Duration,
        about(
            "Silence of the agent after which the verdict is Unknown; its heartbeat comes "
            "every 30 s.",
            example="2m",
            extra=rules(
                Rule(
                    "duration(self) >= duration('60s')",
                    "unknownAfter must be at least 60s, two heartbeats of the agent",
                    "%s",
                    ("self",),
                )
            ),
        ),
    ] = "90s"
    rules: Annotated[
        tuple[HealthRule, ...],
        about(
            "Overrides of the built-in catalogue; the first match wins.",
            example=[{"match": {"check": "pcie-replay"}, "severity": "Ignore"}],
            list_type="atomic",
            max_length=128,
        ),
    ] = ()


class Breaker(Model):
    """Say when so much fails at once that people must look."""

    threshold: Annotated[
        IntOrPercent,
        about("Blades newly quarantined within the window that open it.", example="20%"),
    ] = "30%"
    window: Annotated[Duration, about("Window of the threshold.", example="10m")] = "5m"


class Drain(Model):
    """Say when running work leaves a faulty blade."""

    on_fatal: Annotated[
        DrainWhen, about("After a Fatal fault: Now, AtCheckpoint or WhenIdle.", example="Now")
    ] = DrainWhen.NOW
    on_degraded: Annotated[
        DrainWhen,
        about("After a Degraded one: Now, AtCheckpoint or WhenIdle.", example="WhenIdle"),
    ] = DrainWhen.AT_CHECKPOINT
    timeout: Annotated[
        Duration, about("Longest wait; then the work is moved all the same.", example="1h")
    ] = "30m"


class RepairPod(Model):
    """Describe the pod that repairs a blade."""

    template: Annotated[
        PodTemplate,
        about("Pod to run on the blade; exit code 0 is success.", example=_TEMPLATE_EXAMPLE),
    ]


class Remediation(Model):
    """Say what is done about faulty blades, and how many at once."""

    mode: Annotated[
        RemediationMode,
        about("Auto acts; DryRun says what it would do; Off does nothing.", example="DryRun"),
    ] = RemediationMode.AUTO
    max_unavailable: Annotated[
        IntOrPercent,
        about("Blades of the pool that may be out at once, number or percentage.", example=4),
    ] = "10%"
    breaker: Annotated[
        Breaker,
        about("When to stop and call a person.", example={"threshold": "20%", "window": "10m"}),
    ] = Breaker()
    drain: Annotated[
        Drain,
        about("When running work leaves a faulty blade.", example={"onDegraded": "WhenIdle"}),
    ] = Drain()
    reset: Annotated[
        RepairPod | None,
        about(
            "How to reset a GPU; absent: nvidia-smi --gpu-reset in a privileged pod.",
            example={"template": _TEMPLATE_EXAMPLE},
        ),
    ] = None
    reset_by: Annotated[
        ResetBy,
        about(
            "What a fault gets that asks for a reset. Reboot: no blade that a fault took out comes"
            " back on the boot in which it was faulty.",
            example="Reboot",
        ),
    ] = ResetBy.RESET
    reboot: Annotated[
        RepairPod | None,
        about(
            "How to reboot a blade; absent: it waits in Repairing for a person, with an event.",
            example={"template": _TEMPLATE_EXAMPLE},
        ),
    ] = None
    attempts: Annotated[
        int, about("Failed repairs of one fault before RMA.", example=3, ge=0, le=100)
    ] = 2


class AutoSpares(Model):
    """Size the spares from the measured failure rate."""

    confidence: Annotated[
        float,
        about("Probability that the spares last a repair time.", example=0.999, gt=0, lt=1),
    ] = 0.99
    repair_time: Annotated[
        Duration, about("Time from quarantine to work again.", example="24h")
    ] = "4h"


class PoolSpares(Model):
    """Say how many blades the pool keeps free."""

    count: Annotated[int | None, about("Blades to keep free.", example=4, ge=0, le=100_000)] = None
    auto: Annotated[
        AutoSpares | None,
        about(
            "Sized from the measured failure rate.",
            example={"confidence": 0.99, "repairTime": "4h"},
        ),
    ] = None

    model_config = checked(
        Rule(
            "has(self.count) != has(self.auto)",
            "spares must be given as exactly one of count and auto",
            "%s",
            ("has(self.count) ? 'both' : 'neither'",),
        )
    )


class Tenant(Model):
    """Give a group of namespaces its share of the pool."""

    name: Annotated[Label, about("Name of the tenant.", example="research")]
    namespaces: Annotated[
        tuple[Label, ...],
        about(
            "Namespaces of the tenant; each belongs to one tenant.",
            example=["research"],
            list_type="set",
            min_length=1,
            max_length=32,
        ),
    ]
    guaranteed_gpus: Annotated[
        int,
        about("GPUs that it gets whenever it asks.", example=2048, ge=0, le=1_000_000),
    ] = 0
    max_gpus: Annotated[
        int | None,
        about("GPUs that it never exceeds; absent: no limit.", example=4096, ge=0, le=1_000_000),
    ] = None
    weight: Annotated[
        int, about("Share of what nobody is guaranteed.", example=2, ge=1, le=1000)
    ] = 1

    model_config = checked(
        Rule(
            "!has(self.maxGPUs) || !has(self.guaranteedGPUs) || "
            "self.guaranteedGPUs <= self.maxGPUs",
            "guaranteedGPUs must not exceed maxGPUs",
            "%d over %d",
            ("self.guaranteedGPUs", "self.maxGPUs"),
        )
    )


_SHARED = "a.name != b.name && sets.intersects(a.namespaces, b.namespaces)"


class Delivery(Model):
    """Announce capacity to come."""

    tranche: Annotated[LabelValue, about("Tranche that comes.", example="t3", min_length=1)]
    blades: Annotated[int, about("Blades that come.", example=64, ge=1, le=100_000)]
    at: Annotated[Timestamp, about("When they come.", example="2026-12-01T00:00:00Z")]


class NodePoolSpec(Model):
    """Say which machines, what they must be, how they are looked after."""

    node_selector: Annotated[
        LabelSelector,
        about(
            "Nodes of the pool; a Node may match one pool only.",
            example={"matchLabels": {"node-role/gpu": "h200"}},
        ),
    ]
    gpu: Annotated[
        ExpectedInventory,
        about(
            "Inventory that every blade must show; a mismatch is a fault.",
            example={"product": "NVIDIA-H200", "count": 8, "memory": "141Gi"},
        ),
    ]
    topology: Annotated[
        PoolTopology,
        about(
            "Network of the pool.",
            example={"levels": [{"name": "rack", "label": "topology.tramontane.dev/rack"}]},
        ),
    ] = PoolTopology()
    tranche_label: Annotated[
        Key,
        about("Node label that names the delivery a blade came with.", example="hall/delivery"),
    ] = names.LABEL_TRANCHE
    qualification: Annotated[
        Qualification | None,
        about(
            "What a new or repaired blade passes before it works; absent: nothing but a clean "
            "report.",
            example={"soak": "10m"},
        ),
    ] = None
    health: Annotated[
        Health, about("How evidence becomes a verdict.", example={"clearAfter": "10m"})
    ] = Health()
    remediation: Annotated[
        Remediation,
        about("What is done about faulty blades.", example={"maxUnavailable": "10%"}),
    ] = Remediation()
    spares: Annotated[
        PoolSpares | None,
        about("Blades that the pool keeps free; absent: none.", example={"count": 4}),
    ] = None
    tenants: Annotated[
        tuple[Tenant, ...],
        about(
            "Who may use the pool; empty: all, first come by priority.",
            example=[{"name": "research", "namespaces": ["research"], "guaranteedGPUs": 2048}],
            list_type="map",
            keys=("name",),
            max_length=64,
            extra=rules(
                Rule(
                    f"!self.exists(a, self.exists(b, {_SHARED}))",
                    "a namespace must belong to one tenant",
                    "a shared one in %s",
                    (f"self.filter(a, self.exists(b, {_SHARED})).map(a, a.name)",),
                )
            ),
        ),
    ] = ()
    available_from: Annotated[
        tuple[Delivery, ...],
        about(
            "Capacity to come; used in estimates only.",
            example=[{"tranche": "t3", "blades": 64, "at": "2026-12-01T00:00:00Z"}],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()


class BladeCounts(Model):
    """Count the blades of a pool by state."""

    total: Annotated[int, about("All blades.", example=128, ge=0)] = 0
    healthy: Annotated[int, about("Healthy ones.", example=120, ge=0)] = 0
    in_use: Annotated[int, about("Healthy ones with a seat.", example=112, ge=0)] = 0
    spare: Annotated[int, about("Healthy ones kept free.", example=4, ge=0)] = 0
    qualifying: Annotated[int, about("Delivered or qualifying ones.", example=2, ge=0)] = 0
    suspect: Annotated[int, about("Suspect ones.", example=1, ge=0)] = 0
    quarantined: Annotated[int, about("Quarantined or draining ones.", example=3, ge=0)] = 0
    repairing: Annotated[int, about("Repairing or requalifying ones.", example=1, ge=0)] = 0
    rma: Annotated[int, about("Ones to be returned.", example=1, ge=0)] = 0
    unknown: Annotated[int, about("Ones nobody knows about.", example=0, ge=0)] = 0
    lost: Annotated[int, about("Ones that do not answer.", example=0, ge=0)] = 0


class GpuCounts(Model):
    """Count the GPUs of a pool."""

    total: Annotated[int, about("All GPUs.", example=1024, ge=0)] = 0
    allocatable: Annotated[int, about("GPUs of healthy blades.", example=960, ge=0)] = 0
    allocated: Annotated[int, about("GPUs in use.", example=896, ge=0)] = 0


class TrancheStatus(Model):
    """Say how far a delivery has come."""

    name: Annotated[Word, about("Name of the tranche.", example="t2", min_length=1)]
    delivered: Annotated[int, about("Blades that came.", example=64, ge=0)] = 0
    qualifying: Annotated[int, about("Blades that qualify.", example=10, ge=0)] = 0
    healthy: Annotated[int, about("Blades that passed.", example=50, ge=0)] = 0
    faulty: Annotated[int, about("Blades that did not.", example=3, ge=0)] = 0
    rma: Annotated[int, about("Blades to be returned.", example=1, ge=0)] = 0
    pass_rate: Annotated[
        DecimalString | None, about("Passed at the first try, from 0 to 1.", example="0.94")
    ] = None


class PoolSparesStatus(Model):
    """Compare the spares with their target."""

    target: Annotated[int, about("Blades to keep free.", example=4, ge=0)] = 0
    ready: Annotated[int, about("Healthy blades that are free.", example=4, ge=0)] = 0


class BreakerStatus(Model):
    """Say whether quarantines go on."""

    state: Annotated[
        BreakerState,
        about("Open: no further quarantine until `tramontane breaker close`.", example="Closed"),
    ]
    since: Annotated[
        Timestamp | None, about("When the state began.", example="2026-11-24T15:02:07Z")
    ] = None
    reason: Annotated[
        Line | None, about("What opened it.", example="40 of 128 blades within 5m")
    ] = None


class NodePoolStatus(Model):
    """Count what the pool has, and say what it lacks."""

    observed_generation: Annotated[
        int | None, about("Generation of the spec that this status speaks of.", example=2, ge=0)
    ] = None
    blades: Annotated[
        BladeCounts | None, about("Blades by state.", example={"total": 128, "healthy": 120})
    ] = None
    gpus: Annotated[
        GpuCounts | None, about("GPUs by use.", example={"total": 1024, "allocatable": 960})
    ] = None
    tranches: Annotated[
        tuple[TrancheStatus, ...],
        about(
            "Deliveries, by name.",
            example=[{"name": "t2", "delivered": 64, "healthy": 50}],
            list_type="map",
            keys=("name",),
            max_length=256,
        ),
    ] = ()
    failure_rate: Annotated[
        DecimalString | None, about("Failures per 1,000 blade-days, measured.", example="3.1")
    ] = None
    spares: Annotated[
        PoolSparesStatus | None, about("Spares and target.", example={"target": 4, "ready": 4})
    ] = None
    breaker: Annotated[
        BreakerStatus | None, about("Whether quarantines go on.", example={"state": "Closed"})
    ] = None
    conditions: Annotated[
        Conditions,
        about(
            "Findings by type: Ready, Reconciling, Stalled, BudgetExhausted, BreakerOpen, "
            "TooFewSpares, DryRun.",
            example=[{"type": "Ready", "status": "True", "reason": "Ready"}],
            list_type="map",
            keys=("type",),
            max_length=32,
        ),
    ] = ()


class NodePool(Object):
    """Which machines, what they must be, how they are looked after."""

    kind: str = "NodePool"
    spec: Annotated[
        NodePoolSpec,
        about(
            "What the pool is.",
            example={"nodeSelector": {"matchLabels": {"node-role/gpu": "h200"}}},
        ),
    ]
    status: Annotated[
        NodePoolStatus, about("What the pool has.", example={"blades": {"total": 128}})
    ] = NodePoolStatus()
