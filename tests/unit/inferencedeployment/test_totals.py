"""What is counted of a deployment only grows, whatever becomes of its replicas."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.inferencedeployment.load import NOTHING, Histogram, empty
from tramontane.controllers.inferencedeployment.scrape import Sample
from tramontane.controllers.inferencedeployment.totals import Totals
from unit.inferencedeployment.loads import ITL_S, NOW, a_histogram

FIRST = Sample(
    NOW,
    requests=40.0,
    errors=2.0,
    tokens=900.0,
    ttft=a_histogram([0.1, 0.3]),
    itl=a_histogram([0.02] * 9, ITL_S),
)
LATER = Sample(
    NOW + 5,
    requests=45.0,
    errors=3.0,
    tokens=1000.0,
    ttft=a_histogram([0.1, 0.3, 0.3]),
    itl=a_histogram([0.02] * 11, ITL_S),
)
ANEW = replace(LATER, requests=4.0, errors=0.0, tokens=80.0, ttft=a_histogram([0.2]))


def counted(*samples: Sample) -> Totals:
    totals, before = Totals(), None
    for sample in samples:
        totals, before = totals.plus(before, sample), sample
    return totals


def test_a_new_replica_begins_at_nothing_and_shows_its_buckets() -> None:
    totals = counted(FIRST)
    assert (totals.requests, totals.errors, totals.tokens) == (0, 0, 0)
    assert totals.ttft == Histogram(FIRST.ttft.bounds_s, (0.0,) * len(FIRST.ttft.bounds_s), 0.0)


@pytest.mark.parametrize(
    ("samples", "requests", "errors", "tokens", "firsts"),
    [
        pytest.param([FIRST, LATER], 5, 1, 100, 1, id="the-difference"),
        pytest.param([FIRST, LATER, LATER], 5, 1, 100, 1, id="nothing-new"),
        pytest.param([FIRST, LATER, ANEW], 9, 1, 180, 2, id="another-process-counts-whole"),
        pytest.param(
            [replace(FIRST, ttft=NOTHING), replace(LATER, ttft=a_histogram([0.2]))],
            *(5, 1, 100, 1),
            id="the-first-latency",
        ),
    ],
)
def test_what_is_added(
    samples: Sequence[Sample], requests: float, errors: float, tokens: float, firsts: float
) -> None:
    totals = counted(*samples)
    assert (totals.requests, totals.errors, totals.tokens) == (requests, errors, tokens)
    assert totals.ttft.count == firsts


def test_an_engine_that_counts_only_tokens_and_began_anew() -> None:
    first, anew = Sample(NOW, tokens=900.0), Sample(NOW + 5, tokens=30.0)
    assert counted(first, anew).tokens == 30


def test_another_engine_s_buckets_begin_anew() -> None:
    totals = counted(FIRST, LATER)
    other = Sample(NOW, ttft=Histogram((0.2, 0.4, float("inf")), (3.0, 3.0, 4.0), 2.0))
    more = replace(other, at=NOW + 5, ttft=Histogram(other.ttft.bounds_s, (5.0, 5.0, 6.0), 3.0))
    assert totals.plus(other, more).ttft == Histogram(other.ttft.bounds_s, (2.0, 2.0, 2.0), 1.0)


@given(st.lists(st.integers(0, 30), max_size=30))
def test_it_never_falls(counts: list[int]) -> None:
    """Counters go up, or fall when an engine ends; latencies are as many as requests."""
    totals, before = Totals(), None
    for turn, count in enumerate(counts):
        sample = Sample(
            NOW + turn, requests=count, tokens=7 * count, ttft=a_histogram([0.2] * count)
        )
        after = totals.plus(before, sample)
        assert after.requests >= totals.requests
        assert after.tokens == 7 * after.requests
        assert after.ttft.count == after.requests
        assert list(after.ttft.counts) == sorted(after.ttft.counts)
        totals, before = after, sample


def test_one_more_observation() -> None:
    seen = empty(10, 60).with_one(30).with_one(10).with_one(3600)
    assert seen == Histogram((10, 60, float("inf")), (1, 2, 3), 3640)
