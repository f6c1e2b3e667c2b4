"""Progress from a Prometheus endpoint: its answers, good and bad, and the follower over it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tramontane.api.trainingjob import MetricsSource
from tramontane.controllers.trainingjob import metricsource
from tramontane.controllers.trainingjob.follower import Followers
from tramontane.controllers.trainingjob.metricsource import NoMetrics, fetch, read
from unit.trainingjob.builders import NOW, a_job, a_pod
from unit.trainingjob.logs import Logs, line, until

KEY = "ml/llama"


def a_source(port: int = 9090, path: str = "/metrics") -> MetricsSource:
    return MetricsSource(port=port, path=path, step="train_step", loss="train_loss")


@pytest.mark.parametrize(
    ("text", "step", "loss"),
    [
        pytest.param("train_step 12\ntrain_loss 2.5\n", 12, 2.5, id="both"),
        pytest.param("# TYPE train_step gauge\ntrain_step 1.2e+03\n", 1200, None, id="no loss"),
        pytest.param('train_step{rank="0"} 7\ntrain_step{rank="1"} 8', 8, None, id="several"),
        pytest.param("train_steps 3\nmy_train_step 4\n", None, None, id="other names"),
        pytest.param("train_step NaN\ntrain_loss +Inf\n", None, None, id="no numbers"),
        pytest.param("train_step -1\n", None, None, id="below zero"),
        pytest.param("train_step 1e300\n", None, None, id="more than the API takes"),
        pytest.param('train_step{a="b 3\ntrain_loss 1\n', None, 1.0, id="a broken line"),
        pytest.param("train_step \xff\n", None, None, id="no number at all"),
        pytest.param("", None, None, id="nothing"),
    ],
)
def test_an_answer_is_read(text: str, step: int | None, loss: float | None) -> None:
    assert read(text.encode(), a_source()) == (step, loss)


def test_bytes_that_are_no_text() -> None:
    assert read(b"\0\xff\ntrain_step \xfe\ntrain_step 3\n", a_source()) == (3, None)


def test_without_a_loss_none_is_read() -> None:
    source = MetricsSource(port=1, step="train_step")
    assert read(b"train_step 1\ntrain_loss 2\n", source) == (1, None)


class Endpoint:
    def __init__(self) -> None:
        self.text, self.status, self.port = "train_step 1\n", 200, 0
        self.hold: Callable[[], Any] | None = None

    async def answer(self, _: web.Request) -> web.Response:
        if self.hold is not None:
            await self.hold()
        return web.Response(text=self.text, status=self.status)


@asynccontextmanager
async def serving() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_get("/stats", endpoint.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.port = runner.addresses[0][1]
    try:
        yield endpoint
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("text", "status", "holds", "message"),
    [
        pytest.param("x\n" * 2**21 + "y", 200, False, "4194304 bytes at most", id="too large"),
        pytest.param("no", 503, False, "must answer with 200", id="no success"),
        pytest.param("", 200, True, "must answer", id="too late"),
    ],
)
async def test_an_endpoint_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, text: str, status: int, message: str, *, holds: bool
) -> None:
    ended = asyncio.Event()
    async with serving() as endpoint, aiohttp.ClientSession() as session:
        endpoint.text, endpoint.status = text, status
        if holds:
            endpoint.hold = ended.wait
            monkeypatch.setattr(metricsource, "TIMEOUT_S", 0.05)
        with pytest.raises(NoMetrics, match=message):
            await fetch(session, "127.0.0.1", a_source(endpoint.port, "/stats"))
        ended.set()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        pytest.param("/stats", "/stats", id="a path"),
        pytest.param("/stats?name=train_step", "/stats?name=train_step", id="with a query"),
        pytest.param("//elsewhere/stats", "//elsewhere/stats", id="no other host"),
    ],
)
async def test_the_pod_itself_is_asked(path: str, asked: str) -> None:
    paths: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        paths.append(request.raw_path)
        return web.Response(text="train_step 1\n")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        await fetch(session, "127.0.0.1", a_source(runner.addresses[0][1], path))
    await runner.cleanup()
    assert paths == [asked]


async def test_nobody_listens() -> None:
    async with serving() as endpoint, aiohttp.ClientSession() as session:
        port = endpoint.port
    async with aiohttp.ClientSession() as session:
        with pytest.raises(NoMetrics, match="must answer"):
            await fetch(session, "127.0.0.1", a_source(port, "/stats"))


async def test_a_job_is_followed_by_its_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metricsource, "EVERY_S", 0.02)
    saved = line(NOW - 1, "saved checkpoint step=40")
    client: Any = Logs([saved, line(NOW, "step 999"), 60.0])
    notified: list[str] = []
    times = iter(range(10**9))
    followers = Followers(client, lambda: NOW + next(times), notified.append)
    async with serving() as endpoint:
        source = {"port": endpoint.port, "path": "/stats", "step": "train_step", "loss": "loss"}
        pod = replace(a_pod(0, "b0"), pod_ip="127.0.0.1")
        followers.follow(a_job(progress={"metrics": source}), pod)

        def step() -> int | None:
            marks = followers.marks(KEY)
            return marks.step if marks else None

        await until(lambda: step() == 1)
        endpoint.text = "train_step 3\nloss 0.5\n"
        await until(lambda: step() == 3)
        assert followers.is_alive(KEY)
        marks = followers.marks(KEY)
        assert marks is not None
        assert (marks.first_step, marks.loss) == (1, 0.5)
        assert marks.saved is not None, "checkpoints are read from the log all the same"
        assert marks.saved.step == 40
        assert notified == [KEY, KEY], "of the checkpoint, and of the first step"

        endpoint.status = 500
        await until(lambda: not followers.is_alive(KEY))
        assert step() == 3
        endpoint.status = 200
        await until(lambda: followers.is_alive(KEY))
        await followers.close()


async def test_a_pod_without_an_address_is_waited_for() -> None:
    client: Any = Logs([60.0])
    followers = Followers(client, lambda: NOW, lambda _: None)
    source = {"port": 9090, "step": "train_step"}
    followers.follow(a_job(progress={"metrics": source}), replace(a_pod(0, "b0"), pod_ip=None))
    await asyncio.sleep(0.05)
    assert not followers.is_alive(KEY)
    await followers.close()
