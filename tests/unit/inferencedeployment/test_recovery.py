"""The truth table of recovery: what happened to a replica, and what follows."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.controllers.inferencedeployment.recovery import (
    Do,
    Known,
    backoff_s,
    outcome_of,
)
from tramontane.controllers.inferencedeployment.replicas import observe
from unit.inferencedeployment.builders import (
    DIGEST,
    NOW,
    OTHER,
    a_blade,
    a_deployment,
    a_gang,
    a_node,
    a_pod,
    a_status,
    a_taint,
    a_world,
    an_entry,
    ended,
    states,
    unfit,
    verified,
)
from unit.inferencedeployment.builders import planned as plan_of

FINE = (a_pod(), a_pod(seat=1))


def failed(seat: int, code: int, **words: Any) -> tuple[Any, ...]:
    pods = [a_pod(), a_pod(seat=1)]
    pods[seat] = replace(
        pods[seat], phase="Failed", ready=False, containers=(ended(code, **words),)
    )
    return tuple(pods)


def unverified(seat: int, code: int) -> tuple[Any, ...]:
    pods = [a_pod(), a_pod(seat=1)]
    view = unfit(code, reason="ArtifactMismatch", message="model-1.bin differs")
    pods[seat] = replace(
        pods[seat], phase="Failed", ready=False, containers=(), init_containers=(view,)
    )
    return tuple(pods)


def unstarted(message: str) -> tuple[Any, ...]:
    view = replace(unfit(128), reason="StartError", message=message)
    first = a_pod(phase="Failed", ready=False, containers=(), init_containers=(view,))
    return (first, a_pod(seat=1))


def evicted(reason: str) -> tuple[Any, ...]:
    return (a_pod(), a_pod(seat=1, phase="Failed", reason=reason, ready=False))


SEEN: dict[str, tuple[dict[str, Any], Do | None, str | None, str]] = {
    "all well": ({}, None, None, ""),
    "rank 1 died": ({"pods": failed(1, 137)}, Do.RESTART, "RankDead", "exit code 137"),
    "seat 0 died": ({"pods": failed(0, 1)}, Do.RESTART, "EngineFailed", "exit code 1"),
    "hung": ({"pods": failed(0, 71)}, Do.RESTART, "Hung", "exit code 71"),
    "too slow to start": ({"pods": failed(0, 72)}, Do.RESTART, "EngineFailed", "code 72"),
    "agent says why": (
        {"pods": failed(0, 1, reason="RankDead", message="core 3 died")},
        Do.RESTART,
        "RankDead",
        "core 3 died",
    ),
    "the cause before who followed": (
        {"pods": (failed(0, 73)[0], failed(1, 9)[1])},
        Do.RESTART,
        "RankDead",
        "rank 1",
    ),
    "vanished": ({"pods": (a_pod(),)}, Do.RESTART, "Preempted", "rank 1 on b1 vanished"),
    "deleted": ({"pods": (a_pod(deleting=True), FINE[1])}, Do.RESTART, "Preempted", "deleted"),
    "evicted": ({"pods": evicted("Evicted")}, Do.RESTART, "Preempted", "Evicted"),
    "not taken": ({"pods": evicted("OutOfcpu")}, Do.RESTART, "NodeLost", "OutOfcpu"),
    "source missing": ({"pods": unverified(0, 66)}, Do.RESTART, "SourceMissing", "differs"),
    "fetch failed": ({"pods": unverified(0, 69)}, Do.RESTART, "SourceMissing", "differs"),
    "words of ours make no sense": (
        {"pods": unverified(0, 64)},
        Do.RESTART,
        "Misconfigured",
        "differs",
    ),
    "an image without python3": (
        {"pods": unstarted('exec: "python3": executable file not found in $PATH')},
        Do.RESTART,
        "Misconfigured",
        "its image must have python3",
    ),
    "told to end, not by us": ({"pods": failed(0, 143)}, Do.RESTART, "Preempted", "code 143"),
    "mismatch, others verified": (
        {"pods": unverified(1, 65)},
        Do.REPLACE,
        "ArtifactMismatch",
        "differs",
    ),
    "other weights than recorded": (
        {"pods": (FINE[0], a_pod(seat=1, init_containers=(verified(OTHER),)))},
        Do.REPLACE,
        "ArtifactMismatch",
        OTHER,
    ),
    "quarantined": (
        {"blades": {"b1": a_blade("b1", "Quarantined", "Fatal")}},
        Do.REPLACE,
        "BladeFault",
        "b1 is Quarantined",
    ),
    "repairing": ({"blades": {"b0": a_blade("b0", "Repairing")}}, Do.REPLACE, "BladeFault", "b0"),
    "rma": ({"blades": {"b0": a_blade("b0", "RMA")}}, Do.REPLACE, "BladeFault", "b0"),
    "lost": ({"blades": {"b0": a_blade("b0", "Lost")}}, Do.REPLACE, "NodeLost", "b0"),
    "node gone": ({"nodes": {"b1": None}}, Do.REPLACE, "NodeLost", "node b1 is gone"),
    "node silent": (
        {"nodes": {"b1": a_node("b1", ready=None, since=NOW - 6)}},
        Do.REPLACE,
        "NodeLost",
        "for 6 s",
    ),
    "node not ready for a second": (
        {"nodes": {"b1": a_node("b1", ready=False, since=NOW - 1)}},
        None,
        None,
        "",
    ),
    "draining, by a degraded fault": (
        {"blades": {"b0": a_blade("b0", "Draining", "Degraded")}},
        Do.FOLLOW,
        "BladeFault",
        "b0",
    ),
    "held by a person": (
        {"blades": {"b0": a_blade("b0", "Draining", reason="HeldByPerson")}},
        Do.FOLLOW,
        "BladeFault",
        "HeldByPerson",
    ),
    "degraded": (
        {"blades": {"b0": a_blade("b0", "Healthy", "Degraded")}},
        Do.FOLLOW,
        "BladeFault",
        "b0",
    ),
    "suspect": ({"blades": {"b0": a_blade("b0", "Suspect")}}, Do.FOLLOW, "BladeFault", "b0"),
    "cordoned": (
        {"nodes": {"b0": a_node("b0", unschedulable=True)}},
        Do.FOLLOW,
        "BladeFault",
        "drained",
    ),
    "tainted to be taken away": (
        {"nodes": {"b0": a_node("b0", taints=(a_taint("ToBeDeletedByClusterAutoscaler"),))}},
        Do.FOLLOW,
        "BladeFault",
        "drained",
    ),
    "rank died on a doubted blade": (
        {"pods": failed(1, 137), "blades": {"b1": a_blade("b1", "Suspect")}},
        Do.REPLACE,
        "BladeFault",
        "b1",
    ),
    "must give way": (
        {
            "gangs": {
                "claims-0": a_gang(a_deployment(), phase="Preempting", preempt={"by": "ml/urgent"})
            }
        },
        Do.LEAVE,
        "Preempted",
        "ml/urgent",
    ),
}


@pytest.mark.parametrize(("given", "do", "reason", "words"), SEEN.values(), ids=SEEN)
def test_outcome(given: dict[str, Any], do: Do | None, reason: str | None, words: str) -> None:
    world = a_world(**given)
    outcome = outcome_of(world, observe(world)[0], Known(DIGEST, verified=True))
    assert (outcome and outcome.do) == do
    assert (outcome and str(outcome.reason)) == reason
    assert words in (outcome.why if outcome else "")


def test_a_replica_that_leaves_is_left_alone() -> None:
    world = a_world(
        a_deployment(a_status(an_entry(state="Draining"))), pods=failed(1, 137), nodes={"b0": None}
    )
    assert outcome_of(world, observe(world)[0], Known()) is None


def test_mismatch_that_nobody_has_verified_is_final() -> None:
    entry = an_entry(state="Loading")
    status = {**a_status(entry), "revisions": []}
    made = plan_of(a_world(a_deployment(status), pods=(unverified(0, 65)[0], a_pod(seat=1))))
    # Rank 1 has verified them: it is the blade.
    assert states(made)["claims-0"] == "Dropping"
    pods = (unverified(0, 65)[0], unverified(1, 65)[1])
    made = plan_of(a_world(a_deployment(status), pods=pods))
    assert states(made) == {"claims-0": "Failed"}
    assert made.status.phase == "Failed"
    assert made.status.reason == "ArtifactMismatch"
    assert made.record_first
    # It holds nothing any more.
    assert [claim.spec.active for claim in made.claims] == [False]
    assert {order.name for order in made.deletes} == {"claims-0-0", "claims-0-1"}


@pytest.mark.parametrize(
    ("restarts", "moves", "wait_s"),
    [(1, 0, 10), (2, 0, 20), (3, 0, 40), (5, 0, 160), (6, 0, 600), (1000, 0, 600), (1, 1, 600)],
)
def test_backoff(restarts: int, moves: int, wait_s: float) -> None:
    deployment = a_deployment(a_status(an_entry(restarts=restarts, moves=moves)))
    recovery = deployment.spec.recovery
    assert backoff_s(deployment.status.replicas[0], recovery) == wait_s


def test_backoff_of_many_restarts_stays_below_max() -> None:
    deployment = a_deployment(
        a_status(an_entry(restarts=900)),
        recovery={"restarts": 1000, "backoff": {"base": "1s", "max": "1h"}},
    )
    assert backoff_s(deployment.status.replicas[0], deployment.spec.recovery) == 3600


def test_restart_is_recorded_before_anything_is_deleted() -> None:
    made = plan_of(a_world(pods=failed(1, 137)))
    entry = made.status.replicas[0]
    assert made.record_first
    assert (entry.state, entry.restarts, entry.reason) == ("Stopping", 1, "RankDead")
    assert entry.failed_at == clock.micro(NOW)
    assert {order.name for order in made.deletes} == {"claims-0-0", "claims-0-1"}
    assert [mark.labels for mark in made.marks] == [{"tramontane.dev/rotation": "out"}]
    assert not made.creates
    assert not made.drops


def stopped(**more: Any) -> dict[str, Any]:
    entry = {"state": "Stopping", "restarts": 1, "failedAt": clock.micro(NOW), "reason": "RankDead"}
    return an_entry(**{**entry, **more})


@pytest.mark.parametrize(
    ("after_s", "pods", "state", "creates"),
    [
        (5, (), "Stopping", 0),
        (10, (), "Starting", 2),
        (19, (a_pod(deleting=True),), "Stopping", 0),
    ],
    ids=["too early", "due", "an old pod is still there"],
)
def test_restart_in_place(after_s: float, pods: Any, state: str, creates: int) -> None:
    world = a_world(a_deployment(a_status(stopped(), wanted=1)), pods=pods, now=NOW + after_s)
    made = plan_of(world)
    assert states(made) == {"claims-0": state}
    assert made.status.replicas[0].restarts == 1
    assert [(one.seat, one.blade) for one in made.creates] == [(0, "b0"), (1, "b1")][:creates]
    if after_s < 10:
        assert made.after == pytest.approx(10 - after_s)


def test_what_has_served_for_long_counts_anew() -> None:
    entry = an_entry(restarts=4, moves=1, since=clock.utc(NOW - 601))
    made = plan_of(a_world(a_deployment(a_status(entry)), pods=failed(1, 137)))
    assert made.status.replicas[0].restarts == 1
    assert made.status.replicas[0].moves == 0


def test_after_the_last_restart_another_one_is_tried_elsewhere() -> None:
    world = a_world(
        a_deployment(a_status(stopped(restarts=6, why="exit code 1"), wanted=1)), pods=()
    )
    made = plan_of(world)
    assert states(made) == {"claims-0": "Stopping", "claims-1": "Waiting"}
    new = made.status.replicas[1]
    assert (new.moves, new.replaces, new.avoid) == (1, "claims-0", ("b0", "b1"))
    assert made.status.replicas[0].moves == 1
    assert made.claims[0].spec.avoid == ("b0", "b1")
    assert made.status.phase == "Degraded"
    assert made.status.reason == "EngineFailed"


def test_fatal_blade_drops_at_once_and_the_next_avoids_it() -> None:
    made = plan_of(a_world(blades={"b1": a_blade("b1", "Quarantined", "Fatal")}))
    assert states(made) == {"claims-0": "Dropping", "claims-1": "Waiting"}
    assert made.status.replicas[1].avoid == ("b1",)
    assert [one.grace_s for one in made.deletes] == [5, 5]
    assert [claim.name for claim in made.claims] == ["claims-1"]


def test_pods_on_a_dead_node_go_by_force() -> None:
    pods = (a_pod(), a_pod(seat=1, deleting=True))
    made = plan_of(a_world(nodes={"b1": None}, pods=pods))
    assert {one.name: one.grace_s for one in made.deletes} == {"claims-0-0": 5, "claims-0-1": 0}


def test_a_repaired_blade_is_not_avoided_for_ever() -> None:
    entry = an_entry(name="claims-1", state="Waiting", avoid=["b1"], reason="BladeFault")
    world = a_world(a_deployment(a_status(entry)), pods={}, gangs={})
    assert plan_of(world).claims[0].spec.avoid == ()
    broken = replace(world, blades={**world.blades, "b1": a_blade("b1", "Repairing")})
    assert plan_of(broken).claims[0].spec.avoid == ("b1",)


def test_blade_with_wrong_weights_is_avoided_for_ever() -> None:
    entry = an_entry(name="claims-1", state="Waiting", avoid=["b1"], reason="ArtifactMismatch")
    world = a_world(a_deployment(a_status(entry)), pods={}, gangs={})
    assert plan_of(world).claims[0].spec.avoid == ("b1",)


def test_doubted_blade_gets_a_follower_and_serves_until_it_serves() -> None:
    doubted: dict[str, Any] = {"blades": {"b0": a_blade("b0", "Suspect")}}
    made = plan_of(a_world(**doubted))
    assert states(made) == {"claims-0": "Serving", "claims-1": "Waiting"}
    assert made.status.replicas[1].replaces == "claims-0"
    assert not made.deletes
    assert not made.marks
    entries = [one.to_dict() for one in made.status.replicas]
    deployment = a_deployment(a_status(*entries, wanted=1))
    world = a_world(deployment, **doubted)
    # It waits for its place: nothing changes, and nobody else is called.
    assert states(plan_of(world)) == {"claims-0": "Serving", "claims-1": "Waiting"}
    entries[1] |= {"state": "Serving", "since": clock.micro(NOW - 4)}
    second = a_gang(deployment, {"name": "claims-1"}, ("b2", "b3"))
    world = replace(
        a_world(a_deployment(a_status(*entries, wanted=1)), **doubted),
        gangs={"claims-0": a_gang(deployment), "claims-1": second},
        pods={
            "claims-0": FINE,
            "claims-1": (a_pod("claims-1", 0, "b2"), a_pod("claims-1", 1, "b3")),
        },
    )
    made = plan_of(world)
    assert states(made) == {"claims-0": "Draining", "claims-1": "Serving"}
    assert made.status.replicas[1].replaces is None


def test_follower_that_nobody_needs_any_more_leaves() -> None:
    new = an_entry(name="claims-1", state="Waiting", replaces="claims-0", reason="BladeFault")
    made = plan_of(a_world(a_deployment(a_status(an_entry(), new, wanted=1))))
    assert states(made) == {"claims-0": "Serving", "claims-1": "Draining"}


def test_one_follower_at_a_time() -> None:
    entries = (an_entry(), an_entry(name="claims-1"))
    deployment = a_deployment(a_status(*entries), capacity={"minReplicas": 2})
    world = a_world(
        deployment,
        gangs={
            "claims-0": a_gang(deployment),
            "claims-1": a_gang(deployment, {"name": "claims-1"}, ("b2", "b3")),
        },
        pods={
            "claims-0": FINE,
            "claims-1": (a_pod("claims-1", 0, "b2"), a_pod("claims-1", 1, "b3")),
        },
        blades={name: a_blade(name, "Suspect") for name in ("b0", "b2")},
    )
    made = plan_of(world)
    assert sorted(states(made)) == ["claims-0", "claims-1", "claims-2"]


def test_preempted_replica_drains_before_its_deadline() -> None:
    deadline = {"by": "ml/urgent", "deadline": clock.utc(NOW + 60)}
    deployment = a_deployment(a_status(an_entry()))
    gang = a_gang(deployment, phase="Preempting", preempt=deadline)
    made = plan_of(a_world(deployment, gangs={"claims-0": gang}))
    assert states(made) == {"claims-0": "Draining", "claims-1": "Waiting"}
    assert not made.deletes  # first it gets no more requests
    out = {"tramontane.dev/out-since": clock.micro(NOW - 3)}
    pods = (a_pod(rotation="out", annotations=out), a_pod(seat=1))
    leaving = a_deployment(a_status(an_entry(state="Draining", why="gives way")))
    made = plan_of(a_world(leaving, gangs={"claims-0": gang}, pods=pods))
    assert [one.grace_s for one in made.deletes] == [50, 50]
