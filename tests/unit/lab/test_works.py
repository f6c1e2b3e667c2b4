"""Tests and repairs on simulated blades end with the verdict that their faults ask for."""

import json
import re
from typing import Any

import pytest

from tramontane.api.names import Work
from tramontane.health.burnin.outcome import Outcome, Verdict
from tramontane.lab import trials
from tramontane.lab.faults import parse_fault
from tramontane.lab.works import decode_work

NOW = "2026-11-24T15:00:09Z"
BEGAN = "2026-11-24T15:00:00Z"


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        pytest.param("", Verdict.PASS, id="nothing"),
        pytest.param("slow-memory", Verdict.FAIL, id="slow-memory"),
        pytest.param("pcie-width", Verdict.FAIL, id="pcie-width"),
        pytest.param("bad-link", Verdict.PASS, id="bad-link"),
        pytest.param("agent-silent", Verdict.PASS, id="agent-silent"),
        pytest.param("flapping", Verdict.PASS, id="flapping"),
        pytest.param("row-remap-pending", Verdict.PASS, id="row-remap-pending"),
        pytest.param("gpu-lost", Verdict.ERROR, id="gpu-lost"),
        pytest.param("xid 79", Verdict.ERROR, id="deadly-xid"),
        pytest.param("ecc-dbe", Verdict.FAIL, id="ecc-dbe"),
    ],
)
def test_a_burn_in_finds_what_it_can_see(fault: str, verdict: Verdict) -> None:
    faults = [parse_fault(fault, gpu=3)] if fault else []
    found = trials.burn_in("gpu-0001", faults)
    assert (found.check, found.verdict) == ("burnin", verdict)
    if verdict is Verdict.FAIL:
        assert found.reason.startswith("cuda:3: "), "which of its GPUs"
    assert (found.value is None) is (verdict is Verdict.ERROR)


def test_a_burn_in_says_what_the_real_one_would_say() -> None:
    """The same words by the same judge, from a GPU with half of its memory bandwidth."""
    slow = trials.burn_in("gpu-0001", [parse_fault("slow-memory", gpu=3)])
    assert slow.reason == f"cuda:3: memory must be 3600 GB/s or more (got {slow.value:.5g})"
    assert json.loads(slow.line())["details"]["devices"][3]["memory_gbps"] < 2000
    good = trials.burn_in("gpu-0001", [])
    assert re.fullmatch(r"8 devices, \d+ products and \d+ patterns, all as expected", good.reason)
    assert good.unit == "TFLOPS"


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        pytest.param("", Verdict.PASS, id="nothing"),
        pytest.param("bad-link", Verdict.FAIL, id="bad-link"),
        pytest.param("nvlink-down", Verdict.FAIL, id="nvlink-down"),
        pytest.param("slow-memory", Verdict.PASS, id="slow-memory"),
        pytest.param("gpu-lost", Verdict.ERROR, id="gpu-lost"),
    ],
)
def test_one_bad_blade_fails_its_whole_group(fault: str, verdict: Verdict) -> None:
    sick = [parse_fault(fault)] if fault else []
    blades = {f"gpu-{number}": sick if number == 3 else [] for number in range(8)}
    found = trials.collective("c3f9a1", blades)
    assert (found.check, found.verdict) == ("collective", verdict)
    if found.value is not None:
        assert (found.value < 300.0) is (verdict is Verdict.FAIL)
        assert f"on 64 ranks: {found.value:.4g} GB/s" in found.reason


def test_a_repair_that_cannot_be_done_says_why() -> None:
    assert trials.repair(Work.RESET, "").verdict is Verdict.PASS
    failed = trials.repair(Work.RESET, "GPU 3 cannot be reset: gpu-lost")
    assert (failed.verdict, failed.reason) == (Verdict.FAIL, "GPU 3 cannot be reset: gpu-lost")


def test_figures_differ_a_little_and_are_the_same_each_time() -> None:
    names = [f"gpu-{number:04d}" for number in range(64)]
    values = [trials.burn_in(name, []).value or 0.0 for name in names]
    assert len(set(values)) > 60
    assert values == [trials.burn_in(name, []).value for name in names]
    assert all(0.98 < value / trials.GOOD_TFLOPS < 1.02 for value in values)


@pytest.mark.parametrize(
    ("outcome", "phase", "code", "reason"),
    [
        pytest.param(
            Outcome("burnin", Verdict.PASS, "well", 4000.0, "GB/s"),
            "Succeeded", 0, "Completed", id="pass",
        ),
        pytest.param(Outcome("burnin", Verdict.FAIL, "slow"), "Failed", 1, "Error", id="fail"),
        pytest.param(Outcome("burnin", Verdict.ERROR, "broke"), "Failed", 2, "Error", id="error"),
    ],
)  # fmt: skip
def test_a_pod_ends_as_a_kubelet_would_end_it(
    outcome: Outcome, phase: str, code: int, reason: str
) -> None:
    running = {
        "name": "test",
        "image": "registry.example/test:1",
        "imageID": "",
        "restartCount": 0,
        "ready": True,
        "started": True,
        "state": {"running": {"startedAt": BEGAN}},
    }
    status = trials.ended([running], outcome, NOW)
    (container,) = status["containerStatuses"]
    ended = container["state"]["terminated"]
    assert status["phase"] == phase
    assert (container["name"], container["ready"], container["started"]) == ("test", False, False)
    assert (ended["exitCode"], ended["reason"]) == (code, reason)
    assert (ended["startedAt"], ended["finishedAt"]) == (BEGAN, NOW)
    said = json.loads(ended["message"])
    assert (said["check"], said["verdict"]) == ("burnin", outcome.verdict.name)
    assert set(said) == {"check", "verdict", "value", "unit", "reason", "details"}


def pod(work: str, phase: str = "Running", gpu: str = "", **env: str) -> dict[str, Any]:
    labels = {"tramontane.dev/work": work, "tramontane.dev/blade": "gpu-0001"}
    if work == "collective":
        labels["tramontane.dev/group"] = "c3f9a1"
    meta: dict[str, Any] = {
        "namespace": "tramontane-system",
        "name": f"{work}-gpu-0001-1",
        "uid": "u-1",
        "labels": labels,
    }
    if gpu:
        meta["annotations"] = {"tramontane.dev/gpu": gpu}
    variables = [{"name": name, "value": value} for name, value in env.items()]
    variables.append({"name": "POD_IP", "valueFrom": {"fieldRef": {}}})  # type: ignore[dict-item]
    return {
        "metadata": meta,
        "spec": {"nodeName": "gpu-0001", "containers": [{"name": "t", "env": variables}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "t"}]},
    }


def test_a_work_pod_is_read() -> None:
    found = decode_work(pod("collective", TRAMONTANE_GROUP_SIZE="8"))
    assert (found.kind, found.node, found.running, found.ended) == (
        Work.COLLECTIVE, "gpu-0001", True, False,
    )  # fmt: skip
    assert (found.group_key, found.group_size) == ("tramontane-system/c3f9a1", 8)
    assert [one["name"] for one in found.containers] == ["t"]


@pytest.mark.parametrize(
    ("raw", "gpu"),
    [
        pytest.param(pod("reset", TRAMONTANE_GPU="3"), 3, id="variable"),
        pytest.param(pod("reset", TRAMONTANE_GPU="all"), None, id="all"),
        pytest.param(pod("reset", gpu="5"), 5, id="annotation"),
        pytest.param(pod("reset"), None, id="not-said"),
    ],
)
def test_a_reset_says_which_gpu(raw: dict[str, Any], gpu: int | None) -> None:
    assert decode_work(raw).gpu == gpu


@pytest.mark.parametrize(
    ("raw", "running", "ended"),
    [
        pytest.param(pod("burnIn", "Pending"), False, False, id="pending"),
        pytest.param(pod("burnIn"), True, False, id="running"),
        pytest.param(pod("burnIn", "Failed"), False, True, id="ended"),
    ],
)
def test_a_work_pod_is_played_while_it_runs(
    raw: dict[str, Any], *, running: bool, ended: bool
) -> None:
    found = decode_work(raw)
    assert (found.running, found.ended) == (running, ended)
    raw["metadata"]["deletionTimestamp"] = NOW
    assert not decode_work(raw).running
