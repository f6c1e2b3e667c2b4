"""Pods of a job are read as ranks; containers end as a kubelet would end them."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.lab.jobs import decode_size, decode_trainer, ended_status
from tramontane.lab.ranks import Rank

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
    assert (found.phase, found.deleting, found.epoch, found.restarts) == ("Running", False, 4, 2)
    assert (found.drain, found.agent) == (0, False)
    assert found.env == {"TRAMONTANE_NODES": "128"}


def test_a_pod_that_nobody_owns_and_nobody_annotated_is_read_too() -> None:
    bare = pod(ownerReferences=[], annotations={}, deletionTimestamp=NOW)
    bare["metadata"]["labels"] = {"tramontane.dev/job": "llama"}
    del bare["status"]
    found = decode_trainer(bare)
    assert (found.job_uid, found.seat, found.epoch) == ("ml/llama", 0, 0)
    assert (found.phase, found.deleting, found.restarts) == ("Pending", True, 0)


def test_the_agent_is_seen_with_what_it_was_given() -> None:
    raw = pod(annotations={"tramontane.dev/epoch": "4", "tramontane.dev/drain": "3"})
    trainer = raw["spec"]["containers"][1]
    trainer["command"] = ["python3", "/tramontane/agent/rankagent.py", "torchrun", "train.py"]
    trainer["env"] += [
        {"name": "TRAMONTANE_AGENT_WAIT_S", "value": "75"},
        {"name": "TRAMONTANE_AGENT_BACKOFF_S", "value": "5"},
    ]
    rank = decode_trainer(raw).rank("")
    assert rank == Rank(17, "u-1/2", epoch=4, drain=3, agent=True, wait_s=75.0, backoff_s=5.0)


@pytest.mark.parametrize(
    ("change", "trouble", "seen"),
    [
        pytest.param({}, "", {"up": True}, id="well"),
        pytest.param({"phase": "Pending"}, "", {"up": False}, id="not-yet"),
        pytest.param({"deleting": True}, "", {"up": True, "leaving": True}, id="on-its-way"),
        pytest.param({}, "no route to host", {"dark": True}, id="no-power"),
        pytest.param({}, "CUDA error", {"dark": False, "trouble": "CUDA error"}, id="sick"),
    ],
)
def test_a_rank_is_as_its_pod_and_its_blade_are(
    change: dict[str, Any], trouble: str, seen: dict[str, Any]
) -> None:
    rank = replace(decode_trainer(pod()), **change).rank(trouble)
    assert {name: getattr(rank, name) for name in seen} == seen


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
