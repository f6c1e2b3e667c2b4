from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.kube.lines import split_lines


async def _chunks(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    ("parts", "lines", "with_tail"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([b"a\nb\n"], [b"a", b"b"], [b"a", b"b"], id="whole"),
        pytest.param([b"a\nb"], [b"a"], [b"a", b"b"], id="tail"),
        pytest.param([b"a", b"b", b"c\nd", b"\n"], [b"abc", b"d"], [b"abc", b"d"], id="parts"),
        pytest.param([b"a", b"\n", b"\n\n", b"b\n"], [b"a", b"b"], [b"a", b"b"], id="empty-lines"),
        pytest.param(
            [b"a\nb\nc\n\nd\n"],
            list(map(bytes, zip(b"abcd"))),
            list(map(bytes, zip(b"abcd"))),
            id="many-in-one",
        ),
    ],
)
async def test_lines(parts: list[bytes], lines: list[bytes], with_tail: list[bytes]) -> None:
    assert [line async for line in split_lines(_chunks(parts))] == lines
    assert [line async for line in split_lines(_chunks(parts), keep_tail=True)] == with_tail


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.text("ab\n", max_size=6).map(str.encode), max_size=8))
async def test_it_does_not_matter_where_the_chunks_end(parts: list[bytes]) -> None:
    got = [line async for line in split_lines(_chunks(parts), keep_tail=True)]
    assert got == [line for line in b"".join(parts).split(b"\n") if line]
