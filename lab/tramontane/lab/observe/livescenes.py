"""What happens in the live hall: objects as people write them, and the names to look for.

| who                 | what comes of it                                                        |
|---------------------|-------------------------------------------------------------------------|
| ml/llama            | trains on eight blades; one of them falls ill and a spare takes over    |
| ml/probe-N          | trains for some seconds and succeeds                                    |
| shop/batch-N        | the same, on eight blades and with a time limit, so that there can be a |
| shop/next-N         | promise to this one, which waits for them                               |
| ml/huge             | waits: its tenant's quota is used up                                    |
| shop/distill        | waits: not enough blades are free                                       |
| shop/notebook       | a pod of somebody else, on half a blade, that our scheduler binds       |
| ml/claims           | a model that answers, two replicas; an engine of it dies                |
| pool paris-a        | 24 blades in racks of four, two spares, two tenants                     |
| pool paris-b        | four blades, of which two fail at once: its breaker opens               |
"""

from pathlib import Path
from typing import Any, Final

from tramontane.api.names import API_VERSION, GPU_RESOURCE, LABEL_POOL, SCHEDULER_NAME
from tramontane.lab.fleet import LABEL_BLOCK, LABEL_RACK, Layout
from tramontane.lab.serving.model import CONFIG

Raw = dict[str, Any]

RACK: Final = 4
RACKS: Final = 7
LAYOUT: Final = Layout(blades=RACK * RACKS, rack=RACK, racks_per_block=3, tranche=12)
POOL, SMALL_POOL = "paris-a", "paris-b"
NAMESPACE, OTHER = "ml", "shop"
TRAINING, SERVED = "llama", "claims"
REPLICAS: Final = 2
#: How old the blades are when all begins: how often they fail is known after some weeks.
AGE_DAYS: Final = 21.0
_SPARES: Final = 2
_IMAGE: Final = "registry.example/tramontane-agent:1"


def machine(folder: Path) -> Path:
    """Write what the blades' kernel says of their network: two ports, one of which once lost link.

    Returns the root of it, which agents read in place of /sys.
    """
    root = folder / "sysfs"
    for number, downs in enumerate((0, 3)):
        port = root / f"class/infiniband/mlx5_{number}/ports/1"
        (port / "counters").mkdir(parents=True, exist_ok=True)
        said = {
            "link_layer": "InfiniBand",
            "state": "4: ACTIVE",
            "phys_state": "5: LinkUp",
            "rate": "400 Gb/sec (4X NDR)",
            "counters/link_downed": str(downs),
            "counters/symbol_error": "0",
        }
        for name, text in said.items():
            (port / name).write_text(f"{text}\n")
    for empty in ("class/nvme", "bus/pci/devices"):
        (root / empty).mkdir(parents=True, exist_ok=True)
    return root


def pools() -> tuple[Raw, Raw]:
    """Return the large pool and the small one, whose blades are those of the last rack."""
    large = _pool(POOL, range(1, RACKS), breaker="50%")
    large["spec"]["spares"] = {"count": _SPARES}
    large["spec"]["tenants"] = [
        {"name": "research", "namespaces": [NAMESPACE], "guaranteedGPUs": 96, "maxGPUs": 128},
        {"name": "product", "namespaces": [OTHER], "guaranteedGPUs": 32},
    ]
    return large, _pool(SMALL_POOL, range(RACKS, RACKS + 1), breaker=2)


def _pool(name: str, racks: range, breaker: int | str) -> Raw:
    labels = [f"rack-{number}" for number in racks]
    return {
        "apiVersion": API_VERSION,
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {
                "matchExpressions": [{"key": LABEL_RACK, "operator": "In", "values": labels}]
            },
            "gpu": {"product": LAYOUT.product, "count": LAYOUT.gpus, "memory": "141Gi"},
            "topology": {
                "levels": [
                    {"name": "block", "label": LABEL_BLOCK},
                    {"name": "rack", "label": LABEL_RACK},
                ]
            },
            # What is too hot or short of power here is so for the boards' sake.
            "health": {
                "clearAfter": "5s",
                "rules": [
                    {"match": {"check": check}, "severity": "Ignore"}
                    for check in ("thermal", "clock-events")
                ],
            },
            "remediation": {
                "maxUnavailable": "50%",
                "breaker": {"threshold": breaker, "window": "10m"},
                "reset": {"template": _work("reset")},
                "reboot": {"template": _work("reboot")},
            },
        },
    }


def _work(name: str) -> Raw:
    return {"spec": {"containers": [{"name": name, "image": _IMAGE, "command": ["work"]}]}}


def training(name: str, nodes: int, namespace: str = NAMESPACE, /, **spec: Any) -> Raw:
    """Return a job that trains as `knobs` says (TRAMONTANE_LAB_*); `spec` is laid over the rest."""
    knobs: dict[str, str] = spec.pop("knobs", {})
    env = [{"name": f"TRAMONTANE_LAB_{key}", "value": value} for key, value in knobs.items()]
    trainer = {
        "name": "trainer",
        "image": "registry.example/train:1",
        "command": ["torchrun", "train.py"],
        "env": env,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodePool": POOL,
            "nodes": nodes,
            "gpusPerNode": LAYOUT.gpus,
            "launcher": {"type": "torchrun", "procsPerNode": LAYOUT.gpus},
            "progress": {
                "stepPattern": r"step[ =:]+(?P<step>\d+)",
                "lossPattern": r"loss[ =:]+(?P<loss>[0-9.]+)",
            },
            "checkpoint": {"savedPattern": r"saved checkpoint.*step[ =:]+(?P<step>\d+)"},
            "template": {"spec": {"containers": [trainer]}},
            **spec,
        },
    }


def trained() -> Raw:
    """Return the job that everything turns about."""
    knobs = {"STEP_TIME": "0.25", "SAVE_EVERY": "24", "SAVE_TIME": "0.5", "STRAGGLER": "5:1.3"}
    packed = {"pack": "block", "mode": "Preferred"}
    return training(TRAINING, 8, spares=1, topology=packed, knobs=knobs)


def short_ones(number: int) -> tuple[Raw, ...]:
    """Return jobs that are over in some seconds, the last of which waits for the one before."""

    def knobs(steps: int) -> dict[str, str]:
        return {"STEP_TIME": "0.2", "STEPS": str(steps), "SAVE_EVERY": "10"}

    return (
        training(f"probe-{number}", 2, knobs=knobs(30)),
        training(f"batch-{number}", 8, OTHER, knobs=knobs(50), maxRuntime="60s"),
        training(f"next-{number}", 6, OTHER, knobs=knobs(20), maxRuntime="60s"),
    )


def waiting() -> tuple[Raw, ...]:
    """Return jobs that get no place as long as the others are there."""
    return training("huge", 14), training("distill", 20, OTHER)


def notebook() -> Raw:
    """Return a pod that nobody of ours has made."""
    container = {
        "name": "notebook",
        "image": "registry.example/notebook:1",
        "resources": {"limits": {GPU_RESOURCE: str(LAYOUT.gpus // 2)}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "notebook", "namespace": OTHER},
        "spec": {
            "schedulerName": SCHEDULER_NAME,
            "nodeSelector": {LABEL_POOL: POOL},
            "containers": [container],
        },
    }


def served(replicas: int = REPLICAS) -> Raw:
    """Return the model that is served; its objective is tight, but it is met."""
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceDeployment",
        "metadata": {"name": SERVED, "namespace": NAMESPACE},
        "spec": {
            "nodePool": POOL,
            "model": {"source": {"hostPath": f"/models/{SERVED}"}, "config": CONFIG},
            "engine": {"name": "vllm", "image": "registry.example/vllm:0.32", "version": "0.32"},
            "capacity": {
                "contextTokens": 4096,
                "concurrentRequests": 64,
                "minReplicas": replicas,
                "maxReplicas": replicas,
            },
            "layout": {"mode": "Fixed", "tensor": LAYOUT.gpus, "nodes": 1},
            "rollout": {"steps": [], "drainTimeout": "2s"},
            "slo": {"ttftP95": "500ms", "itlP95": "50ms"},
        },
    }
