"""What each kind of time is given to, and when it is moved."""

from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.trainingjob import Handshake, JobIncident
from tramontane.controllers.trainingjob.account import account, cause_now
from tramontane.controllers.trainingjob.goodput import Cause, Ledger
from tramontane.controllers.trainingjob.progress import KEPT_SAVES, Marks, Saved
from unit.trainingjob.builders import NOW, Raw, a_job, a_world, pods, running

SECOND = 1000


def incident(cause: str = "BladeFault", at: float = NOW + 8, **given: Any) -> JobIncident:
    return JobIncident.model_validate(
        {"at": clock.micro(at), "cause": cause, "code": "x", "seats": [2], **given}
    )


def stepping(at: float, step: int = 50, **given: Any) -> Marks:
    """Return the marks of a job that steps every second since long ago; the last step at `at`."""
    first = {"first_step": 1, "first_step_at": NOW - 49, "step_time_s": 1.0, "agent_attempt": 1}
    return Marks(**{"step": step, "step_at": at, **first, **given})


def given_to(
    marks: Marks,
    *fresh: JobIncident,
    status: Raw | None = None,
    after_s: float = 10,
    alive: bool = True,
    begins: bool = False,
    whole: tuple[int, int] = (1, 1),
    gone: bool = False,
    **spec: Any,
) -> dict[str, float]:
    """Return where the `after_s` since NOW went, in seconds, and what was moved from before."""
    job = a_job(status or running(step=40, stepTime="1s"), **spec)
    there = () if gone else pods()
    world = a_world(job, now=NOW + after_s, marks=marks, log_alive=alive, pods=there)
    before = Ledger.of(job.status.goodput)
    told = (*job.status.incidents, *fresh)
    ledger, _ = account(world, marks, begins=begins, incidents=told, whole_groups=whole)
    assert ledger.total_ms == before.total_ms + after_s * SECOND
    moved = {cause.value: getattr(ledger, cause) - getattr(before, cause) for cause in Cause}
    return {cause: ms / SECOND for cause, ms in moved.items() if ms}


def recovering(**given: Any) -> Raw:
    """Return a status since 50 s, in `replace` until now: see `running`."""
    ledger = {"productive": "50s", "lost": {"restart": "50s"}, "restart": {"replace": "50s"}}
    return running(2, phase="Recovering", step=40, stepTime="1s", **{"goodput": ledger, **given})


@pytest.mark.parametrize(
    ("marks", "fresh", "expected"),
    [
        pytest.param(stepping(NOW + 9), [], {"productive": 10}, id="it steps"),
        pytest.param(stepping(NOW + 6), [incident()], {"productive": 6, "detect": 4}, id="a fault"),
        pytest.param(
            stepping(NOW - 3),
            [incident()],
            {"productive": -3, "detect": 13},
            id="a fault, the last step before the last write",
        ),
        pytest.param(
            Marks(), [incident()], {"productive": 8, "detect": 2}, id="a fault, nothing was read"
        ),
        pytest.param(
            stepping(NOW - 45), [incident("Hang")], {"productive": -45, "hang": 55}, id="a hang"
        ),
        pytest.param(
            stepping(NOW + 2, saving_since=NOW + 2),
            [incident()],
            {"productive": 2, "checkpoint": 6, "detect": 2},
            id="a fault while a checkpoint is written",
        ),
        pytest.param(
            stepping(NOW + 9), [incident("Preempted")], {"productive": 10}, id="told to give way"
        ),
        pytest.param(
            stepping(NOW + 9),
            [incident("Straggler", runningAfter="0s")],
            {"productive": 10},
            id="a straggler that is only reported",
        ),
        pytest.param(
            stepping(NOW + 9, saves=(Saved(10, NOW - 5, 3.0), Saved(45, NOW + 5, 2.5))),
            [],
            {"productive": 7.5, "checkpoint": 2.5},
            id="a save since the last write",
        ),
    ],
)
def test_time_of_a_running_job(
    marks: Marks, fresh: list[JobIncident], expected: dict[str, float]
) -> None:
    assert given_to(marks, *fresh) == expected


def test_a_job_that_has_just_saved_does_not_hang() -> None:
    saved = stepping(NOW - 5, saved=Saved(40, NOW + 110))

    assert given_to(saved, after_s=125) == {"productive": 125}
    assert "hang" in given_to(stepping(NOW - 5), after_s=125)


def test_a_job_that_stands_is_in_hang_from_its_last_step_and_only_once() -> None:
    marks = stepping(NOW - 5)
    assert given_to(marks, after_s=200) == {"productive": -5, "hang": 205}

    # The next look: what was moved is not moved again, by the incident neither.
    ledger = {"productive": "45s", "lost": {"queue": "50s", "hang": "205s"}}
    status = running(step=50, stepTime="1s", goodput=ledger, phaseSince=clock.utc(NOW - 50))
    fresh = incident("Hang", at=NOW + 207)
    job = a_job(status)
    for told in ((), (fresh,)):
        world = a_world(job, now=NOW + 210, marks=marks, log_alive=True)
        after, _ = account(world, marks, begins=False, incidents=told)
        assert (after.productive, after.hang) == (45 * SECOND, 215 * SECOND)


def test_pods_that_went_although_no_write_says_so_have_not_stepped() -> None:
    spent = given_to(stepping(NOW + 1), alive=False, gone=True)

    assert spent == {"productive": 1, "checkpoint": 9}


def test_a_log_that_is_not_read_does_not_say_that_a_job_hangs() -> None:
    assert given_to(stepping(NOW - 5), after_s=500, alive=False) == {"productive": 500}


def test_more_saves_than_are_kept_were_like_those() -> None:
    saves = tuple(Saved(i, NOW + 60 + 10 * i, 4.0) for i in range(1, KEPT_SAVES + 1))
    marks = stepping(NOW + 149, saves=saves)

    # One every ten seconds: fourteen in all, of which eight are kept.
    assert given_to(marks, after_s=150) == {"productive": 150 - 56, "checkpoint": 56}


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        pytest.param(None, {"replace": 10}, id="no pods yet"),
        pytest.param("34s", {"replace": 4, "resume": 6}, id="pods since 4 s after the write"),
        pytest.param("12s", {"resume": 10}, id="pods before"),
    ],
)
def test_a_restart_is_told_by_stage(replaced: str | None, expected: dict[str, float]) -> None:
    open_one = incident(at=NOW - 30, replacedAfter=replaced).to_dict()

    assert given_to(Marks(), status=recovering(incidents=[open_one])) == expected


def test_a_restart_ends_where_the_first_step_begins() -> None:
    open_one = incident(at=NOW - 30, replacedAfter="32s").to_dict()
    marks = Marks(step=42, step_at=NOW + 9, first_step=38, first_step_at=NOW + 6, step_time_s=1.0)

    spent = given_to(marks, status=recovering(incidents=[open_one]), begins=True)

    # Steps 38 to 40 were done before, and are done again.
    assert spent == {"replace": 2, "resume": 3, "productive": 5 - 3, "rework": 3}


def test_marks_of_an_earlier_life_say_nothing_of_rework() -> None:
    open_one = incident(at=NOW - 30, replacedAfter="2s").to_dict()
    world_spent = given_to(
        stepping(NOW - 31), status=recovering(incidents=[open_one]), begins=True, alive=False
    )

    assert world_spent == {"resume": 10}


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        pytest.param(Marks(), {"start": 10}, id="no step yet"),
        pytest.param(Marks(unmatched=5000), {"productive": 10}, id="the pattern matches nothing"),
        pytest.param(
            Marks(step=1, step_at=NOW + 7, first_step=1, first_step_at=NOW + 7, step_time_s=2.0),
            {"start": 5, "productive": 5},
            id="the first step",
        ),
    ],
)
def test_until_the_first_step_there_is_only_a_start(
    marks: Marks, expected: dict[str, float]
) -> None:
    assert given_to(marks, status=running()) == expected


@pytest.mark.parametrize(
    ("why", "last", "expected"),
    [
        pytest.param("Drain", NOW - 4, {"checkpoint": 10}, id="drain"),
        pytest.param("Preempt", NOW - 4, {"preempted": 10}, id="preempt"),
        pytest.param(
            "Preempt", NOW + 3, {"productive": 3, "preempted": 7}, id="a step after the order"
        ),
        pytest.param(
            "Resize",
            NOW + 0.5,
            {"productive": 1, "checkpoint": 9},
            id="a step that was in flight at the write",
        ),
    ],
)
def test_a_planned_disruption(why: str, last: float, expected: dict[str, float]) -> None:
    handshake = Handshake.model_validate(
        {"why": why, "since": clock.micro(NOW - 2), "deadline": clock.micro(NOW + 118)}
    )
    ledger = {"productive": "90s", "lost": {"checkpoint": "5s", "preempted": "5s"}}
    status = running(step=40, phase="Checkpointing", handshake=handshake.to_dict(), goodput=ledger)

    assert given_to(stepping(last), status=status) == expected


GROUPS: dict[str, Any] = {"launcher": {"replicaGroups": 4, "minReplicaGroups": 2}}


def test_a_lost_replica_group_takes_its_part_only() -> None:
    fresh = incident(at=NOW + 6)

    spent = given_to(stepping(NOW + 9), fresh, whole=(3, 4), **GROUPS)

    assert spent == {"productive": 9, "detect": 1}


def test_while_a_group_is_out_its_part_is_restart() -> None:
    status = running(
        step=40, stepTime="1s", incidents=[incident(at=NOW - 4, replacedAfter="8s").to_dict()]
    )

    spent = given_to(stepping(NOW + 9), status=status, whole=(3, 4), **GROUPS)

    assert spent == {"productive": 7.5, "replace": 1, "resume": 1.5}


def test_a_finished_job_s_ledger_is_closed() -> None:
    job = a_job(running(phase="Succeeded"))
    world = a_world(job, now=NOW + 50)

    ledger, again = account(world, Marks(), begins=False, incidents=())

    assert (ledger, again) == (Ledger.of(job.status.goodput), None)


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        pytest.param({}, Cause.QUEUE, id="new"),
        pytest.param(running(), Cause.PRODUCTIVE, id="running"),
        pytest.param(recovering(incidents=[incident().to_dict()]), Cause.REPLACE, id="no pods yet"),
        pytest.param(
            recovering(incidents=[incident(replacedAfter="1s").to_dict()]),
            Cause.RESUME,
            id="pods are there",
        ),
        pytest.param(
            running(phase="Queued", incidents=[incident("Preempted").to_dict()]),
            Cause.PREEMPTED,
            id="has given way",
        ),
        pytest.param(running(phase="Suspended"), Cause.SUSPENDED, id="suspended"),
    ],
)
def test_what_time_goes_into_from_now_on(status: Raw, cause: Cause) -> None:
    assert cause_now(a_job(status).status) is cause


def test_a_first_step_that_is_known_late_takes_back_what_was_given_to_the_restart() -> None:
    open_one = incident(at=NOW - 30, replacedAfter="2s").to_dict()
    ledger = {"productive": "50s", "lost": {"restart": "50s"}, "restart": {"resume": "50s"}}
    status = recovering(incidents=[open_one], goodput=ledger)
    marks = Marks(step=60, step_at=NOW + 9, first_step=41, first_step_at=NOW - 19, step_time_s=1.0)

    assert given_to(marks, status=status, begins=True) == {"productive": 30, "resume": -20}
