"""Batch requests continuously, one token each per step, in limited slots and a limited KV cache.

One task steps for all requests: a step costs one wake-up, however many streams there are. A request
that finds no slot waits, so the time to the first token grows with the load, as in the real engine.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from .metrics import EngineMetrics, Metrics


class Sink(Protocol):
    """Take what a request makes."""

    def token(self, index: int, finished: str | None) -> None:
        """Take token number `index`; the last one comes with why it is the last."""

    def failed(self, message: str, *, cut: bool) -> None:
        """Take that there will be no more tokens; `cut` says to break off without a word."""


class Request:
    """Hold one request on its way through the engine."""

    __slots__ = (
        "adapter", "arrived", "done", "first_at", "kv_tokens", "last_at", "prompt", "ready_at",
        "reason", "scheduled", "sink", "tokens", "want",
    )  # fmt: skip

    def __init__(self, sink: Sink, prompt: int, want: int, reason: str, adapter: str = "") -> None:
        self.sink = sink
        self.prompt = prompt
        self.want = want
        self.reason = reason
        self.adapter = adapter
        self.tokens = 0
        self.kv_tokens = 0
        self.arrived = self.scheduled = self.ready_at = self.first_at = self.last_at = 0.0
        self.done = False


class Rank:
    """Hold the requests of one data-parallel rank."""

    def __init__(self, metrics: EngineMetrics, slots: int, kv_tokens: int) -> None:
        self.metrics = metrics
        self.slots = slots
        self.kv_tokens = kv_tokens
        self.used_kv_tokens = 0
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def burden(self) -> int:
        """Return how much it has to do, for balancing; the weights are vLLM's."""
        return 4 * len(self.waiting) + len(self.running)


class Engine:
    """Step while there is work.

    Attributes:
        ttft_s, itl_s, prefill_s: times of the unhurried engine; `slow` stretches them all.
        is_frozen: whether something keeps it from stepping; asked before each step.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        slots: int,
        kv_tokens: int,
        block: int,
        ttft_s: float,
        itl_s: float,
        prefill_s: float,
        is_frozen: Callable[[], bool],
        max_loras: int | None = None,
    ) -> None:
        self._metrics = metrics
        self.ranks = [Rank(one, slots, kv_tokens) for one in metrics.engines.values()]
        self.slow = 1.0
        self.dead = ""
        self.changed = asyncio.Event()  # set at each end of a request
        self._block = block
        self._ttft_s = ttft_s
        self._itl_s = itl_s
        self._prefill_s = prefill_s
        self._is_frozen = is_frozen
        self._max_loras = max_loras
        self._work = asyncio.Event()

    @property
    def requests(self) -> int:
        """Return the requests that wait or run."""
        return sum(len(rank.waiting) + len(rank.running) for rank in self.ranks)

    def add(self, request: Request) -> None:
        """Queue a request."""
        request.arrived = time.monotonic()
        rank = min(self.ranks, key=lambda one: one.burden)
        rank.waiting.append(request)
        self._tell(rank)
        self._tell_lora()
        self._work.set()

    def abort(self, request: Request) -> None:
        """Forget a request whose client has gone. O(requests)."""
        if request.done:
            return
        for rank in self.ranks:
            if request in rank.waiting:
                rank.waiting.remove(request)
            elif request in rank.running:
                rank.running.remove(request)
                rank.used_kv_tokens -= request.kv_tokens
            else:
                continue
            self._end(rank, request, "abort", time.monotonic())
            self._tell(rank)

    def fail(self, message: str, *, cut: bool = False) -> None:
        """End all requests, now and to come: the engine is dead."""
        self.dead = message
        for rank in self.ranks:
            for request in [*rank.running, *rank.waiting]:
                self.abort(request)
                request.sink.failed(message, cut=cut)

    async def run(self) -> None:
        """Step until cancelled."""
        due = time.monotonic()
        while True:
            if not self.requests:
                self._work.clear()
                await self._work.wait()
                due = time.monotonic()
            due += self._itl_s * self.slow
            now = time.monotonic()
            due = max(due, now)  # too much to do for this pace: no step is made up for
            await asyncio.sleep(due - now)
            if not self._is_frozen() and not self.dead:
                for rank in self.ranks:
                    self._step(rank)

    def _step(self, rank: Rank) -> None:
        """Do one step: let requests in, then give each one that has been prefilled its token."""
        now = time.monotonic()
        prompt_tokens = self._schedule(rank, now)
        if not rank.running:
            return
        made = 0
        ended = []
        itl = rank.metrics.itl
        for request in rank.running:
            if request.ready_at > now:
                continue
            made += 1
            index = request.tokens
            request.tokens = index + 1
            if index:
                itl.observe(now - request.last_at)
            else:
                request.first_at = now
                rank.metrics.ttft.observe(now - request.arrived)
            request.last_at = now
            if index + 1 == request.want:
                ended.append(request)
                request.done = True
                request.sink.token(index, request.reason)
            else:
                request.sink.token(index, None)
        rank.metrics.steps.observe(prompt_tokens + made)
        rank.metrics.counters["generation_tokens"] += made
        if ended:
            rank.running = [request for request in rank.running if not request.done]
            for request in ended:
                rank.used_kv_tokens -= request.kv_tokens
                self._end(rank, request, request.reason, now)
        self._tell(rank)

    def _schedule(self, rank: Rank, now: float) -> int:
        """Let waiting requests in, first come first served; return the tokens of their prompts."""
        tokens = 0
        while rank.waiting and len(rank.running) < rank.slots:
            request = rank.waiting[0]
            needed = math.ceil((request.prompt + request.want) / self._block) * self._block
            # One that is alone always fits: its length was checked when it came.
            if rank.running and rank.used_kv_tokens + needed > rank.kv_tokens:
                break
            rank.waiting.popleft()
            rank.used_kv_tokens += needed
            request.kv_tokens = needed
            request.scheduled = now
            prefill_s = self._ttft_s + self._prefill_s * request.prompt / 1000
            request.ready_at = now + prefill_s * self.slow
            rank.running.append(request)
            tokens += request.prompt
        if tokens:
            rank.metrics.counters["prompt_tokens"] += tokens
            rank.metrics.counters["prefix_cache_queries"] += tokens
            self._tell_lora()
        return tokens

    def _end(self, rank: Rank, request: Request, reason: str, now: float) -> None:
        request.done = True
        metrics = rank.metrics
        metrics.finished[reason] += 1
        observe = metrics.histograms
        observe["e2e_request_latency_seconds"].observe(now - request.arrived)
        if request.scheduled:
            observe["request_queue_time_seconds"].observe(request.scheduled - request.arrived)
            observe["request_inference_time_seconds"].observe(now - request.scheduled)
        if request.tokens:
            decode_s = request.last_at - request.first_at
            observe["request_prefill_time_seconds"].observe(request.first_at - request.scheduled)
            observe["request_decode_time_seconds"].observe(decode_s)
            if request.tokens > 1:
                observe["request_time_per_output_token_seconds"].observe(
                    decode_s / (request.tokens - 1)
                )
        self._tell_lora()
        self.changed.set()

    def _tell(self, rank: Rank) -> None:
        rank.metrics.running = len(rank.running)
        rank.metrics.waiting = len(rank.waiting)
        rank.metrics.kv_use = rank.used_kv_tokens / rank.kv_tokens

    def _tell_lora(self) -> None:
        """Note which adapters are in use, as a new sample: vLLM keeps the old ones, too."""
        if self._max_loras is None:
            return
        running, waiting = self._adapters()
        told = self._metrics.lora
        key = (str(self._max_loras), ",".join(running), ",".join(waiting))
        told.pop(key, None)
        told[key] = time.time()
        while len(told) > 64:  # noqa: PLR2004 - a fake shall not grow for ever
            told.pop(next(iter(told)))

    def _adapters(self) -> tuple[Sequence[str], Sequence[str]]:
        running = {r.adapter for rank in self.ranks for r in rank.running if r.adapter}
        waiting = {r.adapter for rank in self.ranks for r in rank.waiting if r.adapter}
        return sorted(running), sorted(waiting)


async def drained(engine: Engine, within_s: float) -> bool:
    """Wait until no request is left; return whether that came in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while engine.requests:
                engine.changed.clear()
                await engine.changed.wait()
    return not engine.requests
