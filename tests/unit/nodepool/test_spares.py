"""The number of spares against the binomial distribution itself."""

import math
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.controllers.nodepool import spares

HOURS_4 = 4 * 3600.0


def exact(n: int, p: float, beyond: float) -> int:
    """The definition, in whole numbers of arbitrary size."""
    yes, whole = p.as_integer_ratio()
    allowed, tail = Fraction(beyond) * whole**n, 0
    for k in range(n, -1, -1):
        tail += math.comb(n, k) * yes**k * (whole - yes) ** (n - k)
        if tail > allowed:
            return k
    return 0


@pytest.mark.parametrize(
    ("n", "p", "beyond", "expected"),
    [
        pytest.param(0, 0.5, 0.01, 0, id="no blades"),
        pytest.param(10, 0.0, 0.01, 0, id="never fails"),
        pytest.param(10, 1.0, 0.01, 10, id="always fails"),
        pytest.param(10, 0.5, 1.0, 0, id="anything goes"),
        pytest.param(10, 0.5, 0.0, 10, id="nothing goes"),
        pytest.param(1, 0.3, 0.5, 0, id="more likely than not"),
        pytest.param(1, 0.3, 0.2, 1, id="less likely than wanted"),
        pytest.param(10, 0.5, 0.05, 8, id="P[X > 8] = 11/1024, P[X > 7] = 56/1024"),
        pytest.param(20, 0.5, 0.999, 3, id="below the mode"),
    ],
)
def test_known_quantiles(n: int, p: float, beyond: float, expected: int) -> None:
    assert spares.quantile(n, p, beyond) == expected


@given(
    n=st.integers(1, 60),
    p=st.floats(0.001, 0.999),
    beyond=st.sampled_from([0.9, 0.5, 0.1, 0.01, 1e-4, 1e-9, 1e-15]),
)
def test_is_the_definition(n: int, p: float, beyond: float) -> None:
    # Floats cannot tell a tie from a hair's breadth.
    least, most = exact(n, p, beyond * (1 + 1e-9)), exact(n, p, beyond * (1 - 1e-9))
    assert least <= spares.quantile(n, p, beyond) <= most


def test_is_the_definition_where_numbers_underflow() -> None:
    # 0.375^1200 is far below the smallest float.
    assert spares.quantile(1200, 0.375, 1e-3) == exact(1200, 0.375, 1e-3)


@pytest.mark.parametrize(
    ("blades", "rate", "confidence", "repair_h", "expected"),
    [
        pytest.param(128, 6.5, 0.99, 4, 1, id="a pool of the default rate"),
        pytest.param(128, 6.5, 0.99, 24, 3, id="repairs take a day"),
        pytest.param(128, 65.0, 0.99, 24, 15, id="ten times the rate"),
        pytest.param(12_500, 6.5, 0.99, 4, 23, id="the design size"),
        pytest.param(12_500, 6.5, 0.999999, 4, 34, id="six nines"),
    ],
)
def test_targets(
    blades: int, rate: float, confidence: float, repair_h: float, expected: int
) -> None:
    assert spares.target(blades, rate, confidence, repair_h * 3600) == expected


@pytest.mark.parametrize(
    ("what", "values"),
    [
        pytest.param("blades", [1, 50, 500, 5000], id="blades"),
        pytest.param("rate_", [0.1, 5, 50, 500], id="failure rate"),
        pytest.param("confidence", [0.1, 0.9, 0.99, 0.9999], id="confidence"),
        pytest.param("repair_time_s", [60, 3600, 1e5, 1e6], id="repair time"),
    ],
)
def test_more_of_it_never_means_fewer_spares(what: str, values: list[float]) -> None:
    usual: dict[str, Any] = {
        "blades": 500,
        "rate_": 6.5,
        "confidence": 0.99,
        "repair_time_s": HOURS_4,
    }
    found = [spares.target(**usual | {what: value}) for value in values]
    assert found == sorted(found)
    assert found[0] < found[-1]


@pytest.mark.parametrize(
    ("failed", "days", "expected"),
    [
        pytest.param(0, 0.0, 6.5, id="nothing measured: the default"),
        pytest.param(0, 7.0, 6.22, id="a quiet week is no proof"),
        pytest.param(11, 3584.0, 3.21, id="a month of 128 blades counts"),
        pytest.param(0, 350_000.0, 0.00286, id="a month of 12,500 without one"),
    ],
)
def test_rate_to_reckon_with(failed: int, days: float, expected: float) -> None:
    assert spares.rate(failed, days) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.05, 0.5, 0.95])
def test_takes_less_than_5_ms_at_the_design_size(p: float) -> None:
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        spares.quantile(12_500, p, 1e-9)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005
