"""Pods of a job are read as ranks; containers end as a kubelet would end them."""

from typing import Any

import pytest

from tramontane.lab.jobs import decode_size, decode_trainer, ended_status

NOW = "2026-11-24T15:00:00Z"


def pod(policy: str = "OnFailure", **meta: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "ml",
            "name": "llama-17",
            "uid": "u-1",
            "labels": {"tramontane.dev/job": "llama", "tramontane.dev/seat": "17"},
            "annotations": {"tramontane.dev/epoch": "4"},
            "ownerReferences": [{"uid": "job-uid"}],
            **meta,
        },
        "spec": {
            "nodeName": "gpu-0017",
            "restartPolicy": policy,
            "containers": [
                {"name": "sidecar", "image": "side"},
                {
                    "name": "trainer",
                    "image": "train",
                    "env": [
                        {"name": "TRAMONTANE_NODES", "value": "128"},
                        {"name": "TRAMONTANE_SEAT", "valueFrom": {"fieldRef": {}}},
                        {"name": "HOME", "value": "/root"},
                    ],
                },
            ],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": "sidecar", "restartCount": 0, "ready": True},
                {"name": "trainer", "restartCount": 2, "ready": True},
            ],
        },
    }


def test_a_pod_is_read_as_a_rank() -> None:
    found = decode_trainer(pod())
    assert (found.job_key, found.job_uid, found.seat, found.node) == (
        "ml/llama",
        "job-uid",
        17,
        "gpu-0017",
    )
    assert (found.phase, found.deleting, found.epoch, found.restarts) == ("Running", False, "4", 2)
    assert found.env == {"TRAMONTANE_NODES": "128"}


def test_a_pod_that_nobody_owns_and_nobody_annotated_is_read_too() -> None:
    bare = pod(ownerReferences=[], annotations={}, deletionTimestamp=NOW)
    bare["metadata"]["labels"] = {"tramontane.dev/job": "llama"}
    del bare["status"]
    found = decode_trainer(bare)
    assert (found.job_uid, found.seat, found.epoch) == ("ml/llama", 0, "")
    assert (found.phase, found.deleting, found.restarts) == ("Pending", True, 0)


@pytest.mark.parametrize(
    ("status", "size"),
    [
        pytest.param({}, 0, id="no-status"),
        pytest.param({"placement": None}, 0, id="no-place"),
        pytest.param({"placement": {"size": 120, "seats": ["a"] * 128}}, 120, id="smaller"),
        pytest.param({"placement": {"seats": ["a", "b"]}}, 2, id="size-left-out"),
    ],
)
def test_a_gang_says_its_size(status: dict[str, Any], size: int) -> None:
    assert decode_size({"status": status}) == size


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [
        pytest.param("OnFailure", 0, "Succeeded", 2, id="well"),
        pytest.param("Never", 0, "Succeeded", 2, id="well-never"),
        pytest.param("Always", 0, None, 3, id="well-always"),
        pytest.param("Never", 7, "Failed", 2, id="failed-never"),
        pytest.param("OnFailure", 7, None, 3, id="failed-restarts"),
        pytest.param("Always", 7, None, 3, id="failed-always"),
    ],
)
def test_the_trainer_ends_as_its_restart_policy_says(
    policy: str, code: int, phase: str | None, restarts: int
) -> None:
    status = ended_status(pod(policy), code, NOW)
    sidecar, trainer = status["containerStatuses"]
    assert sidecar == {"name": "sidecar", "restartCount": 0, "ready": True}
    assert status.get("phase") == phase
    assert trainer["restartCount"] == restarts
    ended = trainer["lastState"] if phase is None else trainer["state"]
    assert ended["terminated"]["exitCode"] == code
    assert ("running" in trainer["state"]) is (phase is None)
