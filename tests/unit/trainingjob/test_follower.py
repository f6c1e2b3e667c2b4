"""Following a log that breaks off, comes again, and belongs to another pod then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tramontane.api import clock
from tramontane.controllers.trainingjob import follower
from tramontane.controllers.trainingjob.follower import Followers
from tramontane.kube.errors import NotFound
from unit.trainingjob.builders import NOW, a_job, a_pod

KEY = "ml/llama"


def line(at: float, text: str) -> bytes:
    return f"{clock.micro(at)} {text}".encode()


class Logs:
    """Serve, stream after stream, what is to be said; then nothing more."""

    def __init__(self, *streams: list[bytes]) -> None:
        self.streams = list(streams)
        self.asked: list[dict[str, Any]] = []

    @asynccontextmanager
    async def pod_log(
        self, namespace: str, name: str, **asked: Any
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append({"pod": f"{namespace}/{name}", **asked})
        if not self.streams:
            raise NotFound(404, "NotFound", name)
        stream = self.streams.pop(0)

        async def lines() -> AsyncIterator[bytes]:
            for one in stream:
                yield one

        yield lines()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "_PAUSES_S", (0.0, 0.01))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - marks announce nothing
            await asyncio.sleep(0)


def step_of(followers: Followers) -> int | None:
    marks = followers.marks(KEY)
    return marks.step if marks else None


def following(logs: Logs) -> tuple[Followers, list[str]]:
    notified: list[str] = []
    client: Any = logs
    return Followers(client, lambda: NOW, notified.append), notified


async def test_a_broken_stream_goes_on_where_it_ended() -> None:
    first = [line(NOW - 9, "step 1"), line(NOW - 8, "step 2")]
    logs = Logs(first, [*first, line(NOW - 7, "step 3")])
    followers, notified = following(logs)

    followers.follow(a_job(), a_pod(0, "b0"))
    await until(lambda: not logs.streams and len(logs.asked) > 2)
    marks = followers.marks(KEY)
    await followers.close()

    assert marks is not None
    assert (marks.step, marks.step_at, marks.step_time_s) == (3, NOW - 7, 1.0)
    assert notified == [KEY], "once, at the life's first step"
    assert logs.asked[0] == {
        "pod": "ml/llama-0",
        "container": "trainer",
        "since_seconds": 51,
        "timestamps": True,
    }
    assert logs.asked[1]["since_seconds"] == 9


async def test_another_pod_is_another_life() -> None:
    logs = Logs([line(NOW - 9, "step 7")], [line(NOW - 2, "step 5")])
    followers, _ = following(logs)
    followers.follow(a_job(), a_pod(0, "b0"))
    await until(lambda: step_of(followers) == 7)

    followers.follow(a_job(), a_pod(0, "b4", 2))
    await until(lambda: step_of(followers) == 5)
    marks = followers.marks(KEY)
    await followers.close()

    assert marks is not None
    assert marks.first_step == 5


async def test_a_new_operator_reads_back_to_where_the_ledger_ends() -> None:
    job = a_job({"goodput": {"productive": "1s", "at": clock.utc(NOW - 20)}})
    logs = Logs([])
    followers, _ = following(logs)

    followers.follow(job, a_pod(0, "b0", creationTimestamp=clock.utc(NOW - 9999)))
    await until(lambda: bool(logs.asked))
    await followers.close()

    assert logs.asked[0]["since_seconds"] == 81


async def test_a_line_without_a_time_is_taken_as_of_now() -> None:
    logs = Logs([b"step 4"])
    followers, _ = following(logs)

    followers.follow(a_job(), a_pod(0, "b0"))
    await until(lambda: step_of(followers) == 4)
    marks = followers.marks(KEY)
    followers.follow(a_job(), None)

    assert marks is not None
    assert marks.step_at == NOW
    assert not followers.is_alive(KEY)
    followers.forget(KEY)
    assert followers.marks(KEY) is None
    await followers.close()
