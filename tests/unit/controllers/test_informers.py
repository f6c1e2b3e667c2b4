"""The shared caches: slim, and equal to what the API says where anybody looks."""

import copy
from typing import Any

import pytest

from tramontane.api.clock import parse
from tramontane.api.gang import Gang
from tramontane.controllers import informers

BLADE: dict[str, Any] = {
    "metadata": {
        "name": "gpu-1",
        "resourceVersion": "7",
        "labels": {"tramontane.dev/pool": "paris", "theirs": "x"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 1000},
    },
    "spec": {"pool": "paris"},
    "status": {
        "state": "Healthy",
        "report": {
            "agent": {"bootID": "b"},
            "gpus": [
                {"index": i, "uuid": f"GPU-{i}", "product": "NVIDIA-H200", "memory": 151397597184}
                for i in range(8)
            ],
            "faults": [{"code": "xid-79", "severity": "Fatal"}],
        },
    },
}


def test_a_blade_keeps_what_is_judged_and_shares_its_gpus() -> None:
    before = copy.deepcopy(BLADE)
    one, other = informers.decode_blade(BLADE), informers.decode_blade(copy.deepcopy(BLADE))
    assert before == BLADE, "the raw object is the caller's"
    assert one == other
    assert one.status.report is not None
    assert other.status.report is not None
    assert one.status.report.gpus[3] is other.status.report.gpus[3]
    assert one.status.report.gpus[3].uuid is None
    assert one.status.report.gpus[3].memory == "151397597184"
    assert one.status.report.faults[0].code == "xid-79"
    assert one.metadata.labels == {"tramontane.dev/pool": "paris"}
    assert one.metadata.annotations == {}


def test_a_blade_without_status_is_one() -> None:
    blade = informers.decode_blade({"metadata": {"name": "gpu-1"}, "spec": {"pool": "paris"}})
    assert blade.status.state is None
    assert blade.status.report is None


def test_a_node_has_its_boot_and_our_condition() -> None:
    node = informers.decode_operator_node(
        {
            "metadata": {"name": "gpu-1", "uid": "u", "resourceVersion": "12"},
            "status": {
                "nodeInfo": {"bootID": "boot-1"},
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "GPUHealthy", "status": "False", "reason": "xid-79"},
                ],
            },
        }
    )
    assert (node.boot_id, node.version) == ("boot-1", 12)
    assert (node.gpu_healthy, node.gpu_healthy_reason) == ("False", "xid-79")
    assert node.ready is True


@pytest.mark.parametrize(
    ("containers", "kept"),
    [
        ([{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "8"}}}], True),
        ([{"name": "a", "resources": {"requests": {"nvidia.com/gpu": 1}}}, {"name": "b"}], True),
        ([{"name": "a", "resources": {"limits": {"cpu": "8"}}}], False),
        ([{"name": "a"}], False),
    ],
    ids=["limits", "requests", "no GPU", "nothing"],
)
def test_of_other_pods_only_those_with_gpus_are_kept(containers: Any, kept: bool) -> None:
    meta = {"name": "notebook-0", "namespace": "ml", "uid": "u"}
    pod = {"metadata": meta, "spec": {"nodeName": "gpu-1", "containers": containers}}
    expected = informers.OtherPod("ml/notebook-0", "gpu-1", deleting=False) if kept else None
    assert informers.decode_other(pod) == expected


def test_a_version_alone_is_no_change() -> None:
    def node(version: str) -> informers.Node:
        meta = {"name": "gpu-1", "uid": "u", "resourceVersion": version}
        return informers.decode_operator_node({"metadata": meta})

    assert node("1") == node("2")


def test_a_lease_has_its_time() -> None:
    at = "2026-11-24T15:02:07.250000Z"
    raw = {"metadata": {"name": "blade-gpu-1"}, "spec": {"renewTime": at}}
    assert informers.decode_lease(raw) == informers.LeaseView("blade-gpu-1", parse(at))
    assert informers.decode_lease({"metadata": {"name": "x"}}).renewed_at == 0.0


def test_a_gang_is_found_by_seats_and_spares() -> None:
    gang = Gang.model_validate(
        {
            "metadata": {"name": "llama", "namespace": "ml"},
            "spec": {"pool": "paris", "slots": [{"name": "w", "count": 2}]},
            "status": {"placement": {"size": 2, "seats": ["a", "b"], "spares": ["c"]}},
        }
    )
    assert tuple(informers.blades_of(gang)) == ("a", "b", "c")
    waiting = gang.model_copy(update={"status": Gang.model_fields["status"].default})
    assert tuple(informers.blades_of(waiting)) == ()
