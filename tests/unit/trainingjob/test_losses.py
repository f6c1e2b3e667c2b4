"""The planner, world by world: what is lost, who is to blame, who is replaced, who stays."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.reasons import JobReason, PendingReason
from tramontane.api.trainingjob import IncidentCause, JobPhase
from tramontane.controllers.gangpods.actions import Delete
from tramontane.controllers.trainingjob.actions import Create, Plan, Raise
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.podwork import FENCE_GRACE_S
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.controllers.trainingjob.words import LastWords
from tramontane.kube.views import PodView
from unit.trainingjob.builders import (
    NOW,
    a_blade,
    a_gang,
    a_job,
    a_node,
    a_pod,
    a_pool,
    a_world,
    after,
    done,
    failed,
    going,
    pods,
    quarantined,
    running,
)

CORDONED = replace(a_node("b2"), unschedulable=True)


def lost_of(planned: Plan) -> list[tuple[int, str]]:
    return [] if planned.gang is None else [(one.seat, one.blade) for one in planned.gang.lost]


def causes(planned: Plan) -> list[tuple[str, str | None, str | None, tuple[int, ...]]]:
    return [(str(i.cause), i.code, i.blade, i.seats) for i in planned.status.incidents]


def test_a_faulty_blade_costs_one_pod() -> None:
    world = a_world(a_job(running()), pods=pods(), blades={"b2": quarantined("b2")})

    # The incident comes first; the scheduler is told, and the pod is fenced.
    first = plan(world)
    assert first.record_first
    assert causes(first) == [("BladeFault", "xid-79", "b2", (2,))]
    assert first.status.incidents[0].detected_after == "1.5s"
    assert lost_of(first) == [(2, "b2")]
    assert first.deletes == (
        Delete("llama-2", "pod-2-b2-1", FENCE_GRACE_S, "its seat has left the blade"),
    )
    assert not any((first.creates, first.raises))
    assert first.status.phase is JobPhase.RECOVERING
    assert first.status.reason is JobReason.BLADE_FAULT
    assert first.status.attempt == 2
    assert first.status.restarts is not None
    assert first.status.restarts.infra == 1

    # The old pod ends; the seat has not moved yet.
    left = tuple(pod for pod in pods() if pod.name != "llama-2")
    assert world.gang is not None
    told = world.gang.model_copy(update={"spec": first.gang})
    second = plan(after(world, first, pods=left, gang=told))
    assert not any((second.creates, second.deletes, second.raises, second.record_first))
    assert lost_of(plan(after(world, first, pods=left))) == [(2, "b2")]

    # It moves to a spare; the pod of the same name is made there.
    moved = a_gang(world.job, ("b0", "b1", "b4", "b3"), spec=first.gang)
    third = plan(after(world, second, pods=left, gang=moved, now=NOW + 1))
    assert third.creates == (Create(2, "b4"),)
    assert third.life is not None
    assert third.life.attempt == 2
    assert lost_of(third) == []
    assert not third.raises

    # It runs: each survivor gets the epoch once, with the address of the one that is new.
    new = a_pod(2, "b4", 2, creationTimestamp=clock.utc(NOW + 1))
    starting = replace(new, ready=False, pod_ip=None)
    assert not plan(after(world, third, pods=(*left, starting), gang=moved)).raises
    settled = moved.model_copy(update={"spec": third.gang})
    fourth = plan(after(world, third, pods=(*left, new), gang=settled, now=NOW + 2))
    assert fourth.raises == tuple(Raise(f"llama-{n}", f"pod-{n}-b{n}-1") for n in (0, 1, 3))
    assert fourth.peers == {2: "10.0.0.2"}
    incident = fourth.status.incidents[0]
    assert (incident.replaced_by, incident.replaced_after) == ("b4", "3.5s")
    assert not fourth.deletes

    # Until all are of one attempt it is not Running.
    assert fourth.status.phase is JobPhase.RECOVERING
    raised = tuple(replace(pod, annotations={"tramontane.dev/epoch": "2"}) for pod in left)
    fifth = plan(after(world, fourth, pods=(*raised, new), gang=settled, now=NOW + 3))
    assert fifth.status.phase is JobPhase.RUNNING
    assert fifth.status.incidents[0].running_after == "4.5s"
    assert fifth.status.attempt == 2
    assert not any((fifth.raises, fifth.deletes, fifth.creates, fifth.gang))


@pytest.mark.parametrize(
    ("given", "cause", "code", "grace_s"),
    [
        pytest.param({"blades": {"b2": quarantined("b2")}}, "BladeFault", "xid-79", 2, id="fault"),
        pytest.param(
            {"blades": {"b2": a_blade("b2", "Quarantined", reason="InventoryMismatch")}},
            "BladeFault",
            "InventoryMismatch",
            2,
            id="inventory",
        ),
        pytest.param(
            {"blades": {"b2": a_blade("b2", "Lost", reason="NodeNotReady")}},
            "NodeLost",
            "NodeNotReady",
            2,
            id="lost, node answers",
        ),
        pytest.param(
            {
                "blades": {"b2": a_blade("b2", "Lost", reason="NodeNotReady")},
                "nodes": {"b2": a_node("b2", "Unknown", NOW - 5)},
            },
            "NodeLost",
            "NodeNotReady",
            0,
            id="lost, node silent",
        ),
        pytest.param({"nodes": {"b2": None}}, "NodeLost", "node-deleted", 0, id="node deleted"),
        pytest.param(
            {"nodes": {"b2": a_node("b2", creationTimestamp=clock.utc(NOW - 10))}},
            "NodeLost",
            "node-recreated",
            2,
            id="node made anew",
        ),
        pytest.param(
            {"nodes": {"b2": a_node("b2", "Unknown", NOW - 46)}},
            "NodeLost",
            "node-not-ready",
            0,
            id="silent for nodeLostAfter",
        ),
    ],
)
def test_what_makes_a_seat_lost(given: dict[str, Any], cause: str, code: str, grace_s: int) -> None:
    planned = plan(a_world(a_job(running()), pods=pods(), **given))

    assert causes(planned) == [(cause, code, "b2", (2,))]
    assert lost_of(planned) == [(2, "b2")]
    assert [(one.name, one.grace_s) for one in planned.deletes] == [("llama-2", grace_s)]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"blades": {"b2": a_blade("b2", "Suspect")}}, id="suspect"),
        pytest.param(
            {"blades": {"b2": a_blade("b2", "Unknown", reason="AgentSilent")}}, id="silent"
        ),
        pytest.param(
            {"blades": {"b2": a_blade("b2", "Quarantined", reason="HeldByPerson")}}, id="held"
        ),
        pytest.param(
            {"blades": {"b2": a_blade("b2", verdict={"severity": "Degraded", "action": "Drain"})}},
            id="degraded",
        ),
        pytest.param(
            {
                "blades": {
                    "b2": a_blade(
                        "b2",
                        reason="BudgetExhausted",
                        verdict={"severity": "Fatal", "action": "Reset"},
                    )
                }
            },
            id="over budget",
        ),
        pytest.param({"nodes": {"b2": a_node("b2", "Unknown", NOW - 3)}}, id="node just silent"),
        pytest.param({"nodes": {"b2": CORDONED}}, id="cordoned"),
        pytest.param({"blades": {"b5": quarantined("b5")}}, id="not one of ours"),
        pytest.param({"blades": {"b2": None}}, id="its Blade deleted by hand"),
    ],
)
def test_what_leaves_a_running_job_alone(given: dict[str, Any]) -> None:
    planned = plan(a_world(a_job(running()), pods=pods(), **given))

    assert planned.status.phase is JobPhase.RUNNING
    assert not any((planned.deletes, planned.gang, planned.raises, planned.status.incidents))


@pytest.mark.parametrize(
    ("message", "deleted"),
    [
        pytest.param('{"attempt": 1}', ["llama-1"], id="done before the order came"),
        pytest.param('{"attempt": 2}', [], id="done in this attempt"),
        pytest.param("", [], id="without an agent's word"),
        pytest.param('{"attempt": "one"}', [], id="somebody else's word"),
        pytest.param("[1]", [], id="no object"),
    ],
)
def test_a_rank_that_was_done_before_its_restart_was_ordered_is_made_anew(
    message: str, deleted: list[str]
) -> None:
    """The order has reached the pod, but its agent had given up: the annotation alone is wrong."""
    there = (a_pod(0, "b0", 2), done(1, "b1", 2, message), a_pod(2, "b2", 2), a_pod(3, "b3", 2))
    planned = plan(a_world(a_job(running(2)), pods=there))
    assert [(one.name, one.why) for one in planned.deletes] == [
        (name, "a new attempt begins") for name in deleted
    ]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param(
            {"blades": {"b2": a_blade("b2", "Quarantined", reason="HeldByPerson")}}, "held",
            id="held",
        ),
        pytest.param({"nodes": {"b2": CORDONED}}, "cordoned", id="cordoned"),
    ],
)  # fmt: skip
def test_who_was_evicted_does_not_come_back_to_a_blade_that_is_to_be_emptied(
    given: dict[str, Any], code: str
) -> None:
    world = a_world(a_job(running()), pods=(*pods(2), a_pod(3, "b3")), **given)

    planned = plan(world)
    assert causes(planned) == [("Evicted", code, "b2", (2,))]
    assert lost_of(planned) == [(2, "b2")]
    assert not planned.deletes
    assert not planned.creates


@pytest.mark.parametrize(
    ("drain", "state_since", "leaves"),
    [
        pytest.param("Now", NOW - 1, True, id="now"),
        pytest.param("AtCheckpoint", NOW - 1, False, id="once it has saved"),
        pytest.param("AtCheckpoint", NOW - 1801, True, id="it never did"),
        pytest.param("WhenIdle", NOW - 2, False, id="idle"),
        pytest.param("WhenIdle", NOW - 1801, True, id="after the timeout"),
    ],
)
def test_when_work_leaves_a_faulty_blade_at_once(
    drain: str, state_since: float, leaves: bool
) -> None:
    pool = a_pool(remediation={"drain": {"onFatal": drain}})
    blade = quarantined("b2", stateSince=clock.utc(state_since))
    world = a_world(a_job(running()), pods=pods(), blades={"b2": blade}, pools={"hall": pool})

    assert bool(plan(world).deletes) is leaves


def test_several_losses_at_once_are_one_attempt() -> None:
    blades = {"b1": quarantined("b1"), "b2": quarantined("b2", "xid-48")}
    world = a_world(a_job(running()), pods=pods(), blades=blades)

    planned = plan(world)

    assert causes(planned) == [
        ("BladeFault", "xid-79", "b1", (1,)),
        ("BladeFault", "xid-48", "b2", (2,)),
    ]
    assert planned.status.attempt == 2
    assert planned.status.restarts is not None
    assert planned.status.restarts.infra == 1
    assert lost_of(planned) == [(1, "b1"), (2, "b2")]


def test_a_loss_before_the_attempt_has_begun_joins_it() -> None:
    world = a_world(a_job(running()), pods=pods(), blades={"b2": quarantined("b2")})
    first = plan(world)

    both = {"b2": quarantined("b2"), "b1": quarantined("b1")}
    second = plan(after(world, first, blades={**world.blades, **both}))

    assert second.status.attempt == 2
    assert len(second.status.incidents) == 2
    assert second.status.restarts == first.status.restarts


def test_a_loss_after_it_has_begun_is_another_attempt() -> None:
    job = a_job(running(attempt=2, phase="Recovering"))
    mixed = (a_pod(0, "b0", 1), a_pod(1, "b1", 1), a_pod(2, "b2", 2), a_pod(3, "b3", 1))

    planned = plan(a_world(job, pods=mixed, blades={"b2": quarantined("b2")}))

    assert planned.status.attempt == 3


def test_the_attempt_survives_a_lost_status_write() -> None:
    job = a_job(running(attempt=0))
    world = a_world(job, pods=pods(epoch=4))

    assert plan(world).status.attempt == 4


@pytest.mark.parametrize("reason", ["WaitingForSpare", "Misconfigured"])
def test_no_place_for_a_seat_is_said_and_waited_for(reason: str) -> None:
    world = a_world(a_job(running()), pods=pods(), blades={"b2": quarantined("b2")})
    first = plan(world)
    assert world.gang is not None
    status = world.gang.status.model_copy(
        update={"reason": PendingReason(reason), "message": "0 blades are free"}
    )
    waiting = world.gang.model_copy(update={"spec": first.gang, "status": status})
    left = tuple(pod for pod in pods() if pod.name != "llama-2")

    second = plan(after(world, first, pods=left, gang=waiting))

    assert second.status.reason == reason
    assert second.status.message == "0 blades are free"
    assert second.status.phase is JobPhase.RECOVERING
    assert not any((second.creates, second.deletes, second.raises))

    # The blade comes back before a spare was found: the seat takes it again.
    healed = plan(
        after(world, first, pods=left, gang=waiting, blades={**world.blades, "b2": a_blade("b2")})
    )
    assert healed.creates == (Create(2, "b2"),)
    assert lost_of(healed) == []


def test_a_pod_that_hangs_on_a_node_that_is_gone_is_deleted_by_force() -> None:
    job = a_job(running(attempt=2, phase="Recovering", incidents=[lost_incident()]))
    stuck = going(a_pod(2, "b2"))
    others = tuple(pod for pod in pods() if pod.name != "llama-2")

    planned = plan(
        a_world(
            job,
            gang=a_gang(job, ("b0", "b1", "b4", "b3")),
            pods=(*others, stuck),
            nodes={"b2": a_node("b2", "Unknown", NOW - 50)},
        )
    )

    assert planned.deletes == (Delete("llama-2", "pod-2-b2-1", 0, "its node is gone"),)
    assert not planned.creates, "its name is not free yet"


def lost_incident(**given: Any) -> dict[str, Any]:
    return {"at": clock.micro(NOW - 3), "cause": "NodeLost", "blade": "b2", "seats": [2], **given}


# ---- crashes


def test_a_crash_on_a_healthy_blade_is_the_user_s() -> None:
    crashed = (*pods()[:2], failed(2, "b2", 1), pods()[3])
    world = a_world(a_job(running()), pods=crashed)

    first = plan(world)

    assert causes(first) == [("UserError", "exit-1", "b2", (2,))]
    assert first.status.restarts is not None
    assert (first.status.restarts.user, first.status.restarts.infra) == (1, 0)
    assert first.status.attempt == 2
    assert lost_of(first) == []
    assert not any((first.deletes, first.creates, first.raises)), "its log stays while it waits"
    assert first.after == pytest.approx(5)

    # Its peers die of it: they are victims of the same incident, not failures of their own.
    peers = tuple(failed(seat, f"b{seat}", 1) for seat in (0, 1, 3))
    second = plan(after(world, first, pods=(*peers, crashed[2]), now=NOW + 1))
    assert second.status.incidents[0].seats == (2, 0, 1, 3)
    assert second.status.restarts == first.status.restarts
    assert second.status.attempt == 2

    # After the back-off all are made again, where they were.
    third = plan(after(world, second, pods=(*peers, crashed[2]), now=NOW + 10.1))
    assert sorted(one.name for one in third.deletes) == [f"llama-{n}" for n in range(4)]
    fourth = plan(after(world, third, pods=(), now=NOW + 11))
    assert fourth.creates == tuple(Create(seat, f"b{seat}") for seat in range(4))
    assert fourth.life is not None
    assert fourth.life.attempt == 2


def test_the_next_crash_of_a_new_attempt_is_news() -> None:
    job = a_job(running(attempt=2, phase="Recovering", incidents=[user_error(NOW - 20)]))
    again = tuple(failed(seat, f"b{seat}", 1, epoch=2) for seat in range(4))

    planned = plan(a_world(job, pods=again))

    assert len(planned.status.incidents) == 2
    assert planned.status.attempt == 3
    assert planned.status.message is not None
    assert f"waits until {clock.utc(NOW + 20)}" in planned.status.message


def user_error(at: float, **given: Any) -> dict[str, Any]:
    return {
        "at": clock.micro(at), "cause": "UserError", "code": "exit-1", "blade": "b2",
        "seats": [0, 1, 2, 3], **given,
    }  # fmt: skip


def test_too_many_crashes_end_the_job() -> None:
    earlier = [user_error(NOW - 3600 * n, runningAfter="1s") for n in (3, 2, 1)]
    job = a_job(running(attempt=4, incidents=earlier))

    crashed = failed(3, "b3", 139, epoch=4)
    world = a_world(job, pods=(*pods(3, 4), crashed))
    asked = plan(world)
    assert asked.ask == (crashed,)
    assert asked.status == job.status

    words = {crashed.uid: LastWords(answered=True, lines=("loading", "KeyError: 'lr'"))}
    planned = plan(replace(world, words=words))

    assert planned.status.phase is JobPhase.FAILED
    assert planned.status.reason is JobReason.TOO_MANY_USER_FAILURES
    assert "at most 3 times in 24h (got 4)" in (planned.status.message or "")
    assert (planned.status.message or "").endswith("its log ends:\nloading\nKeyError: 'lr'")
    ended = plan(after(a_world(job, pods=pods(3, 4)), planned))
    assert len(ended.deletes) == 3
    assert ended.gang is not None
    assert not ended.gang.active


def test_crashes_outside_the_window_do_not_count() -> None:
    earlier = [user_error(NOW - 3600 * n, runningAfter="1s") for n in (50, 40, 30)]
    job = a_job(running(attempt=4, incidents=earlier))

    planned = plan(a_world(job, pods=(*pods(3, 4), failed(3, "b3", 1, epoch=4))))

    assert planned.status.phase is JobPhase.RECOVERING


def test_too_many_losses_end_the_job() -> None:
    earlier = [lost_incident(at=clock.micro(NOW - 60 * n), runningAfter="1s") for n in (2, 1)]
    job = a_job(running(incidents=earlier), recovery={"infraFailures": {"max": 2}})

    planned = plan(a_world(job, pods=pods(), blades={"b1": quarantined("b1")}))

    assert planned.status.reason is JobReason.TOO_MANY_INFRA_FAILURES


@pytest.mark.parametrize(
    ("pod", "cause", "code"),
    [
        pytest.param(
            failed(2, "b2", None, reason="OutOfnvidia.com/gpu"), "NodeLost", None, id="out of"
        ),
        pytest.param(
            failed(2, "b2", None, reason="UnexpectedAdmissionError"),
            "NodeLost",
            None,
            id="admission",
        ),
        pytest.param(failed(2, "b2", 137, reason="Evicted"), "Evicted", None, id="evicted"),
        pytest.param(
            failed(2, "b2", None, reason="Preempting"), "Evicted", None, id="by the kubelet"
        ),
        pytest.param(failed(2, "b2", 255, reason="NodeLost"), "NodeLost", None, id="node lost"),
        pytest.param(failed(2, "b2", None), "NodeLost", "failed-without-exit-code", id="no code"),
        pytest.param(going(a_pod(2, "b2")), "Evicted", "pod-deleted", id="deleted by somebody"),
        pytest.param(None, "Evicted", "pod-deleted", id="gone"),
    ],
)
def test_failures_that_are_not_the_user_s(pod: Any, cause: str, code: str | None) -> None:
    there = tuple(one for one in (*pods()[:2], pod, pods()[3]) if one is not None)

    planned = plan(a_world(a_job(running()), pods=there))

    assert causes(planned) == [(cause, code or pod.reason, "b2", (2,))]
    assert planned.status.restarts is not None
    assert planned.status.restarts.user == 0
    assert planned.record_first


def test_a_crash_beside_a_faulty_blade_is_the_blade_s() -> None:
    crashed = (failed(0, "b0", 1), *pods()[1:])

    planned = plan(a_world(a_job(running()), pods=crashed, blades={"b2": quarantined("b2")}))

    assert causes(planned) == [("BladeFault", "xid-79", "b2", (2, 0))]
    assert planned.status.restarts is not None
    assert planned.status.restarts.user == 0


def test_a_kubelet_that_goes_on_refusing_is_avoided() -> None:
    refused = lost_incident(code="OutOfcpu", at=clock.micro(NOW - 60))
    job = a_job(running(attempt=2, phase="Recovering", incidents=[refused]))
    pod = failed(2, "b2", None, epoch=2, reason="OutOfcpu")

    planned = plan(a_world(job, pods=(*pods(2, 1), pod, a_pod(3, "b3", 1))))

    assert planned.gang is not None
    assert planned.gang.avoid == ("b2",)
    assert lost_of(planned) == [(2, "b2")]


def test_a_pod_that_went_while_starting_is_news_only_if_it_was_seen_to_go() -> None:
    job = a_job({"phase": "Starting", "attempt": 1})

    unseen = plan(a_world(job, pods=pods(2)))
    seen = plan(a_world(job, pods=pods(2), vanished={3: 1}))

    assert not unseen.status.incidents
    assert causes(seen) == [("Evicted", "pod-deleted", "b3", (3,))]
    assert seen.status.attempt == 2


# ---- restart: Gang, and done ranks


def test_restart_gang_makes_all_pods_anew_on_the_same_blades() -> None:
    job = a_job(running(), recovery={"restart": "Gang"})
    world = a_world(job, pods=pods(), blades={"b2": quarantined("b2")})

    first = plan(world)
    assert len(first.deletes) == 4
    moved = a_gang(job, ("b0", "b1", "b4", "b3"))
    second = plan(after(world, first, pods=(), gang=moved))

    assert second.creates == tuple(
        Create(seat, blade) for seat, blade in enumerate(("b0", "b1", "b4", "b3"))
    )
    assert not second.raises


def test_ranks_that_were_done_meet_the_others_again() -> None:
    there = (done(0, "b0"), *pods()[1:])
    world = a_world(a_job(running()), pods=there, blades={"b2": quarantined("b2")})

    planned = plan(world)

    assert sorted(one.name for one in planned.deletes) == ["llama-0", "llama-2"]


def test_a_done_rank_s_blade_may_go() -> None:
    there = (done(0, "b0"), *pods()[1:])

    planned = plan(a_world(a_job(running()), pods=there, blades={"b0": quarantined("b0")}))

    assert not planned.deletes
    assert not planned.status.incidents


# ---- placement taken away


def test_giving_way_is_recorded_and_the_job_queues_again() -> None:
    job = a_job(running())
    gang = a_gang(job)
    gang = gang.model_validate(
        {**gang.to_dict(), "status": {**gang.status.to_dict(), "preempt": {"by": "ml/urgent"}}}
    )

    planned = plan(a_world(job, gang=gang, pods=pods()))

    assert [(str(i.cause), i.code) for i in planned.status.incidents] == [
        ("Preempted", "ml/urgent")
    ]
    assert planned.record_first
    assert [one.grace_s for one in planned.deletes] == [None] * 4
    assert planned.status.phase is JobPhase.CHECKPOINTING
    assert planned.status.attempt == 2
    assert planned.status.restarts is not None
    assert planned.status.restarts.preempted == 1

    waiting = plan(
        after(a_world(job), planned, gang=a_gang(job, phase="Pending"), pods=(), now=NOW + 5)
    )
    assert waiting.status.phase is JobPhase.QUEUED
    assert len(waiting.status.incidents) == 1
    assert waiting.status.attempt == 2
    later = plan(
        after(a_world(job), waiting, gang=a_gang(job, phase="Pending"), pods=(), now=NOW + 9)
    )
    assert later.status.goodput is not None
    assert later.status.goodput.lost.preempted == "9s"


def test_pods_follow_a_placement_that_changed() -> None:
    job = a_job(running())

    planned = plan(a_world(job, gang=a_gang(job, ("b0", "b1", "b5", "b3")), pods=pods()))

    assert causes(planned) == [("Evicted", "placement-changed", "b2", (2,))]
    assert [one.name for one in planned.deletes] == ["llama-2"]


# ---- steps


def recovered(marks: Marks | None, **status: Any) -> Plan:
    """Plan for a job whose replacement is there and whose last life reached step 58."""
    incident = lost_incident(at=clock.micro(NOW - 10), replacedAfter="2s", replacedBy="b4")
    job = a_job(
        running(
            attempt=2, phase="Recovering", step=58, stepTime="1s", incidents=[incident], **status
        )
    )
    return plan(a_world(job, pods=pods(epoch=2), marks=marks))


@pytest.mark.parametrize(
    ("marks", "phase"),
    [
        pytest.param(None, "Recovering", id="nothing read"),
        pytest.param(
            Marks(step=58, step_at=NOW - 9, first_step=1, first_step_at=NOW - 40),
            "Recovering",
            id="the old life's",
        ),
        pytest.param(
            Marks(step=41, step_at=NOW - 1, first_step=41, first_step_at=NOW - 1),
            "Running",
            id="after the replacement",
        ),
        pytest.param(
            Marks(step=58, step_at=NOW - 1, first_step=1, first_step_at=NOW - 40, agent_attempt=1),
            "Recovering",
            id="the agent has not restarted",
        ),
        pytest.param(
            Marks(step=41, step_at=NOW - 1, first_step=41, first_step_at=NOW - 1, agent_attempt=2),
            "Running",
            id="the agent has",
        ),
    ],
)
def test_steps_must_come_again(marks: Marks | None, phase: str) -> None:
    assert recovered(marks).status.phase == phase


def test_a_log_that_cannot_be_read_is_not_waited_for_for_ever() -> None:
    incident = lost_incident(at=clock.micro(NOW - 70), replacedAfter="2s")
    job = a_job(running(attempt=2, phase="Recovering", step=58, incidents=[incident]))
    world = a_world(job, pods=pods(epoch=2))

    assert plan(world).status.phase is JobPhase.RUNNING
    assert plan(replace(world, log_alive=True)).status.phase is JobPhase.RECOVERING


def test_steps_done_twice_are_rework() -> None:
    marks = Marks(step=42, step_at=NOW, first_step=41, first_step_at=NOW - 1, step_time_s=1.0)

    status = recovered(marks).status

    assert status.incidents[0].rework_steps == 18
    assert status.incidents[0].running_after == "10s"
    assert status.goodput is not None
    assert status.goodput.lost.rework == "18s"
    assert status.goodput.productive == "32s"
    assert status.step == 42


def test_the_last_life_s_step_is_kept_until_the_next_one_steps() -> None:
    marks = Marks(step=60, step_at=NOW - 2, first_step=1, first_step_at=NOW - 50)
    world = a_world(
        a_job(running(step=55)), pods=pods(), blades={"b2": quarantined("b2")}, marks=marks
    )

    first = plan(world)
    assert first.status.step == 60
    second = plan(after(world, first, marks=Marks(agent_attempt=2)))
    assert second.status.step == 60
    assert IncidentCause.BLADE_FAULT is second.status.incidents[0].cause


@pytest.mark.parametrize(
    ("ready", "since", "lost", "grace"),
    [
        pytest.param("Unknown", NOW - 4, False, None, id="silent for 44 s"),
        pytest.param("Unknown", NOW - 6, True, 0, id="silent for 46 s"),
        pytest.param("False", NOW - 40, False, None, id="its kubelet says so, for 40 s"),
        pytest.param("False", NOW - 46, True, FENCE_GRACE_S, id="its kubelet says so, for 46 s"),
    ],
)
def test_a_node_that_is_not_ready(ready: str, since: float, lost: bool, grace: int | None) -> None:
    nodes = {"b2": a_node("b2", ready, since)}
    lost_blade = {"b2": a_blade("b2", "Lost", reason="NodeNotReady")}
    world = a_world(a_job(running()), pods=pods(), nodes=nodes, blades=lost_blade)

    planned = plan(world)

    assert bool(planned.status.incidents) is lost
    assert [one.grace_s for one in planned.deletes] == ([grace] if lost else [])


def test_a_pod_that_its_own_agent_could_not_end_is_no_fault_of_the_user() -> None:
    planned = plan(a_world(a_job(running()), pods=(*pods(3), failed(3, "b3", 70))))

    assert causes(planned) == [("BladeFault", "rank-stuck", "b3", (3,))]


def test_a_suspended_job_s_pods_on_a_dead_node_go_by_force() -> None:
    leaving = tuple(map(going, pods()))
    world = a_world(
        a_job(running(), suspend=True),
        pods=leaving,
        nodes={"b2": a_node("b2", "Unknown", NOW - 50)},
    )

    planned = plan(world)

    assert [(one.name, one.grace_s) for one in planned.deletes] == [("llama-2", 0)]
    assert planned.after == 5.0


def test_an_invalid_job_can_be_suspended_and_gives_way() -> None:
    job = a_job(running(), suspend=True)
    assert len(plan(a_world(job, pods=pods(), priority=None)).deletes) == 4

    job = a_job(running())
    gang = a_gang(job)
    status = {**gang.status.to_dict(), "preempt": {"by": "ml/urgent"}}
    gang = gang.model_validate({**gang.to_dict(), "status": status})
    assert len(plan(a_world(job, gang=gang, pods=pods(), priority=None)).deletes) == 4


def test_pods_that_went_while_nobody_looked_are_recorded() -> None:
    job = a_job(running())

    planned = plan(a_world(job, gang=a_gang(job, phase="Pending"), pods=()))

    assert causes(planned) == [("Evicted", "placement-withdrawn", None, (0, 1, 2, 3))]
    assert planned.status.attempt == 2
    assert planned.record_first


def oom_killed(seat: int, epoch: int = 1) -> PodView:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    status = {"phase": "Failed", "containerStatuses": [{"name": "trainer", "state": ended}]}
    return a_pod(seat, f"b{seat}", epoch, status=status)


def test_a_rank_that_is_killed_for_its_memory_is_evicted_once_and_a_mistake_twice() -> None:
    first = plan(a_world(a_job(running(step=9)), pods=(*pods(3), oom_killed(3))))
    assert causes(first) == [("Evicted", "OOMKilled", "b3", (3,))]
    assert first.status.restarts is not None
    assert first.status.restarts.user == 0

    earlier = {
        "at": clock.micro(NOW - 300),
        "cause": "Evicted",
        "code": "OOMKilled",
        "blade": "b3",
        "seats": [3],
        "runningAfter": "9s",
    }
    job = a_job(running(attempt=2, step=9, incidents=[earlier]))
    again = plan(a_world(job, pods=(*pods(3, 2), oom_killed(3, 2))))
    assert causes(again)[-1] == ("UserError", "OOMKilled", "b3", (3,))


@pytest.mark.parametrize(
    ("codes", "step", "cause"),
    [
        pytest.param((1, 1, 1, 1), None, ("UserError", "b0"), id="alike, at the start"),
        pytest.param((1, 1, 1, 2), None, ("BladeFault", "b3"), id="not alike"),
        pytest.param((1, 1, 1, 1), 9, ("BladeFault", "b3"), id="after it has stepped"),
    ],
)
def test_all_ranks_failing_alike_is_the_user_s_mistake(
    codes: tuple[int, ...], step: int | None, cause: tuple[str, str]
) -> None:
    status = running() | ({} if step is None else {"step": step})
    ended = tuple(failed(seat, f"b{seat}", code) for seat, code in enumerate(codes))

    planned = plan(a_world(a_job(status), pods=ended, blades={"b3": a_blade("b3", "Suspect")}))

    assert causes(planned)[0][0::2] == cause


def test_a_replacement_that_nobody_saw_for_a_while_was_there_when_its_pod_was_made() -> None:
    status = running(attempt=2, incidents=[lost_incident(at=clock.micro(NOW - 400))])
    job = a_job(status | {"phase": "Recovering"})
    late = a_pod(2, "b4", 2, creationTimestamp=clock.utc(NOW - 300))
    others = tuple(pod for pod in pods(4, 2) if pod.name != "llama-2")
    gang = a_gang(job, ("b0", "b1", "b4", "b3"))

    planned = plan(a_world(job, gang=gang, pods=(*others, late)))

    assert planned.status.incidents[0].replaced_after == "1m41s"


def test_a_seat_that_waits_for_a_blade_says_until_when() -> None:
    open_one = lost_incident(at=clock.micro(NOW - 9))
    job = a_job(running(attempt=2, incidents=[open_one]) | {"phase": "Recovering"})
    gang = a_gang(job)
    says = {
        "reason": "WaitingForSpare",
        "message": "seat 2 needs a blade",
        "estimatedStart": {"p50": clock.utc(NOW + 600), "p90": clock.utc(NOW + 900)},
    }
    status = {**gang.status.to_dict(), **says}
    gang = gang.model_validate({**gang.to_dict(), "status": status})
    left = tuple(pod for pod in pods() if pod.name != "llama-2")

    planned = plan(a_world(job, gang=gang, pods=left, blades={"b2": quarantined("b2")}))

    assert planned.status.reason is PendingReason.WAITING_FOR_SPARE
    assert planned.status.message == (
        f"seat 2 needs a blade; a blade is likely to be free by {clock.utc(NOW + 600)}"
    )


def test_two_blades_lost_in_the_same_second_have_an_event_each() -> None:
    since = NOW - 60
    silent = {"b1": a_node("b1", "Unknown", since)}
    first = plan(a_world(a_job(running()), pods=pods(), nodes=silent))
    assert len(first.events) == 1

    silent["b2"] = a_node("b2", "Unknown", since)
    second = plan(after(a_world(a_job(running()), pods=pods(), nodes=silent), first))
    assert [one.note for one in second.events] == ["seats 2 on b2: node-not-ready"]
