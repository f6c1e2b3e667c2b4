"""Build deployments, replicas and worlds for the planner's tests, all healthy by default."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.nodepool import NodePool
from tramontane.api.trainingjob import TrainingJob
from tramontane.controllers.inferencedeployment.actions import Plan
from tramontane.controllers.inferencedeployment.gangspec import gang_spec
from tramontane.controllers.inferencedeployment.layout import Layout
from tramontane.controllers.inferencedeployment.plan import plan
from tramontane.controllers.inferencedeployment.replicas import Replica
from tramontane.controllers.inferencedeployment.revisions import hash_of
from tramontane.controllers.inferencedeployment.world import Revision, World
from tramontane.kube.views import ContainerView, NodeView, PodView, TaintView

NOW = 1_800_000_000.0
UID = "inference-uid"
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
Raw = dict[str, Any]

#: A model of 70 thousand million parameters in bfloat16.
CONFIG: Raw = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}


def a_deployment(status: Raw | None = None, **spec: Any) -> InferenceDeployment:
    """Return a deployment of one replica of 16 GPUs on two blades of pool `hall`."""
    model = {
        "source": {"hostPath": "/models/claims-v7"},
        "config": CONFIG,
        **spec.pop("model", {}),
    }
    capacity = {
        "contextTokens": 32768,
        "concurrentRequests": 8,
        "minReplicas": 1,
        **spec.pop("capacity", {}),
    }
    return InferenceDeployment.model_validate(
        {
            "metadata": {"name": "claims", "namespace": "ml", "uid": UID, "generation": 1},
            "spec": {
                "nodePool": "hall",
                "model": model,
                "engine": {"name": "vllm", "image": "registry.hall/vllm:0.32", "version": "0.32"},
                "capacity": capacity,
                "layout": {"mode": "Fixed", "tensor": 8, "pipeline": 2, "nodes": 2},
                **spec,
            },
            "status": status or {},
        }
    )


def a_pool(**spec: Any) -> NodePool:
    return NodePool.model_validate(
        {
            "metadata": {"name": "hall"},
            "spec": {
                "nodeSelector": {"matchLabels": {"gpu": "h200"}},
                "gpu": {"count": 8, "product": "NVIDIA-H200", "memory": "140Gi"},
                "topology": {
                    "levels": [
                        {"name": "block", "label": "t/block"},
                        {"name": "rack", "label": "t/r"},
                    ]
                },
                **spec,
            },
        }
    )


def a_blade(name: str, state: str = "Healthy", severity: str = "", **status: Any) -> Blade:
    verdict = {"verdict": {"severity": severity, "action": "Reset"}} if severity else {}
    return Blade.model_validate(
        {
            "metadata": {"name": name},
            "spec": {"pool": "hall"},
            "status": {"state": state, "stateSince": clock.utc(NOW - 1), **verdict, **status},
        }
    )


def a_node(
    name: str, *, ready: bool | None = True, since: float = NOW - 1000, **more: Any
) -> NodeView:
    base = NodeView(
        name=name,
        uid=f"node-{name}",
        labels={},
        annotations={},
        unschedulable=False,
        deleting=False,
        taints=(),
        ready=ready,
        ready_since=since,
        gpus=8,
        cpu_m=0,
        memory_b=0,
        pods=100,
        conditions={},
        created_at=NOW - 5000,
    )
    return replace(base, **more)


def a_taint(key: str) -> TaintView:
    return TaintView(key, "", "NoSchedule")


def a_revision(deployment: InferenceDeployment | None = None, **given: Any) -> Revision:
    """Return the stored revision of a deployment."""
    spec = (deployment or a_deployment()).spec
    layout = Layout(tensor=8, pipeline=2, nodes=2)
    values: Raw = {"hash": hash_of(spec), "spec": spec, "layout": layout, **given}
    return Revision(**values)


def verified(digest: str = DIGEST, **more: Any) -> ContainerView:
    """Return the init container that has verified the weights."""
    words = json.dumps({"digest": digest, "bytes": 1, "seconds": 1.0, **more})
    return ContainerView("weights", "terminated", 0, "Completed", message=words)


def running() -> ContainerView:
    return ContainerView("engine", "running")


def ended(code: int, **words: Any) -> ContainerView:
    message = json.dumps(words) if words else ""
    return ContainerView("engine", "terminated", code, "Error", message=message)


def unfit(code: int, **words: Any) -> ContainerView:
    """Return the init container that has found something wrong."""
    return ContainerView("weights", "terminated", code, "Error", message=json.dumps(words))


def a_pod(gang: str = "claims-0", seat: int = 0, node: str | None = None, **given: Any) -> PodView:
    """Return a running pod of a replica, in rotation; that of seat 0 is ready."""
    labels = {
        "tramontane.dev/inference": "claims",
        "tramontane.dev/revision": given.pop("revision", hash_of(a_deployment().spec)),
        "tramontane.dev/gang": gang,
        "tramontane.dev/seat": str(seat),
    }
    if seat == 0:
        labels["tramontane.dev/rotation"] = given.pop("rotation", "in")
    base = PodView(
        name=f"{gang}-{seat}",
        namespace="ml",
        uid=f"{gang}-{seat}-uid",
        node=node or f"b{seat}",
        phase="Running",
        deleting=False,
        labels=labels,
        annotations={
            "tramontane.dev/adapters": "[]",
            "tramontane.dev/master": "10.0.0.1",
            **given.pop("annotations", {}),
        },
        owner_uid=UID,
        reason="",
        message="",
        ready=True,
        restarts=0,
        host_ip=None,
        pod_ip="10.0.0.1" if seat == 0 else f"10.0.1.{seat}",
        gpus=8,
        started_at=NOW - 50,
        containers=(running(),),
        created_at=NOW - 50,
        init_containers=(verified(),),
    )
    return replace(base, **given)


def a_gang(
    deployment: InferenceDeployment,
    entry: Raw | None = None,
    seats: tuple[str, ...] | None = ("b0", "b1"),
    **status: Any,
) -> Gang:
    """Return the gang of a replica as the planner wants it; without seats it is pending."""
    placed: Raw = {"phase": "Pending"}
    if seats is not None:
        placed = {"phase": "Placed", "placement": {"size": len(seats), "seats": list(seats)}}
    known = an_entry(**(entry or {}))
    revision = a_revision(deployment, hash=known["revision"])
    replica = Replica(_entry(known))
    spec = gang_spec(deployment, revision, a_pool(), 0, replica.entry, preemptible=False)
    return Gang.model_validate(
        {
            "metadata": {
                "name": known["name"],
                "namespace": "ml",
                "uid": f"{known['name']}-uid",
                "generation": 1,
                "labels": {"tramontane.dev/revision": known["revision"]},
            },
            "spec": spec.to_dict(),
            "status": {**placed, **status},
        }
    )


def an_entry(**given: Any) -> Raw:
    """Return what the status says of a replica that has served for 100 s."""
    return {
        "name": "claims-0",
        "state": "Serving",
        "revision": hash_of(a_deployment().spec),
        "since": clock.utc(NOW - 100),
        **given,
    }


def _entry(raw: Raw) -> Any:
    status = a_deployment({"replicas": [raw]}).status
    return status.replicas[0]


def a_status(*entries: Raw, verdict: str = "Accepted", **given: Any) -> Raw:
    """Return the status of a deployment whose only revision serves."""
    hash_ = hash_of(a_deployment().spec)
    return {
        "revisions": [{"hash": hash_, "verdict": verdict, "digest": DIGEST, "weight": 100}],
        "replicas": list(entries),
        "replicasWanted": given.pop("wanted", max(1, len(entries))),
        "plan": {"layout": "TP8xPP2", "fits": True},
        **given,
    }


def a_job(complete: bool, uid: str = "job-uid") -> TrainingJob:
    conditions = [{"type": "Complete", "status": "True", "reason": "Succeeded"}] if complete else []
    mounts = [{"name": "out", "mountPath": "/checkpoints"}]
    return TrainingJob.model_validate(
        {
            "metadata": {"name": "cpt", "namespace": "ml", "uid": uid},
            "spec": {
                "nodes": 1,
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "name": "trainer",
                                "image": "registry.hall/t:1",
                                "volumeMounts": mounts,
                            }
                        ],
                        "volumes": [{"name": "out", "hostPath": {"path": "/data"}}],
                    }
                },
            },
            "status": {
                "phase": "Succeeded" if complete else "Running",
                "conditions": conditions,
            },
        }
    )


def a_world(deployment: InferenceDeployment | None = None, **given: Any) -> World:
    """Return a world of six healthy blades in which one replica serves on `b0` and `b1`."""
    if deployment is None:
        deployment = a_deployment(a_status(an_entry()))
    names = [f"b{number}" for number in range(6)]
    blades: Mapping[str, Blade] = {name: a_blade(name) for name in names}
    blades = {**blades, **given.pop("blades", {})}
    nodes: Mapping[str, NodeView | None] = {name: a_node(name) for name in names}
    nodes = {**nodes, **given.pop("nodes", {})}
    revision = a_revision(deployment)
    pods = given.pop("pods", (a_pod(), a_pod(seat=1)))
    if isinstance(pods, tuple):
        pods = {"claims-0": pods}
    return World(
        now=given.pop("now", NOW),
        deployment=deployment,
        revisions=given.pop("revisions", {revision.hash: revision}),
        gangs=given.pop("gangs", {"claims-0": a_gang(deployment)}),
        pods=pods,
        blades=blades,
        nodes={name: node for name, node in nodes.items() if node is not None},
        pools=given.pop("pools", {"hall": a_pool()}),
        **given,
    )


def planned(world: World) -> Plan:
    """Return the plan, which must be the same when it is made again."""
    first = plan(world)
    assert plan(world) == first
    return first


def states(made: Plan) -> dict[str, str]:
    """Return the replicas' states by name."""
    return {one.name: str(one.state) for one in made.status.replicas}


def after(world: World, made: Plan, **changes: Any) -> World:
    """Return the world once the plan's status is written, a second later."""
    deployment = world.deployment.model_copy(update={"status": made.status})
    return replace(world, deployment=deployment, now=changes.pop("now", world.now + 1), **changes)
