"""Estimates learn from starts, and their p50 and p90 come to mean what they say."""

import random

import pytest

from tramontane.scheduler.forecast import LEAST_LEARNT, MOST_LEVEL, Forecast, Learner
from tramontane.scheduler.gangs import Estimate

START = 1_000_000.0


def test_before_anything_is_learnt_the_promise_is_the_estimate() -> None:
    estimate = Forecast(((60.0, 0.1),) * (LEAST_LEARNT - 1)).estimate(START, START + 60)
    assert (estimate.p50_s, estimate.p90_s) == (START + 60, START + 60)


def test_a_promise_that_is_over_is_now() -> None:
    estimate = Forecast().estimate(START, START - 60)
    assert (estimate.p50_s, estimate.p90_s) == (START, START)


def test_a_start_teaches_by_each_promise_that_went_before_it() -> None:
    learner = Learner()
    learner.waits({"a": START + 100, "b": START + 50}, START)
    learner.waits({"a": START + 100, "b": START + 50}, START + 10)  # a sixth less: the same promise
    learner.waits({"a": START + 100}, START + 40)  # b went away without a start
    learner.started(["a", "unknown"], START + 70)
    assert learner.forecast.quotients == ((100.0, 70 / 100), (60.0, 30 / 60))
    learner.started(["a", "b"], START + 80)
    assert len(learner.forecast.quotients) == 2


def test_only_the_latest_starts_count() -> None:
    forecast = Forecast().learnt([(9.0, 9.0)] * 1000).learnt([(9.0, 1.0)] * 1000)
    assert forecast.estimate(START, START + 10).p90_s == START + 10


def test_long_waits_learn_from_long_ones_and_short_from_short() -> None:
    forecast = Forecast().learnt([(10.0, 0.2), (1000.0, 0.8)] * 200)
    assert forecast.estimate(START, START + 20).p50_s == START + 4
    assert forecast.estimate(START, START + 500).p50_s == START + 400


@pytest.mark.parametrize("seed", range(3))
def test_half_and_nine_of_ten_starts_come_before_what_was_said(seed: int) -> None:
    rng, learner = random.Random(seed), Learner()
    by_half, by_most = 0, 0
    for start in range(2000):
        now = START + start * 1000
        promised = now + rng.uniform(10, 500)
        estimate = learner.forecast.estimate(now, promised)
        really = now + (promised - now) * rng.betavariate(4, 2)
        learner.waits({"a": promised}, now)
        learner.started(["a"], really)
        if start >= 200:
            by_half += really <= estimate.p50_s
            by_most += really <= estimate.p90_s
    assert by_half / 1800 == pytest.approx(0.5, abs=0.05)
    assert by_most / 1800 == pytest.approx(0.9, abs=0.03)


def test_levels_follow_how_estimates_come_true() -> None:
    """The world turns slower half way: quotients learnt before would leave too few in time."""
    rng, learner = random.Random(5), Learner()
    in_time = 0
    for start in range(4000):
        now = START + start * 10_000
        promised = now + 100
        estimate = learner.forecast.estimate(now, promised)
        real = now + rng.uniform(0, 100) * (1 + start / 2000)
        learner.waits({"a": promised}, now)
        learner.started(["a"], real)
        in_time += real <= estimate.p90_s
    assert in_time / 4000 == pytest.approx(0.9, abs=0.01)


def test_nine_of_ten_come_in_time_even_while_each_wait_is_longer_than_all_before_it() -> None:
    """No quotient that was seen is enough then: the estimate goes beyond the longest."""
    rng, learner = random.Random(7), Learner()
    in_time = 0
    for start in range(500):
        now = START + start * 10_000
        estimate = learner.forecast.estimate(now, now + 100)
        real = now + 100 * 1.05**start * rng.uniform(0.9, 1)
        learner.waits({"a": now + 100}, now)
        learner.started(["a"], real)
        if start >= 100:
            in_time += real <= estimate.p90_s
    assert in_time / 400 == pytest.approx(0.9, abs=0.03)


def test_an_estimate_is_bounded_however_often_it_came_true_too_late() -> None:
    forecast = Forecast().learnt([(100.0, 2.0)] * 200)
    for _ in range(1000):
        forecast = forecast.came_true(Estimate(START, START), START + 1)
    assert forecast.most == MOST_LEVEL
    assert forecast.estimate(START, START + 100).p90_s < START + 200 * 150
    for _ in range(1000):  # and it comes back
        forecast = forecast.came_true(Estimate(START + 2, START + 2), START + 1)
    assert forecast.estimate(START, START + 100).p90_s == START + 200
