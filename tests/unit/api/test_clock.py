"""Timestamps are UTC, never early, and come back as they went."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.api import clock
from tramontane.api.errors import InvalidValue


@pytest.mark.parametrize(
    ("ts", "text"),
    [
        pytest.param(0, "1970-01-01T00:00:00Z", id="epoch"),
        pytest.param(1796083200, "2026-12-01T00:00:00Z", id="whole"),
        pytest.param(1796083200.999, "2026-12-01T00:00:00Z", id="cut-off-not-rounded"),
    ],
)
def test_utc(ts: float, text: str) -> None:
    assert clock.utc(ts) == text


def test_micro_keeps_six_digits() -> None:
    assert clock.micro(1796083200.25) == "2026-12-01T00:00:00.250000Z"


@pytest.mark.parametrize(
    ("text", "ts"),
    [
        pytest.param("2026-12-01T00:00:00Z", 1796083200.0, id="zulu"),
        pytest.param("2026-12-01T01:00:00+01:00", 1796083200.0, id="offset"),
        pytest.param("2026-12-01T00:00:00.250000Z", 1796083200.25, id="micro"),
        pytest.param("2026-12-01T00:00:00.123456789Z", 1796083200.123456, id="nano"),
    ],
)
def test_parse(text: str, ts: float) -> None:
    assert clock.parse(text) == ts


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-12-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_no_timestamp(text: str) -> None:
    with pytest.raises(InvalidValue, match="must be an RFC 3339 timestamp with a time zone"):
        clock.parse(text)


@given(st.integers(min_value=0, max_value=4_000_000_000))
def test_whole_seconds_come_back(ts: int) -> None:
    assert clock.parse(clock.utc(ts)) == ts
