"""List the names that components, manifests and tests must agree upon."""

from enum import StrEnum

GROUP = "tramontane.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "tramontane"

# Default of every process's --namespace.
SYSTEM_NAMESPACE = "tramontane-system"

# On Nodes, written by the operator (the tranche label by whoever delivers the blade).
LABEL_POOL = "tramontane.dev/pool"
LABEL_TRANCHE = "tramontane.dev/tranche"
LABEL_BLADE_STATE = "tramontane.dev/blade-state"
TAINT_BLADE = "tramontane.dev/blade"
CONDITION_GPU_HEALTHY = "GPUHealthy"
LABEL_HOSTNAME = "kubernetes.io/hostname"

# On pods of a gang, written by the operator.
LABEL_JOB = "tramontane.dev/job"
LABEL_GANG = "tramontane.dev/gang"
LABEL_SEAT = "tramontane.dev/seat"
ANNOTATION_EPOCH = "tramontane.dev/epoch"
ANNOTATION_PEERS = "tramontane.dev/peers"
# The attempt whose ranks are to save a checkpoint and end.
ANNOTATION_DRAIN = "tramontane.dev/drain"
# On the pod that a job's replica groups agree with.
LABEL_LIGHTHOUSE = "tramontane.dev/lighthouse"

# On what belongs to an InferenceDeployment, written by the operator: its name, the hash of its
# revision, and on the pods that answer requests whether they get any.
LABEL_INFERENCE = "tramontane.dev/inference"
LABEL_REVISION = "tramontane.dev/revision"
LABEL_ROTATION = "tramontane.dev/rotation"
IN_ROTATION = "in"
OUT_OF_ROTATION = "out"
# On their pods: the adapters that the engine is to have loaded, as JSON.
ANNOTATION_ADAPTERS = "tramontane.dev/adapters"

# On pods that the nodepool controller runs on a blade, in the system namespace: what it tests or
# repairs (a step of qualification, or a rung of the repair ladder), on which blade, with whom.
LABEL_WORK = "tramontane.dev/work"
LABEL_BLADE = "tramontane.dev/blade"
LABEL_GROUP = "tramontane.dev/group"
ANNOTATION_REPAIR_GPU = "tramontane.dev/gpu"

# On NodePools, written by people through the CLI: the time at which they closed the breaker.
ANNOTATION_BREAKER_CLOSED = "tramontane.dev/breaker-closed"

# On pods of foreign gangs, written by their controllers.
SCHEDULER_NAME = "tramontane"
ANNOTATION_GANG_SIZE = "tramontane.dev/gang-size"
ANNOTATION_PACK = "tramontane.dev/pack"

GPU_RESOURCE = "nvidia.com/gpu"

# The container of a template that runs the rank; where none has this name, the first one does.
TRAINER_CONTAINER = "trainer"
# The container of an InferenceDeployment's pod that runs a rank of the engine, and the init
# container that brings and verifies the weights.
ENGINE_CONTAINER = "engine"
WEIGHTS_CONTAINER = "weights"

# Server-side apply: one manager per component, so that managedFields says who wrote what.
MANAGER_OPERATOR = "tramontane-operator"
MANAGER_SCHEDULER = "tramontane-scheduler"
MANAGER_AGENT = "tramontane-agent"

# Leases in the system namespace.
LEASE_OPERATOR = "tramontane-operator"
LEASE_SCHEDULER = "tramontane-scheduler"
LEASE_BLADE_PREFIX = "blade-"
LABEL_HEARTBEAT = "tramontane.dev/heartbeat"


def heartbeat_lease(node: str) -> str:
    """Return the name of the Lease that the health agent on `node` renews every 30 s."""
    return LEASE_BLADE_PREFIX + node


class Work(StrEnum):
    """Say what a pod of the nodepool controller does on its blade (label tramontane.dev/work)."""

    BURN_IN = "burnIn"
    COLLECTIVE = "collective"
    RESET = "reset"
    REBOOT = "reboot"
