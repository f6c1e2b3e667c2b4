"""Planned disruptions: nothing is taken away before the ranks could save."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang, GangSpec
from tramontane.api.trainingjob import HandshakeWhy, JobPhase, TrainingJob
from tramontane.controllers.trainingjob.actions import Create, Drain, Plan
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.podwork import FENCE_GRACE_S
from tramontane.controllers.trainingjob.progress import Exited, Marks, Saved
from tramontane.controllers.trainingjob.words import Slow
from tramontane.kube.views import PodView
from unit.trainingjob.builders import (
    NOW,
    a_blade,
    a_gang,
    a_job,
    a_pod,
    a_world,
    after,
    going,
    pods,
    quarantined,
    running,
)

MARKS = Marks(step=50, step_at=NOW, first_step=1, first_step_at=NOW - 50, agent_attempt=1)
MOVED = ("b0", "b1", "b4", "b3")


def degraded(name: str = "b2") -> Blade:
    return a_blade(
        name,
        "Quarantined",
        reason="HardwareFault",
        verdict={"severity": "Degraded", "action": "Drain"},
        report={"faults": [{"code": "xid-63", "severity": "Degraded"}]},
    )


def a_running_world(job: TrainingJob | None = None, **given: Any) -> World:
    given = {"pods": pods(), "marks": MARKS, "log_alive": True, **given}
    return a_world(job or a_job(running(step=50)), **given)


def told(gang: Gang | None, spec: GangSpec | None, seats: tuple[str, ...] = MOVED) -> Gang:
    """Return the gang as the scheduler leaves it once it has seen the spec."""
    assert gang is not None
    placement = {"size": len(seats), "seats": list(seats)}
    return Gang.model_validate(
        {
            **gang.to_dict(),
            "spec": (spec or gang.spec).to_dict(),
            "status": {**gang.status.to_dict(), "placement": placement},
        }
    )


def drained(which: tuple[PodView, ...], attempt: int = 1) -> tuple[PodView, ...]:
    return tuple(
        replace(pod, annotations={**pod.annotations, "tramontane.dev/drain": str(attempt)})
        for pod in which
    )


def causes(planned: Plan) -> list[tuple[str, str | None, str | None, tuple[int, ...]]]:
    return [(str(i.cause), i.code, i.blade, i.seats) for i in planned.status.incidents]


def a_drain() -> tuple[World, Plan]:
    """Return the world in which a degraded blade's seat has a new place, and its plan."""
    world = a_running_world(blades={"b2": degraded()})
    asked = plan(world)
    assert asked.gang is not None
    assert [(one.seat, one.blade) for one in asked.gang.lost] == [(2, "b2")]
    # It trains on until there is a place to go to.
    assert asked.status.phase is JobPhase.RUNNING
    assert not any((asked.deletes, asked.drains, asked.status.incidents, asked.status.handshake))
    world = replace(world, gang=told(world.gang, asked.gang))
    return world, plan(world)


def test_a_degraded_blade_is_left_after_a_checkpoint() -> None:
    world, first = a_drain()
    assert first.record_first
    assert first.status.phase is JobPhase.CHECKPOINTING
    assert first.status.handshake is not None
    assert first.status.handshake.why is HandshakeWhy.DRAIN
    assert clock.parse(first.status.handshake.deadline) == NOW + 120
    assert first.drains == tuple(Drain(pod.name, pod.uid, 1) for pod in pods())
    assert not any((first.deletes, first.raises, first.creates, first.status.incidents))
    assert "save a checkpoint" in (first.status.message or "")

    # They are told once, and waited for.
    world = after(world, first, pods=drained(pods()), now=NOW + 1)
    waiting = plan(world)
    assert not any((waiting.drains, waiting.deletes, waiting.status.incidents))
    assert waiting.status.phase is JobPhase.CHECKPOINTING

    saved = replace(MARKS, step=52, saved=Saved(52, NOW + 2))
    world = after(world, waiting, marks=saved, now=NOW + 4)
    acts = plan(world)
    assert acts.record_first
    assert causes(acts) == [("BladeFault", "xid-63", "b2", (2,))]
    assert acts.status.handshake is None
    assert acts.status.attempt == 2
    assert [(one.name, one.grace_s) for one in acts.deletes] == [("llama-2", FENCE_GRACE_S)]
    assert not any((acts.creates, acts.raises, acts.drains))

    # It moves as after a loss.
    left = tuple(pod for pod in drained(pods()) if pod.name != "llama-2")
    world = after(world, acts, pods=left, now=NOW + 5)
    made = plan(world)
    assert made.creates == (Create(2, "b4"),)
    new = a_pod(2, "b4", 2, creationTimestamp=clock.utc(NOW + 5))
    world = after(world, made, pods=(*left, new), now=NOW + 6)
    assert [one.name for one in plan(world).raises] == ["llama-0", "llama-1", "llama-3"]


@pytest.mark.parametrize(
    ("marks", "at", "acts"),
    [
        pytest.param(MARKS, NOW + 119, False, id="grace is not over"),
        pytest.param(MARKS, NOW + 120, True, id="grace is over"),
        pytest.param(None, NOW + 1, False, id="the log is silent"),
        pytest.param(replace(MARKS, saved=Saved(40, NOW - 1)), NOW + 1, False, id="an old one"),
        pytest.param(replace(MARKS, saved=Saved(51, NOW + 1)), NOW + 2.9, False, id="saved now"),
        pytest.param(replace(MARKS, saved=Saved(51, NOW + 1)), NOW + 3, True, id="saved"),
        pytest.param(
            replace(MARKS, step=52, saved=Saved(51, NOW + 1)), NOW + 9, False, id="steps after it"
        ),
        pytest.param(replace(MARKS, exited=Exited(1, 0, NOW + 1)), NOW + 1, True, id="ended"),
        pytest.param(replace(MARKS, exited=Exited(1, 1, NOW + 1)), NOW + 1, True, id="crashed"),
    ],
)
def test_when_a_handshake_is_over(marks: Marks | None, at: float, acts: bool) -> None:
    world, first = a_drain()

    planned = plan(after(world, first, pods=drained(pods()), marks=marks, now=at))

    assert bool(planned.status.incidents) is acts
    assert planned.ask == ()  # that they ended is no crash


def test_a_loss_during_a_handshake_comes_first_and_the_move_goes_with_it() -> None:
    world, first = a_drain()
    lost = {**world.blades, "b0": quarantined("b0")}

    planned = plan(after(world, first, pods=drained(pods()), blades=lost, now=NOW + 1))

    assert causes(planned) == [
        ("BladeFault", "xid-79", "b0", (0,)),
        ("BladeFault", "xid-63", "b2", (2,)),
    ]
    assert planned.status.handshake is None
    assert planned.status.phase is JobPhase.RECOVERING
    assert planned.status.attempt == 2
    assert [one.name for one in planned.deletes] == ["llama-0", "llama-2"]


def test_what_does_not_step_has_nothing_to_save() -> None:
    job = a_job(running() | {"phase": "Starting"})
    world = a_running_world(job, blades={"b2": degraded()}, marks=None)
    asked = plan(world)

    planned = plan(replace(world, gang=told(world.gang, asked.gang)))

    assert causes(planned) == [("BladeFault", "xid-63", "b2", (2,))]
    assert [one.name for one in planned.deletes] == ["llama-2"]
    assert not planned.drains


def test_without_an_agent_the_pod_that_moves_is_told_by_its_deletion() -> None:
    job = a_job(running(step=50), recovery={"agent": "None"})
    world = a_running_world(job, blades={"b2": degraded()})
    asked = plan(world)

    planned = plan(replace(world, gang=told(world.gang, asked.gang)))

    assert [(one.name, one.grace_s) for one in planned.deletes] == [("llama-2", None)]
    assert not planned.drains


def test_a_fault_that_clears_during_the_handshake_changes_nothing() -> None:
    world, first = a_drain()
    well = {**world.blades, "b2": a_blade("b2")}

    world = after(world, first, pods=drained(pods()), blades=well, now=NOW + 1)
    assert plan(world).status.phase is JobPhase.CHECKPOINTING

    acts = plan(replace(world, marks=replace(MARKS, saved=Saved(52, NOW + 1)), now=NOW + 3))
    assert causes(acts) == [("BladeFault", "fault-cleared", "b2", (2,))]
    assert [one.name for one in acts.deletes] == ["llama-2"]


def slow_world(stragglers: str, *, spares: tuple[str, ...] = ("b4",)) -> World:
    job = a_job(running(step=50), progress={"stragglers": stragglers})
    gang = a_gang(job)
    placement = {"size": 4, "seats": ["b0", "b1", "b2", "b3"], "spares": list(spares)}
    gang = Gang.model_validate(
        {**gang.to_dict(), "status": {**gang.status.to_dict(), "placement": placement}}
    )
    return a_running_world(job, gang=gang, slow=Slow(3, 1.8, NOW - 70, pods()[3].uid))


def test_a_straggler_is_reported_once_an_hour() -> None:
    world = slow_world("Report")

    planned = plan(world)

    assert causes(planned) == [("Straggler", "slow-rank-1.8x", "b3", (3,))]
    assert planned.status.incidents[0].running_after is not None
    assert planned.status.phase is JobPhase.RUNNING
    assert planned.status.attempt == 1
    assert [(one.type_, one.reason) for one in planned.events] == [("Warning", "Straggler")]
    assert not any((planned.gang, planned.deletes, planned.drains))
    assert len(plan(after(world, planned, now=NOW + 60)).status.incidents) == 1
    assert len(plan(after(world, planned, now=NOW + 3700)).status.incidents) == 2


def test_a_straggler_moves_to_a_spare_after_a_checkpoint() -> None:
    world = slow_world("Move")
    asked = plan(world)
    assert asked.gang is not None
    assert [(one.seat, one.blade) for one in asked.gang.lost] == [(3, "b3")]
    assert asked.status.incidents == ()

    moved = told(world.gang, asked.gang, ("b0", "b1", "b2", "b4"))
    first = plan(replace(world, gang=moved))
    assert first.status.handshake is not None
    assert first.status.handshake.why is HandshakeWhy.STRAGGLER

    saved = replace(MARKS, saved=Saved(52, NOW + 2))
    acts = plan(
        after(
            replace(world, gang=moved),
            first,
            pods=drained(pods()),
            marks=saved,
            slow=None,
            now=NOW + 4,
        )
    )
    assert [(i.cause, i.blade, i.seats) for i in acts.status.incidents] == [
        ("Straggler", "b3", (3,))
    ]


@pytest.mark.parametrize(
    ("stragglers", "spares"),
    [pytest.param("Off", ("b4",), id="off"), pytest.param("Move", (), id="no spare")],
)
def test_a_straggler_that_stays(stragglers: str, spares: tuple[str, ...]) -> None:
    planned = plan(slow_world(stragglers, spares=spares))

    assert not any((planned.gang, planned.status.incidents))


def test_a_suspension_is_a_handshake_that_the_kubelets_hold() -> None:
    world = a_running_world(a_job(running(step=50), suspend=True))

    planned = plan(world)

    assert planned.status.handshake is not None
    assert planned.status.handshake.why is HandshakeWhy.SUSPEND
    assert [one.grace_s for one in planned.deletes] == [None] * 4
    # The log is read to its end: it says whether a checkpoint was saved.
    assert planned.follow is not None
    assert planned.follow.name == "llama-0"
    leaving = tuple(map(going, pods()))
    world = after(world, planned, pods=leaving, marks=replace(MARKS, saved=Saved(51, NOW + 1)))
    later = plan(replace(world, now=NOW + 1))
    assert later.status.last_checkpoint is not None
    assert later.status.last_checkpoint.step == 51
    assert later.status.handshake == planned.status.handshake
    gone = plan(after(world, later, pods=(), now=NOW + 2))
    assert gone.status.phase is JobPhase.SUSPENDED
    assert gone.status.handshake is None


def test_a_blade_that_broke_the_job_often_is_left_though_its_pods_are_there() -> None:
    broke = [
        {
            "at": clock.micro(NOW - 60 * n),
            "cause": "BladeFault",
            "code": "rank-ended",
            "blade": "b1",
            "seats": [1],
            "runningAfter": "5s",
        }
        for n in (2, 1)
    ]
    world = a_running_world(a_job(running(step=50, incidents=broke)))

    planned = plan(world)

    assert planned.gang is not None
    assert [(one.seat, one.blade) for one in planned.gang.lost] == [(1, "b1")]
    assert planned.status.phase is JobPhase.RUNNING


def test_a_suspicion_is_of_one_pod() -> None:
    world = slow_world("Move")
    other = a_pod(3, "b3", 2)

    planned = plan(replace(world, pods=(*pods(3), other)))

    assert planned.gang is None


def test_the_new_blade_is_lost_before_anybody_has_moved_there() -> None:
    world, first = a_drain()
    blades = {**world.blades, "b4": quarantined("b4")}

    planned = plan(after(world, first, pods=drained(pods()), blades=blades, now=NOW + 1))

    assert planned.status.incidents == ()
    assert planned.status.phase is JobPhase.CHECKPOINTING
    assert planned.gang is not None
    assert sorted((one.seat, one.blade) for one in planned.gang.lost) == [(2, "b2"), (2, "b4")]


def test_the_old_blade_turns_fatal_before_it_was_left() -> None:
    world, first = a_drain()
    blades = {**world.blades, "b2": quarantined("b2")}

    planned = plan(after(world, first, pods=drained(pods()), blades=blades, now=NOW + 1))

    assert causes(planned) == [("BladeFault", "xid-79", "b2", (2,))]
