"""A clock that was put back keeps nothing waiting: what lies ahead counts from now."""

from dataclasses import replace
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.controllers.inferencedeployment.moments import in_time
from unit.inferencedeployment.builders import (
    NOW,
    a_deployment,
    a_status,
    a_world,
    after,
    an_entry,
    planned,
    states,
)
from unit.inferencedeployment.test_plan_rollout import a_cluster, newer

AHEAD = clock.micro(NOW + 3600)


def test_what_lies_ahead_counts_from_now() -> None:
    status = a_status(an_entry(since=AHEAD, failedAt=AHEAD), scaledAt=clock.utc(NOW + 9))
    rollout = {"from": "a", "to": "b", "since": clock.utc(NOW + 9)}
    deployment = a_deployment({**status, "rollout": rollout})
    found = in_time(a_world(deployment)).deployment.status
    assert {found.replicas[0].since, found.replicas[0].failed_at} == {clock.micro(NOW)}
    assert {found.scaled_at, found.rollout.since if found.rollout else ""} == {clock.utc(NOW)}


@pytest.mark.parametrize("moment", [NOW, NOW - 0.1, NOW - 9], ids=["now", "just now", "before"])
def test_what_is_past_stays(moment: float) -> None:
    world = a_world(a_deployment(a_status(an_entry(since=clock.micro(moment)))))
    assert in_time(world) == world


def test_a_back_off_from_ahead_ends() -> None:
    entry = an_entry(state="Stopping", since=AHEAD, failedAt=AHEAD, restarts=1)
    world = a_world(a_deployment(a_status(entry)), pods={})
    made = planned(world)
    later = after(world, made, now=NOW + 301)
    assert states(planned(later)) == {"claims-0": "Starting"}


def test_a_request_counts_although_zero_was_decided_ahead() -> None:
    status = a_status(wanted=0, scaledAt=clock.utc(NOW + 3600))
    world = a_world(a_deployment(status, capacity={"minReplicas": 0}), gangs={}, pods={})
    first = planned(world)
    assert first.status.replicas_wanted == 0
    later = after(world, first)
    assert planned(replace(later, demand_at=later.now)).status.replicas_wanted == 1


def test_a_rollout_goes_on_when_the_clock_is_put_back() -> None:
    cluster = a_cluster(6, "Auto")
    cluster.spec(newer)
    cluster.run(8)
    shifted: list[Any] = list(cluster.pods.values())
    cluster.now -= 3600
    for pod in shifted:
        pod.ready_at -= 3600
        pod.gone_at = None if pod.gone_at is None else pod.gone_at - 3600
        pod.view = replace(pod.view, created_at=pod.view.created_at - 3600)
    cluster._after = cluster.now
    cluster.run(120)
    assert cluster.end()["phase"] == "Serving", cluster.tell()
    assert cluster.deployment.status.revisions[-1].verdict == "Accepted"
