"""Bisection finds exactly the bad blades, in few rounds, and says when nobody can."""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.nodepool.bisect import MAX_PAIRINGS, GroupTest, Plan, plan

HALL = tuple(f"gpu-{number:03}" for number in range(128))


@dataclass(frozen=True)
class Run:
    plan: Plan
    rounds: int


def ran(bad: Iterable[str], *groups: str | Sequence[str]) -> list[GroupTest]:
    return [GroupTest(frozenset(group), passed=not set(group) & set(bad)) for group in groups]


def play(members: Sequence[str], bad: Iterable[str], group_size: int, limit: int = 200) -> Run:
    """Run what is planned until nothing is, on blades of which `bad` fail in any group."""
    tests: list[GroupTest] = []
    for rounds in range(limit):
        planned = plan(members, tests, group_size)
        if not planned.groups:
            return Run(planned, rounds)
        assert planned.undecided == frozenset()
        seats = [name for group in planned.groups for name in group]
        assert len(seats) == len(set(seats)), "a blade is in two groups"
        assert set(seats) <= set(members)
        assert all(2 <= len(group) <= group_size for group in planned.groups)
        assert planned.condemned <= set(bad), "a good blade is condemned"
        assert not planned.cleared & set(bad), "a bad blade is cleared"
        before = {test.group for test in tests}
        assert not before & {frozenset(group) for group in planned.groups}, "a test is run twice"
        tests += ran(bad, *planned.groups)
    raise AssertionError(f"no end after {limit} rounds")


def exact(run: Run, members: Sequence[str], bad: Iterable[str]) -> bool:
    return run.plan == Plan(condemned=frozenset(bad), cleared=frozenset(members) - frozenset(bad))


@pytest.mark.parametrize("place", range(128))
def test_one_bad_blade_of_128_is_found_wherever_it_is(place: int) -> None:
    run = play(HALL, {HALL[place]}, 16)
    assert exact(run, HALL, {HALL[place]})
    assert run.rounds <= 8


@pytest.mark.parametrize(("count", "limit"), [(2, 12), (3, 16)], ids=["two bad", "three bad"])
def test_a_few_bad_blades_of_128_are_found_wherever_they_are(count: int, limit: int) -> None:
    draw = random.Random(count)
    together = [HALL[start : start + count] for start in range(128 - count)]
    anywhere = [tuple(draw.sample(HALL, count)) for _ in range(300)]
    most = 0
    for bad in together + anywhere:
        run = play(HALL, bad, 16)
        assert exact(run, HALL, bad), bad
        most = max(most, run.rounds)
    assert most <= limit
    assert most == 2, "with partners for all, the second round decides"


@pytest.mark.parametrize("count", [1, 2, 3], ids=["one bad", "two bad", "three bad"])
def test_those_who_passed_may_have_left_for_work(count: int) -> None:
    """Nobody who passed is a partner but two, as when the others already run jobs again."""
    draw = random.Random(count)
    for _ in range(100):
        bad = frozenset(draw.sample(HALL, count))
        tests: list[GroupTest] = []
        here: Sequence[str] = HALL
        for _rounds in range((8, 12, 16)[count - 1]):
            planned = plan(here, tests, 16)
            tests += ran(bad, *planned.groups)
            passed = plan(HALL, tests, 16).cleared
            partners = sorted(passed)[:2]
            here = [name for name in HALL if name not in passed or name in partners]
        assert planned.groups == ()
        assert planned.condemned == bad


def test_the_first_round_tests_everybody_in_groups_of_the_size_asked_for() -> None:
    groups = plan(HALL, (), 16).groups
    assert [len(group) for group in groups] == [16] * 8
    assert tuple(itertools.chain(*groups)) == HALL


@pytest.mark.parametrize(
    ("count", "group_size", "sizes"),
    [
        pytest.param(17, 16, [8, 9], id="one more than a group"),
        pytest.param(33, 16, [11, 11, 11], id="one more than two groups"),
        pytest.param(5, 16, [5], id="fewer than a group"),
        pytest.param(5, 3, [2, 3], id="odd"),
        pytest.param(1, 16, [], id="alone"),
        pytest.param(0, 16, [], id="nobody"),
    ],
)
def test_groups_are_even(count: int, group_size: int, sizes: list[int]) -> None:
    planned = plan(HALL[:count], (), group_size)
    assert sorted(len(group) for group in planned.groups) == sizes
    assert planned.undecided == (frozenset(HALL[:1]) if count == 1 else frozenset())


def test_of_pairs_one_blade_waits_where_the_number_is_odd() -> None:
    planned = plan("abc", (), 2)
    assert planned.groups == (("b", "c"),)
    assert plan("abc", ran("", "bc"), 2).groups == (("a", "b"),)


@pytest.mark.parametrize(
    ("members", "tests", "expected"),
    [
        pytest.param(
            "ab", ran("b", "ab"), Plan(undecided=frozenset("ab")), id="two without a third"
        ),
        pytest.param(
            "abc",
            [*ran("b", "ab"), *ran("", "c")],
            Plan(groups=(("a", "c"),), cleared=frozenset("c")),
            id="a third one is known to be good",
        ),
        pytest.param(
            "abcd",
            [*ran("b", "ab"), *ran("", "cd")],
            Plan(groups=(("a", "c"), ("b", "d")), cleared=frozenset("cd")),
            id="a partner for each",
        ),
        pytest.param(
            "abc",
            ran("b", "abc", "ac"),
            Plan(condemned=frozenset("b"), cleared=frozenset("ac")),
            id="condemned by those who passed without it",
        ),
        pytest.param(
            "abcd",
            ran("ac", "abcd", "ab", "cd"),
            Plan(groups=(("a", "c"), ("b", "d"))),
            id="nobody passed: the pairs change partners",
        ),
        pytest.param(
            "abcdef",
            ran("ac", "ab", "cd", "ef"),
            Plan(groups=(("a", "e"), ("b", "f")), cleared=frozenset("ef")),
            id="no partners left for the second pair",
        ),
        pytest.param(
            "abxz",
            ran("x", "abx", "zx", "z"),
            Plan(
                groups=(("a", "b"),),
                condemned=frozenset("x"),
                cleared=frozenset("z"),
            ),
            id="a condemned one explains its group",
        ),
        pytest.param("ab", ran("x", "abx"), Plan(groups=(("a", "b"),)), id="one has gone"),
        pytest.param(
            "ab",
            [*ran("", "ab"), GroupTest(frozenset("ab"), passed=False)],
            Plan(cleared=frozenset("ab"), contradicted=(frozenset("ab"),)),
            id="a failure of good ones",
        ),
        pytest.param(
            "abcd",
            ran("ab", "abcd", "ab"),
            Plan(groups=(("c", "d"),)),
            id="a smaller set explains the larger one",
        ),
    ],
)
def test_what_tests_show(members: str, tests: list[GroupTest], expected: Plan) -> None:
    assert plan(members, tests, 16) == expected
    assert plan(members, reversed(tests), 16) == expected


def test_a_hall_where_all_is_bad_is_given_up_and_nobody_is_condemned() -> None:
    run = play(HALL, HALL, 16)
    assert run.plan == Plan(undecided=frozenset(HALL))
    assert run.rounds <= 4 + 2 * MAX_PAIRINGS


@given(st.integers(2, 17), st.integers(2, 20), st.data())
def test_two_good_blades_are_enough_to_know_all(
    count: int, group_size: int, data: st.DataObject
) -> None:
    members = HALL[:count]
    bad = data.draw(st.sets(st.sampled_from(members)))
    run = play(members, bad, group_size)
    if len(bad) <= count - 2:
        assert exact(run, members, bad)
    else:
        assert run.plan == Plan(undecided=frozenset(members))


@given(st.integers(2, 128), st.integers(2, 32), st.data())
def test_any_hall_ends_and_whoever_is_undecided_has_nobody_to_be_tested_with(
    count: int, group_size: int, data: st.DataObject
) -> None:
    members = HALL[:count]
    bad = data.draw(st.sets(st.sampled_from(members), max_size=count))
    run = play(members, bad, group_size)
    assert exact(run, members, bad) or not run.plan.cleared


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 2 or more \(got 1\)"):
        plan("ab", (), 1)
