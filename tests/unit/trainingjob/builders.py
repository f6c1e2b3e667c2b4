"""Build jobs, gangs, pods, blades and worlds for the planner's tests, all healthy by default."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang, GangSpec
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob, TrainingJobStatus
from tramontane.controllers.trainingjob import gangs as wanted
from tramontane.controllers.trainingjob.actions import Plan
from tramontane.controllers.trainingjob.observe import World
from tramontane.kube.views import NodeView, PodView, decode_node, decode_pod

NOW = 1_800_000_000.0
UID = "job-uid"
Raw = dict[str, Any]


def template(**container: Any) -> Raw:
    """Return a pod template whose rank has a command and 8 GPUs."""
    rank = {
        "name": "trainer",
        "image": "registry.hall/train:1",
        "command": ["torchrun", "train.py"],
        "resources": {"limits": {"nvidia.com/gpu": 8}, "requests": {"cpu": "64"}},
    }
    return {"spec": {"containers": [{**rank, **container}]}}


def a_job(status: Raw | None = None, *, metadata: Raw | None = None, **spec: Any) -> TrainingJob:
    """Return a job of four blades in pool `hall`, created 100 s ago."""
    return TrainingJob.model_validate(
        {
            "metadata": {
                "name": "llama",
                "namespace": "ml",
                "uid": UID,
                "generation": 1,
                "creationTimestamp": clock.utc(NOW - 100),
                **(metadata or {}),
            },
            "spec": {"nodePool": "hall", "nodes": 4, "template": template(), **spec},
            "status": status or {},
        }
    )


def a_pool(**spec: Any) -> NodePool:
    return NodePool.model_validate(
        {
            "metadata": {"name": "hall"},
            "spec": {"nodeSelector": {"matchLabels": {"gpu": "h200"}}, "gpu": {"count": 8}, **spec},
        }
    )


def a_blade(name: str, state: str = "Healthy", **status: Any) -> Blade:
    return Blade.model_validate(
        {
            "metadata": {"name": name, "uid": f"blade-{name}"},
            "spec": {"pool": "hall"},
            "status": {"state": state, "stateSince": clock.utc(NOW - 1), **status},
        }
    )


def quarantined(name: str, code: str = "xid-79", **status: Any) -> Blade:
    """Return a blade that a Fatal fault has taken out a second ago."""
    fault = {"code": code, "severity": "Fatal", "firstSeen": clock.micro(NOW - 1.5)}
    return a_blade(
        name,
        "Quarantined",
        reason="HardwareFault",
        verdict={"severity": "Fatal", "action": "Reset"},
        report={"faults": [fault]},
        **status,
    )


def a_node(name: str, ready: str = "True", since: float = NOW - 1000, **metadata: Any) -> NodeView:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": clock.utc(since)}
    return decode_node(
        {
            "metadata": {
                "name": name,
                "uid": f"node-{name}",
                "creationTimestamp": clock.utc(NOW - 5000),
                **metadata,
            },
            "status": {"conditions": [condition]},
        }
    )


def a_pod(
    seat: int, node: str, epoch: int = 1, *, status: Raw | None = None, **meta: Any
) -> PodView:
    """Return a running, ready pod of the job's seat."""
    running = {
        "phase": "Running",
        "podIP": f"10.0.0.{seat}",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "trainer", "state": {"running": {}}}],
    }
    return decode_pod(
        {
            "metadata": {
                "name": f"llama-{seat}",
                "namespace": "ml",
                "uid": f"pod-{seat}-{node}-{epoch}",
                "creationTimestamp": clock.utc(NOW - 50),
                "labels": {
                    "tramontane.dev/job": "llama",
                    "tramontane.dev/gang": "llama",
                    "tramontane.dev/seat": str(seat),
                },
                "annotations": {"tramontane.dev/epoch": str(epoch)},
                "ownerReferences": [{"uid": UID, "controller": True}],
                **meta,
            },
            "spec": {"nodeName": node, "containers": [{"name": "trainer"}]},
            "status": running if status is None else status,
        }
    )


def failed(seat: int, node: str, code: int | None = 1, epoch: int = 1, reason: str = "") -> PodView:
    """Return a pod whose rank exited with `code`, or that the kubelet refused with `reason`."""
    status: Raw = {"phase": "Failed", "reason": reason}
    if code is not None:
        ended = {"terminated": {"exitCode": code}}
        status["containerStatuses"] = [{"name": "trainer", "state": ended}]
    return a_pod(seat, node, epoch, status=status)


def done(seat: int, node: str, epoch: int = 1, message: str = "") -> PodView:
    ended = {"name": "trainer", "state": {"terminated": {"exitCode": 0, "message": message}}}
    status = {"phase": "Succeeded", "containerStatuses": [ended]}
    return a_pod(seat, node, epoch, status=status)


def going(pod: PodView) -> PodView:
    return replace(pod, deleting=True)


BLADES = ("b0", "b1", "b2", "b3")


def a_gang(
    job: TrainingJob,
    seats: Sequence[str] = BLADES,
    *,
    spec: GangSpec | None = None,
    owner: str = UID,
    **status: Any,
) -> Gang:
    """Return the gang that the job wants, placed on `seats`."""
    spec = spec or wanted.gang_spec(job, a_pool(), 0)
    placed = {
        "phase": "Placed",
        "placement": {"size": len(seats), "seats": list(seats)},
        "epoch": 1,
        "observedGeneration": 1,
    }
    return Gang.model_validate(
        {
            "metadata": {
                "name": job.metadata.name,
                "namespace": "ml",
                "uid": "gang-uid",
                "generation": 1,
                "ownerReferences": [{"kind": "TrainingJob", "name": "llama", "uid": owner}],
            },
            "spec": spec.to_dict(),
            "status": status or placed,
        }
    )


def pods(count: int = 4, epoch: int = 1) -> tuple[PodView, ...]:
    return tuple(a_pod(seat, f"b{seat}", epoch) for seat in range(count))


def a_world(job: TrainingJob | None = None, **given: Any) -> World:
    """Return a world of six healthy blades, two of them free; the gang is placed by default."""
    job = job or a_job()
    names = [f"b{number}" for number in range(6)]
    blades: Mapping[str, Blade] = {name: a_blade(name) for name in names}
    nodes = {name: a_node(name) for name in names}
    blades = {**blades, **given.pop("blades", {})}
    nodes = {**nodes, **given.pop("nodes", {})}
    return World(
        now=given.pop("now", NOW),
        job=job,
        gang=given.pop("gang", a_gang(job)),
        pods=given.pop("pods", ()),
        blades={name: blade for name, blade in blades.items() if blade is not None},
        nodes={name: node for name, node in nodes.items() if node is not None},
        pools=given.pop("pools", {"hall": a_pool()}),
        **given,
    )


def running(attempt: int = 1, **status: Any) -> Raw:
    """Return the status of a job that has been running for 50 s, accounted for up to now."""
    return {
        "phase": "Running",
        "phaseSince": clock.utc(NOW - 50),
        "startedAt": clock.utc(NOW - 50),
        "attempt": attempt,
        "size": 4,
        "goodput": {"productive": "50s", "lost": {"queue": "10s", "start": "40s"}},
        **status,
    }


def after(world: World, planned: Plan, **given: Any) -> World:
    """Return the world as it is once the plan's status (and what is given) has been written."""
    status = TrainingJobStatus.model_validate(planned.status.to_dict())
    job = world.job.model_copy(update={"status": status})
    return replace(world, job=job, **given)
