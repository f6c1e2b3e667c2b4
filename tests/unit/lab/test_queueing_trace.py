"""A trace is drawn from its seed, and looks as its description says."""

import statistics

import pytest

from tramontane.lab.queueing.trace import BEGIN_S, DAY_S, Job, Shape, draw, period_s

SHAPE = Shape(blades=256, largest=128, days=28)


@pytest.fixture(scope="module")
def jobs() -> tuple[Job, ...]:
    return draw(SHAPE, seed=7)


def test_the_same_seed_draws_the_same_trace_and_another_one_another(jobs: tuple[Job, ...]) -> None:
    assert draw(SHAPE, seed=7) == jobs
    assert draw(SHAPE, seed=8) != jobs


def test_jobs_arrive_in_order_under_names_of_their_own(jobs: tuple[Job, ...]) -> None:
    arrivals = [job.gang.created_s for job in jobs]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= BEGIN_S
    assert len({job.gang.key for job in jobs}) == len(jobs)


def test_the_offered_load_is_the_one_asked_for(jobs: tuple[Job, ...]) -> None:
    work = sum(job.seats * job.runtime_s for job in jobs)
    # The period ends with the last arrival, a little before the time that was drawn from.
    assert work / (SHAPE.blades * period_s(jobs)) == pytest.approx(SHAPE.load, rel=0.01)


def test_sizes_are_powers_of_two_and_each_has_about_the_same_work(jobs: tuple[Job, ...]) -> None:
    sizes = [job.seats for job in jobs]
    assert set(sizes) == {1, 2, 4, 8, 16, 32, 64, 128}
    blades = [sum(size for size in sizes if size == one) for one in (1, 2, 4, 8)]
    assert max(blades) < 1.5 * min(blades)


def test_no_job_runs_beyond_its_limit_and_honest_ones_nearly_up_to_it(
    jobs: tuple[Job, ...],
) -> None:
    shares = [job.runtime_s / (job.gang.max_runtime_s or 0) for job in jobs]
    assert min(shares) >= 0.84  # whole seconds of a limit of some minutes
    assert max(shares) <= 1.0
    assert statistics.fmean(shares) == pytest.approx(0.925, abs=0.01)


def test_padded_limits_say_little_about_the_runtime() -> None:
    padded = draw(Shape(blades=256, largest=128, days=28, honest=False), seed=7)
    shares = [job.runtime_s / (job.gang.max_runtime_s or 0) for job in padded]
    assert max(shares) <= 1.0
    assert statistics.fmean(shares) == pytest.approx(0.5, abs=0.05)
    assert statistics.pstdev(shares) > 0.2


def test_more_jobs_arrive_by_day_than_by_night(jobs: tuple[Job, ...]) -> None:
    hours = [(job.gang.created_s - BEGIN_S) % DAY_S / 3600 for job in jobs]
    by_day = sum(12 <= hour < 18 for hour in hours)
    by_night = sum(hour < 6 for hour in hours)
    assert by_day > 2 * by_night


def test_few_jobs_are_of_high_priority(jobs: tuple[Job, ...]) -> None:
    high = sum(job.gang.priority > 0 for job in jobs)
    assert {job.gang.priority for job in jobs} == {0, 10, 100}
    assert 0.1 < high / len(jobs) < 0.2
