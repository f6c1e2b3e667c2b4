"""A pod's log is read as a kubelet would give it."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tramontane.lab.logs import LogServer, NoAnswer, PodLog, Window


def written(*lines: str) -> PodLog:
    log = PodLog()
    for number, line in enumerate(lines):
        log.write(100.0 + number, line)
    return log


async def read(log: PodLog, window: Window) -> list[str]:
    return [line async for _, line in log.read(window)]


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        pytest.param({}, ["a", "b", "c"], id="all"),
        pytest.param({"tailLines": "2"}, ["b", "c"], id="tail"),
        pytest.param({"tailLines": "0"}, [], id="none"),
        pytest.param({"tailLines": "99"}, ["a", "b", "c"], id="tail-longer-than-the-log"),
        pytest.param({"sinceSeconds": "9"}, ["b", "c"], id="since-seconds"),
        pytest.param({"sinceTime": "1970-01-01T00:01:42Z"}, ["c"], id="since-time"),
    ],
)
async def test_a_window_says_which_lines(query: dict[str, str], lines: list[str]) -> None:
    assert await read(written("a", "b", "c"), Window.of(query, now=110.0)) == lines


async def test_a_follower_gets_each_line_once_until_the_end() -> None:
    log = written("a")
    following = asyncio.create_task(read(log, Window(follow=True)))
    for line in ("b", "c"):
        await asyncio.sleep(0)
        log.write(1.0, line)
    await asyncio.sleep(0)
    assert not following.done()
    log.end()
    assert await following == ["a", "b", "c"]


async def test_a_full_log_forgets_its_front() -> None:
    log = written(*(str(number) for number in range(20_005)))
    lines = await read(log, Window())
    assert (lines[0], lines[-1], len(lines)) == ("5", "20004", 20_000)


async def test_the_server_answers_as_a_kubelet() -> None:
    logs = {("default", "llama-0"): written("step 1", "step 2")}
    server = LogServer(lambda namespace, pod: logs.get((namespace, pod)), lambda: 200.0)
    app = web.Application()
    app.add_routes(server.routes())
    async with TestClient(TestServer(app)) as client:
        known = await client.get("/containerLogs/default/llama-0/trainer?timestamps=true")
        assert await known.text() == (
            "1970-01-01T00:01:40.000000Z step 1\n1970-01-01T00:01:41.000000Z step 2\n"
        )
        unknown = await client.get("/containerLogs/default/llama-1/trainer")
        assert unknown.status == 404


async def test_a_node_without_power_does_not_answer() -> None:
    def find(_namespace: str, _pod: str) -> PodLog | None:
        raise NoAnswer("blade gpu-0017 has no power")

    app = web.Application()
    app.add_routes(LogServer(find, lambda: 200.0).routes())
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/containerLogs/default/llama-0/trainer")
        assert answer.status == 503
        assert await answer.text() == "blade gpu-0017 has no power"
