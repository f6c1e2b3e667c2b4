"""List every reason there is, once.

A reason is a condition reason, a metric label value and an anchor in the documentation at once.
The lists are closed: what is not here does not exist.
"""

from enum import StrEnum


class PendingReason(StrEnum):
    """Say why a gang has no place, or a seat has no blade."""

    NO_MATCHING_POOL = "NoMatchingPool"
    EXCEEDS_POOL = "ExceedsPool"
    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    TOPOLOGY_PLACEMENT_FAILED = "TopologyPlacementFailed"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    EXCEEDS_MAX_QUOTA = "ExceedsMaxQuota"
    WAITING_FOR_PREEMPTED = "WaitingForPreempted"
    WAITING_FOR_SPARE = "WaitingForSpare"
    RESERVED_FOR_OTHER = "ReservedForOther"
    SUSPENDED = "Suspended"
    HEALTH_HOLD = "HealthHold"
    BREAKER_OPEN = "BreakerOpen"
    MISCONFIGURED = "Misconfigured"
    PENDING_EVALUATION = "PendingEvaluation"


class BladeReason(StrEnum):
    """Say why a blade is in the state it is in."""

    INVENTORY_MISMATCH = "InventoryMismatch"
    HARDWARE_FAULT = "HardwareFault"
    RECURRING_FAULT = "RecurringFault"
    FLAPPING = "Flapping"
    LEMON = "Lemon"
    AGENT_SILENT = "AgentSilent"
    NODE_NOT_READY = "NodeNotReady"
    PROBE_HUNG = "ProbeHung"
    BURN_IN_FAILED = "BurnInFailed"
    COLLECTIVE_FAILED = "CollectiveFailed"
    HELD_BY_PERSON = "HeldByPerson"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    BREAKER_OPEN = "BreakerOpen"
    REPAIR_FAILED = "RepairFailed"


class JobReason(StrEnum):
    """Say why a training job stopped, restarted or failed."""

    BLADE_FAULT = "BladeFault"
    NODE_LOST = "NodeLost"
    USER_ERROR = "UserError"
    HANG = "Hang"
    STRAGGLER = "Straggler"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    TIME_LIMIT = "TimeLimit"
    TOO_MANY_USER_FAILURES = "TooManyUserFailures"
    TOO_MANY_INFRA_FAILURES = "TooManyInfraFailures"
    IMAGE_ERROR = "ImageError"


class InferenceReason(StrEnum):
    """Say why a model is not served as asked for."""

    DOES_NOT_FIT = "DoesNotFit"
    ARTIFACT_MISMATCH = "ArtifactMismatch"
    ENGINE_FAILED = "EngineFailed"
    SLO_BREACHED = "SLOBreached"
    NO_CAPACITY = "NoCapacity"
    RANK_DEAD = "RankDead"
    HUNG = "Hung"
    BLADE_FAULT = "BladeFault"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    SOURCE_MISSING = "SourceMissing"
    MISCONFIGURED = "Misconfigured"
