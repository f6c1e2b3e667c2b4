"""Make the lighthouse of a job with replica groups: one pod on CPUs, and the Service that names it.

torchft's groups agree with it at each step on who is there, so that the others train on without a
lost group. It holds no state: the kubelet restarts it in place, and a new pod is as good as the old
one. It is no rank: it has no seat, no gang and no rank agent, and any scheduler may place it.
"""

from typing import Any, Final

from tramontane.api.names import LABEL_JOB, LABEL_LIGHTHOUSE
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.trainingjob.launchers import LIGHTHOUSE_PORT, lighthouse_name
from tramontane.controllers.trainingjob.template import trainer_of

Raw = dict[str, Any]

# It imports torch: 287 MB resident once it is up. (Measured; docs/training.md.)
_RESOURCES: Final = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
# What lets the image be pulled and the pod be admitted where the ranks are.
_TAKEN_OVER: Final = (
    "imagePullSecrets",
    "serviceAccountName",
    "automountServiceAccountToken",
    "securityContext",
    "tolerations",
)


def is_wanted(job: TrainingJob) -> bool:
    """Return whether the job has replica groups, which cannot go on without a lighthouse."""
    return job.spec.launcher.replica_groups > 1


def pod(job: TrainingJob, owner: Raw) -> Raw:
    """Return the lighthouse's pod, to be created where `is_wanted`."""
    template, name = job.spec.template["spec"], lighthouse_name(job.metadata.name)
    trainer = trainer_of(job.spec.template)
    container: Raw = {
        "name": "lighthouse",
        "image": trainer["image"],
        "command": [
            "torchft_lighthouse",
            "--min_replicas",
            str(job.spec.launcher.min_replica_groups),
            "--bind",
            f"[::]:{LIGHTHOUSE_PORT}",
        ],
        "ports": [{"name": "lighthouse", "containerPort": LIGHTHOUSE_PORT}],
        "resources": _RESOURCES,
    }
    for field in ("imagePullPolicy", "securityContext"):
        if field in trainer:
            container[field] = trainer[field]
    spec: Raw = {
        "restartPolicy": "Always",
        "enableServiceLinks": False,
        **{field: template[field] for field in _TAKEN_OVER if field in template},
        "containers": [container],
    }
    if job.spec.priority_class_name:
        spec["priorityClassName"] = job.spec.priority_class_name
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(job, name, owner),
        "spec": spec,
    }


def service(job: TrainingJob, owner: Raw) -> Raw:
    """Return the headless Service by which ranks find the lighthouse, ready or not."""
    name = lighthouse_name(job.metadata.name)
    port = {"name": "lighthouse", "port": LIGHTHOUSE_PORT, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, name, owner),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_JOB: job.metadata.name, LABEL_LIGHTHOUSE: "true"},
            "ports": [port],
        },
    }


def _metadata(job: TrainingJob, name: str, owner: Raw) -> Raw:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": {LABEL_JOB: job.metadata.name, LABEL_LIGHTHOUSE: "true"},
        "ownerReferences": [owner],
    }
