"""The planner, world by world: from submission to the end, without faults."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.api.reasons import JobReason, PendingReason
from tramontane.api.trainingjob import JobPhase, TrainingJobStatus
from tramontane.controllers.trainingjob.actions import Create, Plan
from tramontane.controllers.trainingjob.observe import World
from tramontane.controllers.trainingjob.plan import plan
from tramontane.controllers.trainingjob.progress import Marks, Saved
from tramontane.controllers.trainingjob.unplaced import ANSWER_S
from unit.trainingjob.builders import (
    NOW,
    Raw,
    a_gang,
    a_job,
    a_pod,
    a_pool,
    a_world,
    after,
    done,
    failed,
    going,
    pods,
    running,
    template,
)


def condition(planned: Plan, type_: str) -> tuple[str, str]:
    found = next(one for one in planned.status.conditions if one.type == type_)
    return str(found.status), found.reason


def test_a_new_job_asks_for_its_gang_and_waits() -> None:
    job = a_job(spares=1, topology={"pack": "rack", "mode": "Required"}, maxRuntime="72h")

    planned = plan(a_world(job, gang=None, priority=7))

    assert planned.gang is not None
    assert planned.gang.to_dict() == {
        "pool": "hall",
        "slots": [
            {
                "name": "worker",
                "count": 4,
                "requests": {"cpu": "64", "nvidia.com/gpu": "8"},
                "nodeSelector": {},
                "nodeAffinity": [],
                "tolerations": [],
            }
        ],
        "sizes": [],
        "spares": 1,
        "topology": {"pack": "rack", "mode": "Required"},
        "priority": 7,
        "preemptible": True,
        "maxRuntime": "72h",
        "grace": "120s",
        "lost": [],
        "avoid": [],
        "active": True,
    }
    assert planned.status.phase is JobPhase.QUEUED
    assert planned.status.reason is PendingReason.PENDING_EVALUATION
    assert not planned.creates


def test_a_job_just_made_says_nothing_before_the_scheduler_does() -> None:
    job = a_job()

    planned = plan(a_world(job, gang=None, now=NOW - 99))

    assert planned.gang is not None
    assert planned.status == job.status
    assert planned.after == ANSWER_S


def test_while_it_waits_the_scheduler_s_reason_is_the_job_s() -> None:
    job = a_job({"phase": "Queued"})
    gang = a_gang(job, phase="Pending", reason="ExceedsPool", message="needs 4 blades (got 3)")

    planned = plan(a_world(job, gang=gang))

    assert planned.status.reason is PendingReason.EXCEEDS_POOL
    assert planned.status.message == "needs 4 blades (got 3)"
    assert condition(planned, "Stalled") == ("True", "ExceedsPool")
    assert condition(planned, "Admitted") == ("False", "ExceedsPool")
    assert planned.gang is None


def test_a_placed_gang_gets_all_its_pods_and_no_status_is_written_before() -> None:
    planned = plan(a_world(a_job({"phase": "Queued"})))

    assert planned.creates == tuple(Create(seat, f"b{seat}") for seat in range(4))
    assert planned.life is not None
    assert (planned.life.attempt, planned.life.gpus) == (1, 8)
    assert not planned.record_first
    assert planned.status.phase is JobPhase.STARTING
    assert (planned.status.ready, planned.status.gpus, planned.status.attempt) == ("0/4", 32, 1)


def test_only_missing_pods_are_created() -> None:
    job = a_job({"phase": "Starting", "attempt": 1})

    planned = plan(a_world(job, pods=pods(2)))

    assert [one.seat for one in planned.creates] == [2, 3]
    assert planned.status.ready == "2/4"
    assert planned.status.message == "2 of 4 ranks are ready"


def test_all_ready_is_running() -> None:
    job = a_job({"phase": "Starting", "attempt": 1})

    planned = plan(a_world(job, pods=pods()))

    assert planned.status.phase is JobPhase.RUNNING
    assert planned.status.started_at == clock.utc(NOW)
    assert condition(planned, "Ready") == ("True", "Running")
    assert condition(planned, "GangReady") == ("True", "AllReady")
    assert condition(planned, "Reconciling") == ("False", "Running")
    assert planned.follow is not None
    assert planned.follow.name == "llama-0"
    assert planned.after == 30
    assert not any((planned.creates, planned.deletes, planned.raises, planned.gang))


def test_a_gang_that_somebody_edited_is_put_back() -> None:
    job = a_job(running())
    gang = a_gang(job)
    edited = gang.model_copy(update={"spec": gang.spec.model_copy(update={"spares": 9})})

    planned = plan(a_world(job, gang=edited, pods=pods()))

    assert planned.gang == gang.spec


def test_a_running_job_keeps_its_size_until_it_is_resumed() -> None:
    job = a_job(running(), nodes=3)
    world = a_world(job, gang=a_gang(a_job()), pods=pods())

    planned = plan(world)
    assert not any((planned.gang, planned.deletes, planned.creates))
    assert planned.status.message is not None
    assert "spec.nodes is 3, and 4 run" in planned.status.message

    empty = plan(replace(world, pods=()))
    assert empty.gang is not None
    assert empty.gang.slots[0].count == 3


def test_a_pod_of_a_seat_that_is_no_more_goes() -> None:
    planned = plan(a_world(a_job(running()), pods=(*pods(), a_pod(4, "b4"))))

    assert [one.name for one in planned.deletes] == ["llama-4"]


def test_a_gang_that_somebody_deleted_is_made_again_and_the_pods_stay() -> None:
    job = a_job(running())

    planned = plan(a_world(job, gang=None, pods=pods()))

    assert planned.gang is not None
    assert not planned.deletes
    assert planned.status.phase is JobPhase.RUNNING


def test_all_done_is_succeeded_and_the_end_is_recorded() -> None:
    job = a_job(running())

    planned = plan(a_world(job, pods=tuple(done(seat, f"b{seat}") for seat in range(4))))

    assert planned.status.phase is JobPhase.SUCCEEDED
    assert planned.status.finished_at == clock.utc(NOW)
    assert condition(planned, "Complete") == ("True", "Succeeded")
    assert condition(planned, "Failed") == ("False", "Succeeded")


def test_a_rank_that_is_done_beside_a_sidecar_is_done() -> None:
    job = a_job(running())
    status = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "trainer", "state": {"terminated": {"exitCode": 0}}},
            {"name": "sidecar", "state": {"running": {}}},
        ],
    }

    planned = plan(a_world(job, pods=[a_pod(seat, f"b{seat}", status=status) for seat in range(4)]))
    ended = plan(after(a_world(job, pods=planned_pods(status)), planned))

    assert planned.status.phase is JobPhase.SUCCEEDED
    assert len(ended.deletes) == 4, "a sidecar would hold the GPUs"


def planned_pods(status: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(a_pod(seat, f"b{seat}", status=status) for seat in range(4))


def test_a_finished_job_gives_its_blades_up_and_keeps_its_pods() -> None:
    job = a_job({"phase": "Succeeded", "finishedAt": clock.utc(NOW)}, ttlAfterFinished="1h")
    ended = tuple(done(seat, f"b{seat}") for seat in range(4))

    planned = plan(a_world(job, pods=ended))

    assert planned.gang is not None
    assert not planned.gang.active
    assert not planned.deletes
    assert planned.after == 3600
    assert planned.status == job.status


def test_after_its_ttl_the_job_is_deleted() -> None:
    job = a_job({"phase": "Failed", "finishedAt": clock.utc(NOW - 60)}, ttlAfterFinished="1m")

    assert plan(a_world(job, gang=None)).delete_job


def test_max_runtime_ends_the_job() -> None:
    job = a_job(running(), maxRuntime="50s")

    planned = plan(a_world(job, pods=pods()))

    assert planned.status.phase is JobPhase.FAILED
    assert planned.status.reason is JobReason.TIME_LIMIT
    assert condition(planned, "Failed") == ("True", "TimeLimit")


def test_before_max_runtime_the_planner_asks_to_be_called_in_time() -> None:
    job = a_job(running(), maxRuntime="55s")

    assert plan(a_world(job, pods=pods())).after == pytest.approx(5)


def test_suspension_gives_the_blades_up_and_lets_pods_save() -> None:
    job = a_job(running(), suspend=True)
    world = a_world(job, pods=pods())

    first = plan(world)

    assert first.gang is not None
    assert not first.gang.active
    assert [one.grace_s for one in first.deletes] == [None] * 4
    assert first.status.phase is JobPhase.CHECKPOINTING

    second = plan(after(world, first, pods=tuple(map(going, pods())), gang=None))
    assert not second.deletes
    third = plan(after(world, second, pods=(), gang=None))
    assert third.status.phase is JobPhase.SUSPENDED
    assert third.status.reason is PendingReason.SUSPENDED
    assert condition(third, "Stalled") == ("False", "Progressing")


def resumed() -> World:
    job = a_job({"phase": "Suspended", "attempt": 1, "reason": "Suspended"})
    return a_world(job)


def test_resumption_is_a_new_attempt_that_is_recorded_before_any_pod() -> None:
    planned = plan(resumed())

    assert planned.status.attempt == 2
    assert planned.record_first
    assert len(planned.creates) == 4
    again = plan(after(resumed(), planned))
    assert again.status.attempt == 2


def test_a_resumption_that_waits_for_a_place_is_counted_once() -> None:
    world = resumed()
    waiting = a_gang(world.job, phase="Inactive", reason="Suspended")

    first = plan(replace(world, gang=waiting))
    assert (first.status.phase, first.status.attempt) == (JobPhase.QUEUED, 2)
    assert first.status.reason is PendingReason.PENDING_EVALUATION
    second = plan(after(world, first, gang=waiting))
    assert second.status.attempt == 2
    third = plan(after(world, second))
    assert third.status.attempt == 2
    assert third.life is not None
    assert third.life.attempt == 2


def test_a_resumption_is_counted_once_while_the_cache_still_shows_the_suspension() -> None:
    world = replace(resumed(), pods=pods(epoch=2))

    planned = plan(world)

    assert planned.status.attempt == 2
    assert not planned.raises


def test_after_a_suspension_an_old_placement_is_not_believed() -> None:
    world = resumed()
    assert world.gang is not None
    metadata = world.gang.metadata.model_copy(update={"generation": 3})
    stale = world.gang.model_copy(update={"metadata": metadata})

    planned = plan(replace(world, gang=stale))

    assert not planned.creates
    assert planned.status.phase is JobPhase.QUEUED


def test_a_job_that_is_being_deleted_is_left_to_its_owner_references() -> None:
    job = a_job(running(), metadata={"deletionTimestamp": clock.utc(NOW)})

    planned = plan(a_world(job, pods=pods()))

    assert planned == Plan(job.status)


@pytest.mark.parametrize(
    ("spec", "given", "reason", "message"),
    [
        pytest.param(
            {"nodePool": "nowhere"},
            {},
            "NoMatchingPool",
            'got "nowhere"; there are hall',
            id="pool",
        ),
        pytest.param(
            {"nodePool": None}, {"pools": {}}, "NoMatchingPool", "got none", id="no pool at all"
        ),
        pytest.param(
            {},
            {"pools": {"hall": a_pool(tenants=[{"name": "a", "namespaces": ["other"]}])}},
            "NoMatchingPool",
            "a tenant with namespace ml",
            id="closed pool",
        ),
        pytest.param(
            {"priorityClassName": "vip"},
            {"priority": None},
            "Misconfigured",
            'got "vip"',
            id="class",
        ),
        pytest.param({"template": template(image="")}, {}, "Misconfigured", "image", id="no image"),
        pytest.param({}, {"gang": "foreign"}, "Misconfigured", "another owner", id="foreign gang"),
    ],
)
def test_what_only_people_can_put_right_is_said(
    spec: dict[str, Any], given: dict[str, Any], reason: str, message: str
) -> None:
    job = a_job(**spec)
    if given.get("gang") == "foreign":
        given = {"gang": a_gang(job, owner="somebody")}

    planned = plan(a_world(job, **{"gang": None, **given}))

    assert planned.status.phase is JobPhase.QUEUED
    assert planned.status.reason == reason
    assert message in (planned.status.message or "")
    assert not any((planned.creates, planned.gang, planned.deletes))


def test_a_spec_that_becomes_invalid_leaves_what_runs_alone() -> None:
    job = a_job(running(), template=template(image=""))

    planned = plan(a_world(job, pods=pods()))

    assert planned.status.phase is JobPhase.RUNNING
    assert planned.status.ready == "4/4"
    assert condition(planned, "Stalled") == ("True", "Misconfigured")
    assert not any((planned.deletes, planned.gang))


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    pod = a_pod(0, "b0", status={"phase": "Pending", "containerStatuses": [waiting]})
    job = a_job({"phase": "Starting", "attempt": 1})

    planned = plan(a_world(job, pods=(pod, *pods()[1:])))

    assert planned.status.reason is JobReason.IMAGE_ERROR
    assert "pod llama-0 on b0: container trainer must start (got ImagePullBackOff)" in (
        planned.status.message or ""
    )


def test_somebody_else_s_pod_of_a_seat_s_name_is_waited_for() -> None:
    other = a_pod(2, "b9", ownerReferences=[{"uid": "old-job", "controller": True}])
    job = a_job({"phase": "Starting", "attempt": 1})

    planned = plan(a_world(job, pods=(*pods(2), other, a_pod(3, "b3"))))

    assert not planned.creates
    assert not planned.deletes
    assert "pod llama-2 must belong to this job" in (planned.status.message or "")
    assert planned.after == 1


def test_a_refusal_of_the_api_server_stops_creation_and_is_shown() -> None:
    job = a_job({"phase": "Starting", "attempt": 1})

    planned = plan(a_world(job, pods=pods(1), refusal="pod llama-1 must be accepted (got: quota)"))

    assert not planned.creates
    assert planned.status.reason is PendingReason.MISCONFIGURED
    assert "quota" in (planned.status.message or "")


def test_what_runs_runs_on_while_its_gang_is_refused() -> None:
    job = a_job(running())

    planned = plan(replace(a_world(job, pods=pods(), refusal="quota"), gang=None))

    assert (planned.gang, planned.deletes) == (None, ())
    assert planned.status.phase is JobPhase.RUNNING
    assert planned.status.reason is PendingReason.MISCONFIGURED
    assert planned.status.message == "TrainingJob ml/llama: quota"


# ---- progress and the ledger


def test_a_running_job_shows_its_step_and_checkpoint() -> None:
    marks = Marks(
        step=120, step_at=NOW - 1, first_step=1, first_step_at=NOW - 49, step_time_s=0.412,
        saved=Saved(100, NOW - 9),
    )  # fmt: skip

    status = plan(a_world(a_job(running(step=1)), pods=pods(), marks=marks)).status

    assert (status.step, status.step_time) == (120, "410ms")
    assert status.last_checkpoint is not None
    assert (status.last_checkpoint.step, status.last_checkpoint.at) == (100, clock.utc(NOW - 9))


def lost(status: TrainingJobStatus) -> dict[str, str]:
    assert status.goodput is not None
    shown = {k: v for k, v in status.goodput.lost.to_dict().items() if v != "0s"}
    return {"productive": status.goodput.productive, **shown}


def test_the_time_before_the_first_step_was_start() -> None:
    marks = Marks(step=5, step_at=NOW, first_step=1, first_step_at=NOW - 40, step_time_s=10.0)

    waited = {"productive": "0s", "lost": {"queue": "10s", "start": "90s"}}
    status = plan(a_world(a_job(running(goodput=waited)), pods=pods(), marks=marks)).status

    # Running since 50 s; the first step ended 40 s ago and took 10 s.
    assert lost(status) == {"productive": "50s", "queue": "10s", "start": "40s"}


def test_what_a_checkpoint_held_up_is_checkpoint() -> None:
    saves = (Saved(1, NOW - 60, 9.0), Saved(2, NOW - 1, 3.0))
    marks = Marks(step=9, step_at=NOW, first_step=1, first_step_at=NOW - 50, saves=saves)
    world = a_world(a_job(running(step=5)), pods=pods(), marks=marks, now=NOW + 20)

    # Only the second falls into the time that is accounted now.
    assert lost(plan(replace(world, marks=replace(marks, saves=saves))).status) == {
        "productive": "70s",
        "queue": "10s",
        "start": "40s",
    }
    late = replace(marks, saves=(*saves, Saved(3, NOW + 10, 4.0)))
    assert lost(plan(replace(world, marks=late)).status)["checkpoint"] == "4s"


def test_time_without_steps_is_hang_while_the_log_is_read() -> None:
    marks = Marks(step=9, step_at=NOW - 100, first_step=1, first_step_at=NOW - 150)
    world = a_world(a_job(running(step=9)), pods=pods(), marks=marks, now=NOW + 20)

    assert "hang" not in lost(plan(world).status)
    assert lost(plan(replace(world, log_alive=True)).status)["hang"] == "70s"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"suspend": True}, id="suspended"),
        pytest.param({"priorityClassName": "gone"}, id="its class is gone"),
    ],
)
def test_work_that_is_done_is_done_whatever_came_a_moment_later(given: Raw) -> None:
    job = a_job(running(), **given)
    ended = tuple(done(seat, f"b{seat}") for seat in range(4))
    world = a_world(job, pods=ended, priority=None if "priorityClassName" in given else 0)

    assert plan(world).status.phase is JobPhase.SUCCEEDED


def test_pods_that_failed_as_they_had_to_give_way_are_recorded() -> None:
    job = a_job(running())
    gang = a_gang(job)
    status = {**gang.status.to_dict(), "preempt": {"by": "ml/urgent"}}
    gang = gang.model_validate({**gang.to_dict(), "status": status})

    planned = plan(a_world(job, gang=gang, pods=tuple(failed(s, f"b{s}") for s in range(4))))

    assert [one.cause for one in planned.status.incidents] == ["Preempted"]
    assert planned.status.attempt == 2


def test_a_pattern_that_matches_nothing_is_said_once() -> None:
    job = a_job(running(), progress={"stepPattern": "iter (?P<step>[0-9]+)"})
    world = a_world(job, pods=pods(), marks=Marks(unmatched=200), log_alive=True)

    planned = plan(world)

    assert "must match progress.stepPattern 'iter (?P<step>[0-9]+)'" in (
        planned.status.message or ""
    )
    assert [one.reason for one in planned.events] == ["ProgressUnknown"]
    assert planned.status.phase is JobPhase.RUNNING
    assert plan(after(world, planned)).events == ()
    assert plan(replace(world, marks=Marks(unmatched=199))).status.message is None
