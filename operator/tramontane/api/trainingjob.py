"""Define TrainingJob: a gang that keeps training until it is done.

People write the spec, the operator the status.
"""

from enum import StrEnum
from typing import Annotated, Final

from tramontane.api.base import (
    DecimalString,
    Duration,
    DurationOrAuto,
    Model,
    Name,
    Object,
    PodTemplate,
    Text,
    Timestamp,
    Word,
    about,
)
from tramontane.api.checks import Rule, checked, rules
from tramontane.api.conditions import Conditions
from tramontane.api.gang import MAX_SEATS, MAX_SIZES, MAX_SPARES, SIZES_DESCEND, GangTopology
from tramontane.api.reasons import JobReason, PendingReason

DEFAULT_STEP_PATTERN: Final = r"step[ =:]+(?P<step>\d+)"
DEFAULT_SAVED_PATTERN: Final = r"saved checkpoint.*step[ =:]+(?P<step>\d+)"
DEFAULT_SAVING_PATTERN: Final = r"(?i)(saving|writing) (a )?checkpoint"
MAX_GPUS: Final = 100_000
MAX_INCIDENTS: Final = 20
# `<job>-<seat>` is a host name (63 characters) and a seat has up to five digits.
MAX_NAME: Final = 57

# Rank and size differ per pod and attempt: a fixed value in a template breaks the rendezvous.
RESERVED_ENV: Final = (
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "PET_NNODES",
    "PET_NODE_RANK",
    "PET_NPROC_PER_NODE",
    "PET_LOCAL_ADDR",
    "REPLICA_GROUP_ID",
    "NUM_REPLICA_GROUPS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "TRAMONTANE_JOB",
    "TRAMONTANE_SEAT",
    "TRAMONTANE_NODES",
    "TRAMONTANE_ATTEMPT",
    "TRAMONTANE_RANK_BLADES",
)


class LauncherType(StrEnum):
    """Say what starts the processes of a rank."""

    TORCHRUN = "torchrun"
    JAX = "jax"
    MPI = "mpi"
    NONE = "none"


class RestartPolicy(StrEnum):
    """Say what a loss costs the survivors."""

    IN_PLACE = "InPlace"
    GANG = "Gang"


class AgentMode(StrEnum):
    """Say whether the rank agent is PID 1 of the rank's container."""

    AUTO = "Auto"
    NONE = "None"


class JobPhase(StrEnum):
    """Say what a job is doing."""

    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    RECOVERING = "Recovering"
    CHECKPOINTING = "Checkpointing"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class IncidentCause(StrEnum):
    """Say what interrupted a job."""

    BLADE_FAULT = "BladeFault"
    NODE_LOST = "NodeLost"
    USER_ERROR = "UserError"
    HANG = "Hang"
    STRAGGLER = "Straggler"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"


class Stragglers(StrEnum):
    """Say what is done about a rank whose steps take longer than the others'."""

    OFF = "Off"
    REPORT = "Report"
    MOVE = "Move"


class HandshakeWhy(StrEnum):
    """Say what a job saves a checkpoint for before it is done."""

    DRAIN = "Drain"
    STRAGGLER = "Straggler"
    PREEMPT = "Preempt"
    SUSPEND = "Suspend"
    RESIZE = "Resize"


class Elastic(Model):
    """Let a job run at several sizes."""

    sizes: Annotated[
        tuple[Annotated[int, about("A number of blades.", ge=1, le=MAX_SEATS)], ...],
        about(
            "Acceptable numbers of blades, largest first; the first is spec.nodes.",
            example=[128, 120, 112],
            list_type="atomic",
            min_length=1,
            max_length=MAX_SIZES,
            extra=rules(SIZES_DESCEND),
        ),
    ]
    grow_after: Annotated[
        Duration,
        about("Time that room for a larger size must last before the job grows.", example="1h"),
    ] = "30m"


class Launcher(Model):
    """Say what starts the processes of a rank, and how they meet."""

    type: Annotated[
        LauncherType, about("torchrun, jax, mpi, or none for a command of your own.", example="jax")
    ] = LauncherType.TORCHRUN
    procs_per_node: Annotated[
        int | None,
        about("Processes per blade; absent: gpusPerNode.", example=8, ge=1, le=1024),
    ] = None
    port: Annotated[
        int, about("Port of seat 0 where all meet.", example=29400, ge=1024, le=65535)
    ] = 29500
    replica_groups: Annotated[
        int,
        about(
            "Groups that train on without a lost one; above 1: torchft with a lighthouse.",
            example=4,
            ge=1,
            le=1024,
        ),
    ] = 1
    min_replica_groups: Annotated[
        int,
        about(
            "Groups that must be whole for training to go on; with replicaGroups.",
            example=3,
            ge=1,
            le=1024,
        ),
    ] = 1

    model_config = checked(
        Rule(
            "!has(self.minReplicaGroups) || self.minReplicaGroups == 1 || "
            "(has(self.replicaGroups) && self.minReplicaGroups <= self.replicaGroups)",
            "minReplicaGroups must not exceed replicaGroups",
            "%d over %d",
            ("self.minReplicaGroups", "has(self.replicaGroups) ? self.replicaGroups : 1"),
        ),
        Rule(
            "!has(self.replicaGroups) || self.replicaGroups == 1 || !has(self.type) || "
            "self.type == 'torchrun'",
            "replicaGroups above 1 must go with launcher type torchrun",
            "type %s",
            ("self.type",),
        ),
    )


class MetricsSource(Model):
    """Read progress from the Prometheus endpoint of rank 0."""

    port: Annotated[int, about("Port of the endpoint.", example=9090, ge=1, le=65535)]
    path: Annotated[
        str, about("Path of the endpoint.", example="/stats", pattern="^/", max_length=256)
    ] = "/metrics"
    step: Annotated[
        str,
        about(
            "Metric that holds the step.",
            example="train_step",
            pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$",
            max_length=256,
        ),
    ]
    loss: Annotated[
        str | None,
        about(
            "Metric that holds the loss; absent: not read.",
            example="train_loss",
            pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$",
            max_length=256,
        ),
    ] = None


def _re2(field: str) -> Rule:
    return Rule(
        "type(''.matches(self)) == bool",
        f"{field} must be a regular expression (RE2)",
        "%s",
        ("self",),
    )


def _step_pattern(field: str) -> tuple[Rule, Rule]:
    """Return what a pattern must be; Python's own extensions of RE2 are not for patterns."""
    return (
        Rule(
            "self == '' || self.contains('(?P<step>')",
            f"{field} must contain a group named step",
            "%s",
            ("self",),
            "write it as in 'step (?P<step>[0-9]+)'",
        ),
        _re2(field),
    )


def _loss_pattern() -> tuple[Rule, Rule]:
    return (
        Rule(
            "self == '' || self.contains('(?P<loss>')",
            "lossPattern must contain a group named loss",
            "%s",
            ("self",),
            "write it as in 'loss (?P<loss>[0-9.]+)'",
        ),
        _re2("lossPattern"),
    )


class Progress(Model):
    """Say how progress is read: from rank 0's log, or from its metrics."""

    step_pattern: Annotated[
        str | None,
        about(
            "Regular expression over the lines of rank 0's log, with a group named step. "
            f"Absent or empty, and without metrics: `{DEFAULT_STEP_PATTERN}`.",
            example=r"iteration +(?P<step>\d+)/",
            max_length=1024,
            extra=rules(*_step_pattern("stepPattern")),
        ),
    ] = None
    loss_pattern: Annotated[
        str | None,
        about(
            "Regular expression with a group named loss; absent or empty: not read.",
            example=r"loss[ =:]+(?P<loss>[0-9.]+)",
            max_length=1024,
            extra=rules(*_loss_pattern()),
        ),
    ] = None
    stall_after: Annotated[
        DurationOrAuto,
        about(
            "Time without a step after which the job hangs; auto: from its own step times.",
            example="10m",
        ),
    ] = "auto"
    stragglers: Annotated[
        Stragglers,
        about(
            "A rank whose step time exceeds the others' by half for minutes: Report it, Move it to "
            "a spare at a checkpoint, or Off. Read from sampled ranks' logs, where stepPattern has "
            "a group named seconds (the rank's own time for the step).",
            example="Move",
        ),
    ] = Stragglers.REPORT
    metrics: Annotated[
        MetricsSource | None,
        about(
            "Prometheus endpoint of rank 0, instead of log patterns.",
            example={"port": 9090, "step": "train_step"},
        ),
    ] = None

    model_config = checked(
        Rule(
            "!has(self.metrics) || ((!has(self.stepPattern) || self.stepPattern == '') && "
            "(!has(self.lossPattern) || self.lossPattern == ''))",
            "progress must be given as either metrics or log patterns",
            "both",
        )
    )

    @property
    def effective_step_pattern(self) -> str | None:
        """Return the pattern to read the log with; None where metrics are read instead."""
        return None if self.metrics else self.step_pattern or DEFAULT_STEP_PATTERN


class CheckpointSpec(Model):
    """Say how checkpoints are noticed and how long a last one may take."""

    saved_pattern: Annotated[
        str,
        about(
            "Regular expression over the lines of rank 0's log that says a checkpoint is safe, "
            "with a group named step; empty: checkpoints are not seen.",
            example=r"checkpoint saved at iteration +(?P<step>\d+)",
            max_length=1024,
            extra=rules(*_step_pattern("savedPattern")),
        ),
    ] = DEFAULT_SAVED_PATTERN
    saving_pattern: Annotated[
        str,
        about(
            "Regular expression over the lines of rank 0's log that says a checkpoint is being "
            "written: until it is safe, standing still is no hang; empty: not seen.",
            example="writing checkpoint",
            max_length=1024,
            extra=rules(_re2("savingPattern")),
        ),
    ] = DEFAULT_SAVING_PATTERN
    grace: Annotated[
        Duration,
        about("Time for a last checkpoint between SIGTERM and SIGKILL.", example="5m"),
    ] = "120s"
    interval_hint: Annotated[
        DurationOrAuto,
        about(
            "How often the job saves; auto: measured. status.checkpointAdvice says what is best.",
            example="30m",
        ),
    ] = "auto"


class Backoff(Model):
    """Space out repeated restarts; each wait doubles."""

    base: Annotated[Duration, about("First wait.", example="30s")] = "10s"
    max: Annotated[Duration, about("Longest wait.", example="30m")] = "10m"

    model_config = checked(
        Rule(
            "!has(self.base) || !has(self.max) || duration(self.base) <= duration(self.max)",
            "backoff.base must not exceed backoff.max",
            "%s over %s",
            ("self.base", "self.max"),
        )
    )


class UserFailures(Model):
    """Bound the crashes without an infrastructure cause."""

    max: Annotated[int, about("Crashes within the window.", example=5, ge=0, le=100_000)] = 3
    window: Annotated[Duration, about("Window of the count.", example="48h")] = "24h"


class InfraFailures(Model):
    """Bound the restarts that the infrastructure caused."""

    max: Annotated[int, about("Restarts within the window.", example=500, ge=0, le=100_000)] = 100
    window: Annotated[Duration, about("Window of the count.", example="48h")] = "24h"


class Recovery(Model):
    """Say what happens after a loss."""

    restart: Annotated[
        RestartPolicy,
        about(
            "InPlace: only lost seats get new pods, and the survivors' rank processes restart in "
            "their pods. Gang: all pods are made anew, on the same blades.",
            example="Gang",
        ),
    ] = RestartPolicy.IN_PLACE
    agent: Annotated[
        AgentMode,
        about(
            "Auto: the rank agent is PID 1 of the rank's container. None: the container's own "
            "command, restarted by the kubelet.",
            example="None",
        ),
    ] = AgentMode.AUTO
    user_failures: Annotated[
        UserFailures,
        about(
            "Crashes without an infrastructure cause before the job fails.",
            example={"max": 5, "window": "24h"},
        ),
    ] = UserFailures()
    infra_failures: Annotated[
        InfraFailures,
        about(
            "Restarts with an infrastructure cause before the job fails.",
            example={"max": 500, "window": "24h"},
        ),
    ] = InfraFailures()
    backoff: Annotated[
        Backoff, about("Waits between restarts.", example={"base": "10s", "max": "10m"})
    ] = Backoff()
    avoid_after: Annotated[
        int,
        about(
            "Failures of this job on a blade after which it avoids the blade; 0: never.",
            example=1,
            ge=0,
            le=1000,
        ),
    ] = 2
    node_lost_after: Annotated[
        Duration,
        about("Silence of a Node after which its seats are moved.", example="2m"),
    ] = "45s"


def _reserved_env_rule() -> Rule:
    containers = "self.template.spec.containers"
    reserved = "[" + ", ".join(f"'{name}'" for name in RESERVED_ENV) + "]"
    bad = f"c.env.exists(e, e.name in {reserved})"
    given = "c.env.exists(e, e.name == n)"
    return Rule(
        f"(has(self.launcher) && has(self.launcher.type) && self.launcher.type == 'none') || "
        f"{containers}.all(c, !has(c.env) || !{bad})",
        "template must not set rank or size, which differ per pod and attempt",
        "%s",
        (f"{reserved}.filter(n, {containers}.exists(c, has(c.env) && {given}))",),
        "remove it: the launcher's variables are set for the container",
    )


class TrainingJobSpec(Model):
    """Say what to train on, and how to keep it going."""

    node_pool: Annotated[
        Name | None,
        about("NodePool; absent: any that is open to the namespace.", example="paris-a"),
    ] = None
    nodes: Annotated[int, about("Blades.", example=128, ge=1, le=MAX_SEATS)]
    gpus_per_node: Annotated[
        int | None, about("GPUs per blade; absent: the pool's.", example=8, ge=1, le=64)
    ] = None
    elastic: Annotated[
        Elastic | None,
        about("Sizes that will do; absent: spec.nodes only.", example={"sizes": [128, 120, 112]}),
    ] = None
    spares: Annotated[
        int,
        about("Blades held beside the job as replacements.", example=2, ge=0, le=MAX_SPARES),
    ] = 0
    topology: Annotated[
        GangTopology,
        about("How near the blades must be.", example={"pack": "rack", "mode": "Preferred"}),
    ] = GangTopology()
    priority_class_name: Annotated[
        Name | None, about("PriorityClass; absent: priority 0.", example="research-high")
    ] = None
    preemptible: Annotated[
        bool, about("Whether the job may have to give way to higher priority.", example=False)
    ] = True
    max_runtime: Annotated[
        Duration | None,
        about("Longest run, from the first start; absent: no limit.", example="72h"),
    ] = None
    suspend: Annotated[
        bool,
        about("Whether to hold the job: it checkpoints and gives up its blades.", example=True),
    ] = False
    launcher: Annotated[
        Launcher, about("What starts the ranks.", example={"type": "torchrun", "procsPerNode": 8})
    ] = Launcher()
    template: Annotated[
        PodTemplate,
        about(
            "Pod of each seat; the container named trainer, else the first, is the rank.",
            example={
                "spec": {"containers": [{"name": "trainer", "image": "registry.local/llama:12"}]}
            },
        ),
    ]
    progress: Annotated[
        Progress, about("How progress is read.", example={"stepPattern": DEFAULT_STEP_PATTERN})
    ] = Progress()
    checkpoint: Annotated[
        CheckpointSpec, about("How checkpoints are noticed.", example={"grace": "120s"})
    ] = CheckpointSpec()
    recovery: Annotated[
        Recovery, about("What happens after a loss.", example={"restart": "InPlace"})
    ] = Recovery()
    ttl_after_finished: Annotated[
        Duration | None,
        about("Time after the end until the job is deleted; absent: never.", example="168h"),
    ] = None

    model_config = checked(
        Rule(
            "!has(oldSelf.nodePool) || (has(self.nodePool) && self.nodePool == oldSelf.nodePool)",
            "nodePool must not change once it is set",
            '"%s" after "%s"',
            ("has(self.nodePool) ? self.nodePool : ''", "oldSelf.nodePool"),
            "delete the job and create it anew",
        ),
        Rule(
            f"!has(self.gpusPerNode) || self.nodes * self.gpusPerNode <= {MAX_GPUS}",
            f"nodes times gpusPerNode must be at most {MAX_GPUS} GPUs",
            "%d * %d = %d",
            ("self.nodes", "self.gpusPerNode", "self.nodes * self.gpusPerNode"),
        ),
        Rule(
            "!has(self.elastic) || self.elastic.sizes.all(n, n <= self.nodes)",
            "elastic.sizes must not exceed nodes",
            "%s with nodes %d",
            ("self.elastic.sizes", "self.nodes"),
        ),
        Rule(
            "!has(self.elastic) || self.nodes in self.elastic.sizes",
            "elastic.sizes must include nodes",
            "%s with nodes %d",
            ("self.elastic.sizes", "self.nodes"),
        ),
        Rule(
            "!has(self.topology) || !has(self.topology.slice) || "
            "self.nodes % self.topology.slice.size == 0",
            "topology.slice.size must divide nodes",
            "%d with nodes %d",
            ("self.topology.slice.size", "self.nodes"),
        ),
        Rule(
            "!has(self.topology) || !has(self.topology.slice) || !has(self.elastic) || "
            "self.elastic.sizes.all(n, n % self.topology.slice.size == 0)",
            "topology.slice.size must divide each of elastic.sizes",
            "%d with sizes %s",
            ("self.topology.slice.size", "self.elastic.sizes"),
        ),
        Rule(
            "!has(self.launcher) || !has(self.launcher.replicaGroups) || "
            "self.nodes % self.launcher.replicaGroups == 0",
            "launcher.replicaGroups must divide nodes",
            "%d with nodes %d",
            ("self.launcher.replicaGroups", "self.nodes"),
        ),
        Rule(
            "!has(self.launcher) || !has(self.launcher.replicaGroups) || !has(self.elastic) || "
            "self.elastic.sizes.all(n, n % self.launcher.replicaGroups == 0)",
            "launcher.replicaGroups must divide each of elastic.sizes",
            "%d with sizes %s",
            ("self.launcher.replicaGroups", "self.elastic.sizes"),
        ),
        _reserved_env_rule(),
    )


class LastCheckpoint(Model):
    """Say from where the job would go on."""

    step: Annotated[int | None, about("Step that it holds.", example=118000, ge=0)] = None
    at: Annotated[Timestamp | None, about("When it was safe.", example="2026-11-24T15:02:07Z")] = (
        None
    )


class GoodputLost(Model):
    """Account for the time that was not productive."""

    queue: Annotated[Duration, about("Waiting for blades.", example="310s")] = "0s"
    start: Annotated[Duration, about("First start until the first step.", example="95s")] = "0s"
    restart: Annotated[Duration, about("Losses until steps again.", example="240s")] = "0s"
    rework: Annotated[Duration, about("Steps done twice.", example="400s")] = "0s"
    hang: Annotated[Duration, about("Standing still until it was noticed.", example="0s")] = "0s"
    checkpoint: Annotated[Duration, about("Saving while training stood.", example="120s")] = "0s"
    preempted: Annotated[Duration, about("Given way to others.", example="0s")] = "0s"
    suspended: Annotated[Duration, about("Held by its owner.", example="0s")] = "0s"


class RestartStages(Model):
    """Split the time of restarts; the stages add up to goodput.lost.restart."""

    detect: Annotated[Duration, about("From the last step until it was known.", example="2s")] = (
        "0s"
    )
    replace: Annotated[
        Duration, about("From then until every seat had a pod again.", example="31s")
    ] = "0s"
    resume: Annotated[
        Duration, about("From then until the first step: meeting, loading.", example="207s")
    ] = "0s"


class Goodput(Model):
    """Account for all time since creation: productive and lost add up to it."""

    ratio: Annotated[
        DecimalString | None, about("Productive part, from 0 to 1.", example="0.974")
    ] = None
    productive: Annotated[
        Duration, about("Time in steps that were kept, in seconds.", example="86400s")
    ] = "0s"
    lost: Annotated[
        GoodputLost, about("Time lost, by cause.", example={"queue": "310s", "rework": "400s"})
    ] = GoodputLost()
    restart: Annotated[
        RestartStages,
        about("Parts of lost.restart.", example={"detect": "2s", "replace": "31s"}),
    ] = RestartStages()
    at: Annotated[
        Timestamp | None, about("Time up to which this counts.", example="2026-11-24T15:02:07Z")
    ] = None


class RestartCounts(Model):
    """Count restarts by who caused them."""

    user: Annotated[int, about("Without an infrastructure cause.", example=0, ge=0)] = 0
    infra: Annotated[int, about("By blades, Nodes and network.", example=4, ge=0)] = 0
    preempted: Annotated[int, about("By higher priority.", example=1, ge=0)] = 0


class Handshake(Model):
    """Show a planned disruption that waits for a checkpoint: ranks have been told to save."""

    why: Annotated[HandshakeWhy, about("What it is for.", example="Drain")]
    since: Annotated[Timestamp, about("When the ranks were told.", example="2026-11-24T15:02:07Z")]
    deadline: Annotated[
        Timestamp, about("When it is done without a checkpoint.", example="2026-11-24T15:04:07Z")
    ]


class Growth(Model):
    """Show room for another size, which must last before it is used."""

    size: Annotated[int, about("Blades that there is room for.", example=128, ge=1)]
    since: Annotated[Timestamp, about("Since when.", example="2026-11-24T15:02:07Z")]


class JobIncident(Model):
    """Record one interruption, its cause and how long each part of the recovery took."""

    at: Annotated[Timestamp, about("When it happened.", example="2026-11-24T15:02:07Z")]
    cause: Annotated[IncidentCause, about("What interrupted the job.", example="BladeFault")]
    code: Annotated[Word | None, about("Fault code, or exit code.", example="xid-79")] = None
    blade: Annotated[Name | None, about("Blade at fault.", example="gpu-0017")] = None
    seats: Annotated[
        tuple[Annotated[int, about("Number of a seat.", ge=0)], ...],
        about("Seats that it took.", example=[17], list_type="atomic", max_length=256),
    ] = ()
    replaced_by: Annotated[Name | None, about("Blade that took over.", example="gpu-0090")] = None
    detected_after: Annotated[
        Duration | None, about("Time from the fault until it was known.", example="800ms")
    ] = None
    replaced_after: Annotated[
        Duration | None, about("Time from the fault until the new pod was there.", example="2.1s")
    ] = None
    running_after: Annotated[
        Duration | None, about("Time from the fault until steps again.", example="41s")
    ] = None
    rework_steps: Annotated[
        int | None, about("Steps that had to be done again.", example=40, ge=0)
    ] = None


class TrainingJobStatus(Model):
    """Say what the job does, how far it is, and what its time went into."""

    observed_generation: Annotated[
        int | None, about("Generation of the spec that this status speaks of.", example=2, ge=0)
    ] = None
    phase: Annotated[JobPhase | None, about("What the job is doing.", example="Running")] = None
    phase_since: Annotated[
        Timestamp | None, about("When the phase began.", example="2026-11-24T15:02:07Z")
    ] = None
    reason: Annotated[
        PendingReason | JobReason | None,
        about("Why it waits, recovers or failed.", example="WaitingForCapacity"),
    ] = None
    message: Annotated[
        Text | None,
        about("The reason for people, with numbers.", example="needs 128 blades (got 120 free)"),
    ] = None
    ready: Annotated[Word | None, about("Ready pods of all pods.", example="128/128")] = None
    gpus: Annotated[int | None, about("GPUs that the job holds.", example=1024, ge=0)] = None
    size: Annotated[int | None, about("Blades of this attempt.", example=128, ge=0)] = None
    attempt: Annotated[
        int, about("Lives so far; each restart of the ranks begins one.", example=3, ge=0)
    ] = 0
    started_at: Annotated[
        Timestamp | None, about("When the job first ran.", example="2026-11-24T15:02:07Z")
    ] = None
    finished_at: Annotated[
        Timestamp | None, about("When the job ended.", example="2026-11-27T15:02:07Z")
    ] = None
    step: Annotated[int | None, about("Last step seen.", example=118400, ge=0)] = None
    step_time: Annotated[Duration | None, about("Median time of a step.", example="5.1s")] = None
    step_time_p99: Annotated[
        Duration | None, about("99th percentile of a step's time.", example="7.9s")
    ] = None
    loss: Annotated[
        DecimalString | None, about("Last loss seen, with lossPattern.", example="1.8031")
    ] = None
    last_checkpoint: Annotated[
        LastCheckpoint | None,
        about(
            "From where it would go on.",
            example={"step": 118000, "at": "2026-11-24T15:02:07Z"},
        ),
    ] = None
    checkpoint_advice: Annotated[
        Duration | None,
        about("Interval that loses the least time at the measured failure rate.", example="22m"),
    ] = None
    goodput: Annotated[
        Goodput | None,
        about("What the time went into.", example={"ratio": "0.974", "productive": "86400s"}),
    ] = None
    handshake: Annotated[
        Handshake | None,
        about(
            "Planned disruption that waits for a checkpoint now.",
            example={"why": "Drain", "since": "2026-11-24T15:02:07Z"},
        ),
    ] = None
    growth: Annotated[
        Growth | None,
        about(
            "Size that the scheduler advises, and since when.",
            example={"size": 128, "since": "2026-11-24T15:02:07Z"},
        ),
    ] = None
    restarts: Annotated[
        RestartCounts | None,
        about("Restarts by cause.", example={"user": 0, "infra": 4, "preempted": 1}),
    ] = None
    incidents: Annotated[
        tuple[JobIncident, ...],
        about(
            "The last 20 interruptions, newest last.",
            example=[{"at": "2026-11-24T15:02:07Z", "cause": "BladeFault", "code": "xid-79"}],
            list_type="atomic",
            max_length=MAX_INCIDENTS,
        ),
    ] = ()
    conditions: Annotated[
        Conditions,
        about(
            "Findings by type: Ready, Admitted, GangReady, Complete, Failed, Reconciling, Stalled.",
            example=[{"type": "Complete", "status": "True", "reason": "Succeeded"}],
            list_type="map",
            keys=("type",),
            max_length=32,
        ),
    ] = ()


class TrainingJob(Object):
    """A gang that keeps training until it is done."""

    kind: str = "TrainingJob"
    spec: Annotated[
        TrainingJobSpec, about("What to train on.", example={"nodes": 128, "nodePool": "paris-a"})
    ]
    status: Annotated[
        TrainingJobStatus, about("What the job does.", example={"phase": "Running"})
    ] = TrainingJobStatus()

    model_config = checked(
        Rule(
            f"self.metadata.name.size() <= {MAX_NAME} && "
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must begin with a letter, have only a-z, 0-9 and '-', and at most "
            f"{MAX_NAME} characters, because the pods have host names",
            '"%s", %d characters',
            ("self.metadata.name", "self.metadata.name.size()"),
        )
    )
