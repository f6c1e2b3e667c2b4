"""Run one `vllm serve` process from its start to its end.

| role               | start                                       | end on SIGTERM             |
|--------------------|---------------------------------------------|----------------------------|
| alone              | load, serve                                 | abort, or drain            |
| rank 0 of several  | wait for all to join and to load, serve     | abort, or drain            |
| headless           | join rank 0, load; no HTTP                  | at once                    |
| data parallel, own | join rank 0, load, serve (hybrid, external) | abort, or drain            |
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Sequence
from os import environ
from pathlib import Path
from typing import Any

from . import logs
from .adapters import Adapters
from .api import DEAD, Api
from .asks import Refused
from .commandline import Fake, StartError
from .engine import Engine, drained
from .faults import OOM, Faults
from .metrics import Metrics
from .options import Options, read_options
from .ranks import Peers
from .wire import Connection

_GIB = 2**30
_LOG_EVERY_S = 10.0
_BACKLOG = 4096
# From the death of the engine to that of the server; the real watchdog looks every 5 s.
_WATCHDOG_S = 0.5
# What has been written may still be on its way to the client.
_FLUSH_S = 2.0
_FAILED = 1


def main(words: Sequence[str]) -> int:
    """Serve; return the exit code."""
    try:
        options = read_options(words, environ)
    except StartError as error:
        logs.error("api_server.py:1", f"Traceback (most recent call last):\nValueError: {error}")
        return _FAILED
    return asyncio.run(Server(options).run())


class Server:
    """Hold one process."""

    def __init__(self, options: Options) -> None:
        self._options = options
        fake = options.fake
        self._stop = asyncio.Event()
        self._failed = asyncio.Event()
        self._why = ""
        self._live: set[Connection] = set()
        self._metrics = Metrics(options.names[0], options.engines, time.time())
        self._metrics.cache = {
            "block_size": options.block,
            "cache_dtype": options.given["kv_cache_dtype"] or "auto",
            "enable_prefix_caching": True,
            "gpu_memory_utilization": options.given["gpu_memory_utilization"] or 0.92,
            "num_gpu_blocks": options.kv_tokens // options.block,
        }
        self._engine = Engine(
            self._metrics,
            slots=options.slots,
            kv_tokens=options.kv_tokens,
            block=options.block,
            ttft_s=fake.ttft,
            itl_s=fake.itl,
            prefill_s=fake.prefill,
            is_frozen=self._is_frozen,
            max_loras=options.max_loras if options.lora else None,
        )
        self._peers = Peers(
            rank=options.node_rank,
            weight=1 if options.given["nnodes"] else options.local_engines,
            world=options.world,
            silent_s=fake.silent_after,
            lost=self._lost,
            ordered=self._ordered,
        )
        self._faults = Faults(fake.errors, self._slow, self._kill, self._peers.order)
        self._adapters = Adapters(options.names, options.lora, options.max_lora_rank)
        self._api = Api(options, self._engine, self._metrics, self._faults, self._adapters)

    async def run(self) -> int:
        """Start, serve until told to end or until the engine dies, end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        version = self._options.fake.version
        logs.info("api_server.py:1", f"vLLM API server version {version} (fake)")
        try:
            if not await self._unless_over(self._start()):
                return self._over()
        except (TimeoutError, StartError, OSError) as error:
            logs.error("core.py:1", f"EngineCore failed to start.\n{type(error).__name__}: {error}")
            return _FAILED
        if self._options.headless:
            await self._unless_over(asyncio.Event().wait())
            return self._over()
        return await self._serve()

    async def _unless_over(self, work: Awaitable[Any]) -> bool:
        """Wait for the work, but not beyond the end of the process; return whether it is done."""
        task = asyncio.ensure_future(work)
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._failed)]
        await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
        for one in ends:
            one.cancel()
        if not task.done():
            task.cancel()
            return False
        task.result()
        return True

    def _over(self) -> int:
        self._peers.leave()
        if self._failed.is_set():
            logs.error(
                "core.py:1", f"{self._why}\nvllm.v1.engine.exceptions.EngineDeadError: {DEAD}"
            )
            return _FAILED
        logs.info("launcher.py:1", "Shutting down.")
        return 0

    async def _start(self) -> None:
        """Meet the others, load, and have the adapters that the command line names."""
        options = self._options
        within_s = options.fake.join
        if not options.headless:
            within_s = min(within_s, options.ready_s)
        try:
            async with asyncio.timeout(within_s):
                await self._meet(within_s)
                await self._load()
                self._peers.tell_loaded()
                if options.listen is not None:
                    await self._peers.all_loaded()
        except TimeoutError as error:
            raise TimeoutError(
                f"Timed out waiting for engine core processes to start after {within_s} s"
            ) from error
        for name, path in options.lora_modules:
            try:
                self._adapters.check({"lora_name": name, "lora_path": path})
            except Refused as refused:
                raise StartError(str(refused)) from refused
            self._adapters.add(name, path)

    async def _meet(self, within_s: float) -> None:
        options = self._options
        if options.listen is not None:
            logs.info("core.py:1", f"Waiting for {options.waits_for} to join at {options.listen}")
            await self._peers.listen("", options.listen, options.waits_for)
            await self._peers.together.wait()
        elif options.joins:
            host, port = options.joins
            logs.info("core.py:1", f"Joining at {host}:{port} as rank {options.node_rank}")
            await self._peers.join(host, port, within_s)

    async def _load(self) -> None:
        """Take the time that the weights take; fail as asked for."""
        options, fake = self._options, self._options.fake
        gib = options.weights_b / _GIB
        fault = _start_fault(fake)
        logs.info("gpu_model_runner.py:1", f"Starting to load model {options.model}...")
        seconds = fake.load + fake.load_per_gib * gib
        if fault == "never":
            await asyncio.Event().wait()
        await asyncio.sleep(seconds)
        if fault == "oom":
            raise StartError(OOM)
        logs.info(
            "gpu_model_runner.py:1",
            f"Model loading took {gib:.2f} GiB memory and {seconds:.6f} seconds",
        )
        logs.info(
            "kv_cache_utils.py:1",
            f"GPU KV cache size: {options.kv_tokens:,} tokens, Maximum concurrency for "
            f"{options.length:,} tokens per request: {options.kv_tokens / options.length:.2f}x",
        )

    async def _serve(self) -> int:
        options = self._options
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self._api.answer, self._api.told, self._live),
            options.host,
            options.port,
            backlog=_BACKLOG,
        )
        tasks = [loop.create_task(self._engine.run()), loop.create_task(self._log())]
        logs.info("launcher.py:1", f"Starting vLLM server on http://{options.host}:{options.port}")
        logs.info("launcher.py:1", "Application startup complete.")
        try:
            await self._unless_over(asyncio.Event().wait())
            if not self._failed.is_set():
                await self._end()
            else:
                await asyncio.sleep(_WATCHDOG_S)
        finally:
            for task in tasks:
                task.cancel()
            server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._flushed(), _FLUSH_S)
        return self._over()

    async def _end(self) -> None:
        """Let the running requests finish, for as long as was allowed; 0 s is not at all."""
        grace_s = self._options.grace_s
        mode = "drain" if grace_s else "abort"
        logs.info(
            "launcher.py:1",
            f"[shutdown] API server: stopping engine client mode={mode} timeout={grace_s:g}s",
        )
        self._api.is_draining = True
        if grace_s:
            await self._unless_failed(drained(self._engine, grace_s))
        if self._engine.requests:
            self._engine.fail("aborted", cut=True)

    async def _unless_failed(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        failed = asyncio.ensure_future(self._failed.wait())
        await asyncio.wait([task, failed], return_when=asyncio.FIRST_COMPLETED)
        for one in (task, failed):
            one.cancel()

    async def _flushed(self) -> None:
        for connection in list(self._live):
            connection.close_when_idle()
        while self._live:  # noqa: ASYNC110 - once per process, and an event would cost each stream
            await asyncio.sleep(0.01)

    async def _log(self) -> None:
        """Write the line on throughput that the real engine writes while it works."""
        before = [(0, 0)] * len(self._engine.ranks)
        while True:
            await asyncio.sleep(_LOG_EVERY_S)
            for index, rank in enumerate(self._engine.ranks):
                counters = rank.metrics.counters
                now = (counters["prompt_tokens"], counters["generation_tokens"])
                rates = [(b - a) / _LOG_EVERY_S for a, b in zip(before[index], now, strict=True)]
                before[index] = now
                if any(rates):
                    logs.info(
                        "loggers.py:1",
                        f"Engine {index:03d}: Avg prompt throughput: {rates[0]:.1f} tokens/s, "
                        f"Avg generation throughput: {rates[1]:.1f} tokens/s, Running: "
                        f"{rank.metrics.running} reqs, Waiting: {rank.metrics.waiting} reqs, "
                        f"GPU KV cache usage: {rank.metrics.kv_use:.1%}, "
                        "Prefix cache hit rate: 0.0%",
                    )
            sys.stdout.flush()

    def _told_to_end(self) -> None:
        if not self._faults.is_deaf:
            self._stop.set()

    def _is_frozen(self) -> bool:
        return self._faults.hangs or self._peers.is_silent

    def _slow(self, factor: float) -> None:
        self._engine.slow = factor

    def _kill(self, why: str) -> None:
        """Let the engine die, and the server with it."""
        if not self._failed.is_set():
            self._why = why
            self._engine.fail(DEAD)
            self._failed.set()

    def _lost(self, why: str) -> None:
        """Die of a lost rank, or hang, as asked for; a server that ends anyway does neither."""
        if self._stop.is_set() and self._options.headless:
            return
        logs.error("multiproc_executor.py:1", why)
        self._faults.hang()
        if self._options.fake.rank_loss == "die":
            loop = asyncio.get_running_loop()
            loop.call_later(self._options.fake.rank_loss_after, self._kill, why)

    def _ordered(self, what: dict[str, Any]) -> None:
        self._faults.set(str(what["name"]), what["values"])


def _start_fault(fake: Fake) -> str:
    """Return the fault to start with; a file goes before what was given."""
    with contextlib.suppress(OSError):
        words = Path(fake.fault_file).read_text(encoding="utf-8").split()
        return words[0] if words else fake.start_fault
    return fake.start_fault
