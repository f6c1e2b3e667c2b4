"""The closed answers: worked values of the reference, and how they move."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.lab.sim.formula import Plan, spares_needed

MINUTE_S = 60.0


@pytest.mark.parametrize(
    ("blades", "save_s", "interval_min", "ettr"),
    [
        pytest.param(128, 60, 59, 0.964, id="128 blades, 60 s"),
        pytest.param(128, 10, 24, 0.983, id="128 blades, 10 s"),
        pytest.param(2048, 60, 14.7, 0.829, id="2,048 blades, 60 s"),
        pytest.param(2048, 10, 6, 0.901, id="2,048 blades, 10 s"),
    ],
)
def test_worked_values(blades: int, save_s: float, interval_min: float, ettr: float) -> None:
    plan = Plan(blades, rate=6.5, save_s=save_s, detect_s=0, restart_s=300)
    assert plan.every_s / MINUTE_S == pytest.approx(interval_min, rel=0.02)
    assert plan.ettr == pytest.approx(ettr, abs=0.001)


def test_a_thousand_gpus_fail_every_28_hours() -> None:
    assert Plan(128, 6.5, 30).mttf_s / 3600 == pytest.approx(28.8, rel=0.01)


def test_16384_gpus_cannot_pass_90_percent_with_30_s_saves() -> None:
    assert Plan(2048, 6.5, 30).ettr < 0.90
    assert Plan(2048, 6.5, 10).ettr > 0.93


@given(
    blades=st.integers(1, 4096), rate=st.floats(0.1, 20), save_s=st.floats(0.1, 300),
    share=st.floats(0.2, 5),
)  # fmt: skip
def test_no_interval_is_better_than_youngs_by_more_than_a_little(
    blades: int, rate: float, save_s: float, share: float
) -> None:
    best = Plan(blades, rate, save_s, detect_s=0, restart_s=0)
    other = Plan(blades, rate, save_s, 0, 0, 0, best.every_s * share)
    if best.is_valid:
        assert other.ettr <= best.ettr + 0.01


def test_without_failures_all_time_counts() -> None:
    plan = Plan(128, 0, 30)
    assert math.isinf(plan.mttf_s)
    assert plan.ettr == 1.0
    assert Plan(128, 0, 30, interval_s=270).ettr == pytest.approx(0.9)


def test_far_from_small_losses_the_formula_does_not_hold() -> None:
    assert Plan(128, 6.5, 30).is_valid
    assert not Plan(16384, 6.5, 60, restart_s=600).is_valid
    assert Plan(200_000, 6.5, 60).ettr >= 0


@pytest.mark.parametrize(
    ("blades", "away_s", "spares"),
    [
        pytest.param(128, 0, 0, id="back at once"),
        # 128 blades, 6.5 in 1,000 days, 2.2 h away: 0.076 on average; two others in 0.3 %.
        pytest.param(128, 7920, 2, id="128 blades, 2.2 h"),
        pytest.param(2048, 7920, 5, id="2,048 blades, 2.2 h"),
    ],
)
def test_spares(blades: int, away_s: float, spares: int) -> None:
    assert spares_needed(blades, 6.5, away_s) == spares


@given(st.integers(1, 5000), st.floats(0, 30 * 86400.0))
def test_more_time_away_never_needs_fewer_spares(blades: int, away_s: float) -> None:
    assert spares_needed(blades, 6.5, away_s) <= spares_needed(blades, 6.5, 2 * away_s)
    assert 0 <= spares_needed(blades, 6.5, away_s) <= blades + 1


def test_spares_meet_their_promise() -> None:
    blades, away_s = 2048, 36_000.0
    chance = 1 - math.exp(-6.5 / 1000 / 86400 * away_s)
    spares = spares_needed(blades, 6.5, away_s)

    def as_many_as(count: int) -> float:
        return 1 - sum(
            math.comb(blades, k) * chance**k * (1 - chance) ** (blades - k) for k in range(count)
        )

    assert as_many_as(spares) <= 0.01 < as_many_as(spares - 1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        spares_needed(10, 6.5, 100, share)
