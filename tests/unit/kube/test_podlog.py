"""A container's log, whatever it prints: cut, paced, and not waited for for ever."""

import asyncio
import asyncio.sslproto
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from support.scripted import Scripted, status
from tramontane.kube.client import ApiError, Client, Silent
from tramontane.kube.podlog import MAX_LINE_B, bounded_lines, keep_tls_buffers_small, paced
from tramontane.kube.resources import PODS

COLLECTION = "/api/v1/namespaces/ml/pods"


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _lines(*parts: bytes, most_b: int = 4) -> list[bytes]:
    return [line async for line in bounded_lines(_chunks(*parts), most_b)]


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([b"a\nb\n"], [b"a", b"b"], id="whole"),
        pytest.param([b"a\nb"], [b"a", b"b"], id="the last one has no newline"),
        pytest.param([b"a", b"b", b"c\nd", b"\n"], [b"abc", b"d"], id="in parts"),
        pytest.param([b"a\n\n\n", b"\n", b"b\n"], [b"a", b"b"], id="empty ones are left out"),
        pytest.param([b"abcdef\nb\n"], [b"abcd", b"b"], id="a long one is cut"),
        pytest.param([b"ab", b"cdef", b"gh\nb"], [b"abcd", b"b"], id="a long one in parts"),
        pytest.param([b"x\nab", b"c" * 9, b"d\n\nb"], [b"x", b"abcc", b"b"], id="in the midst"),
        pytest.param([b"\0\xff\n\xfe"], [b"\0\xff", b"\xfe"], id="binary"),
    ],
)
async def test_lines(parts: list[bytes], lines: list[bytes]) -> None:
    assert await _lines(*parts) == lines


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=8))
async def test_it_does_not_matter_where_the_chunks_end(parts: list[bytes]) -> None:
    whole = [line[:4] for line in b"".join(parts).split(b"\n") if line]
    assert await _lines(*parts) == whole


async def test_a_line_without_an_end_takes_no_memory() -> None:
    async def noise() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(16_384)

    tracemalloc.start()
    lines = [line async for line in bounded_lines(noise())]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [len(line) for line in lines] == [MAX_LINE_B]
    assert peak < 1_000_000, "16 MB came"


async def test_a_pause_follows_each_read_and_a_short_one_a_large_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    chunks = _chunks(b"a", b"b" * 2**14, b"c")

    assert len([one async for one in paced(chunks, lambda: 0.5, None, "log")]) == 3
    assert slept == [0.5, 0.01, 0.5]


async def test_silence_ends_a_log() -> None:
    async def one_and_no_more() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    chunks = paced(one_and_no_more(), lambda: 0.0, 0.01, "get pods/log ml/a")
    assert await anext(chunks) == b"a"
    with pytest.raises(Silent, match="ml/a: something must come"):
        await anext(chunks)


async def test_what_is_asked_for_is_in_the_request(client: Client, server: Scripted) -> None:
    server.answers.append(lambda _: web.Response(body=b"one\n" + b"2" * 10_000_000 + b"\nthree"))
    async with client.pod_log(
        "ml", "a", follow=False, since_time="2026-11-24T15:02:07Z", limit_bytes=7, timestamps=True
    ) as lines:
        got = [line async for line in lines]
    assert [len(line) for line in got] == [3, MAX_LINE_B, 5]
    query = "sinceTime=2026-11-24T15%3A02%3A07Z&limitBytes=7&timestamps=true"
    assert server.requests == [("GET", f"{COLLECTION}/a/log?{query}")]


async def test_a_refused_log(client: Client, server: Scripted) -> None:
    server.answers.append(lambda _: status(400, "BadRequest", "container is waiting to start"))
    with pytest.raises(ApiError, match="waiting to start"):
        async with client.pod_log("ml", "a"):
            pass


async def test_two_hundred_open_logs_leave_room_for_requests(
    client: Client, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, ended = server.handle, asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith("/log"):
            return await usual(request)
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"a\n")
        await ended.wait()
        return answer

    monkeypatch.setattr(server, "handle", handle)
    server.put(COLLECTION, "b")
    async with asyncio.timeout(60), AsyncExitStack() as logs:
        for _ in range(200):
            lines = await logs.enter_async_context(client.pod_log("ml", "a"))
            assert await anext(lines) == b"a"
        assert (await client.get(PODS, "b", "ml"))["metadata"]["name"] == "b"
        ended.set()


def test_tls_buffers_shrink_and_never_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.sslproto.SSLProtocol, "max_size", 2**18)
    keep_tls_buffers_small()
    assert asyncio.sslproto.SSLProtocol.max_size == 2**15
    monkeypatch.setattr(asyncio.sslproto.SSLProtocol, "max_size", 2**12)
    keep_tls_buffers_small()
    assert asyncio.sslproto.SSLProtocol.max_size == 2**12
