"""Make the pods of a replica: the weights' init container, then a rank of the engine.

    init container weights ─► /tramontane/state ─► container engine, under the agent (PID 1)

Both run the same image, which must have python3. A replica lives and dies whole, so that its pods
are never restarted in place. What people lay over the pods by `spec.template` is merged last.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tramontane.api.errors import InvalidValue
from tramontane.api.inferencedeployment import EngineName, InferenceDeployment
from tramontane.api.names import (
    ANNOTATION_ADAPTERS,
    ANNOTATION_PEERS,
    GPU_RESOURCE,
    IN_ROTATION,
    LABEL_GANG,
    LABEL_INFERENCE,
    LABEL_REVISION,
    LABEL_ROTATION,
    LABEL_SEAT,
    OUT_OF_ROTATION,
    WEIGHTS_CONTAINER,
)
from tramontane.api.quantity import parse_duration
from tramontane.controllers.gangpods.place import on_blade
from tramontane.controllers.gangpods.writer import owner_of
from tramontane.controllers.inferencedeployment.engines.argv import argv, environment
from tramontane.controllers.inferencedeployment.engines.catalogue import EngineData, engine_of
from tramontane.controllers.inferencedeployment.engines.launch import Launch, format_of_config
from tramontane.controllers.inferencedeployment.layout import Refusal
from tramontane.controllers.inferencedeployment.mounts import (
    CACHE_FOLDER,
    CACHE_VOLUME,
    Mounted,
    cache,
)
from tramontane.controllers.inferencedeployment.objects import AGENT_PORT, API_PORT, config_name
from tramontane.controllers.inferencedeployment.overlay import overlaid
from tramontane.controllers.inferencedeployment.overrides import (
    SETTLE_S,
    containers,
    engine_name,
    grace_s,
    problems,
    without_words,
)
from tramontane.controllers.inferencedeployment.sources import (
    Templates,
    adapters_of,
    adapters_text,
    credentials,
    max_lora_rank,
    own_template,
    place_of,
    placed_adapters,
    weights_of,
)
from tramontane.controllers.inferencedeployment.world import Revision
from tramontane.controllers.trainingjob import podcheck

__all__ = ["PodStamp", "adapters_text", "placed_adapters"]

Raw = dict[str, Any]

AGENT_FOLDER: Final = "/tramontane/agent"
POD_FOLDER: Final = "/tramontane/pod"
STATE_FOLDER: Final = "/tramontane/state"
_STATE_VOLUME: Final = "tramontane-state"
_SHM_VOLUME: Final = "tramontane-shm"
_SHM_FOLDER: Final = "/dev/shm"  # noqa: S108 - in the pod, where NCCL wants it
# The kernel takes 128 KiB for one variable, its name included.
_MAX_VARIABLE_B: Final = 128 * 1024 - 256


@dataclass(frozen=True, slots=True)
class PodStamp:
    """Hold what the pods of a revision have in common; see `pod`.

    Attributes:
        problem: why there can be no pods; empty where there can.
    """

    deployment: InferenceDeployment
    revision: Revision
    engine: EngineData | None
    launch: Launch | None
    weights: Raw = field(default_factory=dict)
    model: tuple[Mounted, ...] = ()
    adapters: str = "[]"
    problem: str = ""

    @classmethod
    def of(
        cls, deployment: InferenceDeployment, revision: Revision, templates: Templates | None = None
    ) -> "PodStamp":
        """Render what the pods have in common, and one of them. O(template).

        Args:
            deployment: whose name, status and present adapters they have.
            revision: of which all else is.
            templates: the pod templates of the TrainingJobs that made adapters, by name.
        """
        try:
            return cls._of(deployment, revision, templates)
        except InvalidValue as error:
            return cls(deployment, revision, None, None, problem=str(error))
        except (AttributeError, KeyError, TypeError) as error:
            # The API server has read no more of it than names.
            problem = f"template must be that of a pod (got one of another form: {error})"
            return cls(deployment, revision, None, None, problem=problem)

    @classmethod
    def _of(
        cls, deployment: InferenceDeployment, revision: Revision, templates: Templates | None
    ) -> "PodStamp":
        engine = engine_of(revision.spec.engine)
        if isinstance(engine, Refusal):
            return cls(deployment, revision, None, None, problem=engine.message)
        if problem := next(problems(revision.spec), ""):
            return cls(deployment, revision, engine, None, problem=problem)
        templates = {**(templates or {}), **own_template(revision)}
        model = place_of(revision.spec.model.source, templates, revision.digest)
        if isinstance(model, str):
            return cls(deployment, revision, engine, None, problem=f"model.source.{model}")
        adapters = adapters_of(deployment, revision, templates)
        launch = _launch(revision, model.path, deployment)
        weights = weights_of(deployment, revision, model, adapters)
        stamp = cls(
            deployment,
            revision,
            engine,
            launch,
            weights,
            (model, *adapters.values()),
            adapters_text(adapters),
        )
        return replace(stamp, problem=stamp._unable())

    def _unable(self) -> str:
        """Return why there can be no pods, found by making one; empty where there can."""
        size = len(_weights_text(self.weights).encode())
        if size > _MAX_VARIABLE_B:
            return (
                f"places of model and adapters must be told in {_MAX_VARIABLE_B} bytes (got "
                f"{size}); give them shorter paths"
            )
        self._template(self.deployment.metadata.name, 0)
        return ""

    def pod(self, gang: str, seat: int, blade: str) -> Raw:
        """Return the pod of a seat, to be created; only where there is no `problem`."""
        made = self._template(gang, seat)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **made["metadata"],
                "name": f"{gang}-{seat}",
                "namespace": self.deployment.metadata.namespace,
                "ownerReferences": [owner_of(self.deployment)],
            },
            "spec": {**made["spec"], **on_blade(made["spec"], blade)},
        }

    def edge_template(self) -> Raw:
        """Return the pod template of a Deployment: a replica of one pod, restarted in place."""
        made = self._template(self.deployment.metadata.name, 0)
        labels = dict(made["metadata"]["labels"])
        # No scheduler of ours places it, and nobody takes it out of rotation.
        del labels[LABEL_GANG], labels[LABEL_SEAT]
        labels[LABEL_ROTATION] = IN_ROTATION
        return {
            "metadata": {**made["metadata"], "labels": labels},
            "spec": {**made["spec"], "restartPolicy": "Always"},
        }

    def _template(self, gang: str, seat: int) -> Raw:
        """Return metadata and spec of a seat's pod, with what people laid over it."""
        name = self.deployment.metadata.name
        labels = {
            LABEL_INFERENCE: name,
            LABEL_REVISION: self.revision.hash,
            LABEL_GANG: gang,
            LABEL_SEAT: str(seat),
        }
        if seat == 0:
            labels[LABEL_ROTATION] = OUT_OF_ROTATION
        annotations = {ANNOTATION_PEERS: "{}", ANNOTATION_ADAPTERS: self.adapters}
        over = without_words(self.revision.spec)
        # Labels and annotations of ours come last: they cannot be laid over.
        merged = overlaid({"metadata": {}, "spec": self._spec(gang, seat)}, over)
        meta = merged["metadata"]
        return {
            "metadata": {
                "labels": {**(meta.get("labels") or {}), **labels},
                "annotations": {**(meta.get("annotations") or {}), **annotations},
            },
            "spec": merged["spec"],
        }

    def _spec(self, gang: str, seat: int) -> Raw:
        spec: Raw = {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": grace_s(self.deployment.spec),
            "initContainers": [self._weights_container(gang, seat)],
            "containers": [self._engine_container(gang, seat)],
            "volumes": self._volumes(),
        }
        if self.deployment.spec.priority_class_name:
            spec["priorityClassName"] = self.deployment.spec.priority_class_name
        return spec

    def _weights_container(self, gang: str, seat: int) -> Raw:
        env = [
            *self._shared_env(gang, seat),
            {"name": "TRAMONTANE_WEIGHTS", "value": _verbatim(_weights_text(self.weights))},
            {"name": "TRAMONTANE_MAX_LORA_RANK", "value": str(max_lora_rank(self.revision.spec))},
            *credentials(self.revision.spec, self.deployment.spec),
        ]
        return {
            "name": WEIGHTS_CONTAINER,
            "image": self.revision.spec.engine.image,
            "command": ["python3", f"{AGENT_FOLDER}/weights.py"],
            "env": env,
            "volumeMounts": self._mounts(writes=True),
        }

    def _engine_container(self, gang: str, seat: int) -> Raw:
        assert self.engine is not None
        assert self.launch is not None
        own = environment(self.engine, self.launch, seat)
        container: Raw = {
            "name": engine_name(self.revision.spec),
            "image": self.revision.spec.engine.image,
            "command": [
                "python3",
                f"{AGENT_FOLDER}/serving.py",
                *argv(self.engine, self.launch, seat),
            ],
            "env": [
                *self._shared_env(gang, seat),
                *self._agent_env(),
                *({"name": name, "value": value} for name, value in own.items()),
            ],
            "ports": [
                {"name": "api", "containerPort": API_PORT, "protocol": "TCP"},
                {"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"},
            ],
            "readinessProbe": _probe("/readyz", period_s=1, failures=2, timeout_s=1),
            "livenessProbe": _probe("/livez", period_s=10, failures=6, timeout_s=5),
            "volumeMounts": [
                *self._mounts(writes=False),
                {"name": _SHM_VOLUME, "mountPath": _SHM_FOLDER},
            ],
        }
        if gpus := self.revision.layout.gpus_per_node:
            container["resources"] = {"limits": {GPU_RESOURCE: str(gpus)}}
        return container

    def _shared_env(self, gang: str, seat: int) -> list[Raw]:
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        return [
            {"name": "TRAMONTANE_INFERENCE", "value": self.deployment.metadata.name},
            {"name": "TRAMONTANE_GANG", "value": gang},
            {"name": "TRAMONTANE_SEAT", "value": str(seat)},
            {"name": "TRAMONTANE_NODES", "value": str(self.revision.layout.nodes)},
            {"name": "TRAMONTANE_POD_IP", "valueFrom": address},
            {"name": "TRAMONTANE_AGENT_FOLDER", "value": POD_FOLDER},
            {"name": "TRAMONTANE_STATE", "value": STATE_FOLDER},
        ]

    def _agent_env(self) -> list[Raw]:
        engine, spec = self.engine, self.deployment.spec
        assert engine is not None
        values = {
            "API_PORT": API_PORT,
            "AGENT_PORT": AGENT_PORT,
            "HEALTH_PATH": engine.health_path,
            "STEPS_METRIC": engine.metrics.steps,
            "BUSY_METRICS": ",".join(engine.metrics.busy),
            "HANG_AFTER_S": f"{parse_duration(spec.recovery.hang_after):g}",
            "DRAIN_S": f"{parse_duration(spec.rollout.drain_timeout):g}",
            "DRAINS_ITSELF": int(engine.drains_itself),
            "SETTLE_S": SETTLE_S,
            "WEIGHTS_BYTES": self.revision.weights_b,
            "READY_VARIABLE": engine.ready_variable,
            "LORA": engine.lora,
        }
        return [
            {"name": f"TRAMONTANE_{name}", "value": str(value)} for name, value in values.items()
        ]

    def _mounts(self, *, writes: bool) -> list[Raw]:
        """Return what a container sees; only what fetches weights writes into the blade's cache."""
        ours = (
            {"name": podcheck.AGENT_VOLUME, "mountPath": AGENT_FOLDER, "readOnly": True},
            {"name": podcheck.POD_VOLUME, "mountPath": POD_FOLDER, "readOnly": True},
            {"name": _STATE_VOLUME, "mountPath": STATE_FOLDER},
        )
        places = {place.mount["mountPath"]: place.mount for place in self.model}
        if CACHE_FOLDER in places and not writes:
            places[CACHE_FOLDER] = {**places[CACHE_FOLDER], "readOnly": True}
        return [*ours, *places.values()]

    def _volumes(self) -> list[Raw]:
        annotation = "metadata.annotations['{}']"
        items = [
            {"path": path, "fieldRef": {"fieldPath": annotation.format(key)}}
            for path, key in (("peers", ANNOTATION_PEERS), ("adapters", ANNOTATION_ADAPTERS))
        ]
        ours = (
            {"name": podcheck.AGENT_VOLUME, "configMap": {"name": config_name(self.deployment)}},
            {"name": podcheck.POD_VOLUME, "downwardAPI": {"items": items}},
            {"name": _STATE_VOLUME, "emptyDir": {}},
            {"name": _SHM_VOLUME, "emptyDir": {"medium": "Memory"}},
        )
        places = {place.volume["name"]: place.volume for place in self.model}
        if CACHE_VOLUME in places:
            places[CACHE_VOLUME] = cache(self.deployment.metadata.namespace or "default")
        return [*ours, *places.values()]


def _launch(revision: Revision, path: str, deployment: InferenceDeployment) -> Launch:
    spec = revision.spec
    custom = next((one for one in containers(spec) if one.get("name") == engine_name(spec)), {})
    words = (*(custom.get("command") or ()), *(custom.get("args") or ()))
    return Launch(
        path=_verbatim(path),
        served_name=_verbatim(spec.model.served_name or deployment.metadata.name),
        layout=revision.layout,
        context_tokens=spec.capacity.context_tokens,
        concurrent_requests=spec.capacity.concurrent_requests,
        port=API_PORT,
        nodes=revision.layout.nodes,
        extra_args=spec.engine.extra_args,
        adapters=len(spec.model.adapters),
        max_lora_rank=max_lora_rank(spec),
        drain_s=parse_duration(deployment.spec.rollout.drain_timeout),
        files=format_of_config(spec.model.config),
        command=words if spec.engine.name is EngineName.CUSTOM else (),
    )


def _weights_text(weights: Raw) -> str:
    return json.dumps(weights, ensure_ascii=False)


def _verbatim(text: str) -> str:
    """Return a text that the kubelet leaves as it is: it replaces $(NAME), and takes $$ for $."""
    return text.replace("$", "$$")


def _probe(path: str, *, period_s: int, failures: int, timeout_s: int) -> Raw:
    return {
        "httpGet": {"path": path, "port": AGENT_PORT},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_s,
    }
