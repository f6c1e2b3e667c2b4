from typing import Any

import pytest

from tramontane.kube.views import ContainerView, TaintView, decode_node, decode_pod

POD: dict[str, Any] = {
    "metadata": {
        "name": "llama-3",
        "namespace": "ml",
        "uid": "u-1",
        "creationTimestamp": "2026-12-01T00:00:00Z",
        "labels": {"tramontane.dev/job": "llama", "team": "x"},
        "annotations": {
            "tramontane.dev/epoch": "7",
            "tramontane.dev/peers": "a,b,c",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
        },
        "ownerReferences": [
            {"uid": "not-the-controller", "kind": "ConfigMap"},
            {"uid": "job-1", "kind": "TrainingJob", "controller": True},
        ],
    },
    "spec": {
        "nodeName": "n1",
        "containers": [
            {"name": "trainer", "resources": {"requests": {"nvidia.com/gpu": "8", "cpu": "4"}}},
            {"name": "side", "resources": {"limits": {"nvidia.com/gpu": 1}}},
            {"name": "none"},
        ],
    },
    "status": {
        "phase": "Running",
        "hostIP": "10.0.0.1",
        "podIP": "10.1.0.1",
        "startTime": "2026-12-01T00:00:10Z",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True"},
        ],
        "containerStatuses": [
            {
                "name": "trainer",
                "restartCount": 2,
                "state": {"running": {"startedAt": "2026-12-01T00:00:20Z"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            },
            {
                "name": "side",
                "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            },
            {"name": "none", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
        ],
    },
}


def test_a_running_pod() -> None:
    pod = decode_pod(POD)
    assert pod.key == "ml/llama-3"
    assert (pod.uid, pod.owner_uid, pod.node, pod.phase) == ("u-1", "job-1", "n1", "Running")
    assert pod.labels == {"tramontane.dev/job": "llama", "team": "x"}
    assert pod.annotations == {"tramontane.dev/epoch": "7"}, "neither foreign ones nor the peers"
    assert (pod.host_ip, pod.pod_ip) == ("10.0.0.1", "10.1.0.1")
    assert (pod.ready, pod.deleting, pod.finished) == (True, False, False)
    assert (pod.gpus, pod.restarts) == (9, 3)
    assert pod.started_at is not None
    assert pod.started_at - pod.created_at == 10
    assert pod.containers == (
        ContainerView("trainer", "running", None, "", 2, 137, "OOMKilled"),
        ContainerView("side", "waiting", None, "CrashLoopBackOff", 1),
        ContainerView("none", "terminated", 0, "Completed"),
    )


def pod_with(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    meta = {"name": "a", "namespace": "ml", "uid": "u"}
    return {"metadata": meta, "spec": spec or {"containers": [{"name": "c"}]}, "status": status}


@pytest.mark.parametrize(
    ("raw", "field", "value"),
    [
        pytest.param(pod_with(), "node", None, id="not-bound"),
        pytest.param(pod_with(), "phase", "Pending", id="no-phase"),
        pytest.param(pod_with(), "owner_uid", None, id="no-owner"),
        pytest.param(pod_with(), "gpus", 0, id="no-gpus"),
        pytest.param(pod_with(), "started_at", None, id="not-started"),
        pytest.param(pod_with(), "containers", (), id="no-containers"),
        pytest.param(pod_with(phase="Failed"), "finished", True, id="failed"),
        pytest.param(pod_with(phase="Succeeded"), "finished", True, id="succeeded"),
        pytest.param(pod_with(reason="Evicted"), "reason", "Evicted", id="reason"),
        pytest.param(pod_with(message="disk"), "message", "disk", id="message"),
        pytest.param(
            pod_with(conditions=[{"type": "Ready", "status": "False"}]),
            "ready",
            False,
            id="unready",
        ),
        pytest.param(
            pod_with(containerStatuses=[{"name": "c", "state": {}}]),
            "containers",
            (ContainerView("c"),),
            id="container-without-state",
        ),
        pytest.param(
            pod_with(
                {
                    "containers": [{"name": "c"}],
                    "initContainers": [
                        {"name": "i", "resources": {"requests": {"nvidia.com/gpu": "4"}}},
                        {"name": "j", "resources": {"requests": {"nvidia.com/gpu": "2"}}},
                    ],
                }
            ),
            "gpus",
            4,
            id="init-container-wants-more",
        ),
    ],
)
def test_what_a_pod_may_lack(raw: dict[str, Any], field: str, value: object) -> None:
    assert getattr(decode_pod(raw), field) == value


def test_a_pod_that_is_being_deleted() -> None:
    raw = pod_with()
    raw["metadata"]["deletionTimestamp"] = "2026-12-01T00:00:00Z"
    assert decode_pod(raw).deleting


NODE: dict[str, Any] = {
    "metadata": {
        "name": "n1",
        "uid": "u-2",
        "creationTimestamp": "2026-12-01T00:00:00Z",
        "labels": {"kubernetes.io/hostname": "n1"},
        "annotations": {"tramontane.dev/note": "x", "other": "y"},
    },
    "spec": {
        "unschedulable": True,
        "taints": [
            {"key": "tramontane.dev/blade", "value": "Quarantined", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
        ],
    },
    "status": {
        "allocatable": {
            "nvidia.com/gpu": "8",
            "cpu": "63500m",
            "memory": "2113412Ki",
            "pods": "110",
        },
        "conditions": [
            {"type": "GPUHealthy", "status": "False"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-12-01T00:01:00Z"},
        ],
    },
}


def test_a_node() -> None:
    node = decode_node(NODE)
    assert (node.name, node.uid, node.unschedulable, node.deleting) == ("n1", "u-2", True, False)
    assert (node.gpus, node.cpu_m, node.memory_b, node.pods) == (8, 63500, 2113412 * 1024, 110)
    assert node.taints == (
        TaintView("tramontane.dev/blade", "Quarantined", "NoSchedule"),
        TaintView("node.kubernetes.io/unschedulable", "", "NoSchedule"),
    )
    assert node.labels == {"kubernetes.io/hostname": "n1"}
    assert node.annotations == {"tramontane.dev/note": "x"}
    assert node.conditions == {"GPUHealthy": "False", "Ready": "True"}
    assert node.ready is True
    assert node.ready_since - node.created_at == 60


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        pytest.param([{"type": "Ready", "status": "True"}], True, id="true"),
        pytest.param([{"type": "Ready", "status": "False"}], False, id="false"),
        pytest.param([{"type": "Ready", "status": "Unknown"}], None, id="unknown"),
        pytest.param([], None, id="absent"),
    ],
)
def test_readiness(conditions: list[dict[str, str]], ready: bool | None) -> None:
    raw = {"metadata": NODE["metadata"], "status": {"conditions": conditions}}
    node = decode_node(raw)
    assert node.ready is ready
    assert node.ready_since == node.created_at, "since when, if nothing says it"
    assert (node.gpus, node.pods, node.taints, node.unschedulable) == (0, 0, (), False)
