"""How often to save: the formulas' values, and what bounds them."""

import math

import pytest

from tramontane.controllers.trainingjob.advice import advice_s, advised_interval_s, mtbf_s
from tramontane.controllers.trainingjob.progress import Saved

MINUTE, HOUR = 60.0, 3600.0


@pytest.mark.parametrize(
    ("save_s", "rate", "blades", "young_s"),
    [
        pytest.param(60.0, 6.5, 128, 59 * MINUTE, id="128 blades, a minute"),
        pytest.param(10.0, 6.5, 128, 24 * MINUTE, id="128 blades, ten seconds"),
        pytest.param(60.0, 6.5, 2048, 14.7 * MINUTE, id="2,048 blades, a minute"),
        pytest.param(10.0, 6.5, 2048, 6 * MINUTE, id="2,048 blades, ten seconds"),
        pytest.param(30.0, 23.4375, 128, 22 * MINUTE, id="MTBF of 8 h"),
    ],
)
def test_the_published_values(save_s: float, rate: float, blades: int, young_s: float) -> None:
    # Daly's correction is about two thirds of a save.
    got = advised_interval_s(save_s, rate, blades)
    assert got is not None
    assert young_s * 0.98 - save_s <= got <= young_s * 1.02


def test_dalys_estimate() -> None:
    mean_s, save_s = mtbf_s(6.5, 128), 60.0
    part = save_s / (2 * mean_s)
    series = 1 + math.sqrt(part) / 3 + part / 9
    assert mean_s == pytest.approx(28.85 * HOUR, rel=1e-3)
    assert advised_interval_s(save_s, 6.5, 128) == pytest.approx(
        math.sqrt(2 * save_s * mean_s) * series - save_s
    )


@pytest.mark.parametrize(
    "save_s", [pytest.param(one, id=f"{one:g}s") for one in (5.0, 60.0, 300.0)]
)
def test_it_is_the_interval_that_loses_the_least(save_s: float) -> None:
    mean_s = mtbf_s(6.5, 1024)

    def lost(interval_s: float) -> float:
        """Return the time that an hour of work takes in all, by Daly's model of exact times."""
        return math.expm1((interval_s + save_s) / mean_s) * mean_s / interval_s

    best = advised_interval_s(save_s, 6.5, 1024)
    assert best is not None
    assert all(lost(best) <= lost(best * other) for other in (0.8, 0.9, 1.1, 1.25))


@pytest.mark.parametrize(
    ("save_s", "rate", "blades", "took_s", "advice_s"),
    [
        pytest.param(None, 6.5, 128, 0.0, None, id="no save measured"),
        pytest.param(math.nan, 6.5, 128, 0.0, None, id="no number"),
        pytest.param(10.0, 6.5, 0, 0.0, None, id="no blades"),
        pytest.param(10.0, 0.0, 128, 0.0, 6 * HOUR, id="nothing has failed yet"),
        pytest.param(600.0, 0.1, 1, 0.0, 6 * HOUR, id="never above 6 h"),
        pytest.param(10.0, 6.5, 2048, 700.0, 1400.0, id="written beside the steps, for long"),
        pytest.param(HOUR, 5000.0, 2048, 0.0, 2 * HOUR, id="twice the save where it takes longer"),
    ],
)
def test_bounds(
    save_s: float | None, rate: float, blades: int, took_s: float, advice_s: float | None
) -> None:
    assert advised_interval_s(save_s, rate, blades, took_s=took_s) == advice_s


def test_without_a_measured_rate_the_published_one_is_used() -> None:
    assert advised_interval_s(10.0, None, 128) == advised_interval_s(10.0, 6.5, 128)


def test_a_save_that_holds_nothing_up_is_still_not_free() -> None:
    got = advised_interval_s(0.0, 6.5, 128)
    assert got is not None
    assert got > MINUTE


@pytest.mark.parametrize(
    ("costs", "rate", "same_as"),
    [
        pytest.param([], "3.1", None, id="no saves"),
        pytest.param([9.0, 10.0, 500.0], "3.1", (10.0, 3.1), id="the median save"),
        pytest.param([10.0], None, (10.0, 6.5), id="no measured rate"),
    ],
)
def test_a_job(costs: list[float], rate: str | None, same_as: tuple[float, float] | None) -> None:
    saves = [Saved(number, float(number), cost) for number, cost in enumerate(costs)]
    wanted = None if same_as is None else advised_interval_s(*same_as, 64)
    assert advice_s(saves, rate, 64) == wanted
