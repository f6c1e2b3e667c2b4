"""Whose clock is wrong, by how much at least: from answers whose time has whole seconds."""

import random

import pytest
from prometheus_client import CollectorRegistry

from tramontane.kube.metrics import ClockSkew
from tramontane.kube.skew import ANYTHING, WINDOW_S, Interval, Skew, interval, parse_date

DATE = "Tue, 24 Nov 2026 15:02:07 GMT"
DATE_S = 1_795_532_527.0


@pytest.mark.parametrize(
    ("sent", "answered", "nearest"),
    [
        pytest.param(0.1, 0.3, 0, id="the-same-second"),
        pytest.param(-0.2, 0.1, 0, id="sent-in-the-second-before"),
        pytest.param(0.9, 1.2, 0, id="came-in-the-second-after"),
        pytest.param(-1.0, 2.0, 0, id="slow"),
        pytest.param(3.0, 3.1, 2.0, id="we-are-ahead"),
        pytest.param(-3.1, -3.0, -3.0, id="we-are-behind"),
    ],
)
def test_one_answer(sent: float, answered: float, nearest: float) -> None:
    seen = interval(DATE_S, DATE_S + sent, DATE_S + answered)
    assert seen.nearest == pytest.approx(nearest)


@pytest.mark.parametrize("skew", [-7.3, -1.4, -0.6, 0.0, 0.6, 1.4, 7.3])
def test_answers_narrow_it_down(skew: float) -> None:
    """A hundred answers at any part of a second leave less than a tenth of one open."""
    rng = random.Random(1)
    known = Skew()
    for turn in range(100):
        theirs = 1000 + 0.5 * turn + rng.random()
        came, went = rng.random() * 0.05, rng.random() * 0.05
        seen = interval(int(theirs), theirs + skew - went, theirs + skew + came)
        assert seen.low <= skew <= seen.high
        known.take(seen, 0.5 * turn)
    shown = known.seconds(50.0)
    assert shown is not None
    # Below what a whole second hides nothing is told; beyond it never more than there is.
    assert abs(shown) <= abs(skew) + 1e-9
    assert abs(skew - shown) < 0.1


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    known = Skew()
    known.take(Interval(6.1, 7.3), 0.0)
    known.take(Interval(-0.9, 0.3), 1.0)
    assert known.seconds(1.0) == 0
    known.take(Interval(4.0, 5.0), WINDOW_S + 1)
    assert known.seconds(WINDOW_S + 1) == 4


def test_what_was_heard_long_ago_is_forgotten() -> None:
    known = Skew()
    assert known.seconds(0.0) is None
    known.take(Interval(6.1, 7.3), 0.0)
    known.take(Interval(2.0, 9.0), WINDOW_S)
    assert known.seconds(WINDOW_S) == 6.1
    known.take(Interval(2.0, 9.0), 2 * WINDOW_S)
    assert known.seconds(2 * WINDOW_S) == 2.0
    assert known.seconds(4 * WINDOW_S) is None


def test_intervals_that_have_nothing_in_common() -> None:
    assert ANYTHING.narrowed(Interval(1, 2)) == Interval(1, 2)
    assert Interval(0, 1).narrowed(Interval(0.5, 3)) == Interval(0.5, 1)
    assert Interval(0, 1).narrowed(Interval(2, 3)) == Interval(2, 3)


@pytest.mark.parametrize(
    ("text", "expected"), [(DATE, DATE_S), ("", None), ("yesterday", None), ("Tue, 99 Nov", None)]
)
def test_a_date(text: str, expected: float | None) -> None:
    assert parse_date(text) == expected


def test_it_has_no_sample_before_an_answer() -> None:
    now = [0.0]
    registry, shown = CollectorRegistry(), ClockSkew(lambda: now[0])
    registry.register(shown)
    name = "tramontane_clock_skew_seconds"
    assert registry.get_sample_value(name) is None
    shown.heard(None, 1.0, 2.0)
    assert registry.get_sample_value(name) is None
    shown.heard(DATE, DATE_S + 3.0, DATE_S + 3.1)
    assert registry.get_sample_value(name) == pytest.approx(2.0)
    now[0] = 1000.0
    assert registry.get_sample_value(name) is None
