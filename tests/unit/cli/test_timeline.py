"""`tramontane timeline`: what happened, in order, from statuses and Events."""

import json
from typing import Any

import click
import pytest

from tramontane.api.blade import Blade
from tramontane.api.gang import Gang
from tramontane.api.inferencedeployment import InferenceDeployment
from tramontane.api.trainingjob import TrainingJob
from tramontane.cli import happenings, timelineblade
from tramontane.cli.happenings import Happening
from unit.cli.desk import Desk, example

Raw = dict[str, Any]


def job(**status: Any) -> TrainingJob:
    raw = example("trainingjob")
    meta = {"name": "llama", "namespace": "ml", "creationTimestamp": "2026-11-24T10:02:11Z"}
    return TrainingJob.model_validate({"metadata": meta, "spec": raw["spec"], "status": status})


def shown(*told: Any) -> list[str]:
    ordered = happenings.in_order([one for some in told for one in some])
    return [click.unstyle(line) for line in happenings.lines(ordered)]


def test_a_job_s_life_line_by_line() -> None:
    one = job(
        phase="Running",
        phaseSince="2026-11-24T11:33:02Z",
        startedAt="2026-11-24T10:04:55Z",
        conditions=[
            {"type": "Admitted", "status": "True", "reason": "Placed",
             "lastTransitionTime": "2026-11-24T10:02:12Z"},
            {"type": "GangReady", "status": "True", "reason": "Ready",
             "lastTransitionTime": "2026-11-24T10:03:40Z"},
            {"type": "Ready", "status": "True", "reason": "Running",
             "lastTransitionTime": "2026-11-24T10:04:55Z"},
        ],
        incidents=[
            {"at": "2026-11-24T11:31:07Z", "cause": "BladeFault", "code": "xid-79",
             "blade": "gpu-0417", "seats": [17], "replacedBy": "gpu-0990", "detectedAfter": "1.4s",
             "replacedAfter": "22s", "runningAfter": "115s", "reworkSteps": 40},
        ],
    )  # fmt: skip
    fault = (
        "xid-79 gpu-0417 (seat 17): detected +1.4s → replaced by gpu-0990 +22s → steps again +115s "
        "(40 steps done again)"
    )
    assert shown(happenings.of_job(one)) == [
        "2026-11-24",
        "  10:02:11Z            submitted",
        "  10:02:12Z     +1.0s  admitted",
        "  10:03:40Z      +88s  gang ready",
        "  10:04:55Z      +75s  first ran",
        f"  11:31:07Z    +1h26m  {fault}",
        "  11:33:02Z     +115s  Running",
    ]


def test_an_incident_that_is_not_over_says_so() -> None:
    one = job(incidents=[{"at": "2026-11-24T11:31:07Z", "cause": "Hang", "detectedAfter": "5m"}])
    assert shown(happenings.of_job(one))[-1].endswith("Hang: detected +5m00s → not over yet")


def test_the_end_says_where_the_time_went() -> None:
    lost = {"queue": "3s", "restart": "115s", "checkpoint": "201s"}
    assert happenings.goodput(job(goodput={"ratio": "0.974", "lost": lost})) == (
        "goodput 97.4%  lost: checkpoint 3m21s, restart 115s, queue 3.0s"
    )
    assert happenings.goodput(job()) == ""
    assert happenings.goodput(job(goodput={"ratio": "1"})) == "goodput 100.0%  lost: nothing"


def test_now_is_told_without_the_name_of_the_job() -> None:
    one = job(
        phase="Queued",
        phaseSince="2026-11-24T15:00:00Z",
        message="Gang ml/llama: needs 32 blades",
    )
    assert happenings.now(one, 1_795_532_700) == "now Queued for 5m: needs 32 blades"
    assert happenings.now(job(phase="Failed", finishedAt="2026-11-24T15:00:00Z"), 0) == ""


def event(reason: str, at: str, note: str = "note", **more: Any) -> Raw:
    return {"metadata": {}, "reason": reason, "eventTime": at, "note": note, **more}


@pytest.mark.parametrize(
    ("at", "is_told"),
    [
        pytest.param("2026-11-24T11:31:30.5Z", False, id="within the minute: the same"),
        pytest.param("2026-11-24T11:33:07.5Z", True, id="later: another"),
    ],
)
def test_an_event_that_repeats_the_status_is_left_out(at: str, is_told: bool) -> None:
    one = job(incidents=[{"at": "2026-11-24T11:31:07Z", "cause": "BladeFault"}])
    lines = shown(happenings.of_job(one), happenings.of_events([event("BladeFault", at)]))
    assert any("BladeFault: note" in line for line in lines) is is_told


def test_a_series_is_told_once() -> None:
    one = event("ImageError", "2026-11-24T11:31:07Z", series={"count": 12}, type="Warning")
    (told,) = happenings.of_events([one])
    assert (told.what, told.bad) == ("ImageError: note (12 times)", True)


def test_an_event_without_a_time_is_no_traceback() -> None:
    assert not list(happenings.of_events([{"metadata": {}, "reason": "Odd"}]))
    assert not list(happenings.of_events([event("Odd", "yesterday")]))


def test_a_day_is_a_heading() -> None:
    told = [Happening(1_764_028_799, "late"), Happening(1_764_028_800, "early")]
    lines = [click.unstyle(one) for one in happenings.lines(told)]
    assert [line[:10] for line in lines] == ["2025-11-24", "  23:59:59", "2025-11-25", "  00:00:00"]


def test_a_blade_a_gang_and_a_deployment_have_lives_too() -> None:
    blade = " | ".join(shown(timelineblade.of_blade(Blade.model_validate(example("blade")))))
    for part in (
        "xid-79 GPU 3: Healthy → Quarantined, reported within 1s, with research/llama: GPU 3: xid",
        "xid-79 GPU 3 over: reset, back in 14m",
        "collective passed: 341.5 GB/s",
        "held by anna: fan replaced",
        "released by anna: new fan",
    ):
        assert part in blade
    status = {
        "placement": {"size": 2, "seats": ["a", "b"], "spares": ["c"]},
        "placedAt": "2026-11-24T15:04:07Z",
    }
    gang = {**example("gang"), "status": status}
    assert shown(happenings.of_gang(Gang.model_validate(gang)))[-1].endswith(
        "placed: 2 seats, 1 spare"
    )
    served = InferenceDeployment.model_validate(example("inferencedeployment"))
    lines = " | ".join(shown(happenings.of_deployment(served)))
    assert "scale 2 to 3: queue 9 per replica" in lines
    assert "replica claims-1 failed: rank 1 ended with exit code 137" in lines
    assert "replica claims-1 Serving on gpu-0001" in lines


# From the command line to the requests


@pytest.fixture
def ml(desk: Desk) -> Desk:
    made = {"creationTimestamp": "2026-11-24T10:02:11Z"}
    raw = example("trainingjob")
    whole = {"kind": "TrainingJob", "metadata": made, "spec": raw["spec"]}
    about = desk.put("trainingjobs", "llama", status=raw["status"], **whole)
    placed = {
        "placement": {"size": 2, "seats": ["a", "b"]},
        "placedAt": "2026-11-24T10:02:11Z",  # within the second of the submission
    }
    spec = example("gang")["spec"]
    desk.put("gangs", "llama", kind="Gang", metadata=made, spec=spec, status=placed)
    desk.event(about, "Running", "attempt 1: 128 ranks run", "2026-11-24T10:05:00.000000Z")
    other = desk.put("trainingjobs", "other", **whole)
    desk.event(other, "Running", "of another", "2026-11-24T10:05:00.000000Z")
    return desk


@pytest.mark.parametrize("said", ["tj/llama", "llama", "ml/llama", "job/ml/llama"])
def test_a_job_is_told_with_its_gang_and_its_events(ml: Desk, said: str) -> None:
    text = ml.says("timeline", said)
    assert text.index("submitted") < text.index("placed: 2 seats") < text.index("attempt 1: 128")
    assert "of another" not in text
    assert text.splitlines()[-1].startswith("goodput 97.4%  lost: rework 6m40s, queue 5m10s")


def test_for_programs_times_are_times(ml: Desk) -> None:
    whole = json.loads(ml.says("timeline", "tj/llama", "-o", "json"))
    assert whole["object"] == "tj/ml/llama"
    assert whole["happened"][0] == {
        "at": "2026-11-24T10:02:11.000000Z", "what": "submitted", "source": "status", "bad": False,
    }  # fmt: skip
    assert whole["goodput"]["ratio"] == "0.974"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["tj/lama"], 'did you mean "llama"?'),
        (["lama"], 'did you mean "tj/llama"?'),
        (["tj/llama", "-n", "eu"], "TrainingJob llama: must exist"),
        (["eu/llama"], "must be the name of an object"),
    ],
)
def test_what_is_not_there_is_said_with_what_was_meant(
    ml: Desk, said: list[str], words: str
) -> None:
    done = ml.run("timeline", *said)
    assert done.exit_code == 1
    assert words in " ".join(done.output.split())


@pytest.mark.parametrize("said", ["pod/llama/x", "tj/", "a/b/c/d", "/llama"])
def test_what_is_no_name_is_a_wrong_question(ml: Desk, said: str) -> None:
    done = ml.run("timeline", said)
    assert done.exit_code == 2
    assert "tj/NAME, inf/NAME, gang/NAME, blade/NAME, np/NAME" in " ".join(done.output.split())


def test_the_same_name_in_two_namespaces_has_to_be_told_apart(ml: Desk) -> None:
    ml.put("trainingjobs", "llama", "eu", spec=example("trainingjob")["spec"])
    done = ml.run("timeline", "tj/llama")
    assert done.exit_code == 1
    assert "must be one object (got tj/eu/llama, tj/ml/llama)" in " ".join(done.output.split())
    assert "submitted" in ml.says("timeline", "tj/llama", "-n", "ml")


def test_the_namespace_of_the_context_comes_first(ml: Desk) -> None:
    ml.put("trainingjobs", "llama", "eu", spec=example("trainingjob")["spec"])
    text = ml.kubeconfig.read_text()
    ml.kubeconfig.write_text(text.replace('"cluster": "c",', '"cluster": "c", "namespace": "ml",'))
    assert json.loads(ml.says("timeline", "tj/llama", "-o", "json"))["object"] == "tj/ml/llama"
