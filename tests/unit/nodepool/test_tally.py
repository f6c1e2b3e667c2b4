"""Running counts of a pool: they are what counting anew would give."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.blade import BladeState
from tramontane.controllers.nodepool.tally import Member, Tally

NOW = 1_800_000_000.0
DAY = 86_400.0
MINUTE = 60.0 / DAY
HEALTHY = Member("paris", BladeState.HEALTHY, takes_work=True, tranche="t1", first_try=True)


def test_counts_who_passed_at_the_first_try() -> None:
    tally = Tally()
    tally.enter("a", HEALTHY)
    tally.enter("b", replace(HEALTHY, first_try=False))
    tally.enter("c", replace(HEALTHY, first_try=None))
    tally.enter("d", replace(HEALTHY, tranche=""))
    assert tally.of("paris").tries == {"t1": Counter({True: 1, False: 1})}
    tally.enter("b", HEALTHY)
    assert +tally.of("paris").tries["t1"] == Counter({True: 2})
    for name in "abc":
        tally.enter(name, None)
    assert tally.of("paris").tries == {}


def test_counts_failures_of_those_who_are_there() -> None:
    tally = Tally()
    tally.enter("a", replace(HEALTHY, failures=2))
    tally.enter("b", replace(HEALTHY, failures=1))
    assert tally.of("paris").failures == 3
    tally.enter("a", replace(HEALTHY, failures=1))
    tally.enter("b", replace(HEALTHY, pool="lyon", failures=1))
    assert (tally.of("paris").failures, tally.of("lyon").failures) == (1, 1)


@pytest.mark.parametrize(
    ("ages_days", "expected"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([None], 0, id="of unknown age"),
        pytest.param([-1], 0, id="from the future"),
        pytest.param([7], 7, id="a week"),
        pytest.param([28, 29, 400], 84, id="28 days at most"),
        pytest.param([1, 1, 3], 5, id="added up"),
        pytest.param([10 / 1440] * 288, 2, id="many, ten minutes each"),
    ],
)
def test_blade_days(ages_days: list[float | None], expected: float) -> None:
    tally = Tally()
    for n, age in enumerate(ages_days):
        since = None if age is None else NOW - age * DAY
        tally.enter(f"gpu-{n}", replace(HEALTHY, since=since))
    assert tally.of("paris").blade_days(NOW) == pytest.approx(expected, abs=MINUTE * len(ages_days))
    # A day later without any change of a blade.
    young = sum(age is not None and 0 < age < 28 for age in ages_days)
    later = tally.of("paris").blade_days(NOW + DAY)
    assert later == pytest.approx(expected + young, abs=MINUTE * len(ages_days))


MEMBERS = st.none() | st.builds(
    Member,
    pool=st.sampled_from(["paris", "lyon"]),
    state=st.none() | st.sampled_from(BladeState),
    takes_work=st.booleans(),
    tranche=st.sampled_from(["", "t1", "t2"]),
    first_try=st.none() | st.booleans(),
    failures=st.integers(0, 3),
    since=st.none() | st.sampled_from([NOW - 40 * DAY, NOW - 3 * DAY, NOW]),
)


@given(changes=st.lists(st.tuples(st.sampled_from("abcde"), MEMBERS), max_size=40))
def test_is_what_counting_anew_gives(changes: list[tuple[str, Member | None]]) -> None:
    running, anew, last = Tally(), Tally(), dict(changes)
    for name, member in changes:
        running.enter(name, member)
    for name, member in last.items():
        anew.enter(name, member)
    for pool in ("paris", "lyon"):
        left, right = running.of(pool), anew.of(pool)
        assert +left.states == +right.states
        assert left.failures == right.failures
        assert left.births == right.births
        assert {key: +one for key, one in left.tries.items() if +one} == {
            key: +one for key, one in right.tries.items() if +one
        }
