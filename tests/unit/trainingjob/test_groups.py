"""Replica groups: one restarts while the others step on."""

from dataclasses import replace
from typing import Any

from tramontane.api import clock
from tramontane.api.trainingjob import JobPhase
from tramontane.controllers.trainingjob.actions import Create
from tramontane.controllers.trainingjob.groups import Groups
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.progress import Marks
from tramontane.kube.views import PodView
from unit.trainingjob.builders import (
    NOW,
    a_blade,
    a_gang,
    a_job,
    a_node,
    a_pod,
    a_world,
    after,
    pods,
    quarantined,
    running,
)

MARKS = Marks(step=50, step_at=NOW, first_step=1, first_step_at=NOW - 50, agent_attempt=1)


def grouped(least: int = 1, **given: Any) -> World:
    """Return a running job of two groups of two, one blade of the second being lost."""
    job = a_job(
        running(step=50),
        launcher={"type": "torchrun", "replicaGroups": 2, "minReplicaGroups": least},
    )
    given = {"pods": pods(), "blades": {"b3": quarantined("b3")}, "log_alive": True, **given}
    return a_world(job, marks=MARKS, **given)


def test_seats_fall_into_groups_in_order() -> None:
    groups = Groups.of(grouped().job.spec, 4)

    assert [groups.of_seat(seat) for seat in range(4)] == [0, 0, 1, 1]
    assert Groups.of(grouped().job.spec, 5) == Groups(1, 1, 5)


def recovered(least: int = 1) -> tuple[World, PodView]:
    """Return the world in which the lost seat has its new pod, and that pod."""
    world = grouped(least)
    first = plan(world)
    left = tuple(pod for pod in pods() if pod.name != "llama-3")
    moved = a_gang(world.job, ("b0", "b1", "b2", "b4"), spec=first.gang)
    world = after(world, first, pods=left, gang=moved, now=NOW + 2)
    assert plan(world).creates == (Create(3, "b4"),)
    new = a_pod(3, "b4", 2, creationTimestamp=clock.utc(NOW + 2))
    return after(world, plan(world), pods=(*left, new), now=NOW + 3), new


def test_the_other_group_steps_on() -> None:
    first = plan(grouped())

    assert [(one.code, one.seats) for one in first.status.incidents] == [("xid-79", (3,))]
    assert first.status.phase is JobPhase.RUNNING
    assert first.status.attempt == 2
    assert first.status.ready == "2/4"  # its neighbour's rank has died with it
    assert [one.name for one in first.deletes] == ["llama-3"]

    world, _ = recovered()
    planned = plan(world)
    # Only the lost seat's own group gets the new epoch.
    assert [one.name for one in planned.raises] == ["llama-2"]
    assert planned.status.phase is JobPhase.RUNNING


def test_the_incident_ends_when_its_group_is_whole() -> None:
    world, new = recovered()
    raised = (*pods(2), a_pod(2, "b2", 2), new)

    whole = plan(replace(world, pods=raised, now=NOW + 5))

    assert [one.running_after for one in whole.status.incidents] == ["6.5s"]
    assert not any((whole.raises, whole.deletes))
    assert whole.status.ready == "4/4"
    # The group that was not touched keeps its epoch: that is no news, and needs no restart.
    later = plan(after(world, whole, pods=raised, now=NOW + 60))
    assert not any((later.raises, later.deletes, later.record_first))
    assert len(later.status.incidents) == 1


def test_with_too_few_whole_groups_the_job_recovers() -> None:
    planned = plan(grouped(least=2))

    assert planned.status.phase is JobPhase.RECOVERING


def test_a_second_loss_in_the_other_group_is_another_attempt() -> None:
    world, new = recovered()
    raised = (*pods(2), a_pod(2, "b2", 2), new)
    world = after(world, plan(replace(world, pods=raised)), pods=raised, now=NOW + 60)
    blades = {**world.blades, "b0": quarantined("b0", "xid-48")}

    planned = plan(replace(world, blades=blades))

    assert planned.status.attempt == 3
    assert planned.status.incidents[-1].seats == (0,)
    assert [one.name for one in planned.deletes] == ["llama-0"]


def leaving(least: int = 1) -> World:
    """Return the world in which a seat of the second group has been given a new place."""
    fault = {"severity": "Degraded", "action": "Drain"}
    sick = a_blade("b2", "Quarantined", reason="HardwareFault", verdict=fault)
    world = grouped(least, blades={"b2": sick})
    moved = a_gang(world.job, ("b0", "b1", "b4", "b3"), spec=plan(world).gang)
    return replace(world, gang=moved)


def test_only_the_group_that_a_seat_leaves_is_told_to_save() -> None:
    world = leaving()
    first = plan(world)
    assert [one.name for one in first.drains] == ["llama-2", "llama-3"]

    told = tuple(
        replace(pod, annotations={**pod.annotations, "tramontane.dev/drain": "1"})
        if pod.name in {"llama-2", "llama-3"}
        else pod
        for pod in pods()
    )
    world = after(world, first, pods=told, now=NOW + 9)
    assert not plan(world).status.incidents
    acts = plan(replace(world, now=NOW + 11))
    assert [one.seats for one in acts.status.incidents] == [(2,)]
    assert [one.name for one in acts.deletes] == ["llama-2"]
    assert acts.status.incidents[0].running_after is None, "it has not even been replaced"


def test_a_group_that_was_told_to_end_is_restarted_though_nothing_came_of_it() -> None:
    world = leaving()
    first = plan(world)
    told = tuple(
        replace(pod, annotations={**pod.annotations, "tramontane.dev/drain": "1"})
        if pod.name in {"llama-2", "llama-3"}
        else pod
        for pod in pods()
    )
    # A loss in the other group breaks the handshake off, and the blade is well again.
    blades = {**world.blades, "b0": quarantined("b0"), "b2": a_blade("b2")}
    world = after(world, first, pods=told, blades=blades, now=NOW + 1)
    lost = plan(world)
    assert {one.name for one in lost.deletes} == {"llama-0", "llama-2"}


def test_incidents_of_groups_that_are_still_broken_stay_open() -> None:
    job = a_job(
        running(step=50) | {"phase": "Recovering", "attempt": 2, "incidents": [
            {"at": clock.micro(NOW - 5), "cause": "BladeFault", "blade": "b1", "seats": [1]},
            {"at": clock.micro(NOW - 5), "cause": "BladeFault", "blade": "b3", "seats": [3]},
        ]},
        launcher={"type": "torchrun", "replicaGroups": 2},
    )  # fmt: skip
    marks = replace(MARKS, agent_attempt=2, first_step_at=NOW - 1)
    there = (a_pod(0, "b0", 2), a_pod(1, "b1", 2), a_pod(2, "b2", 1))

    planned = plan(a_world(job, pods=there, marks=marks, log_alive=True))

    assert planned.status.phase is JobPhase.RUNNING
    assert [bool(one.running_after) for one in planned.status.incidents] == [True, False]


def test_losses_in_a_row_of_one_group_are_one_attempt() -> None:
    world = grouped()
    first = plan(world)
    left = pods(2)
    blades = {**world.blades, "b2": quarantined("b2", "xid-48")}
    told = a_gang(world.job, spec=first.gang)
    second = plan(after(world, first, pods=left, gang=told, blades=blades, now=NOW + 1))

    assert (first.status.attempt, second.status.attempt) == (2, 2)
    assert second.status.restarts is not None
    assert second.status.restarts.infra == 1


def test_a_lighthouse_that_ends_on_a_silent_node_is_deleted_by_force() -> None:
    world = replace(grouped(), blades={name: a_blade(name) for name in ("b0", "b1", "b2", "b3")})
    ends = a_light(node="b4", deleting=True)
    for since, deleted in ((NOW - 4, []), (NOW - 6, ["llama-lighthouse"])):
        nodes = {**world.nodes, "b4": a_node("b4", "Unknown", since)}
        planned = plan(replace(world, pods=(*pods(), ends), nodes=nodes))
        assert [one.name for one in planned.deletes] == deleted


def a_light(**given: Any) -> PodView:
    return replace(a_pod(0, "cpu-1"), name="llama-lighthouse", uid="light", labels={}, **given)


def test_a_lighthouse_that_has_ended_is_made_anew() -> None:
    world = replace(grouped(), blades={name: a_blade(name) for name in ("b0", "b1", "b2", "b3")})
    assert plan(world).lighthouse
    assert not plan(replace(world, pods=(*pods(), a_light()))).lighthouse

    evicted = plan(replace(world, pods=(*pods(), a_light(phase="Failed"))))
    assert not evicted.lighthouse
    assert [one.name for one in evicted.deletes] == ["llama-lighthouse"]
