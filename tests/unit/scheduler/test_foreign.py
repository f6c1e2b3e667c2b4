"""Pods of other controllers: whose group they are, and when they are a gang."""

from collections.abc import Callable
from typing import Any

import pytest

from tramontane.scheduler.affinity import Requirement
from tramontane.scheduler.engine import decide
from tramontane.scheduler.foreign.gangs import ForeignGang, gangs_of
from tramontane.scheduler.foreign.groups import (
    COSCHEDULING,
    JOBSET,
    UPSTREAM,
    VOLCANO,
    WHOLE,
    WORKLOAD,
    Group,
    Sizes,
    group_of,
    jobset_sizes,
    member_sizes,
    upstream_sizes,
    workload_sizes,
)
from tramontane.scheduler.foreign.member import Member, decode_member, is_foreign
from tramontane.scheduler.gangs import Ask, Toleration
from tramontane.scheduler.records import GPU, PoolRecord
from unit.scheduler.builders import LEVELS, NOW, Hall
from unit.scheduler.pods import a_gang, members, of_gang, raw_pod

POOLS = {"p": PoolRecord("p", LEVELS)}
Raw = dict[str, Any]


def gangs(pods: list[Member], sizes: Sizes | None = None, **pools: PoolRecord) -> list[ForeignGang]:
    return list(gangs_of(pods, sizes, pools or POOLS))


def only(pods: list[Member], sizes: Sizes | None = None) -> ForeignGang:
    [gang] = gangs(pods, sizes)
    return gang


JOBSET_LABELS = {
    "jobset.sigs.k8s.io/jobset-name": "train",
    "jobset.sigs.k8s.io/replicatedjob-name": "workers",
}
LWS = "leaderworkerset.sigs.k8s.io"


@pytest.mark.parametrize(
    ("more", "group"),
    [
        pytest.param({}, Group(), id="alone"),
        pytest.param({"labels": {"tramontane.dev/gang": "g"}}, Group("g"), id="our-label"),
        pytest.param(
            {"schedulingGroup": {"podGroupName": "g"}},
            Group("podgroup:g", UPSTREAM, "g"),
            id="upstream-1.36",
        ),
        pytest.param(
            {"workloadRef": {"name": "w", "podGroup": "g", "podGroupReplicaKey": "1"}},
            Group("workload:w:g:1", WORKLOAD, "w", "g"),
            id="upstream-1.35",
        ),
        pytest.param(
            {"labels": JOBSET_LABELS},
            Group("jobset:train:0", JOBSET, "train", "workers"),
            id="jobset",
        ),
        pytest.param(
            {"labels": {**JOBSET_LABELS, "jobset.sigs.k8s.io/restart-attempt": "2"}},
            Group("jobset:train:2", JOBSET, "train", "workers"),
            id="jobset-restarted",
        ),
        pytest.param(
            {"labels": {f"{LWS}/name": "serve", f"{LWS}/group-index": "3"}},
            Group("lws:serve:3"),
            id="leaderworkerset",
        ),
        pytest.param(
            {"annotations": {"scheduling.k8s.io/group-name": "g"}},
            Group("volcano:g", VOLCANO, "g"),
            id="volcano",
        ),
        pytest.param(
            {"labels": {"scheduling.x-k8s.io/pod-group": "g"}},
            Group("podgroup.x:g", COSCHEDULING, "g"),
            id="coscheduling",
        ),
        pytest.param(
            {"labels": {**JOBSET_LABELS, "tramontane.dev/gang": "g"}},
            Group("g"),
            id="our-label-goes-first",
        ),
    ],
)
def test_the_group_of_a_pod(more: Raw, group: Group) -> None:
    assert group_of(raw_pod("x", **more)) == group


def jobset(*jobs: tuple[str, int, int], **more: Any) -> Raw:
    return {
        "spec": {
            "replicatedJobs": [
                {"name": name, "replicas": replicas, "template": {"spec": {"parallelism": pods}}}
                for name, replicas, pods in jobs
            ],
            **more,
        }
    }


@pytest.mark.parametrize(
    ("decode", "raw", "sizes"),
    [
        (upstream_sizes, {"spec": {"schedulingPolicy": {"gang": {"minCount": 4}}}}, {WHOLE: 4}),
        (upstream_sizes, {"spec": {"schedulingPolicy": {"basic": {}}}}, {WHOLE: 0}),
        (
            workload_sizes,
            {"spec": {"podGroups": [{"name": "g", "policy": {"gang": {"minCount": 3}}}]}},
            {"g": 3},
        ),
        (member_sizes, {"spec": {"minMember": 5}}, {WHOLE: 5}),
        (jobset_sizes, jobset(("leader", 1, 1), ("workers", 2, 4)), {WHOLE: 9}),
        (
            jobset_sizes,
            jobset(("a", 1, 1), ("b", 2, 4), startupPolicy={"startupPolicyOrder": "InOrder"}),
            {"a": 1, "b": 8},
        ),
        (
            jobset_sizes,
            {
                "spec": {
                    "replicatedJobs": [
                        {
                            "name": "init",
                            "template": {"spec": {"completions": 1, "parallelism": 3}},
                        },
                        {"name": "node", "template": {}, "dependsOn": [{"name": "init"}]},
                    ]
                }
            },
            {"init": 1, "node": 1},
        ),
    ],
    ids=["gang", "basic", "workload", "volcano", "jobset", "jobset-in-order", "kubeflow-trainer"],
)
def test_the_sizes_that_an_object_says(
    decode: Callable[[Raw], Sizes], raw: Raw, sizes: Raw
) -> None:
    assert decode(raw) == sizes


def test_what_a_pod_asks_for() -> None:
    required = {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h200"]}]}
        ]
    }
    pod = decode_member(
        of_gang(
            "x",
            "g",
            4,
            gpus=2,
            annotations={"tramontane.dev/pack": "rack"},
            nodeSelector={"tramontane.dev/pool": "p"},
            tolerations=[{"key": "t", "operator": "Exists"}],
            affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
            priority=7,
            activeDeadlineSeconds=60,
            schedulingGates=[{"name": "kueue"}],
        )
    )
    assert pod.ask == Ask(
        ((GPU, 2),),
        (("tramontane.dev/pool", "p"),),
        (Toleration("t", "Exists", "", ""),),
        ((Requirement("gpu", "In", ("h200",)),),),
    )
    assert (pod.pool, pod.pack, pod.required, pod.size) == ("p", "rack", True, 4)
    assert (pod.priority, pod.limit_s, pod.gated, pod.flaw) == (7, 60.0, True, "")
    assert pod.family == "ml/pods:g"


def test_what_a_condition_of_ours_says() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    condition["message"] = "WaitingForCapacity: Gang ml/pods:g: needs more"
    assert decode_member(raw_pod("x", status={"conditions": [condition]})).said == (
        "WaitingForCapacity"
    )
    gate = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    assert decode_member(raw_pod("x", status={"conditions": [gate]})).said == ""


MUST = "requiredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"affinity": {"podAffinity": {MUST: [{}]}}}, "got pod affinity"),
        ({"affinity": {"podAntiAffinity": {MUST: [{}]}}}, "got pod anti-affinity"),
        (
            {"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]},
            "got topologySpreadConstraints",
        ),
        ({"resourceClaims": [{"name": "x"}]}, "got resourceClaims"),
        (
            {"affinity": {"nodeAffinity": {MUST: {"nodeSelectorTerms": [{}]}}}},
            "must have expressions over labels",
        ),
        (
            {"affinity": {"nodeAffinity": {MUST: {"nodeSelectorTerms": [{"matchFields": [1]}]}}}},
            "must have expressions over labels",
        ),
        ({"annotations": {"tramontane.dev/gang-size": "many"}}, 'a number of pods (got "many")'),
    ],
)
def test_what_cannot_be_looked_at_is_never_bound_and_says_why(more: Raw, words: str) -> None:
    hall = Hall([2])
    gang = only(members(raw_pod("x", **more)))
    done = decide(hall.fleet, {gang.record.key: gang.record}, hall.pods, NOW)
    outcome = done.outcomes["ml/pod:x"]
    assert outcome.placement is None
    assert outcome.reason == "Misconfigured"
    assert words in outcome.message


def test_preferences_are_no_requirements() -> None:
    soft = "preferredDuringSchedulingIgnoredDuringExecution"
    spread = [{"whenUnsatisfiable": "ScheduleAnyway"}]
    pod = raw_pod("x", affinity={"podAffinity": {soft: [{}]}}, topologySpreadConstraints=spread)
    assert decode_member(pod).flaw == ""


def test_only_pods_that_name_this_scheduler_are_foreign() -> None:
    assert is_foreign(raw_pod("x"))
    assert not is_foreign({"spec": {"schedulerName": "default-scheduler"}})
    assert not is_foreign({"spec": {}})


def test_a_pod_alone_is_a_gang_of_one() -> None:
    gang = only(members(raw_pod("x")))
    assert (gang.record.key, gang.record.slots[0].count, gang.lacking) == ("ml/pod:x", 1, "")
    assert not gang.record.preemptible
    assert gang.record.shares_blades


def test_a_group_is_a_gang_when_all_of_it_is_there_in_the_order_of_ranks() -> None:
    pods = members(*a_gang("g", (10, 2, 0, 1), 5))
    assert "must have 5 pods that may be scheduled (got 4)" in only(pods).lacking
    whole = only([*pods, decode_member(of_gang("g-3", "g", 5))])
    assert whole.lacking == ""
    assert [pod.name for pod in whole.pods] == ["g-0", "g-1", "g-2", "g-3", "g-10"]
    assert whole.record.placement is None


def test_a_gated_pod_does_not_count() -> None:
    pods = members(
        *a_gang("g", range(2), 3), of_gang("g-2", "g", 3, schedulingGates=[{"name": "x"}])
    )
    assert only(pods).lacking.endswith("(got 2, and 1 that are gated)")
    assert gangs(members(raw_pod("x", schedulingGates=[{"name": "x"}]))) == []


def test_slots_are_of_one_ask_and_seats_lie_slot_by_slot() -> None:
    pods = members(*(of_gang(f"g-{i}", "g", 4, gpus=gpus) for i, gpus in enumerate((1, 8, 1, 8))))
    gang = only(pods)
    assert [(slot.count, slot.ask.amount(GPU)) for slot in gang.record.slots] == [(2, 1), (2, 8)]
    assert [pod.name for pod in gang.pods] == ["g-0", "g-2", "g-1", "g-3"]


def test_a_group_partly_bound_is_a_placed_gang_with_lost_seats() -> None:
    pods = members(*a_gang("g", (0, 3), 4, nodeName="r0-1"), *a_gang("g", (1, 2), 4))
    gang = only(pods)
    assert gang.record.placement is not None
    assert gang.record.placement.seats == ("r0-1", "(g-1)", "(g-2)", "r0-1")
    assert gang.record.lost_seats() == (1, 2)
    assert gang.record.told.reason == "WaitingForSpare"


def test_what_is_beyond_the_size_of_a_bound_group_claims_nothing() -> None:
    pods = members(*a_gang("g", range(2), 3, nodeName="r0-0"), *a_gang("g", (2, 3, 4), 3))
    placed, *alone = gangs(pods)
    assert placed.record.lost_seats() == (2,)
    assert [gang.record.key for gang in alone] == ["ml/pod:g-3", "ml/pod:g-4"]
    assert all(gang.record.placement is None for gang in alone)


def test_pods_that_end_are_no_seats() -> None:
    dying = a_gang("g", range(2), 2, nodeName="r0-0", deletionTimestamp="2027-01-15T07:00:00Z")
    for number, raw in enumerate(dying):
        raw["metadata"]["uid"] = f"old-{number}"
    gang = only(members(*dying, *a_gang("g", range(2), 2)))
    assert gang.record.placement is None
    assert [pod.uid for pod in gang.pods] == ["uid-g-0", "uid-g-1"]


def test_more_pods_than_the_least_may_start_as_the_least() -> None:
    gang = only(members(*a_gang("g", range(5), 3)))
    assert gang.record.wanted_sizes() == (5, 3)


def test_a_policy_without_a_gang_makes_gangs_of_one() -> None:
    pods = members(*(raw_pod(f"x-{i}", schedulingGroup={"podGroupName": "g"}) for i in range(2)))
    assert [gang.record.key for gang in gangs(pods, {WHOLE: 0})] == ["ml/pod:x-0", "ml/pod:x-1"]


def test_a_size_that_nobody_says_is_waited_for() -> None:
    pods = members(raw_pod("x-0", schedulingGroup={"podGroupName": "g"}))
    assert "scheduling.k8s.io/podgroups g is not there" in only(pods).lacking
    assert only(pods, {WHOLE: 1}).lacking == ""
    ours = members(of_gang("y", "h"))
    assert "give its pods the annotation tramontane.dev/gang-size" in only(ours).lacking


def test_what_is_bound_counts_whatever_its_pods_say() -> None:
    """A seat never vanishes from the count because an annotation was edited."""
    pods = members(
        of_gang("g-0", "g", 2, nodeName="r0-0"), of_gang("g-1", "g", 3), of_gang("g-2", "g", 3)
    )
    gang = only(pods)
    assert gang.record.placement is not None
    assert gang.record.placement.seats == ("r0-0",)


def test_jobs_that_start_in_order_are_gangs_of_their_own() -> None:
    pods = members(
        *(
            raw_pod(
                f"train-{job}-{i}",
                labels={**JOBSET_LABELS, "jobset.sigs.k8s.io/replicatedjob-name": job},
            )
            for job, count in (("init", 1), ("node", 2))
            for i in range(count)
        )
    )
    found = gangs(pods, {"init": 1, "node": 2})
    assert [(g.record.key, len(g.pods), g.lacking) for g in found] == [
        ("ml/pods:jobset:train:0:init", 1, ""),
        ("ml/pods:jobset:train:0:node", 2, ""),
    ]
    assert len(only(pods, {WHOLE: 3}).pods) == 3


@pytest.mark.parametrize(
    ("notes", "pools", "pool", "flaw"),
    [
        ({}, ("a",), "a", ""),
        ({}, ("a", "b"), "", "must name a NodePool (got none; there are: a, b)"),
        ({"tramontane.dev/pool": "b"}, ("a", "b"), "b", ""),
    ],
    ids=["the-only-one", "none", "by-annotation"],
)
def test_the_pool(notes: Raw, pools: tuple[str, ...], pool: str, flaw: str) -> None:
    there = {name: PoolRecord(name, LEVELS) for name in pools}
    [gang] = gangs(members(raw_pod("x", annotations=notes)), None, **there)
    assert gang.record.pool == pool
    assert flaw in gang.record.flaw
    assert bool(flaw) == bool(gang.record.flaw)


def test_pods_that_disagree_about_the_pool_are_no_gang() -> None:
    pods = members(
        of_gang("g-0", "g", 2, annotations={"tramontane.dev/pool": "a"}),
        of_gang("g-1", "g", 2, annotations={"tramontane.dev/pool": "b"}),
    )
    assert "must name one NodePool (got a, b)" in only(pods).record.flaw


def test_the_limit_is_that_of_the_longest_pod_if_all_have_one() -> None:
    assert only(members(*a_gang("g", range(2), 2, activeDeadlineSeconds=60))).record.max_runtime_s
    mixed = members(of_gang("g-0", "g", 2, activeDeadlineSeconds=60), of_gang("g-1", "g", 2))
    assert only(mixed).record.max_runtime_s is None


def test_a_required_pack_holds_the_gang_in_one_rack() -> None:
    hall = Hall([2, 4])
    pods = members(*a_gang("g", range(3), 3, annotations={"tramontane.dev/pack": "rack"}))
    gang = only(pods)
    outcome = decide(hall.fleet, {gang.record.key: gang.record}, hall.pods, NOW).outcomes[
        gang.record.key
    ]
    assert outcome.placement is not None
    assert set(outcome.placement.seats) <= {"r1-0", "r1-1", "r1-2", "r1-3"}


def test_lost_seats_go_near_the_others() -> None:
    hall = Hall([4, 4, 4, 4])
    pods = members(
        of_gang("g-0", "g", 3, nodeName="r2-0"),
        of_gang("g-1", "g", 3, nodeName="r2-1"),
        of_gang("g-2", "g", 3),
    )
    gang = only(pods)
    outcome = decide(hall.fleet, {gang.record.key: gang.record}, hall.pods, NOW).outcomes[
        gang.record.key
    ]
    assert outcome.placement is not None
    assert outcome.placement.seats == ("r2-0", "r2-1", "r2-2")


def test_lost_seats_may_share_a_blade_with_the_others() -> None:
    hall = Hall([1])
    pods = members(
        *a_gang("g", range(2), 3, gpus=2, nodeName="r0-0"), *a_gang("g", (2,), 3, gpus=2)
    )
    gang = only(pods)
    done = decide(hall.fleet, {gang.record.key: gang.record}, hall.pods, NOW)
    placement = done.outcomes[gang.record.key].placement
    assert placement is not None
    assert placement.seats == ("r0-0",) * 3


def test_equal_pods_of_a_gang_share_blades() -> None:
    hall = Hall([4])
    gang = only(members(*a_gang("g", range(16), 16, gpus=2)))
    done = decide(hall.fleet, {gang.record.key: gang.record}, hall.pods, NOW)
    placement = done.outcomes[gang.record.key].placement
    assert placement is not None
    assert placement.seats == tuple(f"r0-{i // 4}" for i in range(16))
