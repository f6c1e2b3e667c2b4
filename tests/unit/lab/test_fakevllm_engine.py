"""The step loop of fake-vllm: slots, cache, queue, and what it counts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tramontane.lab.fakevllm.engine import Engine, Request, drained
from tramontane.lab.fakevllm.metrics import (
    INTER_TOKEN_LATENCY,
    TIME_TO_FIRST_TOKEN,
    Histogram,
    Metrics,
)

ITL_S = 0.005


class Kept:
    """A client that keeps what it got."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.at: list[float] = []
        self.finished: str | None = None
        self.failure: tuple[str, bool] | None = None
        self.over = asyncio.Event()

    def token(self, index: int, finished: str | None) -> None:
        self.tokens.append(index)
        self.at.append(time.monotonic())
        self.finished = finished
        if finished:
            self.over.set()

    def failed(self, message: str, *, cut: bool) -> None:
        self.failure = (message, cut)
        self.over.set()


class Place:
    """An engine with its switches."""

    def __init__(self, **options: Any) -> None:
        self.frozen = False
        self.metrics = Metrics("m", range(options.pop("ranks", 1)), 0.0)
        settings: dict[str, Any] = {
            "slots": 8, "kv_tokens": 1024, "block": 16, "ttft_s": 0.0, "itl_s": ITL_S,
            "prefill_s": 0.0, **options,
        }  # fmt: skip
        self.engine = Engine(self.metrics, is_frozen=lambda: self.frozen, **settings)

    def ask(self, prompt: int = 10, want: int = 3, adapter: str = "") -> tuple[Request, Kept]:
        kept = Kept()
        request = Request(kept, prompt, want, "stop", adapter)
        self.engine.add(request)
        return request, kept

    @property
    def one(self) -> Any:
        return self.metrics.engines[0]


@asynccontextmanager
async def engine(**options: Any) -> AsyncIterator[Place]:
    place = Place(**options)
    task = asyncio.create_task(place.engine.run())
    try:
        yield place
    finally:
        task.cancel()


async def over(*asked: tuple[Request, Kept]) -> None:
    async with asyncio.timeout(10):
        for _, kept in asked:
            await kept.over.wait()


async def test_a_request_gets_a_token_per_step() -> None:
    async with engine() as place:
        asked = place.ask(want=5)
        await over(asked)
        assert asked[1].tokens == [0, 1, 2, 3, 4]
        assert asked[1].finished == "stop"
        assert place.one.finished == {"stop": 1}
        assert place.one.counters == {
            "prompt_tokens": 10, "prefix_cache_queries": 10, "generation_tokens": 5
        }  # fmt: skip
        assert place.one.ttft.count == 1
        assert place.one.itl.count == 4
        assert (place.one.running, place.one.waiting, place.one.kv_use) == (0, 0, 0.0)


async def test_an_idle_engine_does_not_step() -> None:
    async with engine() as place:
        await over(place.ask())
        steps = place.one.steps.count
        await asyncio.sleep(10 * ITL_S)
        assert place.one.steps.count == steps


async def test_slots_are_limited_so_the_first_token_comes_later_under_load() -> None:
    async with engine(slots=2) as place:
        asked = [place.ask(want=10) for _ in range(6)]
        await asyncio.sleep(3 * ITL_S)
        assert (place.one.running, place.one.waiting) == (2, 4)
        await over(*asked)
        first = [kept.at[0] for _, kept in asked]
        assert first == sorted(first)
        # Three rounds of ten steps.
        assert first[5] - first[0] > 15 * ITL_S
        assert place.one.histograms["request_queue_time_seconds"].sum > 50 * ITL_S


async def test_the_cache_is_limited() -> None:
    async with engine(kv_tokens=64) as place:
        asked = [place.ask(prompt=30, want=2) for _ in range(3)]  # 32 tokens each
        await asyncio.sleep(1.5 * ITL_S)
        assert place.one.waiting >= 1
        assert place.one.kv_use <= 1.0
        await over(*asked)


async def test_one_that_is_larger_than_the_cache_runs_alone() -> None:
    async with engine(kv_tokens=16) as place:
        await over(place.ask(prompt=100))


async def test_the_prompt_and_a_fault_make_the_first_token_late() -> None:
    async with engine(ttft_s=0.02, prefill_s=0.1) as place:
        place.engine.slow = 2.0
        began = time.monotonic()
        asked = place.ask(prompt=500, want=20)
        await over(asked)
        first, *_, last = asked[1].at
        assert first - began >= 2 * (0.02 + 0.05)
        assert last - began >= 2 * (0.02 + 0.05) + 15 * 2 * ITL_S


async def test_a_frozen_engine_goes_on_later() -> None:
    async with engine() as place:
        asked = place.ask(want=50)
        await asyncio.sleep(5 * ITL_S)
        place.frozen = True
        await asyncio.sleep(2 * ITL_S)
        got, steps = len(asked[1].tokens), place.one.steps.count
        await asyncio.sleep(10 * ITL_S)
        assert (len(asked[1].tokens), place.one.steps.count) == (got, steps)
        assert place.one.running == 1
        place.frozen = False
        await over(asked)


async def test_an_aborted_request_frees_its_slot() -> None:
    async with engine(slots=1) as place:
        first, second, third = (place.ask(want=1000), place.ask(want=2), place.ask(want=2))
        await asyncio.sleep(3 * ITL_S)
        place.engine.abort(first[0])
        place.engine.abort(third[0])
        place.engine.abort(third[0])
        await over(second)
        assert place.one.finished == {"abort": 2, "stop": 1}
        assert place.engine.requests == 0
        assert place.engine.ranks[0].used_kv_tokens == 0


async def test_a_dead_engine_ends_all_requests() -> None:
    async with engine(slots=1) as place:
        asked = [place.ask(want=1000) for _ in range(3)]
        await asyncio.sleep(2 * ITL_S)
        place.engine.fail("no more")
        await over(*asked)
        assert [kept.failure for _, kept in asked] == [("no more", False)] * 3
        assert place.engine.dead


async def test_ranks_share_the_load() -> None:
    async with engine(ranks=4, slots=2) as place:
        asked = [place.ask(want=20) for _ in range(8)]
        await asyncio.sleep(3 * ITL_S)
        assert [one.running for one in place.metrics.engines.values()] == [2, 2, 2, 2]
        await over(*asked)


async def test_draining_waits_for_the_last() -> None:
    async with engine() as place:
        place.ask(want=10)
        assert await drained(place.engine, 5.0)
        place.ask(want=10_000)
        assert not await drained(place.engine, 0.05)


async def test_the_adapters_in_use_are_told() -> None:
    async with engine(slots=1, max_loras=4) as place:
        asked = [place.ask(adapter="b"), place.ask(adapter="a")]
        await over(*asked)
        told = list(place.metrics.lora)
        assert ("4", "b", "a") in told
        assert told[-1] == ("4", "", "")


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0005, 0), (0.001, 0), (0.0011, 1), (2560.0, 21), (9999.0, 22)]
)
def test_a_bucket_includes_its_bound(value: float, bucket: int) -> None:
    histogram = Histogram(TIME_TO_FIRST_TOKEN)
    histogram.observe(value)
    assert histogram.buckets.index(1) == bucket


def test_the_text_is_what_prometheus_reads() -> None:
    metrics = Metrics('a"b\\', (0, 1), 12.5)
    engine_ = metrics.engines[1]
    engine_.ttft.observe(0.03)
    engine_.itl.observe(0.012, times=3)
    engine_.running = 2
    metrics.http["/v1/models", "GET", "2xx"] = 4
    metrics.lora["2", "x,y", ""] = 1.5
    metrics.cache = {"block_size": 16}
    families = {one.name: one for one in text_string_to_metric_families(metrics.text())}
    assert {
        "vllm:num_requests_running", "vllm:num_requests_waiting",
        "vllm:num_requests_waiting_by_reason", "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:num_preemptions",
        "vllm:admission_rejections", "vllm:prompt_tokens", "vllm:generation_tokens",
        "vllm:request_success", "vllm:iteration_tokens_total",
        "vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
        "vllm:request_time_per_output_token_seconds", "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds", "vllm:lora_requests_info",
        "vllm:engine_sleep_state", "vllm:cache_config_info", "http_requests",
    } <= families.keys()  # fmt: skip
    ttft = [
        sample
        for sample in families["vllm:time_to_first_token_seconds"].samples
        if sample.labels["engine"] == "1"
    ]
    bounds = [float(one.labels["le"]) for one in ttft if one.name.endswith("_bucket")]
    assert bounds == [*TIME_TO_FIRST_TOKEN, float("inf")]
    assert [one.value for one in ttft if one.labels.get("le") in {"0.02", "0.04"}] == [0, 1]
    itl = families["vllm:inter_token_latency_seconds"].samples
    assert {one.value for one in itl if one.labels.get("le") == "0.025"} == {0.0, 3.0}
    assert len(INTER_TOKEN_LATENCY) == 19
    assert {one.labels["model_name"] for one in ttft} == {'a"b\\'}
    [request] = families["http_requests"].samples
    assert request.name == "http_requests_total"
    assert request.labels == {"handler": "/v1/models", "method": "GET", "status": "2xx"}
