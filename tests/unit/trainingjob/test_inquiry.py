"""Asking all ranks for their last words: who answers, who does not, and how often."""

import asyncio
from typing import Any

import pytest

from tramontane.controllers.trainingjob.inquiry import ASK_AGAIN_S, IN_FLIGHT, Inquiry
from tramontane.controllers.trainingjob.words import LastWords
from tramontane.kube.errors import ApiError, Forbidden, NotFound, TooManyRequests, Unreachable
from tramontane.kube.views import PodView
from unit.trainingjob.builders import NOW, a_job, a_pod, pods
from unit.trainingjob.logs import Logs, line, until

pytestmark = pytest.mark.looptime

KEY = "ml/llama"


class Desk:
    def __init__(self, logs: Logs) -> None:
        client: Any = logs
        self.logs = logs
        self.notified: list[str] = []
        self.now = NOW
        self.inquiry = Inquiry(client, lambda: self.now, self.notified.append)

    async def asked(self, *asked: PodView) -> dict[str, LastWords]:
        before = len(self.notified)
        self.inquiry.ask(a_job(), asked)
        await until(lambda: len(self.notified) > before)
        return dict(self.inquiry.words(KEY))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param([line(NOW, "boom")], LastWords(True, ("boom",)), id="lines"),
        pytest.param([], LastWords(True), id="nothing"),
        pytest.param(ApiError(400, "BadRequest", "waiting"), LastWords(True), id="no container"),
        pytest.param(NotFound(404, "NotFound", "gone"), LastWords(True), id="no pod"),
        pytest.param(Forbidden(403, "Forbidden", "rbac"), LastWords(True), id="not allowed"),
        pytest.param(ApiError(500, "InternalError", "dial tcp"), LastWords(False), id="500"),
        pytest.param(ApiError(504, "GatewayTimeout", "slow"), LastWords(False), id="504"),
        pytest.param(TooManyRequests(429, "TooMany", "busy"), LastWords(False), id="429"),
        pytest.param(Unreachable("broke"), LastWords(False), id="no way there"),
        pytest.param([line(NOW, "boom"), 1e9], LastWords(False), id="silence"),
        pytest.param([line(NOW, "boom"), Unreachable("cut")], LastWords(False), id="cut off"),
    ],
)
async def test_who_answers(said: Any, words: LastWords) -> None:
    desk = Desk(Logs(llama_0=said))
    pod = a_pod(0, "b0")
    assert await desk.asked(pod) == {pod.uid: words}
    assert desk.notified == [KEY]
    assert not desk.logs.asked[0]["follow"]
    assert desk.logs.asked[0]["tail_lines"] <= 100


async def test_each_is_asked_once_and_the_silent_again() -> None:
    desk = Desk(Logs(llama_0=[], llama_1=Unreachable("no route")))
    both = (a_pod(0, "b0"), a_pod(1, "b1"))
    await desk.asked(*both)
    desk.inquiry.ask(a_job(), both)
    assert len(desk.logs.asked) == 2

    desk.now += ASK_AGAIN_S
    desk.logs.by_pod["llama-1"] = [line(NOW, "here")]
    words = await desk.asked(*both)

    assert [one["pod"] for one in desk.logs.asked[2:]] == ["ml/llama-1"]
    assert words[both[1].uid] == LastWords(True, ("here",))


async def test_words_of_pods_that_are_not_asked_for_any_more_are_dropped() -> None:
    desk = Desk(Logs(llama_0=[], llama_1=[]))
    first, second = a_pod(0, "b0"), a_pod(1, "b1")
    await desk.asked(first, second)
    desk.inquiry.ask(a_job(), (second,))
    assert set(desk.inquiry.words(KEY)) == {second.uid}

    desk.inquiry.ask(a_job(), ())
    assert not desk.inquiry.words(KEY)
    assert set(await desk.asked(second)) == {second.uid}
    assert len(desk.logs.asked) == 3, "another time is another question"


async def test_it_is_told_once_when_all_are_there() -> None:
    desk = Desk(Logs(llama_0=[], llama_1=[1.0], llama_2=[2.0], llama_3=[2.5]))
    desk.inquiry.ask(a_job(), pods())
    await asyncio.sleep(2.2)
    assert (len(desk.inquiry.words(KEY)), desk.notified) == (3, [])
    await until(lambda: desk.notified)
    assert (len(desk.inquiry.words(KEY)), desk.notified) == (4, [KEY])


async def test_no_more_than_so_many_requests_at_once() -> None:
    count = 3 * IN_FLIGHT
    desk = Desk(Logs(*[[0.5]] * count))
    words = await desk.asked(*(a_pod(seat, "b") for seat in range(count)))
    assert (len(words), desk.logs.most) == (count, IN_FLIGHT)
    assert all(one.answered for one in words.values()), "who waits for a slot is not silent"


async def test_a_job_that_is_gone_asks_nobody() -> None:
    desk = Desk(Logs(llama_0=[2.0]))
    desk.inquiry.ask(a_job(), (a_pod(0, "b0"),))
    await until(lambda: desk.logs.open)
    desk.inquiry.forget(KEY)
    await until(lambda: not desk.logs.open)
    assert not desk.inquiry.words(KEY)

    desk.inquiry.ask(a_job(), (a_pod(0, "b0"),))
    await desk.inquiry.close()
    assert desk.notified == []
