"""Following a log that breaks off, comes again, lies about the time, and belongs to another pod."""

import asyncio
from typing import Any, Self

import pytest

from tramontane.api import clock
from tramontane.controllers.trainingjob.follower import Followers
from tramontane.controllers.trainingjob.logreader import SILENCE_S
from tramontane.controllers.trainingjob.progress import Exited, Marks
from tramontane.kube.errors import ApiError, Silent, Unreachable
from unit.trainingjob.builders import NOW, a_job, a_pod
from unit.trainingjob.logs import Logs, Part, line, until

pytestmark = pytest.mark.looptime

KEY = "ml/llama"
FOREVER = 1e9
# Longer than what makes a line a fresh one, and than what ends a backlog.
WAIT = 1.5


class Following:
    """Followers over scripted logs; the clock goes on as the loop's does."""

    def __init__(self, logs: Logs) -> None:
        client: Any = logs
        self.logs = logs
        self.notified: list[str] = []
        self.now = NOW
        self.followers = Followers(client, lambda: self.now, self.notified.append)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.followers.close()

    @property
    def marks(self) -> Marks:
        return self.followers.marks(KEY) or Marks()


async def test_a_broken_stream_goes_on_where_it_ended() -> None:
    first = [line(NOW - 9, "step 1"), line(NOW - 8.5, "step 2")]
    logs = Logs([*first, Unreachable("broke")], [*first, line(NOW - 7.5, "step 3")])
    async with Following(logs) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: len(logs.asked) > 2)
        marks = following.marks

    assert (marks.step, marks.step_at, marks.step_time_s) == (3, NOW - 7.5, 0.75)
    assert following.notified == [KEY], "once, at the life's first step"
    asked = [
        {key: one.get(key) for key in ("pod", "since_time", "timestamps")} for one in logs.asked
    ]
    assert asked[0] == {"pod": "ml/llama-0", "since_time": None, "timestamps": True}
    assert asked[1]["since_time"] == clock.utc(NOW - 9), "the whole second before, by its own clock"
    assert logs.asked[0]["container"] == "trainer"
    assert logs.asked[0]["since_seconds"] is None, "a pod of our own: all of it"


async def test_lines_of_one_moment_are_all_read() -> None:
    same = [line(NOW - 9, f"step {step}") for step in (1, 2, 3)]
    async with Following(Logs(same[:2], same)) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 3)
        assert following.marks.first_step == 1


async def test_another_pod_is_another_life() -> None:
    logs = Logs([line(NOW - 9, "step 7"), FOREVER], [line(NOW - 20, "step 5"), FOREVER])
    async with Following(logs) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 7)

        following.followers.follow(a_job(), a_pod(0, "b4", 2))
        await until(lambda: following.marks.step == 5)

        assert following.marks.first_step == 5
        assert logs.asked[1]["since_time"] is None, "another node's clock says nothing of this log"


async def test_a_new_operator_reads_back_to_where_the_ledger_ends() -> None:
    job = a_job({"goodput": {"productive": "1s", "at": clock.utc(NOW - 20)}})
    logs = Logs([])
    async with Following(logs) as following:
        following.followers.follow(job, a_pod(0, "b0", creationTimestamp=clock.utc(NOW - 9999)))
        await until(lambda: bool(logs.asked))

    assert logs.asked[0]["since_seconds"] == 81


async def test_what_a_pod_said_in_its_last_moment_is_still_read() -> None:
    late: list[Part] = [
        line(NOW - 9, "step 4"),
        0.3,
        line(NOW - 8, "saved checkpoint step=4"),
        FOREVER,
    ]
    async with Following(Logs(late)) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 4)
        following.followers.follow(a_job(), None)
        await until(lambda: following.marks.saved is not None)
        await until(lambda: not following.followers.is_alive(KEY))


async def test_a_line_without_a_time_is_taken_as_of_now() -> None:
    async with Following(Logs([b"step 4", FOREVER])) as following:
        followers = following.followers
        followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 4)
        assert following.marks.step_at == NOW

        followers.follow(a_job(), None)
        assert not followers.is_alive(KEY)
        assert following.marks.step == 4
        followers.forget(KEY)
        assert followers.marks(KEY) is None


@pytest.mark.parametrize(
    "off_s", [pytest.param(300.0, id="behind"), pytest.param(-120.0, id="ahead")]
)
async def test_a_node_whose_clock_is_off_does_not_make_a_hang(off_s: float) -> None:
    stream: list[Part] = [
        line(NOW - off_s - 1, "step 1"),
        WAIT,
        line(NOW - off_s, "step 2"),
        WAIT,
        line(NOW - off_s, "step 3"),
        FOREVER,
    ]
    async with Following(Logs(stream)) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 3)

        assert following.marks.step_at == pytest.approx(NOW, abs=0.01)
        assert following.marks.first_step_at == pytest.approx(NOW - 1, abs=0.01)


async def test_a_backlog_is_not_alive_until_it_has_been_read() -> None:
    old = [line(NOW - 900 + number / 10, f"step {number + 1}") for number in range(5000)]
    logs = Logs([*old[:10], 0.2, *old[10:], 0.2, b"x", WAIT, line(NOW, "step 6000"), FOREVER])
    seen: list[tuple[int | None, bool]] = []
    async with Following(logs) as following:
        followers = following.followers
        followers.follow(a_job(), a_pod(0, "b0"))
        for _ in range(25):
            seen.append((following.marks.step, followers.is_alive(KEY)))
            await asyncio.sleep(0.02)
        await until(lambda: following.marks.step == 6000)
        assert followers.is_alive(KEY)
        assert followers.alive_since(KEY) == NOW

    assert (10, False) in seen, "the rest was on its way"
    assert all(not alive for step, alive in seen if step is not None and step < 5000)


async def test_a_log_that_says_nothing_is_alive() -> None:
    async with Following(Logs([FOREVER])) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.followers.is_alive(KEY))


async def test_a_flood_in_a_life_is_behind_until_it_ebbs() -> None:
    flood = [line(NOW, "hello")] * 5000
    logs = Logs(
        [line(NOW, "step 1"), WAIT, line(NOW, "step 2"), *flood, 0.1, b"x", 2.0, b"y", FOREVER]
    )
    async with Following(logs) as following:
        followers = following.followers
        followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 2 and not followers.is_alive(KEY))
        await until(lambda: followers.is_alive(KEY))


@pytest.mark.parametrize(
    ("error", "is_alive"),
    [
        pytest.param(Silent("silent"), True, id="silent: it is opened again at once"),
        pytest.param(Unreachable("gone"), False, id="broken"),
    ],
)
async def test_what_a_break_says_of_a_hang(error: Exception, *, is_alive: bool) -> None:
    refused = ApiError(502, "BadGateway", "dial tcp: no route to host")
    before: list[Part] = [line(NOW, "step 1"), WAIT, error]
    logs = Logs(before, [FOREVER])
    if not is_alive:
        logs.streams[1] = [refused]
    async with Following(logs) as following:
        followers = following.followers
        followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: len(logs.asked) == 2)
        await until(lambda: followers.is_alive(KEY) == is_alive)
        assert (followers.alive_since(KEY) == NOW) == is_alive
        assert logs.asked[0]["silence_s"] == SILENCE_S


async def test_a_silent_log_is_alive_while_it_is_opened_again() -> None:
    logs = Logs([line(NOW, "step 1"), WAIT, line(NOW, "hello"), Silent("silent")], [FOREVER])
    async with Following(logs) as following:
        followers = following.followers
        followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: followers.is_alive(KEY))
        lost = 0
        while len(logs.asked) < 2:
            await asyncio.sleep(0.01)
            lost += not followers.is_alive(KEY)
        assert followers.is_alive(KEY)
        assert not lost


@pytest.mark.parametrize(
    ("stall_after", "silence_s"),
    [
        pytest.param("auto", SILENCE_S, id="auto"),
        pytest.param("20s", 10.0, id="sooner than a hang"),
        pytest.param("1h", SILENCE_S, id="never longer"),
        pytest.param("1s", 2.0, id="never much shorter"),
    ],
)
async def test_a_log_is_opened_again_before_its_silence_is_a_hang(
    stall_after: str, silence_s: float
) -> None:
    logs = Logs([FOREVER])
    async with Following(logs) as following:
        job = a_job(progress={"stallAfter": stall_after})
        following.followers.follow(job, a_pod(0, "b0"))
        await until(lambda: logs.asked)
        assert logs.asked[0]["silence_s"] == silence_s


async def test_the_log_of_a_dead_container_is_asked_for_ever_more_seldom() -> None:
    said = [line(NOW - 9, "step 1")]
    logs = Logs(*[said] * 100)
    async with Following(logs) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await asyncio.sleep(60)
        assert len(logs.asked) in range(6, 12)


async def test_the_first_step_is_waited_for_and_later_ones_gathered() -> None:
    logs = Logs([line(NOW, "hello"), 1.0, line(NOW, "step 1"), FOREVER])
    async with Following(logs) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: bool(logs.asked))
        pause = logs.asked[0]["pause"]
        eager = pause()
        await until(lambda: following.marks.step == 1)
        assert eager < 0.1 < pause()


async def test_an_end_is_told_at_once() -> None:
    end = "tramontane-agent event=exited attempt=1 code=9 waits=60s"
    logs = Logs([line(NOW, "step 1"), line(NOW, "step 2"), WAIT, line(NOW, end), FOREVER])
    async with Following(logs) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: len(following.notified) == 2)
        assert following.marks.exited == Exited(1, 9, NOW)


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(bytes(range(256)) * 16, id="binary"),
        pytest.param(b"step 9999999999999999999999", id="a huge number"),
        pytest.param("step ٣ \ud800".encode("utf-8", "surrogatepass"), id="no utf-8"),
        pytest.param(b" ", id="a blank"),
        pytest.param(b"2026-99-99T99:99:99.9Z step", id="no time"),
    ],
)
async def test_noise_harms_nothing(noise: bytes) -> None:
    logs = Logs([line(NOW, "step 1"), noise, noise, line(NOW, "step 12"), FOREVER])
    async with Following(logs) as following:
        following.followers.follow(a_job(), a_pod(0, "b0"))
        await until(lambda: following.marks.step == 12)


async def test_a_pattern_that_python_does_not_take_leaves_the_progress_unknown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = a_job(progress={"stepPattern": r"step (?P<step>\pN+)\z"})
    async with Following(Logs([line(NOW, "step 1"), FOREVER])) as following:
        following.followers.follow(job, a_pod(0, "b0"))
        await until(lambda: following.followers.is_alive(KEY))
        assert following.marks.step is None
    assert "pattern not understood job=ml/llama" in caplog.text


async def test_changed_patterns_are_read_with_anew() -> None:
    said: list[Part] = [line(NOW, "step 1 loss 2.5"), FOREVER]
    async with Following(Logs(said, said)) as following:
        followers, pod = following.followers, a_pod(0, "b0")
        followers.follow(a_job(), pod)
        await until(lambda: following.marks.step == 1)
        followers.follow(a_job(), pod)
        assert following.marks.loss is None

        followers.follow(a_job(progress={"lossPattern": r"loss (?P<loss>[0-9.]+)"}), pod)
        await until(lambda: following.marks.loss == 2.5)
        assert len(following.logs.asked) == 2
