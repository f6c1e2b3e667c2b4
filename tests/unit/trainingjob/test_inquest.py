"""A life that ended with all its pods there: who is to blame, and that nobody's pod pays for it."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.trainingjob import JobPhase
from tramontane.controllers.trainingjob.actions import Plan, Raise
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.progress import Exited, Marks, Saved
from tramontane.controllers.trainingjob.words import LastWords
from unit.trainingjob.builders import (
    NOW,
    a_blade,
    a_job,
    a_node,
    a_world,
    after,
    done,
    pods,
    running,
)

STEPPED = Marks(
    step=50,
    step_at=NOW - 1,
    first_step=1,
    first_step_at=NOW - 51,
    step_time_s=1.0,
    agent_attempt=1,
)
UIDS = [pod.uid for pod in pods()]


def ended(seconds_ago: float, code: int = 1, attempt: int = 1) -> Exited:
    return Exited(attempt, code, NOW - seconds_ago)


def saying(*words: LastWords) -> dict[str, LastWords]:
    return dict(zip(UIDS, words, strict=True))


def crashed(**given: Any) -> World:
    """Return a world in which rank 0 has ended by itself and all pods are there."""
    marks = replace(STEPPED, exited=ended(0.5))
    return a_world_of(marks, **given)


def a_world_of(marks: Marks, job: Any = None, **given: Any) -> World:
    job = job or a_job(running(step=50, stepTime="1s"))
    log = {"log_alive": True, "log_since": NOW - 50}
    return a_world(job, pods=pods(), marks=marks, **{**log, **given})


def causes(planned: Plan) -> list[tuple[str, str | None, str | None, tuple[int, ...]]]:
    return [(str(i.cause), i.code, i.blade, i.seats) for i in planned.status.incidents]


def test_all_are_asked_before_anything_is_decided() -> None:
    planned = plan(crashed())

    assert [pod.uid for pod in planned.ask] == UIDS
    assert not any((planned.deletes, planned.raises, planned.status.incidents))
    assert planned.status.phase is JobPhase.RUNNING

    some = {UIDS[0]: LastWords(answered=True)}
    assert len(plan(crashed(words=some)).ask) == 4


def test_the_first_to_end_is_to_blame_and_no_pod_pays() -> None:
    words = saying(
        LastWords(True, (), ended(0.5)),
        LastWords(True, (), ended(0.4)),
        LastWords(True, ("Killed",), ended(0.9, 137)),
        LastWords(True, (), ended(0.3)),
    )

    planned = plan(crashed(words=words))

    assert causes(planned) == [("UserError", "exit-137", "b2", (2,))]
    assert planned.record_first
    assert planned.status.attempt == 2
    assert planned.status.restarts is not None
    assert (planned.status.restarts.user, planned.status.restarts.infra) == (1, 0)
    assert not planned.deletes
    # All are told at once: the first crash is not waited for.
    assert planned.raises == tuple(Raise(pod.name, pod.uid) for pod in pods())
    assert planned.ask == ()


def test_a_second_crash_is_waited_for() -> None:
    earlier = {
        "at": clock.micro(NOW - 600),
        "cause": "UserError",
        "code": "exit-1",
        "blade": "b1",
        "seats": [1],
        "runningAfter": "5s",
    }
    job = a_job(running(step=50, incidents=[earlier]))
    words = saying(*(LastWords(True, (), ended(0.5)) for _ in range(4)))

    planned = plan(a_world_of(replace(STEPPED, exited=ended(0.5)), job, words=words))

    assert planned.status.phase is JobPhase.RECOVERING
    assert not any((planned.deletes, planned.raises))
    later = plan(after(a_world_of(STEPPED, job), planned, now=NOW + 10))
    assert len(later.raises) == 4


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        pytest.param(
            {"blades": {"b3": a_blade("b3", "Suspect")}},
            ("BladeFault", "rank-ended", "b3", (3,)),
            id="a blade that is not sound",
        ),
        pytest.param(
            {"blades": {"b3": a_blade("b3", verdict={"severity": "Degraded", "action": "Drain"})}},
            ("BladeFault", "rank-ended", "b3", (3,)),
            id="a blade with a fault",
        ),
    ],
)
def test_a_faulty_blade_takes_the_blame(given: dict[str, Any], cause: tuple[Any, ...]) -> None:
    words = saying(*(LastWords(True, (), ended(0.5)) for _ in range(4)))

    planned = plan(crashed(words=words, **given))

    assert causes(planned) == [cause]
    assert planned.status.restarts is not None
    assert planned.status.restarts.user == 0
    assert len(planned.raises) == 4


def test_who_cannot_be_asked_is_waited_for_until_its_node_is_known_for_lost() -> None:
    words = saying(
        LastWords(True, (), ended(0.5)),
        LastWords(True, (), ended(0.5)),
        LastWords(answered=False),
        LastWords(True, (), ended(0.5)),
    )
    waits = plan(crashed(words=words))
    assert not any((waits.raises, waits.status.incidents))
    assert len(waits.ask) == 4

    # Its node turns out to be gone: the usual way, and nobody else is blamed.
    lost = {"b2": a_node("b2", "Unknown", NOW - 46)}
    found = plan(crashed(words=words, nodes=lost))
    assert causes(found) == [("NodeLost", "node-not-ready", "b2", (2,))]

    # Nothing comes of it: they go on where they are.
    patience = plan(replace(crashed(words=words), now=NOW + 56))
    assert causes(patience) == [("NodeLost", "kubelet-silent", "b2", (2,))]
    assert len(patience.raises) == 4


@pytest.mark.parametrize(
    "marks",
    [
        pytest.param(replace(STEPPED, exited=ended(0.5, 0)), id="it has done its work"),
        pytest.param(replace(STEPPED, exited=ended(0.5, 1, attempt=0)), id="an earlier life"),
        pytest.param(STEPPED, id="it steps"),
        pytest.param(Marks(), id="nothing is known"),
    ],
)
def test_what_is_no_end(marks: Marks) -> None:
    planned = plan(a_world_of(marks))

    assert planned.ask == ()
    assert planned.status.incidents == ()


def test_a_hang_restarts_all_ranks_in_their_pods() -> None:
    marks = replace(STEPPED, step_at=NOW - 121)
    asked = plan(a_world_of(marks))
    assert len(asked.ask) == 4

    planned = plan(a_world_of(marks, words=saying(*(LastWords(True) for _ in range(4)))))

    assert causes(planned) == [("Hang", "no-step", None, (0,))]
    assert planned.status.incidents[0].detected_after == "2m1s"
    assert len(planned.raises) == 4
    assert not planned.deletes
    assert planned.status.restarts is not None
    assert planned.status.restarts.infra == 1


def test_a_rank_that_ended_while_rank_0_waits_for_it_is_no_hang() -> None:
    words = saying(
        LastWords(True),
        LastWords(True, ("MemoryError",), ended(100, 1)),
        LastWords(True),
        LastWords(True),
    )

    planned = plan(a_world_of(replace(STEPPED, step_at=NOW - 121), words=words))

    assert causes(planned) == [("UserError", "exit-1", "b1", (1,))]


def test_without_an_agent_a_hang_costs_the_pods() -> None:
    job = a_job(running(step=50), recovery={"agent": "None"})
    words = saying(*(LastWords(True) for _ in range(4)))

    planned = plan(a_world_of(replace(STEPPED, step_at=NOW - 121), job, words=words))

    assert causes(planned) == [("Hang", "no-step", None, (0,))]
    assert len(planned.deletes) == 4


@pytest.mark.parametrize(
    ("spec", "marks", "hangs"),
    [
        pytest.param({}, {"step_at": NOW - 119}, False, id="two minutes at least"),
        pytest.param({}, {"step_at": NOW - 120}, True, id="two minutes"),
        pytest.param({}, {"step_at": NOW - 299, "step_time_s": 30.0}, False, id="ten steps"),
        pytest.param({}, {"step_at": NOW - 300, "step_time_s": 30.0}, True, id="ten steps over"),
        pytest.param(
            {},
            {"step_at": NOW - 170, "saves": (Saved(40, NOW - 400, 60.0),)},
            False,
            id="three saves",
        ),
        pytest.param(
            {"progress": {"stallAfter": "20s"}}, {"step_at": NOW - 20}, True, id="as given"
        ),
        pytest.param(
            {"progress": {"stallAfter": "20s"}},
            {"step_at": NOW - 60, "saving_since": NOW - 59},
            False,
            id="it saves",
        ),
        pytest.param(
            {"progress": {"stallAfter": "20s"}},
            {"step_at": NOW - 60, "saved": Saved(50, NOW - 1)},
            False,
            id="it has just saved",
        ),
        pytest.param(
            {"progress": {"stallAfter": "20s"}},
            {"step_at": NOW - 130, "saving_since": NOW - 120},
            True,
            id="it has been saving for longer than grace",
        ),
        pytest.param(
            {"progress": {"stallAfter": "20s"}},
            {"step_at": None, "step": None, "unmatched": 9000},
            False,
            id="the pattern matches nothing",
        ),
        pytest.param(
            {"progress": {"stallAfter": "20s"}},
            {"step_at": NOW - 60, "agent_attempt": 0},
            False,
            id="the marks are of an earlier life",
        ),
    ],
)
def test_when_standing_still_is_a_hang(
    spec: dict[str, Any], marks: dict[str, Any], hangs: bool
) -> None:
    job = a_job(running(step=50), **spec)
    words = saying(*(LastWords(True) for _ in range(4)))

    planned = plan(a_world_of(replace(STEPPED, **marks), job, words=words))

    assert bool(planned.status.incidents) is hangs


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"log_alive": False}, id="the log is not read"),
        pytest.param({"log_since": NOW - 4}, id="its backlog may still come"),
    ],
)
def test_a_log_that_tells_nothing_is_no_hang(given: dict[str, Any]) -> None:
    words = saying(*(LastWords(True) for _ in range(4)))

    planned = plan(a_world_of(replace(STEPPED, step_at=NOW - 500), words=words, **given))

    assert planned.status.incidents == ()
    assert planned.ask == ()


def test_it_looks_again_when_a_hang_could_be_known() -> None:
    planned = plan(a_world_of(replace(STEPPED, step_at=NOW - 110)))

    assert planned.after == pytest.approx(10.0)


def test_a_restart_that_never_steps_is_a_hang_too() -> None:
    open_one = {
        "at": clock.micro(NOW - 700),
        "cause": "NodeLost",
        "blade": "b2",
        "seats": [2],
        "replacedAfter": "10s",
    }
    job = a_job(running(attempt=2, step=50, incidents=[open_one]) | {"phase": "Recovering"})
    marks = Marks(agent_attempt=2, saved=Saved(40, NOW - 900))
    words = dict(zip([pod.uid for pod in pods(epoch=2)], [LastWords(True)] * 4, strict=True))
    world = replace(a_world_of(marks, job, words=words), pods=pods(epoch=2))

    planned = plan(world)

    assert [one.cause for one in planned.status.incidents] == ["NodeLost", "Hang"]
    assert planned.status.attempt == 3
    early = plan(replace(world, now=NOW - 100))
    assert [one.cause for one in early.status.incidents] == ["NodeLost"]


def test_with_restart_gang_pods_are_made_anew_and_none_is_raised_as_well() -> None:
    job = a_job(running(step=50), recovery={"restart": "Gang"})
    words = saying(*(LastWords(True, (), ended(0.5)) for _ in range(4)))

    planned = plan(a_world_of(replace(STEPPED, exited=ended(0.5)), job, words=words))

    assert len(planned.deletes) == 4
    assert planned.raises == ()


def test_a_rank_that_has_done_its_work_does_not_hide_a_hang() -> None:
    others = pods()
    ended_pod = done(2, "b2")
    there = (*others[:2], ended_pod, others[3])
    marks = replace(STEPPED, step_at=NOW - 121)
    asked = plan(replace(a_world_of(marks), pods=there))
    assert [pod.name for pod in asked.ask] == ["llama-0", "llama-1", "llama-3"]


def test_rank_0_has_done_its_work_and_others_never_end() -> None:
    others = pods()
    there = (done(0, "b0"), *others[1:])
    marks = replace(STEPPED, exited=Exited(1, 0, NOW - 600), step_at=NOW - 601)
    world = replace(a_world_of(marks, log_alive=False), pods=there)

    assert len(plan(world).ask) == 3
    assert plan(replace(world, now=NOW - 1)).ask == ()


def test_a_blade_that_a_person_holds_takes_no_blame() -> None:
    held = a_blade("b3", "Quarantined", reason="HeldByPerson")
    words = saying(*(LastWords(True, (), ended(0.5)) for _ in range(4)))

    planned = plan(crashed(words=words, blades={"b3": held}))

    assert [one.cause for one in planned.status.incidents] == ["UserError"]


def test_ranks_that_end_again_and_again_on_a_doubted_blade_wait() -> None:
    earlier = {
        "at": clock.micro(NOW - 30),
        "cause": "BladeFault",
        "code": "rank-ended",
        "blade": "b3",
        "seats": [3],
        "runningAfter": "5s",
    }
    job = a_job(running(step=50, incidents=[earlier]))
    words = saying(*(LastWords(True, (), ended(0.5)) for _ in range(4)))
    marks = replace(STEPPED, exited=ended(0.5))

    planned = plan(a_world_of(marks, job, words=words, blades={"b3": a_blade("b3", "Suspect")}))

    assert planned.raises == ()
    assert "the restart waits until" in (planned.status.message or "")
