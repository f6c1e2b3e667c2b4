"""Write an InferenceDeployment that real nodes can run: no image but busybox, no GPU.

The pods take everything from the machine, read only (`nodes.pods`): its Python, and a folder with
an executable `vllm` that is the fake one.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tramontane.api.names import API_VERSION
from tramontane.lab.nodes.plan import IMAGE
from tramontane.lab.nodes.pods import PYTHON, pod_spec
from tramontane.lab.serving.model import CONFIG

GPUS = 8

Raw = dict[str, Any]


def install_engine(folder: Path) -> Path:
    """Put an executable `vllm` into `folder/bin`, unless it is there; return `folder`."""
    bin_ = folder / "bin"
    if not bin_.exists():
        found = find_spec("tramontane.lab.fakevllm")
        assert found is not None
        assert found.origin is not None
        package = folder / "engine" / "fakevllm"
        shutil.copytree(Path(found.origin).parent, package)
        bin_.mkdir()
        run = f"import runpy; runpy.run_path({str(package)!r}, run_name='__main__')"
        (bin_ / "vllm").write_text(f"#!{PYTHON}\n{run}\n")
        (bin_ / "vllm").chmod(0o755)
    return folder


def template(engine: Path) -> Raw:
    """Return what is laid over the pods: the machine's Python, and the engine of a folder."""
    path = f"{engine / 'bin'}:{Path(PYTHON).parent}:/usr/bin:/bin"
    base = pod_spec("python3", env={"FAKE_VLLM_FAULTS": "1", "PATH": path}, read_only=(engine,))
    [container] = base["containers"]
    kept = ("imagePullPolicy", "env", "resources", "volumeMounts")
    common = {key: container[key] for key in kept}
    return {
        "spec": {
            "containers": [{"name": "engine", **common}],
            "initContainers": [{"name": "weights", **common}],
            "volumes": base["volumes"],
        }
    }


def spec_of(
    pool: str, engine: Path, model: Path, /, *, replicas: int = 1, tensor: int = GPUS, **more: Any
) -> Raw:
    """Return a spec whose replicas take whole nodes; `more` replaces parts of it."""
    nodes = max(1, tensor // GPUS)
    return {
        "nodePool": pool,
        "model": {"source": {"hostPath": str(model)}, "config": CONFIG, **more.pop("model", {})},
        "engine": {"name": "vllm", "image": IMAGE, "version": "0.32"},
        "capacity": {
            "contextTokens": 4096,
            "concurrentRequests": 64,
            "minReplicas": replicas,
            "maxReplicas": replicas,
        },
        "layout": {"mode": "Fixed", "tensor": tensor, "nodes": nodes},
        "rollout": {"steps": [], "drainTimeout": "30s"},
        "recovery": {"backoff": {"base": "1s", "max": "30s"}, "hangAfter": "10s"},
        "template": template(engine),
        **more,
    }


def deployment(name: str, spec: Raw, namespace: str = "default") -> Raw:
    """Return an InferenceDeployment."""
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
