"""Make the objects of a job: Service, ConfigMap, Gang and pods, as plain dicts.

Pods of a gang differ in name, seat and blade only. So a `PodStamp` renders the pod once per job
and attempt and then stamps out one per seat, sharing all that is alike: what is shared must not
be changed by whoever gets it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tramontane.api.gang import GangSpec
from tramontane.api.names import (
    ANNOTATION_DRAIN,
    ANNOTATION_EPOCH,
    ANNOTATION_PEERS,
    API_VERSION,
    GPU_RESOURCE,
    LABEL_GANG,
    LABEL_JOB,
    LABEL_SEAT,
)
from tramontane.api.trainingjob import TrainingJob, TrainingJobSpec
from tramontane.controllers.gangpods.place import on_blade
from tramontane.controllers.gangpods.writer import owner_of as owner_of  # noqa: PLC0414 - ours too
from tramontane.controllers.trainingjob import launchers, lighthouse
from tramontane.controllers.trainingjob.durations import seconds
from tramontane.controllers.trainingjob.podcheck import AGENT_VOLUME, POD_VOLUME
from tramontane.controllers.trainingjob.template import gpus_of, trainer_of
from tramontane.controllers.trainingjob.validate import restart_policy, uses_agent

Raw = dict[str, Any]

AGENT_FILE = "rankagent.py"
WRAPPER_FILE = "tramontane_rank.py"
# A rank must outwait what the operator waits for, the replacement's start, and some more.
_DECISION_S = 30.0


@cache
def agent_source(name: str = AGENT_FILE) -> str:
    """Return a file that goes into the pods: the rank agent's, or the scripts' helper."""
    return files(__package__).joinpath(name).read_text("utf-8")


def _metadata(job: TrainingJob, name: str) -> Raw:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": {LABEL_JOB: job.metadata.name},
        "ownerReferences": [owner_of(job)],
    }


def gang(job: TrainingJob, spec: GangSpec) -> Raw:
    """Return the job's Gang, to be applied."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Gang",
        "metadata": _metadata(job, job.metadata.name),
        "spec": spec.to_dict(),
    }


def service(job: TrainingJob) -> Raw:
    """Return the headless Service that gives each seat its host name, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, job.metadata.name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_GANG: job.metadata.name, LABEL_JOB: job.metadata.name},
            "ports": [{"name": "rendezvous", "port": job.spec.launcher.port, "protocol": "TCP"}],
        },
    }


def config_name(job: TrainingJob) -> str:
    """Return the name of the job's ConfigMap."""
    return f"{job.metadata.name}-tramontane"


def config_map(job: TrainingJob, seats: Sequence[str], gpus: int) -> Raw:
    """Return the ConfigMap: the rank agent, the blade of each rank, an MPI job's host files.

    The blades are those of the newest placement; a pod reads them when its container starts.
    """
    data = {launchers.RANK_BLADES: ",".join(seats)}
    if uses_agent(job.spec):
        data |= {name: agent_source(name) for name in (AGENT_FILE, WRAPPER_FILE)}
    data |= launchers.hostfiles(job.metadata.name, job.spec, len(seats), gpus)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job, config_name(job)),
        "data": data,
    }


def pod_name(job: str, seat: int) -> str:
    """Return the name of a seat's pod."""
    return f"{job}-{seat}"


def peers_text(peers: Mapping[int, str]) -> str:
    """Return the peers annotation: addresses of replaced seats only, so it stays small."""
    return json.dumps({str(seat): address for seat, address in sorted(peers.items())})


@dataclass(frozen=True, slots=True)
class PodStamp:
    """Hold the parts of a job's pods that are alike; see `pod`."""

    _job: str
    _job_spec: TrainingJobSpec
    _size: int
    _metadata: Raw
    _labels: Mapping[str, str]
    _template_spec: Raw
    _spec: Raw
    _containers: list[Raw]
    _trainer: int
    _env: list[Raw]
    _given: frozenset[str]

    @classmethod
    def of(cls, job: TrainingJob, size: int, gpus: int, attempt: int) -> "PodStamp":
        """Render what the pods of an attempt have in common. O(template)."""
        template = job.spec.template
        meta = template.get("metadata") or {}
        user = trainer_of(template)
        containers = list(template["spec"]["containers"])
        index = containers.index(user)
        trainer = _trainer(job, user, gpus)
        containers[index] = trainer
        given = frozenset(variable["name"] for variable in user.get("env") or ())
        shared = [
            *launchers.shared_env(job.metadata.name, job.spec, size, gpus),
            *_attempt_env(job, attempt),
        ]
        env = [variable for variable in shared if variable["name"] not in given]
        name = job.metadata.name
        return cls(
            _job=name,
            _job_spec=job.spec,
            _size=size,
            _metadata={
                "namespace": job.metadata.namespace,
                "annotations": {
                    **(meta.get("annotations") or {}),
                    ANNOTATION_EPOCH: str(attempt),
                    ANNOTATION_PEERS: "{}",
                    ANNOTATION_DRAIN: "",
                },
                "ownerReferences": [owner_of(job)],
            },
            _labels={**(meta.get("labels") or {}), LABEL_JOB: name, LABEL_GANG: name},
            _template_spec=template["spec"],
            _spec=_pod_spec(job),
            _containers=containers,
            _trainer=index,
            # Ours come first, so that the user's variables can refer to them.
            _env=[*env, *(user.get("env") or ())],
            _given=given,
        )

    def pod(self, seat: int, blade: str) -> Raw:
        """Return the pod of a seat, to be created. O(1), some microseconds."""
        number, name = str(seat), pod_name(self._job, seat)
        launcher = launchers.seat_env(self._job, self._job_spec, self._size, seat)
        own = [
            {"name": variable, "value": str(value)}
            for variable, value in launcher.items()
            if variable not in self._given
        ]
        containers = self._containers.copy()
        containers[self._trainer] = {**containers[self._trainer], "env": own + self._env}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **self._metadata,
                "name": name,
                "labels": {**self._labels, LABEL_SEAT: number},
            },
            "spec": {
                **self._spec,
                **on_blade(self._template_spec, blade),
                "hostname": launchers.seat_host(self._job, self._job_spec, seat),
                "containers": containers,
            },
        }


def _trainer(job: TrainingJob, user: Raw, gpus: int) -> Raw:
    """Return the rank's container: with its GPUs, and under the agent where that is used."""
    trainer = dict(user)
    if gpus and gpus_of(job.spec.template) is None:
        resources = user.get("resources") or {}
        trainer["resources"] = {
            **resources,
            "limits": {**(resources.get("limits") or {}), GPU_RESOURCE: str(gpus)},
        }
    mounts = [*(user.get("volumeMounts") or ())]
    mounts.append({"name": AGENT_VOLUME, "mountPath": launchers.AGENT_FOLDER, "readOnly": True})
    mounts.append({"name": POD_VOLUME, "mountPath": launchers.POD_FOLDER, "readOnly": True})
    trainer["volumeMounts"] = mounts
    if uses_agent(job.spec):
        trainer["command"] = [
            "python3",
            f"{launchers.AGENT_FOLDER}/{AGENT_FILE}",
            *user["command"],
            *(user.get("args") or ()),
        ]
        trainer.pop("args", None)
    return trainer


def _attempt_env(job: TrainingJob, attempt: int) -> list[Raw]:
    blades = {"name": config_name(job), "key": launchers.RANK_BLADES, "optional": True}
    return [
        {"name": "TRAMONTANE_ATTEMPT", "value": str(attempt)},
        {"name": "TRAMONTANE_RANK_BLADES", "valueFrom": {"configMapKeyRef": blades}},
        {"name": "TRAMONTANE_AGENT_FOLDER", "value": launchers.POD_FOLDER},
        {"name": "TRAMONTANE_AGENT_WAIT_S", "value": f"{_wait_s(job.spec):g}"},
        {
            "name": "TRAMONTANE_AGENT_BACKOFF_S",
            "value": f"{seconds(job.spec.recovery.backoff.base):g}",
        },
    ]


def _wait_s(spec: TrainingJobSpec) -> float:
    """Return how long a failed rank waits for the next epoch before its pod ends.

    Longer than a lost node is waited for, and than the longest back-off after a crash: then no
    crash costs a pod. Where ranks go on without the failed one, its end may be all that is seen of
    it, so that it comes sooner.
    """
    recovery = spec.recovery
    wait_s = seconds(recovery.node_lost_after)
    if spec.launcher.replica_groups == 1:
        wait_s = max(wait_s, seconds(recovery.backoff.max))
    return wait_s + _DECISION_S


def _pod_spec(job: TrainingJob) -> Raw:
    """Return the user's pod spec with what is ours in it."""
    user = job.spec.template["spec"]
    grace_s = math.ceil(seconds(job.spec.checkpoint.grace))
    annotation = "metadata.annotations['{}']"
    pod_files = [
        {"path": path, "fieldRef": {"fieldPath": annotation.format(key)}}
        for path, key in (
            ("epoch", ANNOTATION_EPOCH),
            ("peers", ANNOTATION_PEERS),
            ("drain", ANNOTATION_DRAIN),
        )
    ]
    spec = {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        # torchft tells other groups what gethostname() says: it must be a name that they can use.
        **({"setHostnameAsFQDN": True} if lighthouse.is_wanted(job) else {}),
        **user,
        "restartPolicy": restart_policy(job.spec),
        "subdomain": job.metadata.name,
        "volumes": [
            *(user.get("volumes") or ()),
            {"name": AGENT_VOLUME, "configMap": {"name": config_name(job)}},
            {"name": POD_VOLUME, "downwardAPI": {"items": pod_files}},
        ],
    }
    if job.spec.priority_class_name:
        spec["priorityClassName"] = job.spec.priority_class_name
    return spec
