"""Sampling ranks: whom, how often, and what is read of their logs."""

import asyncio
import re
from collections import deque
from typing import Any

import pytest

from tramontane.controllers.trainingjob.sampling import EVERY_S, Sampler, take_step
from tramontane.controllers.trainingjob.words import Slow
from tramontane.kube.errors import ApiError
from unit.trainingjob.builders import NOW, a_job, a_pod, pods
from unit.trainingjob.logs import Logs, until

pytestmark = pytest.mark.looptime

KEY = "ml/llama"
PATTERN = re.compile(r"step (?P<step>\d+) in (?P<seconds>[^ s]+)s")


class Sampling:
    """A sampler whose ranks take so many seconds a step; each round is 30 s after the last."""

    def __init__(self, *seconds: float | None) -> None:
        self.logs = Logs()
        client: Any = self.logs
        self.notified: list[str] = []
        self.now, self.step = NOW, 0
        self.sampler = Sampler(client, lambda: self.now, self.notified.append)
        self.seconds = seconds

    async def rounds(
        self, count: int, pattern: re.Pattern[str] | None = PATTERN, **spec: Any
    ) -> None:
        for _ in range(count):
            self.step += 10
            for seat, seconds in enumerate(self.seconds):
                lines = [f"step {self.step + n} in {seconds}s".encode() for n in range(8)]
                refused = ApiError(500, "InternalError", "no route")
                self.logs.by_pod[f"llama-{seat}"] = refused if seconds is None else lines
            self.sampler.sample(a_job(**spec), pods(len(self.seconds)), pattern)
            await asyncio.sleep(0.1)
            self.now += 30.0


async def test_a_slow_rank_is_found_and_told() -> None:
    sampling = Sampling(1.0, 1.0, 1.0, 1.7)
    await sampling.rounds(3)
    assert sampling.sampler.slow(KEY) == Slow(3, 1.7, NOW, "pod-3-b3-1")
    assert sampling.notified == [KEY]

    sampling.seconds = (1.0, 1.0, 1.0, 1.0)
    await sampling.rounds(1)
    assert sampling.sampler.slow(KEY) is None
    assert sampling.notified == [KEY, KEY]


@pytest.mark.parametrize(
    ("pattern", "spec"),
    [
        pytest.param(re.compile(r"step (?P<step>\d+)"), {}, id="no group named seconds"),
        pytest.param(None, {}, id="no pattern"),
        pytest.param(PATTERN, {"progress": {"stragglers": "Off"}}, id="not wanted"),
    ],
)
async def test_who_cannot_be_judged_is_not_sampled(
    pattern: re.Pattern[str] | None, spec: dict[str, Any]
) -> None:
    sampling = Sampling(1.0, 9.0)
    await sampling.rounds(3, pattern, **spec)
    assert sampling.logs.asked == []
    assert sampling.sampler.slow(KEY) is None


async def test_a_rank_that_cannot_be_read_is_neither_slow_nor_fast() -> None:
    sampling = Sampling(1.0, 1.0, None, 2.0)
    await sampling.rounds(3)
    assert sampling.sampler.slow(KEY) == Slow(3, 2.0, NOW, "pod-3-b3-1")


async def test_a_round_is_not_begun_before_its_time() -> None:
    sampling = Sampling(1.0, 1.0)
    await sampling.rounds(1)
    sampling.now = NOW + EVERY_S - 1
    sampling.sampler.sample(a_job(), pods(2), PATTERN)
    await asyncio.sleep(0.1)
    assert len(sampling.logs.asked) == 2
    sampling.now = NOW + EVERY_S
    sampling.sampler.sample(a_job(), pods(2), PATTERN)
    await asyncio.sleep(0.1)
    assert len(sampling.logs.asked) == 4


async def test_of_many_ranks_eight_are_asked() -> None:
    sampling = Sampling()
    sampling.logs.streams = [[b"x"]] * 99
    sampling.sampler.sample(a_job(), pods(40), PATTERN)
    await until(lambda: len(sampling.logs.asked) >= 8)
    await asyncio.sleep(1)
    assert len({one["pod"] for one in sampling.logs.asked}) == 8


async def test_of_many_jobs_rounds_come_less_often() -> None:
    sampling = Sampling()
    sampling.logs.streams = [[b"x"]] * 9999
    jobs = [a_job(metadata={"name": f"job-{number}"}) for number in range(500)]
    for _ in range(3):
        for job in jobs:
            sampling.sampler.sample(job, (a_pod(0, "b0"), a_pod(1, "b1")), PATTERN)
        await asyncio.sleep(5)
        sampling.now += EVERY_S
    assert len(sampling.logs.asked) < 2 * 2 * len(jobs)
    await sampling.sampler.close()


async def test_a_job_that_is_gone_is_not_sampled() -> None:
    sampling = Sampling()
    sampling.logs.streams = [[2.0], [2.0]]
    sampling.sampler.sample(a_job(), pods(2), PATTERN)
    await until(lambda: sampling.logs.open == 2)
    sampling.sampler.forget(KEY)
    await until(lambda: not sampling.logs.open)
    assert sampling.sampler.slow(KEY) is None


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        pytest.param(["step 1 in 2.5s", "step 2 in 3s"], [(1, 2.5), (2, 3.0)], id="steps"),
        pytest.param(["hello", "step 1 in xs", "step 1 in -1s", "step 1 in nans"], [], id="noise"),
        pytest.param(["step 5 in 1s", "tramontane-agent event=started attempt=2 pid=1",
                      "step 3 in 2s"], [(3, 2.0)], id="another life"),
        pytest.param(["step 5 in 1s", "step 3 in 2s"], [(3, 2.0)], id="a step back"),
        pytest.param([f"step {n} in 1s" for n in range(9)], [(7, 1.0), (8, 1.0)], id="bounded"),
        pytest.param(["x" * 600 + "step 5 in 1s"], [], id="a long line is cut"),
    ],
)  # fmt: skip
def test_what_is_read_of_a_log(lines: list[str], steps: list[tuple[int, float]]) -> None:
    found: deque[tuple[int, float]] = deque(maxlen=2)
    for one in lines:
        take_step(found, one, PATTERN)
    assert list(found) == steps
