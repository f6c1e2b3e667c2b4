"""Quantities, durations and percentages mean what Kubernetes and Go mean by them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api.errors import InvalidValue
from tramontane.api.quantity import (
    format_duration,
    of_percent,
    parse_duration,
    parse_quantity,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("8", 8, id="plain"),
        pytest.param(8, 8, id="int"),
        pytest.param("0", 0, id="zero"),
        pytest.param("141Gi", 141 * 2**30, id="binary"),
        pytest.param("1Ei", 2**60, id="largest-binary"),
        pytest.param("64k", 64_000, id="decimal"),
        pytest.param("1E", 10**18, id="exa-is-no-exponent"),
        pytest.param("1e3", 1000, id="exponent"),
        pytest.param("1E3", 1000, id="capital-exponent"),
        pytest.param("5e-1", Fraction(1, 2), id="negative-exponent"),
        pytest.param("250m", Fraction(1, 4), id="milli"),
        pytest.param("2000m", 2, id="milli-and-whole"),
        pytest.param("1.5Gi", 3 * 2**29, id="fraction-and-whole"),
        pytest.param("0.1", Fraction(1, 10), id="exact-tenth"),
        pytest.param("100n", Fraction(1, 10**7), id="nano"),
    ],
)
def test_quantity(text: str | int, value: int | Fraction) -> None:
    got = parse_quantity(text)
    assert got == value
    assert isinstance(got, type(value))


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1 Gi", "1GiB", "1,5", "0x10", "one", "1.", ".5"])
def test_no_quantity(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"must be a Kubernetes quantity \(got"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("0s", 0.0, id="zero"),
        pytest.param("90s", 90.0, id="seconds"),
        pytest.param("10m", 600.0, id="minutes"),
        pytest.param("168h", 604_800.0, id="hours"),
        pytest.param("1h30m5s", 5405.0, id="sum"),
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("10us", 1e-5, id="microseconds"),
        pytest.param("10ns", 1e-8, id="nanoseconds"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param("5.1s", 5.1, id="nearest-float"),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "-1s", "10 m", "1d", "auto", "s", "10min", "1h "])
def test_no_duration(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"must be a duration \(got .*; write it as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0, "0s", id="zero"),
        pytest.param(0.0004, "0s", id="below-resolution"),
        pytest.param(0.25, "250ms", id="milliseconds"),
        pytest.param(0.9996, "1s", id="rounds-up-to-a-second"),
        pytest.param(5.1, "5.1s", id="fraction"),
        pytest.param(90, "1m30s", id="minutes"),
        pytest.param(600, "10m", id="no-seconds"),
        pytest.param(5400, "1h30m", id="hours"),
        pytest.param(604_800, "168h", id="a-week"),
        pytest.param(100, "1m40s", id="no-exponent"),
        pytest.param(3600.005, "1h0.005s", id="no-minutes"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"at least 0s \(got -1\)"):
        format_duration(-1)


@given(st.integers(min_value=0, max_value=10**13))
def test_durations_come_back_as_they_went(ms: int) -> None:
    assert round(parse_duration(format_duration(ms / 1000)) * 1000) == ms


@pytest.mark.parametrize(
    ("value", "total", "at_least", "count"),
    [
        pytest.param("10%", 64, 0, 6, id="rounded-down"),
        pytest.param("10%", 8, 0, 0, id="down-to-nothing"),
        pytest.param("10%", 8, 1, 1, id="but-one-at-least"),
        pytest.param("10%", 0, 1, 0, id="of-nothing"),
        pytest.param("100%", 7, 0, 7, id="all"),
        pytest.param("0%", 7, 0, 0, id="none"),
        pytest.param("12.5%", 8, 0, 1, id="fraction"),
        pytest.param("29%", 100, 0, 29, id="exact"),
        pytest.param(4, 64, 0, 4, id="number"),
        pytest.param("4", 64, 0, 4, id="number-in-quotes"),
        pytest.param(100, 64, 0, 64, id="more-than-there-are"),
    ],
)
def test_of_percent(value: str | int, total: int, at_least: int, count: int) -> None:
    assert of_percent(value, total, at_least=at_least) == count


@pytest.mark.parametrize("value", ["101%", "-1%", -1, "ten", "10 %", "%", ""])
def test_no_percentage(value: str | int) -> None:
    with pytest.raises(InvalidValue, match="must be a number or a percentage"):
        of_percent(value, 10)
