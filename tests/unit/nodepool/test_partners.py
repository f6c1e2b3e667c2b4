"""Who vouches for others in a collective test, and what becomes of one that does so wrongly."""

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.clock import utc
from tramontane.api.names import Work
from tramontane.controllers.nodepool.bisect import GroupTest, Plan, plan
from tramontane.controllers.nodepool.care import Test as CollectiveTest
from tramontane.controllers.nodepool.groups import Candidate, play
from tramontane.controllers.nodepool.works import Outcome, WorkPod
from tramontane.kube.errors import from_status
from tramontane.kube.resources import PODS, Resource
from unit.nodepool.hall import SYSTEM, Hall, Raw
from unit.nodepool.steps import REPAIR, TEMPLATE, clean, pool, sick, wait

GROUP = "tramontane.dev/group"
QUALIFICATION = {
    "soak": "1s",
    "collective": {"template": TEMPLATE, "groupSize": 2, "minBandwidth": 300},
}
REMEDIATION = {"maxUnavailable": 1, **REPAIR}


async def old(hall: Hall, *names: str, **remediation: Any) -> None:
    """Have blades that work since before the pool asked for tests."""
    pool(hall, remediation=REMEDIATION | remediation)
    for name in names:
        hall.node(name)
    await hall.settle()
    for name in names:
        await clean(hall, name)


async def delivered(hall: Hall, *names: str, **remediation: Any) -> None:
    pool(hall, remediation=REMEDIATION | remediation, qualification=QUALIFICATION)
    for name in names:
        hall.node(name)
    await hall.settle()
    for name in names:
        await clean(hall, name)


async def measured(hall: Hall, names: Sequence[str], *bad: str) -> list[set[str]]:
    """Run what is planned, groups with a bad blade slow; return the groups, in order."""
    ran: list[set[str]] = []
    for _ in range(15):
        await wait(hall, 3, *names)
        groups: dict[str, dict[str, str]] = defaultdict(dict)
        for pod in hall.works():
            raw = hall.api.objects[PODS][f"{SYSTEM}/{pod}"]
            groups[raw["metadata"]["labels"][GROUP]][raw["spec"]["nodeName"]] = pod
        for pods in groups.values():
            if set(pods) not in ran[-len(groups) :]:
                ran.append(set(pods))
            for pod in pods.values():
                slow = not set(bad).isdisjoint(pods)
                hall.finish(pod, value=120.0 if slow else 341.5, unit="GB/s")
        await hall.settle()
    return ran


async def test_one_with_a_fault_that_was_refused_is_no_partner() -> None:
    async with Hall() as hall:
        names = ["gpu-0", "gpu-1", "gpu-2"]
        await old(hall, "gpu-0", maxUnavailable=0)
        await sick(hall, "gpu-0", code="nvlink-down", check="nvlink-state")
        assert (hall.state("gpu-0"), hall.severity("gpu-0")) == ("Healthy", "Fatal")
        await delivered(hall, "gpu-1", maxUnavailable=0)
        assert await measured(hall, names[:2], "gpu-0") == []
        assert hall.state("gpu-1") == "Qualifying"
        await delivered(hall, "gpu-2", maxUnavailable=0)
        assert await measured(hall, names, "gpu-0") == [{"gpu-1", "gpu-2"}]
        assert (hall.state("gpu-1"), hall.state("gpu-2")) == ("Healthy", "Healthy")


async def test_a_bad_one_condemns_nobody() -> None:
    async with Hall() as hall:
        names = ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]
        await old(hall, "gpu-0")
        await delivered(hall, "gpu-1")
        assert await measured(hall, names[:2], "gpu-0") == [{"gpu-0", "gpu-1"}]
        assert hall.state("gpu-1") == "Qualifying", "one of the two is bad"
        assert any("gpu-0, gpu-1 are bad" in note for _, _, note in hall.recorder.said)
        await delivered(hall, "gpu-2", "gpu-3")
        ran = await measured(hall, names, "gpu-0")
        assert not any("gpu-0" in group for group in ran)
        assert {hall.state(name) for name in names[1:]} == {"Healthy"}
        assert (hall.state("gpu-0"), hall.why("gpu-0")) == ("Quarantined", "CollectiveFailed")


async def test_a_bad_newcomer_is_condemned_by_two_who_then_pass_together() -> None:
    async with Hall() as hall:
        names = ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]
        await old(hall, "gpu-0", "gpu-1")
        await delivered(hall, "gpu-2")
        ran = await measured(hall, names[:3], "gpu-2")
        assert ran == [{"gpu-0", "gpu-2"}, {"gpu-1", "gpu-2"}, {"gpu-0", "gpu-1"}]
        assert (hall.state("gpu-2"), hall.why("gpu-2")) == ("Quarantined", "CollectiveFailed")
        assert not [note for _, _, note in hall.recorder.said if "no test can tell" in note]
        await delivered(hall, "gpu-3")
        assert await measured(hall, names, "gpu-2") == [{"gpu-0", "gpu-3"}]
        assert {hall.state(name) for name in ("gpu-0", "gpu-1", "gpu-3")} == {"Healthy"}


async def test_a_checker_that_fails_everybody_condemns_nobody_and_people_are_told() -> None:
    async with Hall() as hall:
        good, new = ["gpu-0", "gpu-1", "gpu-2", "gpu-3"], ["gpu-4", "gpu-5"]
        await old(hall, *good)
        await delivered(hall, *new)
        for _ in range(3):
            await measured(hall, [*good, *new], *good, *new)
        assert {hall.state(name) for name in new} == {"Qualifying"}
        assert {hall.state(name) for name in good} == {"Healthy"}
        first, last = (note for name, _, note in hall.recorder.said if name == "paris")
        assert "none has passed; look at minBandwidth" in first
        assert "which of gpu-0, gpu-1, gpu-2, gpu-3, gpu-4, gpu-5 are bad" in last


async def test_new_ones_with_work_are_not_tested_under_it() -> None:
    async with Hall() as hall:
        pool(hall, remediation=REMEDIATION, qualification=QUALIFICATION)
        for name in ("gpu-1", "gpu-2"):
            hall.node(name)
            hall.guest(f"{name}-0", name, gang="" if name == "gpu-1" else "llama")
        await hall.settle()
        for name in ("gpu-1", "gpu-2"):
            await clean(hall, name)
        assert await measured(hall, ["gpu-1", "gpu-2"]) == []
        for name in ("gpu-1", "gpu-2"):
            hall.api.drop(PODS, f"ml/{name}-0")
        assert await measured(hall, ["gpu-1", "gpu-2"]) == [{"gpu-1", "gpu-2"}]


@pytest.mark.parametrize("word", ["release", "hold and release"])
async def test_a_pair_runs_again_once_a_person_has_mended_one_of_the_two(word: str) -> None:
    async with Hall() as hall:
        pair = ["gpu-1", "gpu-2"]
        await delivered(hall, *pair, maxUnavailable=2)
        assert await measured(hall, pair, "gpu-2") == [set(pair)]
        assert {hall.state(name) for name in pair} == {"Qualifying"}, "nobody knows which"
        said = {"reason": "cable", "by": "anna"}
        if word != "release":
            hall.spec("gpu-2", hold={**said, "at": utc(hall.now)})
            await wait(hall, 60, *pair)
        hall.spec("gpu-2", release={**said, "at": utc(hall.now)})
        assert await measured(hall, pair) == [set(pair)]
        assert {hall.state(name) for name in pair} == {"Healthy"}
        await delivered(hall, "gpu-3", maxUnavailable=2)
        await measured(hall, [*pair, "gpu-3"])
        assert {hall.state(name) for name in [*pair, "gpu-3"]} == {"Healthy"}


async def test_a_release_of_before_a_failed_group_does_not_undo_it() -> None:
    async with Hall() as hall:
        pair = ["gpu-1", "gpu-2"]
        await delivered(hall, *pair, maxUnavailable=2)
        hall.spec("gpu-2", release={"reason": "cable", "by": "anna", "at": utc(hall.now)})
        assert await measured(hall, pair, "gpu-2") == [set(pair)]
        assert await measured(hall, pair) == []


def failed(*groups: str) -> list[GroupTest]:
    return [GroupTest(frozenset(group), passed=False) for group in groups]


def passed(*groups: str) -> list[GroupTest]:
    return [GroupTest(frozenset(group), passed=True) for group in groups]


@pytest.mark.parametrize(
    ("members", "named", "tests", "expected"),
    [
        pytest.param(
            "xp", "p", [], Plan(groups=(("x", "p"),), cleared=frozenset("p")), id="a partner"
        ),
        pytest.param(
            "xp", "p", failed("xp"), Plan(undecided=frozenset("xp")), id="one word is no proof"
        ),
        pytest.param(
            "xpq",
            "pq",
            failed("xp"),
            Plan(groups=(("x", "q"),), cleared=frozenset("q")),
            id="another partner",
        ),
        pytest.param(
            "xpq",
            "pq",
            failed("xp", "xq"),
            Plan(groups=(("p", "q"),)),
            id="nor are two",
        ),
        pytest.param(
            "xpq",
            "pq",
            [*failed("xp", "xq"), *passed("pq")],
            Plan(condemned=frozenset("x"), cleared=frozenset("pq")),
            id="two who passed together",
        ),
        pytest.param(
            "xpq",
            "pq",
            failed("xp", "xq", "pq"),
            Plan(undecided=frozenset("xpq")),
            id="two who failed together",
        ),
        pytest.param(
            "xq",
            "pq",
            failed("xp", "xq"),
            Plan(undecided=frozenset("xq")),
            id="two words, one of a blade that works now",
        ),
        pytest.param(
            "xp",
            "p",
            failed("xp", "xp"),
            Plan(undecided=frozenset("xp")),
            id="the same word twice",
        ),
        pytest.param(
            "xpq",
            "pq",
            [*failed("xp"), *passed("xq")],
            Plan(condemned=frozenset("p"), cleared=frozenset("xq")),
            id="a wrong word",
        ),
        pytest.param(
            "xyp",
            "p",
            failed("xp"),
            Plan(groups=(("x", "y"),)),
            id="a doubted one is no partner for another",
        ),
        pytest.param(
            "xyp",
            "p",
            failed("xp", "xy"),
            Plan(groups=(("p", "y"),)),
            id="but may clear itself with those who are left",
        ),
        pytest.param(
            "xypq",
            "pq",
            failed("xy"),
            Plan(groups=(("x", "p"), ("y", "q")), cleared=frozenset("pq")),
            id="suspects with one each",
        ),
    ],
)
def test_what_a_good_name_is_worth(
    members: str, named: str, tests: list[GroupTest], expected: Plan
) -> None:
    got = plan(members, tests, 16, named)
    assert Plan(
        tuple(tuple(sorted(group)) for group in got.groups),
        got.condemned,
        got.cleared,
        got.undecided,
        got.contradicted,
    ) == Plan(
        tuple(tuple(sorted(group)) for group in expected.groups),
        expected.condemned,
        expected.cleared,
        expected.undecided,
        expected.contradicted,
    )


@given(st.integers(1, 12), st.integers(0, 12), st.integers(2, 16), st.data())
def test_no_good_blade_is_condemned_whatever_good_names_hide(
    new: int, old: int, group_size: int, data: st.DataObject
) -> None:
    named = [f"old-{number:02}" for number in range(old)]
    members = [*(f"new-{number:02}" for number in range(new)), *named]
    bad = data.draw(st.sets(st.sampled_from(members)))
    tests: list[GroupTest] = []
    while (planned := plan(members, tests, group_size, named)).groups:
        tests += [
            GroupTest(frozenset(group), passed=bad.isdisjoint(group)) for group in planned.groups
        ]
        assert len(tests) < 1000
    assert planned.condemned <= bad
    if len(members) - len(bad) >= 2 and not bad.intersection(named):
        assert planned.condemned == bad


TEST = CollectiveTest(template=copy.deepcopy(TEMPLATE), timeout_s=300.0, group_size=2)


def waits(name: str, **results: bool) -> Candidate:
    return Candidate(name, waits=True, results=results, failed=missed(results))


def works(name: str, failed_since: bool = True, **results: bool) -> Candidate:
    since = missed(results) if failed_since else frozenset[str]()
    return Candidate(name, named=True, idle=True, results=results, failed=since)


def missed(results: dict[str, bool]) -> frozenset[str]:
    return frozenset(group for group, good in results.items() if not good)


def test_what_a_healthy_blade_passed_long_ago_proves_nothing() -> None:
    old_pass = {"a-2": True, "b-2": False}
    played = play(
        TEST,
        [waits("new", **{"b-2": False}), works("old", **old_pass), works("mate", **{"a-2": True})],
        (),
        1000.0,
    )
    assert list(played.start.values()) == [("new", "mate")]
    assert played.blades["new"].good is None


def test_one_that_failed_with_blades_that_passed_since_is_told_so_when_nobody_waits() -> None:
    new = works("new", failed_since=False, **{"b-2": False, "c-2": True})
    mate = works("mate", **{"c-2": True})
    played = play(TEST, [new, works("old", **{"b-2": False}), mate], (), 1000.0)
    assert played.blades["old"].good is False
    assert (played.start, set(played.blades)) == ({}, {"old"})


def test_a_failure_of_some_who_all_passed_since_is_told_with_all_their_names() -> None:
    first = works("first", failed_since=False, **{"b-2": False, "c-2": True})
    second = waits("second", **{"b-2": False, "c-2": True})
    played = play(TEST, [first, second], (), 1000.0)
    assert [text for text in played.trouble if "first, second failed together" in text]
    assert played.blades["second"].good


def test_nobody_who_is_in_doubt_is_tested_for_its_own_sake() -> None:
    doubted = [
        works(name, **{group: False})
        for name, group in [("a", "x-2"), ("b", "x-2"), ("c", "y-2"), ("d", "y-2")]
    ]
    played = play(TEST, doubted, (), 1000.0)
    assert (played.start, played.blades) == ({}, {})
    played = play(TEST, [*doubted, waits("new")], (), 1000.0)
    assert played.start, "but together with one who waits"


def work(blade: str, outcome: Outcome, *, started_at: float | None = 0.0, **more: Any) -> WorkPod:
    return WorkPod(
        name=f"collective-{blade}-g-2",
        blade=blade,
        pool="paris",
        kind=Work.COLLECTIVE,
        outcome=outcome,
        created_at=0.0,
        started_at=started_at,
        group="g-2",
        group_size=2,
        **more,
    )


FAST = CollectiveTest(copy.deepcopy(TEMPLATE), timeout_s=300.0, group_size=2, min_bandwidth=300.0)


@pytest.mark.parametrize(
    ("pods", "passed", "why"),
    [
        pytest.param(
            [work("a", Outcome.PASSED, value=341.5), work("b", Outcome.PASSED)],
            True,
            "",
            id="one rank says the bandwidth of all",
        ),
        pytest.param(
            [work("a", Outcome.PASSED), work("b", Outcome.PASSED)],
            None,
            "none says the bandwidth",
            id="no rank says it",
        ),
        pytest.param(
            [work("a", Outcome.PASSED, value=3.1), work("b", Outcome.PASSED, value=341.5)],
            False,
            "",
            id="slow",
        ),
        pytest.param(
            [
                work("a", Outcome.PASSED, value=341.5),
                work("b", Outcome.BROKEN, value=3.1, evidence="exit code 1 (Evicted)"),
            ],
            None,
            "b: exit code 1 (Evicted)",
            id="what a broken one says does not count",
        ),
        pytest.param(
            [work("a", Outcome.FAILED, value=341.5), work("b", Outcome.PASSED)],
            False,
            "",
            id="one fails",
        ),
        pytest.param(
            [work("a", Outcome.RUNNING, ours=True), work("b", Outcome.RUNNING, ours=True)],
            None,
            "a: no end within 5m; `timeout` must be 10m longer",
            id="our own check outlives its time",
        ),
        pytest.param(
            [work("a", Outcome.RUNNING, ours=True), work("b", Outcome.RUNNING, started_at=None)],
            None,
            "a: no end within 5m",
            id="as it waits for one that does not start",
        ),
        pytest.param(
            [work("a", Outcome.RUNNING), work("b", Outcome.RUNNING)], False, "", id="another tool"
        ),
        pytest.param([work("a", Outcome.PASSED, value=341.5)], None, "a pod is missing", id="half"),
    ],
)
def test_what_a_group_shows(pods: list[WorkPod], passed: bool | None, why: str) -> None:
    played = play(FAST, [waits("a"), waits("b")], pods, 1000.0)
    result = played.finished["g-2"]
    assert (result.passed if result is not None else None) is passed
    assert why in played.broke.get("g-2", "")


@pytest.mark.parametrize(
    ("pods", "is_known"),
    [
        pytest.param(
            [work("a", Outcome.RUNNING), work("b", Outcome.RUNNING)], True, id="out of time"
        ),
        pytest.param(
            [work("a", Outcome.RUNNING), work("b", Outcome.RUNNING, started_at=None)],
            False,
            id="one waits for one that never began",
        ),
        pytest.param(
            [work("a", Outcome.FAILED), work("b", Outcome.RUNNING, started_at=None)],
            True,
            id="one failed all the same",
        ),
        pytest.param([work("a", Outcome.PASSED), work("b", Outcome.BROKEN)], False, id="one broke"),
    ],
)
def test_what_a_group_shows_whose_time_is_over(pods: list[WorkPod], is_known: bool) -> None:
    played = play(TEST, [waits("a"), waits("b")], pods, 1000.0)
    assert (played.finished["g-2"] is not None) is is_known


async def test_a_group_that_is_refused_breaks_none_in_which_a_partner_runs() -> None:
    async with Hall() as hall:
        names = ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]
        await old(hall, *names[:2])
        await delivered(hall, *names[2:])
        create = hall.api.create

        async def quota(resource: Resource, body: Raw, namespace: str, **more: Any) -> Raw:
            if resource is PODS and len(hall.works()) >= 2:
                raise from_status(403, {"reason": "Forbidden", "message": "exceeded quota"})
            return await create(resource, body, namespace, **more)

        hall.api.create = quota  # type: ignore[method-assign] # what an admission plugin does
        for _ in range(3):
            await wait(hall, 1, *names)
        for pod in hall.works():
            hall.finish(pod, value=120.0, unit="GB/s")
        await hall.settle()
        for _ in range(3):
            await wait(hall, 1, *names)
        pair = hall.works()
        assert len(pair) == 2, "one with a partner; for the other there is no room"
        assert any("gpu-0" in pod or "gpu-1" in pod for pod in pair)
        for _ in range(60):
            await wait(hall, 1, *names)
            assert hall.works() == pair


async def test_a_release_of_one_that_works_and_is_in_doubt_lets_it_work() -> None:
    async with Hall() as hall:
        pair = ["gpu-0", "gpu-1"]
        await old(hall, "gpu-0")
        await delivered(hall, "gpu-1")
        await measured(hall, pair, "gpu-1")
        assert hall.state("gpu-0") == "Healthy"
        hall.spec("gpu-0", release={"reason": "noise", "by": "anna", "at": utc(hall.now)})
        await wait(hall, 5, *pair)
        assert hall.state("gpu-0") == "Healthy"
        await sick(hall, "gpu-0")
        (one,) = hall.blade("gpu-0")["status"]["incidents"]
        assert one["from"] == "Healthy"
