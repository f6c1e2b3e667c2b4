"""How a work pod's end, its clock and its last words are read."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from tramontane.api.clock import utc
from tramontane.api.names import Work
from tramontane.controllers.nodepool.works import Outcome, WorkPod, decode
from unit.nodepool.hall import NOW

OURS = ("python", "-m", "tramontane.health.burnin", "--backend=cuda")
NO_PACKAGE = (
    "/usr/bin/python3: Error while finding module specification for 'tramontane.health.burnin' "
    "(ModuleNotFoundError: No module named 'tramontane')"
)
NO_MODULE = "/usr/bin/python3: No module named gpu_burn"
TRACE = "Traceback (most recent call last)\nRuntimeError: no CUDA GPUs are available"
PASSED, FAILED, BROKEN = Outcome.PASSED, Outcome.FAILED, Outcome.BROKEN
RUNNING = Outcome.RUNNING


def seen(state: dict[str, Any], command: Sequence[str] = (), **status: Any) -> WorkPod:
    """Return the view of a pod whose one container is in that state."""
    statuses = [{"name": "test", "state": state}] if state else []
    return decode(
        {
            "metadata": {
                "name": "burnin-gpu-1-0",
                "labels": {
                    "tramontane.dev/work": Work.BURN_IN.value,
                    "tramontane.dev/blade": "gpu-1",
                },
                "creationTimestamp": utc(NOW),
            },
            "spec": {"containers": [{"name": "test", "command": list(command)}]},
            "status": {"containerStatuses": statuses, **status},
        }
    )


def ended(
    code: int, message: str = "", why: str = "Error", command: Sequence[str] = (), **status: Any
) -> WorkPod:
    state = {"terminated": {"exitCode": code, "reason": why, "message": message}}
    return seen(state, command, phase="Failed" if code else "Succeeded", **status)


def says(verdict: object, **more: Any) -> str:
    return json.dumps({"check": "burnin", "verdict": verdict, "reason": "8 devices", **more})


@pytest.mark.parametrize(
    ("pod", "outcome"),
    [
        pytest.param(ended(0, says("PASS"), command=OURS), PASSED, id="passes"),
        pytest.param(ended(1, says("FAIL"), command=OURS), FAILED, id="fails"),
        pytest.param(ended(0), PASSED, id="another tool passes"),
        pytest.param(ended(1, "GPU 3: 1,204 errors"), FAILED, id="another tool fails"),
        pytest.param(ended(1, '{"verdict": ["?"]}'), FAILED, id="a verdict that is none of ours"),
        pytest.param(ended(2, says("ERROR"), command=OURS), BROKEN, id="the checker broke"),
        pytest.param(ended(1, says("ERROR")), BROKEN, id="says that it broke, code 1"),
        pytest.param(ended(1, says("PASS"), command=OURS), BROKEN, id="says PASS, code 1"),
        pytest.param(ended(0, says("FAIL"), command=OURS), BROKEN, id="says FAIL, code 0"),
        pytest.param(ended(1, NO_PACKAGE, command=OURS), BROKEN, id="image without our package"),
        pytest.param(
            ended(1, NO_PACKAGE, command=("sh", "-c", " ".join(OURS))), BROKEN, id="by a shell"
        ),
        pytest.param(ended(0, command=OURS), BROKEN, id="our check ended and says nothing"),
        pytest.param(ended(1, NO_MODULE), BROKEN, id="image without another tool"),
        pytest.param(ended(1, TRACE), BROKEN, id="another tool died"),
        pytest.param(ended(1, why="OOMKilled"), BROKEN, id="its child was out of memory"),
        pytest.param(ended(137, why="OOMKilled"), BROKEN, id="out of memory"),
        pytest.param(ended(1, reason="Evicted"), BROKEN, id="evicted, code 1 on SIGTERM"),
        pytest.param(ended(0, reason="Evicted"), BROKEN, id="evicted, code 0 on SIGTERM"),
        pytest.param(ended(1, reason="Terminated"), BROKEN, id="the node shut down"),
        pytest.param(ended(1, reason="DeadlineExceeded"), BROKEN, id="its own deadline"),
        pytest.param(
            ended(1, says("FAIL"), command=OURS, reason="Evicted"),
            FAILED,
            id="failed, then evicted",
        ),
    ],
)
def test_only_a_verdict_condemns_a_blade(pod: WorkPod, outcome: Outcome) -> None:
    assert pod.outcome is outcome


def test_what_runs_beside_the_test_says_nothing_of_it() -> None:
    beside = {"name": "proxy", "state": {"running": {"startedAt": utc(NOW)}}}
    test = {"name": "test", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    assert seen({}, phase="Running", containerStatuses=[beside, test]).outcome is PASSED


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (
            ended(1, NO_PACKAGE, command=OURS),
            "exit code 1 (Error) and no verdict: /usr/bin/python3",
        ),
        (ended(1, reason="Evicted"), "exit code 1 (Evicted)"),
        (ended(1, says("PASS")), "exit code 1 (Error), though it says PASS: 8 devices"),
        (ended(0, command=OURS), "exit code 0 (Error) and no verdict"),
        (ended(1, "GPU 3: 1,204 errors"), "exit code 1 (Error): GPU 3: 1,204 errors"),
        (ended(1, '{"value": 3}'), "exit code 1 (Error)"),
        (ended(1, says("FAIL")), "8 devices"),
    ],
)
def test_people_read_why(pod: WorkPod, words: str) -> None:
    assert pod.evidence.startswith(words)


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("341.5", 341.5),
        ("600", 600.0),
        ("null", None),
        ("NaN", None),
        ("Infinity", None),
        ("-Infinity", None),
        ("true", None),
        ('"3.1"', None),
        ("1e300", None),
        pytest.param("1" + "0" * 400, None, id="1 and 400 zeros"),
    ],
)
def test_a_value_is_a_number(said: str, value: float | None) -> None:
    assert ended(0, f'{{"verdict": "PASS", "value": {said}}}').value == value


def test_last_words_that_nobody_can_read_are_none() -> None:
    assert ended(0, "[" * 4000).outcome is PASSED
    assert ended(1, says("FAIL", reason="\ud800\n GPU 3")).evidence == "? GPU 3"
    assert ended(1, says("FAIL", unit="\ud800")).unit == "?"


@pytest.mark.parametrize(
    "reason",
    [
        "ErrImagePull",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerError",
        "RunContainerError",
    ],
)
def test_a_container_that_cannot_start_is_not_waited_for(reason: str) -> None:
    pod = seen({"waiting": {"reason": reason}}, phase="Pending")
    assert (pod.outcome, pod.evidence) == (BROKEN, reason)


PULL_S, LIMIT_S = 600.0, 900.0


@pytest.mark.parametrize("ahead_s", [0, 5, -5, 3600, -3600, 8 * 3600, -8 * 3600])
def test_the_time_allowed_does_not_hang_on_the_blades_clock(ahead_s: float) -> None:
    """It counts from the start of the container, however long the image took to come."""
    running = {"running": {"startedAt": utc(NOW + PULL_S + ahead_s)}}
    pod = seen(running, phase="Running", startTime=utc(NOW + 1 + ahead_s))
    assert pod.outcome_at(NOW + PULL_S + 1, LIMIT_S) is RUNNING
    assert pod.outcome_at(NOW + PULL_S + LIMIT_S - 10, LIMIT_S) is RUNNING
    assert pod.outcome_at(NOW + PULL_S + LIMIT_S + 10, LIMIT_S) is FAILED


def test_a_pod_that_the_kubelet_took_late_has_its_time() -> None:
    running = {"running": {"startedAt": utc(NOW + 610)}}
    pod = seen(running, phase="Running", startTime=utc(NOW + 600))
    assert pod.outcome_at(NOW + 610 + LIMIT_S, LIMIT_S) is RUNNING
    assert pod.outcome_at(NOW + 611 + LIMIT_S, LIMIT_S) is FAILED


def test_who_does_not_end_in_time_fails_unless_it_is_our_own_check() -> None:
    running = {"running": {"startedAt": utc(NOW)}}
    late = NOW + LIMIT_S + 1
    assert seen(running, ("gpu_burn", "1800")).outcome_at(late, LIMIT_S) is FAILED
    assert seen(running, OURS).outcome_at(late, LIMIT_S) is BROKEN
    assert seen({}, ("gpu_burn", "1800")).outcome_at(late, LIMIT_S) is BROKEN
