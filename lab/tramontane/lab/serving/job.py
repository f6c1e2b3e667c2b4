"""Write a TrainingJob that ends with weights: `model.py` as a rank on one blade."""

import json
from pathlib import Path
from typing import Any

from tramontane.api.names import API_VERSION
from tramontane.lab.nodes.pods import pod_spec
from tramontane.lab.serving import model

Raw = dict[str, Any]


def training_job(
    name: str, pool: str, path: Path, shared: Path, *, seed: int = 0, **behaviour: Any
) -> Raw:
    """Return a job that trains for some seconds and leaves a complete model directory.

    Args:
        name: of the job.
        pool: NodePool in which it trains, on one blade.
        path: of the directory, below `shared`.
        shared: the file system that all blades have; at the same path in the pod.
        seed: of the weights.
        behaviour: how the fake engine will play them.
    """
    script = Path(model.__file__)
    command = ["python3", str(script), str(path), "--seed", str(seed)]
    command += ["--behaviour", json.dumps(behaviour)]
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodePool": pool,
            "nodes": 1,
            "launcher": {"type": "none"},
            "template": {"spec": pod_spec(*command, read_only=(script.parent,), shared=shared)},
        },
    }
