"""API objects as a cluster has them, with more in them than decides about a place."""

from typing import Any

Raw = dict[str, Any]


def pool() -> Raw:
    levels = [{"name": "rack", "label": "topology/rack"}]
    spec = {"nodeSelector": {}, "gpu": {"count": 8}, "topology": {"levels": levels}}
    spec["remediation"] = {"reboot": {"template": {"image": "registry.local/secret:1"}}}
    return {"metadata": {"name": "paris", "managedFields": [{}]}, "spec": spec}


def blade(name: str, state: str = "Healthy") -> Raw:
    report = {"agent": {"version": "9"}, "gpus": [{"serial": "S-123"}]}
    status = {"state": state, "verdict": {"severity": "None", "action": "None"}, "report": report}
    return {"metadata": {"name": name}, "spec": {"pool": "paris"}, "status": status}


def node(name: str, rack: str) -> Raw:
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-24T15:02:07Z"}
    return {
        "metadata": {"name": name, "labels": {"topology/rack": rack}, "annotations": {"a": "b"}},
        "spec": {"providerID": "x"},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8", "cpu": "64", "pods": "110"},
            "conditions": [{"type": "DiskPressure", "status": "False"}, ready],
            "images": [{"names": ["registry.local/llama"]}],
        },
    }


def gang(name: str, seats: int, *, at: str = "2025-11-24T15:02:07Z", **status: Any) -> Raw:
    meta = {"name": name, "namespace": "ml", "uid": f"u-{name}", "creationTimestamp": at}
    slot = {"name": "worker", "count": seats, "requests": {"nvidia.com/gpu": "8"}}
    return {"metadata": meta, "spec": {"pool": "paris", "slots": [slot]}, "status": status}


def pod(name: str, on: str, of: str = "", seat: int = 0, **spec: Any) -> Raw:
    labels = {"tramontane.dev/gang": of, "tramontane.dev/seat": str(seat)} if of else {}
    secret = {"name": "TOKEN", "value": "hf_secret"}
    container = {
        "name": "trainer",
        "image": "registry.local/llama:12",
        "command": ["python", "train.py"],
        "env": [secret],
        "resources": {"requests": {"nvidia.com/gpu": "8"}, "limits": {"memory": "1Ti"}},
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "ml",
            "uid": f"u-{name}",
            "labels": {**labels, "team": "research"},
            "annotations": {"tramontane.dev/peers": "10.0.0.1"},
        },
        "spec": {"nodeName": on, "containers": [container], "volumes": [{"name": "v"}], **spec},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }


def hall(blades: int = 8) -> dict[str, list[Raw]]:
    """Return a hall of two blades to a rack: one gang runs, three wait, a stranger is there."""
    names = [f"gpu-{i}" for i in range(blades)]
    placed: Raw = {"phase": "Placed", "epoch": 1, "placement": {"seats": ["gpu-0", "gpu-1"]}}
    return {
        "nodepools": [pool()],
        "priorityclasses": [{"metadata": {"name": "high"}, "value": 1000, "description": "x"}],
        "blades": [blade(n, "Quarantined" if n == "gpu-3" else "Healthy") for n in names],
        "nodes": [node(n, f"r{i // 2}") for i, n in enumerate(names)],
        "gangs": [
            gang("runs", 2, **placed),
            gang("small", 2, at="2025-11-24T15:04:07Z"),
            gang("large", 40, at="2025-11-24T15:03:07Z"),
            gang("odd", 3, at="2025-11-24T15:05:07Z"),
        ],
        "pods": [
            pod("runs-0", "gpu-0", "runs"),
            pod("other", "gpu-2"),
            pod("runs-1", "gpu-1", "runs", 1),
        ],
    }
