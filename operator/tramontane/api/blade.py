"""Define Blade: one GPU server, what is wrong with it, and whether it may work.

Cluster scope; named like its Node. Components write it and people read it:

| field | only writer |
|---|---|
| spec.pool | operator |
| spec.hold, spec.release | people, through the CLI |
| status.report | the health agent on that blade |
| status, all else | operator |
"""

from enum import StrEnum
from typing import Annotated

from tramontane.api.base import (
    DecimalString,
    Duration,
    Line,
    Model,
    Name,
    Object,
    Quantity,
    Text,
    Timestamp,
    Word,
    about,
)
from tramontane.api.checks import immutable, rules
from tramontane.api.conditions import Conditions
from tramontane.api.reasons import BladeReason

MAX_FAULTS = 32
MAX_INCIDENTS = 20


class BladeState(StrEnum):
    """Say where a blade is in its life."""

    DELIVERED = "Delivered"
    QUALIFYING = "Qualifying"
    HEALTHY = "Healthy"
    SUSPECT = "Suspect"
    QUARANTINED = "Quarantined"
    DRAINING = "Draining"
    REPAIRING = "Repairing"
    REQUALIFYING = "Requalifying"
    RMA = "RMA"
    LOST = "Lost"
    UNKNOWN = "Unknown"


class Severity(StrEnum):
    """Say how bad a fault is; Unknown is not healthy."""

    NONE = "None"
    INFO = "Info"
    DEGRADED = "Degraded"
    FATAL = "Fatal"
    UNKNOWN = "Unknown"


class Action(StrEnum):
    """Say what ends a fault, mildest first."""

    NONE = "None"
    RESTART_APP = "RestartApp"
    DRAIN = "Drain"
    RESET = "Reset"
    REBOOT = "Reboot"
    INSPECT = "Inspect"
    REPLACE = "Replace"


class Hold(Model):
    """Ask for a blade to be taken out."""

    reason: Annotated[
        str,
        about("Why the blade is held.", example="fan replaced", min_length=1, max_length=1024),
    ]
    by: Annotated[
        str, about("Who holds it.", example="anna@example.org", min_length=1, max_length=253)
    ]
    at: Annotated[Timestamp | None, about("Since when.", example="2026-11-24T15:02:07Z")] = None


class Release(Model):
    """Ask for a blade to be taken back."""

    reason: Annotated[
        str,
        about("Why the blade may work again.", example="new fan", min_length=1, max_length=1024),
    ]
    by: Annotated[
        str, about("Who releases it.", example="anna@example.org", min_length=1, max_length=253)
    ]
    at: Annotated[Timestamp | None, about("Since when.", example="2026-11-24T16:02:07Z")] = None
    skip_burn_in: Annotated[
        bool, about("Take it back without the pool's burn-in.", example=True)
    ] = False


class BladeSpec(Model):
    """Say which pool a blade belongs to and what people want of it."""

    pool: Annotated[
        Name,
        about(
            "NodePool of the blade; the operator writes it.",
            example="paris-a",
            extra=rules(immutable("spec.pool")),
        ),
    ]
    hold: Annotated[
        Hold | None,
        about("A person wants the blade out.", example={"reason": "fan replaced", "by": "anna"}),
    ] = None
    release: Annotated[
        Release | None,
        about(
            "A person wants the blade back: ends an older hold or quarantine.",
            example={"reason": "new fan", "by": "anna"},
        ),
    ] = None


class Verdict(Model):
    """Sum up all faults of a blade."""

    severity: Annotated[Severity, about("The worst severity.", example="Fatal")]
    action: Annotated[Action, about("The strongest action that a fault asks for.", example="Reset")]


class AgentInfo(Model):
    """Say who reports, and from which boot of the blade."""

    version: Annotated[Word | None, about("Version of the agent.", example="0.1.0")] = None
    boot_id: Annotated[
        Word | None,
        about(
            "Boot ID of the node; a reboot changes it.",
            example="5f1c8a52-0b1c-4b8e-9d52-0a2a5f8c1b7e",
        ),
    ] = None
    driver: Annotated[Word | None, about("Version of the driver.", example="580.95.05")] = None
    cuda: Annotated[Word | None, about("CUDA version of the driver.", example="13.0")] = None
    time: Annotated[
        Timestamp | None, about("When the report last changed.", example="2026-11-24T15:02:07Z")
    ] = None


class GpuInventory(Model):
    """Describe one GPU as its driver does."""

    index: Annotated[int, about("Index of the GPU in the driver.", example=3, ge=0, le=1023)]
    uuid: Annotated[
        Word | None,
        about("UUID of the GPU.", example="GPU-8c1f0e5e-2a4a-5c0b-9d5b-6f1d2c3b4a59"),
    ] = None
    serial: Annotated[Word | None, about("Serial number.", example="1654922000123")] = None
    pci_bus_id: Annotated[Word | None, about("PCI address.", example="00000000:1B:00.0")] = None
    product: Annotated[
        Word | None, about("Product name, spaces as dashes.", example="NVIDIA-H200")
    ] = None
    memory: Annotated[Quantity | None, about("Memory in bytes.", example="141Gi")] = None
    vbios: Annotated[Word | None, about("VBIOS version.", example="96.00.A5.00.01")] = None
    gsp_firmware: Annotated[
        Word | None, about("Version of the GSP firmware.", example="580.95.05")
    ] = None
    nvlinks: Annotated[
        int | None,
        about("NVLinks that are active; absent: not known.", example=18, ge=0, le=64),
    ] = None
    faults: Annotated[int, about("Open faults of this GPU.", example=1, ge=0)] = 0


class Fault(Model):
    """State one thing that is wrong, with its evidence."""

    code: Annotated[Word, about("Code in the fault catalogue.", example="xid-79", min_length=1)]
    check: Annotated[Word | None, about("Check that found it.", example="xid")] = None
    gpu: Annotated[
        int | None,
        about("Index of the GPU; absent for the whole blade.", example=3, ge=0, le=1023),
    ] = None
    uuid: Annotated[
        Word | None,
        about("UUID of the GPU.", example="GPU-8c1f0e5e-2a4a-5c0b-9d5b-6f1d2c3b4a59"),
    ] = None
    severity: Annotated[Severity, about("How bad it is.", example="Fatal")]
    action: Annotated[Action, about("What ends it.", example="Reset")] = Action.NONE
    count: Annotated[int, about("How often it was seen.", example=1, ge=1)] = 1
    first_seen: Annotated[
        Timestamp | None, about("When it was first seen.", example="2026-11-24T15:02:07Z")
    ] = None
    last_seen: Annotated[
        Timestamp | None, about("When it was last seen.", example="2026-11-24T15:02:07Z")
    ] = None
    boot_id: Annotated[
        Word | None,
        about("Boot in which it was seen.", example="5f1c8a52-0b1c-4b8e-9d52-0a2a5f8c1b7e"),
    ] = None
    evidence: Annotated[
        Line | None,
        about(
            "What was seen, word for word.",
            example="NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus.",
        ),
    ] = None


class Network(Model):
    """Describe the InfiniBand and RoCE ports of a blade."""

    ports: Annotated[int, about("Ports that are active.", example=8, ge=0, le=1024)]
    rate: Annotated[
        int | None,
        about("Rate of the slowest active port, in Gb/s.", example=400, ge=0, le=100_000),
    ] = None


class Checks(Model):
    """Count what was looked at: unknown is not healthy."""

    run: Annotated[int, about("Checks that ran.", example=41, ge=0)] = 0
    unknown: Annotated[
        tuple[Word, ...],
        about(
            "Checks that could not run here.",
            example=["nvlink-state"],
            list_type="set",
            max_length=128,
        ),
    ] = ()


class Report(Model):
    """Hold what the health agent says of its blade; nobody else writes it."""

    agent: Annotated[
        AgentInfo, about("Who reports.", example={"version": "0.1.0", "driver": "580.95.05"})
    ] = AgentInfo()
    gpus: Annotated[
        tuple[GpuInventory, ...],
        about(
            "GPUs that the driver shows.",
            example=[{"index": 0, "product": "NVIDIA-H200", "memory": "141Gi"}],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()
    faults: Annotated[
        tuple[Fault, ...],
        about(
            "What is wrong, worst first; empty means that nothing is.",
            example=[{"code": "xid-79", "gpu": 3, "severity": "Fatal", "action": "Reset"}],
            list_type="atomic",
            max_length=MAX_FAULTS,
        ),
    ] = ()
    network: Annotated[
        Network | None,
        about("Ports that the kernel shows; absent: not known.", example={"ports": 8, "rate": 400}),
    ] = None
    checks: Annotated[
        Checks, about("What was looked at.", example={"run": 41, "unknown": ["nvlink-state"]})
    ] = Checks()


class StepResult(Model):
    """State the outcome of one qualification step."""

    step: Annotated[Word, about("Step that ran.", example="collective")]
    passed: Annotated[bool, about("Whether the blade passed.", example=True)]
    value: Annotated[DecimalString | None, about("What was measured.", example="341.5")] = None
    unit: Annotated[Word | None, about("Unit of the value.", example="GB/s")] = None
    at: Annotated[
        Timestamp | None, about("When the step ended.", example="2026-11-24T15:02:07Z")
    ] = None
    evidence: Annotated[
        Line | None,
        about("What was seen.", example="all-reduce of 4096 MiB on 128 ranks: 341.5 GB/s"),
    ] = None
    group: Annotated[
        Word | None,
        about("Group of blades that ran the step together.", example="paris-a-c3f9a1"),
    ] = None


class BladeQualification(Model):
    """Say how far the qualification of a blade has come."""

    step: Annotated[Word | None, about("Step that runs now.", example="burnIn")] = None
    started_at: Annotated[
        Timestamp | None, about("When this qualification began.", example="2026-11-24T15:02:07Z")
    ] = None
    step_since: Annotated[
        Timestamp | None,
        about(
            "When the present step began, or its last tries broke.", example="2026-11-24T15:12:07Z"
        ),
    ] = None
    tries: Annotated[
        int, about("Pods of the present step that broke without a verdict.", example=1, ge=0)
    ] = 0
    results: Annotated[
        tuple[StepResult, ...],
        about(
            "Outcomes of this qualification, in order.",
            example=[{"step": "soak", "passed": True}],
            list_type="atomic",
            max_length=32,
        ),
    ] = ()


class BladeRepair(Model):
    """Say how far the repair of one fault has come."""

    code: Annotated[Word | None, about("Code of the fault.", example="xid-79")] = None
    gpu: Annotated[int | None, about("Index of the GPU.", example=3, ge=0, le=1023)] = None
    action: Annotated[Action, about("What the fault asks for.", example="Reset")]
    rung: Annotated[
        Action | None,
        about(
            "What the last repair was: Reset or Reboot; absent: there was none.", example="Reset"
        ),
    ] = None
    since: Annotated[
        Timestamp | None,
        about("When the fault took the blade out.", example="2026-11-24T15:01:30Z"),
    ] = None
    attempts: Annotated[int, about("Repairs of this fault so far.", example=1, ge=0)] = 0
    broken: Annotated[
        int,
        about("Pods in a row that broke before they could repair; no attempts.", example=1, ge=0),
    ] = 0
    started_at: Annotated[
        Timestamp | None,
        about("When the present repair began; absent: none runs.", example="2026-11-24T15:02:07Z"),
    ] = None
    repaired_at: Annotated[
        Timestamp | None,
        about("When the last repair succeeded.", example="2026-11-24T15:04:07Z"),
    ] = None
    boot_id: Annotated[
        Word | None,
        about(
            "Boot in which the fault was; after a reboot the blade must show another.",
            example="5f1c8a52-0b1c-4b8e-9d52-0a2a5f8c1b7e",
        ),
    ] = None
    node_boot_id: Annotated[
        Word | None,
        about(
            "The same as the kubelet had it, which is up again before the agent.",
            example="5f1c8a52-0b1c-4b8e-9d52-0a2a5f8c1b7e",
        ),
    ] = None

    @property
    def doing(self) -> Action:
        """Return what is or was done last; before that, what the fault asks for."""
        return self.rung or self.action


class Incident(Model):
    """Record one change of a blade's state that a fault or a person caused."""

    at: Annotated[Timestamp | None, about("When it happened.", example="2026-11-24T15:02:07Z")] = (
        None
    )
    code: Annotated[Word | None, about("Code of the fault.", example="xid-79")] = None
    gpu: Annotated[int | None, about("Index of the GPU.", example=3, ge=0, le=1023)] = None
    from_: Annotated[BladeState | None, about("State before.", example="Healthy")] = None
    to: Annotated[BladeState | None, about("State after.", example="Quarantined")] = None
    severity: Annotated[Severity | None, about("How bad the fault is.", example="Fatal")] = None
    action: Annotated[Action | None, about("What was done.", example="Reset")] = None
    jobs: Annotated[
        tuple[Annotated[str, about("Namespace and name.", max_length=317)], ...],
        about(
            "Jobs that ran on the blade, as namespace/name.",
            example=["research/llama"],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()
    detected_after: Annotated[
        Duration | None, about("Time from the fault to its report.", example="800ms")
    ] = None
    boot_id: Annotated[
        Word | None,
        about(
            "Boot in which the fault was last seen, or has been gone since goneSince.",
            example="5f1c8a52-0b1c-4b8e-9d52-0a2a5f8c1b7e",
        ),
    ] = None
    gone_since: Annotated[
        Timestamp | None,
        about(
            "Since when the fault is gone, by the operator's clock; absent: it is not, "
            "or not repaired as it must be.",
            example="2026-11-24T15:06:07Z",
        ),
    ] = None
    outcome: Annotated[Line | None, about("How it ended.", example="reset, back in 14m")] = None


class History(Model):
    """Sum up what a blade did to its jobs, for repeat offenders."""

    incidents28d: Annotated[int, about("Incidents in the last 28 days.", example=3, ge=0)] = 0
    quarantines28d: Annotated[int, about("Quarantines in the last 28 days.", example=1, ge=0)] = 0
    job_failures28d: Annotated[
        int, about("Jobs that failed on it in the last 28 days.", example=2, ge=0)
    ] = 0
    lemon_score: Annotated[
        DecimalString | None,
        about("How likely the blade is a lemon, from 0 to 1.", example="0.12"),
    ] = None


class BladeStatus(Model):
    """Say whether a blade may work, and why not."""

    observed_generation: Annotated[
        int | None, about("Generation of the spec that this status speaks of.", example=1, ge=0)
    ] = None
    state: Annotated[
        BladeState | None,
        about("Where the blade is in its life; only a Healthy one works.", example="Healthy"),
    ] = None
    state_since: Annotated[
        Timestamp | None, about("When the state began.", example="2026-11-24T15:02:07Z")
    ] = None
    reason: Annotated[
        BladeReason | None, about("Why the blade is in this state.", example="HardwareFault")
    ] = None
    message: Annotated[
        Text | None, about("The reason for people.", example="GPU 3: xid-79, reset needed")
    ] = None
    verdict: Annotated[
        Verdict | None,
        about("Sum of all faults.", example={"severity": "Fatal", "action": "Reset"}),
    ] = None
    report: Annotated[
        Report | None,
        about("What the health agent says; nobody else writes it.", example={"gpus": []}),
    ] = None
    qualification: Annotated[
        BladeQualification | None,
        about("How far the qualification has come.", example={"step": "burnIn"}),
    ] = None
    repair: Annotated[
        BladeRepair | None,
        about("How far the repair has come.", example={"code": "xid-79", "action": "Reboot"}),
    ] = None
    incidents: Annotated[
        tuple[Incident, ...],
        about(
            "The last 20 incidents, newest last.",
            example=[{"code": "xid-79", "from": "Healthy", "to": "Quarantined"}],
            list_type="atomic",
            max_length=MAX_INCIDENTS,
        ),
    ] = ()
    history: Annotated[
        History | None, about("Counts of the last 28 days.", example={"incidents28d": 3})
    ] = None
    conditions: Annotated[
        Conditions,
        about(
            "Findings by type: Ready.",
            example=[{"type": "Ready", "status": "True", "reason": "Healthy"}],
            list_type="map",
            keys=("type",),
            max_length=32,
        ),
    ] = ()


class Blade(Object):
    """One GPU server: what is wrong with it, and whether it may work. Components write it."""

    kind: str = "Blade"
    spec: Annotated[BladeSpec, about("Pool, and what people want.", example={"pool": "paris-a"})]
    status: Annotated[
        BladeStatus, about("Whether the blade may work.", example={"state": "Healthy"})
    ] = BladeStatus()
