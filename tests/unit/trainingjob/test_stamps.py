"""Time stamps of log lines: read, gone on from, and corrected by what our clock says."""

import pytest

from tramontane.controllers.trainingjob.stamps import Cursor, Skew, split

AT = 1_795_532_527.0  # 2026-11-24T15:02:07Z


@pytest.mark.parametrize(
    ("line", "at", "text"),
    [
        pytest.param(b"2026-11-24T15:02:07.250000000Z step 1", AT + 0.25, b"step 1", id="kubelet"),
        pytest.param(b"2026-11-24T15:02:07.250000Z step 1", AT + 0.25, b"step 1", id="micro"),
        pytest.param(b"2026-11-24T15:02:07Z step 1", AT, b"step 1", id="whole seconds"),
        pytest.param(b"2026-11-24T16:02:07.5+01:00 a b", AT + 0.5, b"a b", id="another zone"),
        pytest.param(b"2026-11-24T15:02:07Z", AT, b"", id="an empty line"),
        pytest.param(b"step 1", None, b"step 1", id="no stamp"),
        pytest.param(b"", None, b"", id="nothing"),
        pytest.param(b"2026-13-24T15:02:07.2Z x", None, b"2026-13-24T15:02:07.2Z x", id="month"),
        pytest.param(b"2026-11-24T15:02:07.xZ y", None, b"2026-11-24T15:02:07.xZ y", id="fraction"),
        pytest.param(b"2026-11-24T15:02:07.2 x", None, b"2026-11-24T15:02:07.2 x", id="no zone"),
        pytest.param(b"\xff\0\xfe x", None, b"\xff\0\xfe x", id="binary"),
    ],
)
def test_a_line_is_split(line: bytes, at: float | None, text: bytes) -> None:
    got, rest = split(line)
    assert rest == text
    assert got == (None if at is None else pytest.approx(at, abs=1e-6))


def read(cursor: Cursor, *stamps: float) -> list[float]:
    return [at for at in stamps if cursor.is_new(at)]


@pytest.mark.parametrize(
    ("first", "again", "new"),
    [
        pytest.param([1, 2], [1, 2, 3], [3], id="what was read is not read again"),
        pytest.param([1, 2], [3, 4], [3, 4], id="it goes on behind it"),
        pytest.param([1, 2, 2], [2, 2, 2, 3], [2, 3], id="three lines of one moment, two read"),
        pytest.param(
            [1, 5, 2], [1, 5, 2, 3], [5, 2, 3], id="the clock had gone back: twice, not never"
        ),
        pytest.param([], [1, 2], [1, 2], id="nothing had been read"),
        pytest.param([1, 2], [], [], id="nothing more"),
        pytest.param([3], [4, 1, 2], [4, 1, 2], id="the clock goes back afterwards"),
    ],
)
def test_a_stream_goes_on_where_it_ended(
    first: list[float], again: list[float], new: list[float]
) -> None:
    cursor = Cursor()
    assert read(cursor, *first) == first, "one stream has no line twice"
    cursor.reopened()
    assert read(cursor, *again) == new


@pytest.mark.parametrize(
    ("ages", "offset"),
    [
        pytest.param([0.1, 0.4], 0.0, id="good clocks"),
        pytest.param([1.9, 1.9], 0.0, id="within what is trusted"),
        pytest.param([300.0, 300.2], 300.2, id="the node is five minutes behind"),
        pytest.param([-120.0, -119.8], -119.8, id="the node is two minutes ahead"),
        pytest.param([300.0], 0.0, id="one line is no proof"),
        pytest.param([300.0, 250.0, 200.0], 0.0, id="a log that is being caught up with"),
        pytest.param([300.0, 300.0, 0.1, 0.1], 0.0, id="the clock was set right"),
        pytest.param([300.0, 300.0, 300.4], 300.0, id="it does not follow each breath"),
        pytest.param([300.0, 300.0, 299.0, 298.0], 298.0, id="it follows a drift"),
    ],
)
def test_how_far_a_clock_is_off(ages: list[float], offset: float) -> None:
    skew = Skew()
    changes = [skew.fresh(AT - age, AT) for age in ages]

    assert skew.offset_s == pytest.approx(offset)
    assert sum(changes) == pytest.approx(offset)
