"""Define InferenceDeployment: a model, served by gangs of its own.

People write the spec, the operator the status.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import WithJsonSchema

from tramontane.api.base import (
    DecimalString,
    Digest,
    Duration,
    Label,
    Line,
    Model,
    Name,
    Object,
    PodOverrides,
    Word,
    about,
)
from tramontane.api.checks import Rule, checked, rules
from tramontane.api.gang import GangTopology
from tramontane.api.inferencestatus import InferenceDeploymentStatus
from tramontane.api.trainingjob import Backoff

# `<name>-<replica>-<seat>` is a host name of at most 63 characters.
MAX_NAME: Final = 50

_PATH: Final = r"^/"
_SOURCES: Final = ("trainingJob", "pvc", "hostPath", "oci", "s3")
_DIGEST_EXAMPLE: Final = "sha256:" + "9f86d081884c7d65" * 4

# A model's config.json as it is.
Config = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]


class EngineName(StrEnum):
    """List the engines whose flags, probes and metrics are known."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    CUSTOM = "custom"


class LayoutMode(StrEnum):
    """Say who decides how a replica is spread over GPUs."""

    AUTO = "Auto"
    FIXED = "Fixed"


class StaleMetrics(StrEnum):
    """Say what the autoscaler does when it is blind."""

    HOLD = "Hold"


class RolloutStrategy(StrEnum):
    """Say whether a new revision needs free blades."""

    AUTO = "Auto"
    SURGE = "Surge"
    SERIAL = "Serial"


class OnFault(StrEnum):
    """Say what a faulty blade means to a replica on it."""

    MOVE_REPLICA = "MoveReplica"


class Profile(StrEnum):
    """Say where the model is served."""

    CLUSTER = "Cluster"
    EDGE = "Edge"


class Egress(StrEnum):
    """Say what the pods may reach."""

    NONE = "None"
    DNS_ONLY = "DNSOnly"
    OPEN = "Open"


class TrainingJobSource(Model):
    """Serve what a TrainingJob of the same namespace made."""

    name: Annotated[Name, about("Name of the TrainingJob.", example="claims-cpt-42")]
    path: Annotated[
        str,
        about(
            "Directory of the weights in the job's pods.",
            example="/checkpoints/final",
            pattern=_PATH,
            max_length=1024,
        ),
    ]


class PvcSource(Model):
    """Serve what lies on a PersistentVolumeClaim of the same namespace."""

    claim: Annotated[Name, about("Name of the claim.", example="models")]
    path: Annotated[
        str,
        about("Directory of the weights in the volume.", example="claims/v7", max_length=1024),
    ] = ""


class S3Source(Model):
    """Serve what lies in an object store."""

    endpoint: Annotated[
        str,
        about(
            "URL of the store.",
            example="https://s3.hall.example",
            pattern="^https?://",
            max_length=1024,
        ),
    ]
    bucket: Annotated[str, about("Bucket.", example="models", min_length=1, max_length=63)]
    prefix: Annotated[
        str, about("Prefix of the weights' keys.", example="claims/v7/", max_length=1024)
    ] = ""
    secret: Annotated[
        Name | None,
        about(
            "Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; absent: anonymous.",
            example="models-reader",
        ),
    ] = None


class ModelSource(Model):
    """Say where weights lie: exactly one place."""

    training_job: Annotated[
        TrainingJobSource | None,
        about(
            "What a TrainingJob made.",
            example={"name": "claims-cpt-42", "path": "/checkpoints/final"},
        ),
    ] = None
    pvc: Annotated[
        PvcSource | None,
        about("A PersistentVolumeClaim.", example={"claim": "models", "path": "claims/v7"}),
    ] = None
    host_path: Annotated[
        str | None,
        about(
            "Directory that is on every blade.",
            example="/models/claims-v7",
            pattern=_PATH,
            max_length=1024,
        ),
    ] = None
    oci: Annotated[
        str | None,
        about(
            "OCI artifact, by digest.",
            example="registry.local/models/claims@" + _DIGEST_EXAMPLE,
            pattern=r"^[^@ ]+@sha256:[0-9a-f]{64}$",
            max_length=1024,
        ),
    ] = None
    s3: Annotated[
        S3Source | None,
        about(
            "An object store.",
            example={"endpoint": "https://s3.hall.example", "bucket": "models"},
        ),
    ] = None

    model_config = checked(
        Rule(
            "[" + ", ".join(f"has(self.{name})" for name in _SOURCES) + "]"
            ".filter(given, given).size() == 1",
            "source must be given as exactly one of " + ", ".join(_SOURCES),
            "%s",
            (
                "["
                + ", ".join(f"has(self.{name}) ? '{name}' : ''" for name in _SOURCES)
                + "].filter(name, name != '')",
            ),
        )
    )


class Adapter(Model):
    """Add a LoRA adapter to the model."""

    name: Annotated[Label, about("Name that requests ask for.", example="claims-de")]
    source: Annotated[
        ModelSource, about("Where it lies.", example={"hostPath": "/models/claims-de"})
    ]
    digest: Annotated[
        Digest | None,
        about(
            "Digest of the manifest of its files; recorded from the first load if absent, "
            "enforced after.",
            example=_DIGEST_EXAMPLE,
        ),
    ] = None


class Verify(Model):
    """Want the weights signed by somebody who is trusted."""

    signature: Annotated[
        str,
        about(
            "Ed25519 signature of the text of model.digest, in base64.",
            example="q83vEjRWeJA=",
            min_length=1,
            max_length=512,
        ),
    ]
    keys_from: Annotated[
        Name,
        about(
            "ConfigMap of the same namespace with trusted public keys in PEM, one per entry.",
            example="trust-roots",
        ),
    ]


class ModelSpec(Model):
    """Say which weights are served, and as what."""

    source: Annotated[
        ModelSource,
        about("Where the weights lie: exactly one.", example={"hostPath": "/models/claims-v7"}),
    ]
    digest: Annotated[
        Digest | None,
        about(
            "Digest of the manifest of all files; recorded from the first load if absent, "
            "enforced after.",
            example=_DIGEST_EXAMPLE,
        ),
    ] = None
    verify: Annotated[
        Verify | None,
        about(
            "Whose signature the digest must have; absent: anybody's weights are served.",
            example={"signature": "q83vEjRWeJA=", "keysFrom": "trust-roots"},
        ),
    ] = None
    config: Annotated[
        Config | None,
        about(
            "The model's config.json, for when the source cannot be read while planning.",
            example={"num_hidden_layers": 80, "hidden_size": 8192},
        ),
    ] = None
    served_name: Annotated[
        str | None,
        about(
            "Name that requests ask for; absent: the deployment's name.",
            example="claims",
            min_length=1,
            max_length=253,
        ),
    ] = None
    adapters: Annotated[
        tuple[Adapter, ...],
        about(
            "LoRA adapters served beside the model.",
            example=[{"name": "claims-de", "source": {"hostPath": "/models/claims-de"}}],
            list_type="map",
            keys=("name",),
            max_length=32,
        ),
    ] = ()

    model_config = checked(
        Rule(
            "!has(self.verify) || has(self.digest)",
            "model must have digest when verify is given",
            "no digest",
        )
    )


class Engine(Model):
    """Say what serves the model."""

    name: Annotated[
        EngineName,
        about("vllm, sglang, llamacpp, or custom for a command of the template.", example="vllm"),
    ] = EngineName.VLLM
    image: Annotated[
        str,
        about(
            "Image of the engine.",
            example="registry.local/vllm:0.32",
            min_length=1,
            max_length=1024,
        ),
    ]
    version: Annotated[
        Word | None,
        about("Version of the engine, where the image's tag does not say it.", example="0.32"),
    ] = None
    extra_args: Annotated[
        tuple[Line, ...],
        about(
            "Further arguments of the engine.",
            example=["--enable-prefix-caching"],
            list_type="atomic",
            max_length=64,
        ),
    ] = ()


class Capacity(Model):
    """Say what a replica must hold, and how many there may be."""

    context_tokens: Annotated[
        int,
        about("Longest request and answer, in tokens.", example=65536, ge=1, le=100_000_000),
    ]
    concurrent_requests: Annotated[
        int,
        about("Requests of that length that a replica serves at once.", example=32, ge=1, le=65536),
    ]
    min_replicas: Annotated[
        int,
        about(
            "Replicas that are always there; only autoscaling.idleToZeroAfter goes below it.",
            example=2,
            ge=0,
            le=1000,
        ),
    ] = 1
    max_replicas: Annotated[
        int | None,
        about("Replicas at most; absent: minReplicas, and at least 1.", example=4, ge=1, le=1000),
    ] = None

    model_config = checked(
        Rule(
            "!has(self.maxReplicas) || !has(self.minReplicas) || "
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not exceed maxReplicas",
            "%d over %d",
            ("self.minReplicas", "self.maxReplicas"),
        )
    )


_DEGREES: Final = ("tensor", "pipeline", "data", "expert", "nodes")
_GPUS: Final = (
    "self.tensor * (has(self.pipeline) ? self.pipeline : 1) * (has(self.data) ? self.data : 1)"
)


class Layout(Model):
    """Say how a replica is spread over GPUs."""

    mode: Annotated[
        LayoutMode,
        about(
            "Auto plans it from the model and the pool; Fixed takes the numbers.", example="Fixed"
        ),
    ] = LayoutMode.AUTO
    tensor: Annotated[
        int | None, about("Tensor parallel size; needed with Fixed.", example=8, ge=1, le=1024)
    ] = None
    pipeline: Annotated[
        int | None, about("Pipeline parallel size; absent: 1.", example=2, ge=1, le=1024)
    ] = None
    data: Annotated[
        int | None, about("Data parallel size; absent: 1.", example=2, ge=1, le=1024)
    ] = None
    expert: Annotated[
        bool | None,
        about("Whether experts are spread over all GPUs; absent: false.", example=True),
    ] = None
    nodes: Annotated[
        int | None, about("Blades per replica; absent: 1.", example=2, ge=1, le=1024)
    ] = None

    model_config = checked(
        Rule(
            "!has(self.mode) || self.mode != 'Fixed' || has(self.tensor)",
            "layout must have tensor when mode is Fixed",
            "no tensor",
        ),
        Rule(
            "(has(self.mode) && self.mode == 'Fixed') || !("
            + " || ".join(f"has(self.{name})" for name in _DEGREES)
            + ")",
            "layout must have no numbers when mode is Auto",
            "%s",
            (
                "["
                + ", ".join(f"has(self.{name}) ? '{name}' : ''" for name in _DEGREES)
                + "].filter(name, name != '')",
            ),
            "set mode: Fixed to give them",
        ),
        Rule(
            f"!has(self.nodes) || !has(self.tensor) || {_GPUS} % self.nodes == 0",
            "layout.nodes must divide tensor times pipeline times data",
            "%d for %d GPUs",
            ("self.nodes", _GPUS),
        ),
    )


class Slo(Model):
    """Say how quick answers must be."""

    ttft_p95: Annotated[
        Duration | None,
        about("Time to the first token, 95th percentile; absent: not judged.", example="1s"),
    ] = None
    itl_p95: Annotated[
        Duration | None,
        about("Time between tokens, 95th percentile; absent: not judged.", example="50ms"),
    ] = None


class Autoscaling(Model):
    """Say when replicas come and go between minReplicas and maxReplicas."""

    target_queue: Annotated[
        int,
        about("Waiting requests per replica that call for one more.", example=8, ge=1, le=65536),
    ] = 4
    idle_to_zero_after: Annotated[
        Duration,
        about("Time without requests after which no replica stays; 0s: never.", example="30m"),
    ] = "0s"
    scale_down_after: Annotated[
        Duration, about("Time of low load before a replica goes.", example="30m")
    ] = "10m"
    on_stale_metrics: Annotated[
        StaleMetrics,
        about(
            "What to do when the engine's metrics are old: Hold changes nothing.", example="Hold"
        ),
    ] = StaleMetrics.HOLD


class RolloutStep(Model):
    """Give the new revision a part of the requests for a time."""

    weight: Annotated[
        int,
        about("Percent of the requests; the last step, 100, is implied.", example=5, ge=1, le=99),
    ]
    hold: Annotated[Duration, about("Time to watch it.", example="30m")] = "10m"


class AbortOn(Model):
    """Say when a new revision is rolled back."""

    ttft_p95_ratio: Annotated[
        DecimalString,
        about("New over old time to the first token, 95th percentile.", example="1.5"),
    ] = "1.3"
    error_rate: Annotated[
        DecimalString, about("Failed requests of all, from 0 to 1.", example="0.02")
    ] = "0.01"


class Rollout(Model):
    """Say how a new revision replaces the old one."""

    strategy: Annotated[
        RolloutStrategy,
        about(
            "Surge starts the new replica beside the old; Serial frees a blade first; Auto: Surge "
            "if a whole replica fits now, else Serial.",
            example="Serial",
        ),
    ] = RolloutStrategy.AUTO
    steps: Annotated[
        tuple[RolloutStep, ...],
        about(
            "Parts of the requests that the new revision gets in turn; empty: all at once.",
            example=[{"weight": 5, "hold": "10m"}],
            list_type="atomic",
            max_length=16,
            extra=rules(
                Rule(
                    "self.map(s, s.weight).isSorted() && "
                    "self.all(s, self.exists_one(t, t.weight == s.weight))",
                    "steps must have growing weights",
                    "%s",
                    ("self.map(s, s.weight)",),
                )
            ),
        ),
    ] = (RolloutStep(weight=5), RolloutStep(weight=50))
    abort_on: Annotated[
        AbortOn,
        about("When to roll back.", example={"ttftP95Ratio": "1.3", "errorRate": "0.01"}),
    ] = AbortOn()
    drain_timeout: Annotated[
        Duration, about("Longest wait for the requests of a leaving replica.", example="30m")
    ] = "10m"


class InferenceRecovery(Model):
    """Say what happens when a replica fails."""

    restarts: Annotated[
        int,
        about("Restarts of a replica before it is moved or reported.", example=10, ge=0, le=1000),
    ] = 5
    backoff: Annotated[
        Backoff, about("Waits between restarts.", example={"base": "10s", "max": "10m"})
    ] = Backoff()
    hang_after: Annotated[
        Duration, about("Time without progress under load that is a hang.", example="2m")
    ] = "60s"
    on_fault: Annotated[
        OnFault,
        about("What a faulty blade means: MoveReplica moves it whole.", example="MoveReplica"),
    ] = OnFault.MOVE_REPLICA


class InferenceDeploymentSpec(Model):
    """Say what is served, how well, and within which bounds."""

    node_pool: Annotated[
        Name | None,
        about("NodePool; absent: any that is open to the namespace.", example="paris-a"),
    ] = None
    model: Annotated[
        ModelSpec, about("Weights.", example={"source": {"hostPath": "/models/claims-v7"}})
    ]
    engine: Annotated[
        Engine,
        about("What serves them.", example={"name": "vllm", "image": "registry.local/vllm:0.32"}),
    ]
    capacity: Annotated[
        Capacity,
        about(
            "What a replica must hold.",
            example={"contextTokens": 65536, "concurrentRequests": 32},
        ),
    ]
    layout: Annotated[
        Layout, about("How a replica is spread.", example={"mode": "Fixed", "tensor": 8})
    ] = Layout()
    slo: Annotated[
        Slo | None,
        about("How quick answers must be.", example={"ttftP95": "1s", "itlP95": "50ms"}),
    ] = None
    autoscaling: Annotated[
        Autoscaling, about("When replicas come and go.", example={"targetQueue": 4})
    ] = Autoscaling()
    rollout: Annotated[
        Rollout, about("How a new revision comes.", example={"strategy": "Serial"})
    ] = Rollout()
    recovery: Annotated[
        InferenceRecovery, about("What happens after a failure.", example={"restarts": 5})
    ] = InferenceRecovery()
    profile: Annotated[
        Profile,
        about(
            "Cluster: gangs on blades of a NodePool. Edge: one plain pod on one node, which goes "
            "on serving while the operator is away.",
            example="Edge",
        ),
    ] = Profile.CLUSTER
    egress: Annotated[
        Egress, about("What the pods may reach: None, DNSOnly or Open.", example="DNSOnly")
    ] = Egress.NONE
    priority_class_name: Annotated[
        Name | None, about("PriorityClass; absent: priority 0.", example="serving")
    ] = None
    topology: Annotated[
        GangTopology | None,
        about(
            "How near the blades of a replica must be; absent: as the layout needs.",
            example={"pack": "rack", "mode": "Required"},
        ),
    ] = None
    template: Annotated[
        PodOverrides | None,
        about(
            "Laid over the pods that are made.",
            example={"spec": {"containers": [{"name": "engine", "env": []}]}},
        ),
    ] = None

    model_config = checked(
        Rule(
            "!has(oldSelf.nodePool) || (has(self.nodePool) && self.nodePool == oldSelf.nodePool)",
            "nodePool must not change once it is set",
            '"%s" after "%s"',
            ("has(self.nodePool) ? self.nodePool : ''", "oldSelf.nodePool"),
            "delete the deployment and create it anew",
        ),
        Rule(
            "!has(self.engine.name) || self.engine.name != 'custom' || (has(self.template) && "
            "has(self.template.spec) && has(self.template.spec.containers) && "
            "self.template.spec.containers.size() > 0)",
            "engine custom must come with a template that has a container",
            "none",
        ),
    )


class InferenceDeployment(Object):
    """A model, served by gangs of its own."""

    kind: str = "InferenceDeployment"
    spec: Annotated[
        InferenceDeploymentSpec,
        about(
            "What is served.",
            example={"model": {"source": {"hostPath": "/models/claims-v7"}}},
        ),
    ]
    status: Annotated[
        InferenceDeploymentStatus, about("How well it is served.", example={"phase": "Serving"})
    ] = InferenceDeploymentStatus()

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
