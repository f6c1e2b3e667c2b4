"""Whether a revision may stay: the rules, and how often sampled windows are judged wrongly."""

import math
from collections.abc import Sequence
from random import Random

import pytest

from tramontane.api.inferencedeployment import AbortOn, Slo
from tramontane.controllers.inferencedeployment.judge import judge
from tramontane.controllers.inferencedeployment.load import Histogram, Load
from unit.inferencedeployment.loads import (
    ITL_S,
    NONE,
    NOW,
    TTFT_S,
    a_histogram,
    a_load,
    alike,
    drawn,
)

FINE = [a_load(alike(0.12, 200))]
FINE_EDGES = (0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, math.inf)


def verdict(
    new: Sequence[Load],
    old: Sequence[Load] = FINE,
    *,
    ratio: str = "1.3",
    errors: str = "0.01",
    slo: Slo | None = None,
) -> str:
    """Return why the new revision is rejected; empty where it is not."""
    abort = AbortOn(ttft_p95_ratio=ratio, error_rate=errors)
    judgement = judge(NOW, new, old, abort, slo)
    assert judgement.why
    return judgement.why if judgement.rejected else ""


def mixed(**parts: int) -> Histogram:
    """Return observations by their milliseconds: `ms120=95`."""
    return a_histogram(int(name[2:]) / 1000 for name, count in parts.items() for _ in range(count))


@pytest.mark.parametrize(
    ("new", "old", "rejected"),
    [
        pytest.param([a_load(alike(0.12, 200))], FINE, "", id="as quick"),
        pytest.param([a_load(alike(0.18, 200))], FINE, "1.50 times", id="slower, in one bucket"),
        pytest.param([a_load(alike(0.15, 200))], FINE, "", id="a quarter slower"),
        pytest.param([a_load(alike(0.06, 200))], FINE, "", id="quicker"),
        pytest.param([a_load(alike(0.18, 19))], FINE, "", id="too few on the one side"),
        pytest.param([a_load(alike(0.18, 200))], [a_load(alike(0.12, 19))], "", id="on the other"),
        pytest.param([a_load(alike(0.18, 200))], [], "", id="nothing to compare with"),
        pytest.param([a_load(alike(0.18, 200), window_s=50)], FINE, "", id="not a whole window"),
        pytest.param([a_load(alike(0.18, 200), at=NOW - 31)], FINE, "", id="old metrics"),
        pytest.param(
            [a_load(alike(0.18, 100)), a_load(alike(0.12, 100))], FINE, "", id="half of it is slow"
        ),
        pytest.param(
            [a_load(alike(0.18, 200)), a_load(alike(0.12, 400), window_s=10)],
            FINE,
            "1.50 times",
            id="what is new is left out",
        ),
        pytest.param(
            [a_load(mixed(ms120=180, ms900=20))],
            FINE,
            "p95",
            id="one in ten is late, and the buckets show it",
        ),
        pytest.param(
            [a_load(mixed(ms120=189, ms260=11))],
            FINE,
            "",
            id="a p95 in the next bucket alone says nothing",
        ),
        pytest.param(
            [a_load(alike(0.15, 200, FINE_EDGES))],
            [a_load(mixed(ms100=195, ms150=5)), a_load(alike(0.15, 0, FINE_EDGES))],
            "1.",
            id="buckets of another version",
        ),
        pytest.param(
            [a_load(a_histogram([0.149] * 200, FINE_EDGES))],
            [a_load(a_histogram([0.101] * 185 + [0.139] * 15, FINE_EDGES))],
            "",
            id="fine buckets: the p95 is surely within the limit, whatever the mean",
        ),
        pytest.param([a_load(alike(3000, 200))], [a_load(alike(2000, 200))], "1.50 times",
                     id="beyond the last bucket only the means tell"),
        pytest.param([a_load(alike(0.0009, 200))], [a_load(alike(0.0006, 200))], "1.50 times",
                     id="in the first bucket"),
        pytest.param([a_load(mixed(ms120=19, ms9000=1))], FINE, "", id="one late one of twenty"),
        pytest.param([a_load(NONE, requests=200)], [a_load(NONE, requests=200)], "",
                     id="an engine that measures nothing"),
    ],
)  # fmt: skip
def test_time_to_the_first_token(new: list[Load], old: list[Load], rejected: str) -> None:
    why = verdict(new, old)
    assert bool(why) == bool(rejected)
    assert rejected in why


@pytest.mark.parametrize(
    ("failed", "ended", "old_failed", "rejected"),
    [
        pytest.param(0, 200, 0, False, id="none"),
        pytest.param(1, 20, 0, False, id="one of twenty may be chance"),
        pytest.param(2, 20, 0, False, id="two of twenty as well"),
        pytest.param(4, 20, 0, True, id="four of twenty are not"),
        pytest.param(4, 19, 0, False, id="too few requests"),
        pytest.param(2, 200, 0, False, id="as many as are allowed"),
        pytest.param(10, 200, 0, True, id="five times as many"),
        pytest.param(10, 200, 10, False, id="the old one fails as often"),
        pytest.param(200, 200, 10, True, id="all, and some of the old one"),
        pytest.param(300, 200, 0, True, id="more failed than ended"),
        pytest.param(10, 200, None, True, id="nothing to compare with"),
    ],
)
def test_errors(failed: int, ended: int, old_failed: int | None, rejected: bool) -> None:
    old = [] if old_failed is None else [a_load(requests=200, errors=old_failed)]
    why = verdict([a_load(requests=ended, errors=failed)], old)
    assert bool(why) == rejected
    assert not why or "requests failed" in why


@pytest.mark.parametrize(
    ("new_s", "old_s", "goal", "rejected"),
    [
        pytest.param(0.55, 0.5, "520ms", True, id="over it, and the old one is not"),
        pytest.param(0.45, 0.45, "520ms", False, id="both keep it"),
        pytest.param(0.74, 0.7, "520ms", False, id="both are over it"),
        pytest.param(0.55, 0.5, None, False, id="no goal"),
    ],
)
def test_slo(new_s: float, old_s: float, goal: str | None, rejected: bool) -> None:
    slo = Slo(ttft_p95=goal) if goal else None
    why = verdict([a_load(alike(new_s, 200))], [a_load(alike(old_s, 200))], slo=slo)
    assert bool(why) == rejected
    assert not why or "SLO of 0.52 s" in why


def test_itl_counts_as_many_observations_as_there_were_requests() -> None:
    """Tokens of one request come at one speed: a thousand of them are no thousand witnesses."""
    slo = Slo(itl_p95="50ms")
    old = [a_load(alike(0.04, 10_000), itl=a_histogram([0.04] * 10_000, ITL_S), requests=400)]
    slow = a_histogram([0.04] * 9_300 + [0.06] * 700, ITL_S)
    assert "ITL p95" in verdict([a_load(itl=slow, requests=400)], old, slo=slo)
    assert verdict([a_load(itl=slow, requests=30)], old, slo=slo) == ""


def test_without_rejection_it_says_what_it_saw() -> None:
    judgement = judge(NOW, [a_load(alike(0.12, 50), errors=0)], FINE, AbortOn(), None)
    assert judgement.why == "0 of 50 requests failed, TTFT p95 0.242 s (old 0.242 s)"
    assert judge(NOW, [], FINE, AbortOn(), None).why == "0 requests, too few to judge by"


# 5 ms to 5 s, three per decade and a third, so that they lie anywhere in vLLM's buckets.
BASES_S = [0.005 * 1000 ** (step / 39) for step in range(40)]


def rejected(random: Random, base_s: float, factor: float, sigma: float, *counts: int) -> bool:
    new = a_load(drawn(random, factor * base_s, sigma, counts[0]))
    old = a_load(drawn(random, base_s, sigma, counts[1]))
    return bool(verdict([new], [old]))


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5], ids=lambda sigma: f"sigma {sigma}")
@pytest.mark.parametrize("counts", [(100, 900), (200, 200)], ids=str)
def test_half_as_slow_again_is_found_within_two_windows(
    sigma: float, counts: tuple[int, int]
) -> None:
    random = Random(8)
    missed = [
        base_s
        for base_s in BASES_S
        if not any(rejected(random, base_s, 1.5, sigma, *counts) for _ in range(2))
    ]
    assert missed == []


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5, 0.8], ids=lambda sigma: f"sigma {sigma}")
def test_an_equal_one_is_seldom_rejected(sigma: float) -> None:
    """1,000 windows of 20 to 200 requests on each side: fewer than 1 %; in truth, fewer than 2."""
    random = Random(9)
    found = sum(
        rejected(
            random,
            0.005 * 1000 ** random.random(),
            1.0,
            sigma,
            *random.choices(range(20, 201), k=2),
        )
        for _ in range(1000)
    )
    assert found < 3


def test_the_buckets_are_those_of_the_simulated_engine() -> None:
    from tramontane.lab.fakevllm.metrics import INTER_TOKEN_LATENCY, TIME_TO_FIRST_TOKEN  # noqa: PLC0415

    assert TTFT_S[:-1] == TIME_TO_FIRST_TOKEN
    assert ITL_S[:-1] == INTER_TOKEN_LATENCY
