"""Define the status of an InferenceDeployment; the operator writes it.

It is also what the operator remembers: which revisions there are and what became of them, where a
rollout stands, and of each replica how often it was restarted and whether it is leaving.
"""

from enum import StrEnum
from typing import Annotated, Final

from tramontane.api.base import (
    Digest,
    Label,
    Line,
    Model,
    Name,
    Quantity,
    Text,
    Timestamp,
    Word,
    about,
)
from tramontane.api.conditions import Conditions
from tramontane.api.reasons import InferenceReason, PendingReason

MAX_DECISIONS: Final = 10
MAX_REVISIONS: Final = 10

_DIGEST_EXAMPLE: Final = "sha256:" + "9f86d081884c7d65" * 4


class InferencePhase(StrEnum):
    """Say how well the model is served."""

    PLANNING = "Planning"
    WAITING = "Waiting"
    LOADING = "Loading"
    SERVING = "Serving"
    DEGRADED = "Degraded"
    ROLLING_OUT = "RollingOut"
    ROLLED_BACK = "RolledBack"
    SCALED_TO_ZERO = "ScaledToZero"
    FAILED = "Failed"


class RevisionVerdict(StrEnum):
    """Say what became of a revision."""

    OBSERVING = "Observing"
    ACCEPTED = "Accepted"
    REJECTED = "Rejected"


class PlanStatus(Model):
    """Say how a replica is laid out, and whether it fits."""

    gpus_per_replica: Annotated[int | None, about("GPUs per replica.", example=8, ge=0)] = None
    nodes_per_replica: Annotated[int | None, about("Blades per replica.", example=1, ge=0)] = None
    layout: Annotated[Word | None, about("Layout in short.", example="TP8")] = None
    weights_per_gpu: Annotated[
        Quantity | None, about("Memory of the weights per GPU, in bytes.", example="17Gi")
    ] = None
    kv_tokens: Annotated[
        int | None, about("Tokens that a replica's KV cache holds.", example=2200000, ge=0)
    ] = None
    concurrent_requests: Annotated[
        int | None,
        about("Requests of the full context that a replica serves at once.", example=33, ge=0),
    ] = None
    fits: Annotated[bool | None, about("Whether it fits.", example=True)] = None
    why: Annotated[
        Text | None,
        about("The arithmetic, for people.", example="17.2 GiB of weights + 96 GiB of KV in 141"),
    ] = None


class Revision(Model):
    """Say what became of one revision."""

    hash: Annotated[Word, about("Hash of the spec's serving part.", example="6c7f", min_length=1)]
    digest: Annotated[Digest | None, about("Digest of its weights.", example=_DIGEST_EXAMPLE)] = (
        None
    )
    weight: Annotated[int | None, about("Percent of the requests.", example=5, ge=0, le=100)] = None
    ready: Annotated[int | None, about("Ready replicas.", example=1, ge=0)] = None
    verdict: Annotated[RevisionVerdict | None, about("What became of it.", example="Observing")] = (
        None
    )
    training_job: Annotated[
        Name | None, about("TrainingJob that made its weights.", example="claims-cpt-42")
    ] = None
    base: Annotated[
        Line | None,
        about("Model that these weights were made from.", example="mistral-small-4"),
    ] = None
    why: Annotated[
        Text | None, about("Why, with numbers.", example="ttftP95 1.9 times the old one's")
    ] = None


class ReplicaStatus(Model):
    """Say how one replica is."""

    name: Annotated[Name, about("Name of the replica's gang.", example="claims-0")]
    state: Annotated[Word | None, about("What it is doing.", example="Serving")] = None
    ranks: Annotated[Word | None, about("Ready ranks of all ranks.", example="8/8")] = None
    blades: Annotated[
        tuple[Name, ...],
        about("Blades it is on.", example=["gpu-0001"], list_type="atomic", max_length=1024),
    ] = ()
    restarts: Annotated[int, about("Restarts since it last served for long.", example=1, ge=0)] = 0
    revision: Annotated[Word | None, about("Hash of its revision.", example="6c7f")] = None
    since: Annotated[
        Timestamp | None, about("When its state began.", example="2026-11-24T15:02:07Z")
    ] = None
    failed_at: Annotated[
        Timestamp | None, about("When it last failed.", example="2026-11-24T15:02:07Z")
    ] = None
    why: Annotated[
        Line | None,
        about("Why it failed last, or leaves.", example="rank 1 ended with exit code 137"),
    ] = None
    reason: Annotated[
        InferenceReason | None, about("Reason of its last failure.", example="RankDead")
    ] = None
    avoid: Annotated[
        tuple[Name, ...],
        about(
            "Blades that broke it, or the replica that it replaces.",
            example=["gpu-0007"],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()
    replaces: Annotated[
        Name | None,
        about("Replica that leaves once this one serves.", example="claims-0"),
    ] = None
    moves: Annotated[
        int, about("Times that it was moved because it kept failing.", example=1, ge=0)
    ] = 0


class RolloutStatus(Model):
    """Say where the replacement of one revision by another stands; absent while there is none."""

    from_: Annotated[
        Word | None, about("Revision that served before; absent: none.", example="6c7f")
    ] = None
    to: Annotated[Word, about("Revision that is to serve.", example="a41e")]
    step: Annotated[
        int, about("Index of the step; the number of steps means all requests.", example=1, ge=0)
    ] = 0
    since: Annotated[
        Timestamp | None,
        about(
            "When the step's replicas were ready and its hold began; absent: not yet.",
            example="2026-11-24T15:02:07Z",
        ),
    ] = None
    serial: Annotated[
        bool,
        about("Whether a replica of the old revision leaves before a new one comes.", example=True),
    ] = False


class AdapterStatus(Model):
    """Say whether one adapter is served."""

    name: Annotated[Label, about("Name of the adapter.", example="claims-de")]
    digest: Annotated[Digest | None, about("Digest of its files.", example=_DIGEST_EXAMPLE)] = None
    ready: Annotated[
        Word | None, about("Replicas that have loaded it, of those that serve.", example="3/4")
    ] = None
    why: Annotated[Text | None, about("Why it is not served.", example="rank 64 (at most 16)")] = (
        None
    )


class Decision(Model):
    """Record one decision and its grounds."""

    at: Annotated[Timestamp, about("When.", example="2026-11-24T15:02:07Z")]
    what: Annotated[Line, about("What was decided.", example="scale 2 to 3")]
    why: Annotated[Line | None, about("Why, with numbers.", example="queue 9 per replica")] = None


class InferenceDeploymentStatus(Model):
    """Say how well the model is served, and what was decided."""

    observed_generation: Annotated[
        int | None, about("Generation of the spec that this status speaks of.", example=2, ge=0)
    ] = None
    phase: Annotated[InferencePhase | None, about("How well it is served.", example="Serving")] = (
        None
    )
    reason: Annotated[
        PendingReason | InferenceReason | None,
        about("Why it is not served as asked for.", example="DoesNotFit"),
    ] = None
    message: Annotated[
        Text | None,
        about("The reason for people, with numbers.", example="needs 180 GiB (got 141 per GPU)"),
    ] = None
    ready: Annotated[Word | None, about("Ready replicas of wanted ones.", example="3/4")] = None
    endpoint: Annotated[
        Line | None,
        about("Address of the API.", example="http://claims.insurer-a.svc:8000/v1"),
    ] = None
    plan: Annotated[
        PlanStatus | None, about("How a replica is laid out.", example={"layout": "TP8"})
    ] = None
    revisions: Annotated[
        tuple[Revision, ...],
        about(
            "Revisions that serve or were judged last.",
            example=[{"hash": "6c7f", "weight": 5, "verdict": "Observing"}],
            list_type="map",
            keys=("hash",),
            max_length=MAX_REVISIONS,
        ),
    ] = ()
    replicas: Annotated[
        tuple[ReplicaStatus, ...],
        about(
            "Replicas, by name.",
            example=[{"name": "claims-0", "state": "Serving", "ranks": "8/8"}],
            list_type="map",
            keys=("name",),
            max_length=2000,
        ),
    ] = ()
    decisions: Annotated[
        tuple[Decision, ...],
        about(
            "The last 10 decisions, newest last.",
            example=[{"at": "2026-11-24T15:02:07Z", "what": "scale 2 to 3"}],
            list_type="atomic",
            max_length=MAX_DECISIONS,
        ),
    ] = ()
    rollout: Annotated[
        RolloutStatus | None,
        about("Where a rollout stands.", example={"from": "6c7f", "to": "a41e", "step": 0}),
    ] = None
    replicas_wanted: Annotated[
        int | None, about("Replicas that the load calls for.", example=3, ge=0)
    ] = None
    scaled_at: Annotated[
        Timestamp | None,
        about("When that number last changed.", example="2026-11-24T15:02:07Z"),
    ] = None
    adapters: Annotated[
        tuple[AdapterStatus, ...],
        about(
            "Adapters, by name.",
            example=[{"name": "claims-de", "ready": "4/4"}],
            list_type="map",
            keys=("name",),
            max_length=32,
        ),
    ] = ()
    conditions: Annotated[
        Conditions,
        about(
            "Findings by type: Ready, Planned, ArtifactVerified, Scheduled, SLOMet, Reconciling, "
            "Stalled.",
            example=[{"type": "Ready", "status": "True", "reason": "Serving"}],
            list_type="map",
            keys=("type",),
            max_length=32,
        ),
    ] = ()
