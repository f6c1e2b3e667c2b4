"""Elastic jobs: another size is taken up once it pays, has lasted, and has been saved for."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.gang import Gang, GangSpec
from tramontane.api.trainingjob import HandshakeWhy, JobPhase, TrainingJob
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.progress import Marks, Saved
from unit.trainingjob.builders import (
    NOW,
    a_gang,
    a_job,
    a_world,
    after,
    going,
    pods,
    quarantined,
    running,
)

MARKS = Marks(step=50, step_at=NOW, first_step=1, first_step_at=NOW - 50, agent_attempt=1)


def elastic(status: dict[str, Any] | None = None) -> TrainingJob:
    return a_job(status or running(step=50), elastic={"sizes": [4, 3, 2], "growAfter": "10m"})


def a_gang_of(
    job: TrainingJob,
    seats: tuple[str, ...],
    advised: int | None,
    *,
    spec: GangSpec | None = None,
    generation: int = 1,
    seen: int = 1,
) -> Gang:
    gang = a_gang(job, seats, spec=spec)
    status = {**gang.status.to_dict(), "observedGeneration": seen}
    if advised is not None:
        status["advisedSize"] = advised
    metadata = {**gang.to_dict()["metadata"], "generation": generation}
    return Gang.model_validate({**gang.to_dict(), "metadata": metadata, "status": status})


def small(advised: int | None = 4, **given: Any) -> World:
    """Return a job of four that runs on three blades, with room for more."""
    job = elastic(running(step=50) | {"size": 3})
    gang = a_gang_of(job, ("b0", "b1", "b2"), advised)
    return a_world(job, gang=gang, pods=pods(3), marks=MARKS, log_alive=True, **given)


def test_room_must_last_before_a_job_grows() -> None:
    world = small()

    first = plan(world)
    assert first.status.growth is not None
    assert (first.status.growth.size, first.status.handshake) == (4, None)

    world = after(world, first, now=NOW + 599)
    assert plan(world).status.handshake is None
    kept = plan(world).status.growth
    assert kept == first.status.growth

    ripe = plan(replace(world, now=NOW + 600))
    assert ripe.status.handshake is not None
    assert ripe.status.handshake.why is HandshakeWhy.RESIZE
    assert len(ripe.drains) == 3


@pytest.mark.parametrize(
    "advised",
    [
        pytest.param(None, id="no room"),
        pytest.param(3, id="the size it has"),
        pytest.param(2, id="smaller, and nothing is lost"),
        pytest.param(5, id="none of its sizes"),
    ],
)
def test_what_is_not_taken_up(advised: int | None) -> None:
    planned = plan(small(advised))

    assert (planned.status.growth, planned.status.handshake) == (None, None)


def test_growing_from_the_checkpoint_to_the_next_life() -> None:
    world = small()
    world = after(world, plan(world), now=NOW + 600)
    ripe = plan(world)

    # Saved: all pods go.
    world = after(world, ripe, marks=replace(MARKS, saved=Saved(60, NOW + 601)), now=NOW + 603)
    saved = plan(world)
    assert [(one.name, one.grace_s) for one in saved.deletes] == [
        ("llama-0", None),
        ("llama-1", None),
        ("llama-2", None),
    ]
    assert saved.status.incidents == ()
    leaving = plan(after(world, saved, pods=tuple(map(going, pods(3)))))
    assert not any((leaving.status.incidents, leaving.creates, leaving.deletes))
    assert leaving.status.phase is JobPhase.CHECKPOINTING

    # Gone: the scheduler is asked, and nothing is made before it has answered.
    world = after(world, leaving, pods=(), now=NOW + 604)
    asks = plan(world)
    assert asks.gang is not None
    assert asks.gang.resize == 4
    job = world.job
    asked = a_gang_of(job, ("b0", "b1", "b2"), 4, spec=asks.gang, generation=2, seen=1)
    waits = plan(after(world, asks, gang=asked))
    assert not any((waits.gang, waits.creates))
    assert waits.status.attempt == 1

    seats = ("b0", "b1", "b2", "b5")
    placed = a_gang_of(job, seats, None, spec=asks.gang, generation=2, seen=2)
    world = after(world, asks, gang=placed)
    answered = plan(world)
    assert answered.gang is not None
    assert answered.gang.resize is None
    assert answered.record_first
    assert answered.status.attempt == 2
    assert (answered.status.handshake, answered.status.growth) == (None, None)
    assert [one.reason for one in answered.events] == ["Resized"]

    # The spec has been taken back, but the scheduler has not seen that yet.
    taken = a_gang_of(job, seats, None, spec=answered.gang, generation=3, seen=2)
    assert not plan(after(world, answered, gang=taken)).creates
    seen = a_gang_of(job, seats, None, spec=answered.gang, generation=3, seen=3)
    made = plan(after(world, answered, gang=seen))
    assert [(one.seat, one.blade) for one in made.creates] == list(enumerate(seats))
    assert made.life is not None
    assert made.life.attempt == 2


def test_growing_that_is_refused_goes_on_as_it_was() -> None:
    world = small()
    world = after(world, plan(world), now=NOW + 600)
    ripe = plan(world)
    world = after(world, ripe, pods=(), now=NOW + 700)
    asks = plan(world)
    refused = a_gang_of(world.job, ("b0", "b1", "b2"), None, spec=asks.gang, generation=2, seen=2)

    answered = plan(after(world, asks, gang=refused))

    assert answered.status.attempt == 2
    assert answered.events[0].note == "attempt 2 goes on with 3 blades"


def test_shrinking_does_not_wait_and_has_nothing_to_save() -> None:
    job = elastic()
    spec = a_gang(job).spec
    gang = a_gang_of(job, ("b0", "b1", "b2", "b3"), 3, spec=spec)
    world = a_world(job, gang=gang, pods=pods(), marks=MARKS, blades={"b2": quarantined("b2")})
    first = plan(world)
    assert [one.code for one in first.status.incidents] == ["xid-79"]
    assert first.status.phase is JobPhase.RECOVERING

    left = tuple(pod for pod in pods() if pod.name != "llama-2")
    world = after(world, first, pods=left, now=NOW + 3)
    shrinks = plan(world)
    assert shrinks.status.handshake is not None
    assert shrinks.status.handshake.why is HandshakeWhy.RESIZE
    assert [one.name for one in shrinks.deletes] == ["llama-0", "llama-1", "llama-3"]

    gone = plan(after(world, shrinks, pods=(), now=NOW + 5))
    assert gone.gang is not None
    assert gone.gang.resize == 3


def test_an_operator_that_dies_at_any_step_goes_on() -> None:
    """The handshake is in the status: marks and memory may be lost at any moment."""
    world = small()
    world = after(world, plan(world), now=NOW + 600)
    ripe = plan(world)

    # Nothing is known of the log any more: grace ends the wait.
    lost = after(world, ripe, marks=None, now=NOW + 719)
    assert not plan(lost).deletes
    assert len(plan(replace(lost, now=NOW + 720)).deletes) == 3
    # A pod is gone already: the rest follows.
    some = after(world, ripe, marks=None, pods=pods(2), now=NOW + 610)
    assert len(plan(some).deletes) == 2
    assert clock.parse(ripe.status.handshake.since) == NOW + 600 if ripe.status.handshake else False
