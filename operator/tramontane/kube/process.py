"""Be what all long-running processes share: logs, signals, health, metrics, exit codes.

    @click.command()
    @process_options
    def main(options: ProcessOptions) -> None:
        readiness = Checks()
        run(partial(serve, options, readiness), options, readiness)

SIGTERM and SIGINT set the stop event; the process then has `grace_s` to end by itself. It ends
with 0 after a stop, with 1 after an error, with 3 after it lost its Lease: whoever supervises it
starts it again.
"""

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    disable_created_metrics,
    generate_latest,
)

from tramontane.api.names import SYSTEM_NAMESPACE
from tramontane.kube.errors import LeadershipLost
from tramontane.kube.gcpause import gc_paused
from tramontane.kube.logs import set_up_logging
from tramontane.kube.metrics import Detail

log = logging.getLogger(__name__)

#: Set when the process shall end.
StopEvent = asyncio.Event

EXIT_FAILED = 1
EXIT_LEADERSHIP_LOST = 3
_GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """What every process takes on its command line.

    Attributes:
        metrics_port: of /healthz, /readyz and /metrics; 0 turns them off.
        metrics_bind: the address they are served on.
        metrics_detail: how much is exported; what that means the component decides.
        identity: of this process in Leases; unique.
    """

    namespace: str = SYSTEM_NAMESPACE
    metrics_port: int = 0
    metrics_bind: str = "127.0.0.1"
    identity: str = ""
    log_level: str = "info"
    metrics_detail: Detail = Detail.NORMAL


class Checks:
    """Named conditions that must all hold."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], bool]] = {}

    def add(self, name: str, check: Callable[[], bool]) -> None:
        """Have `check` hold, too."""
        self._checks[name] = check

    def failing(self) -> list[str]:
        """Return the names of the conditions that do not hold."""
        return [name for name, check in self._checks.items() if not check()]


def process_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the common options; it is called with `options=ProcessOptions(…)`."""
    import click  # noqa: PLC0415 - only where there is a command line

    @click.option(
        "--namespace", default=SYSTEM_NAMESPACE, show_default=True, help="Where our Leases are."
    )
    @click.option("--metrics-port", default=0, show_default=True, help="0 serves nothing.")
    @click.option(
        "--metrics-bind",
        default="127.0.0.1",
        show_default=True,
        help="Address of metrics and health.",
    )
    @click.option(
        "--identity",
        default="",
        help="Unique name of this process [default: host and a random part].",
    )
    @click.option(
        "--metrics-detail",
        default=Detail.NORMAL.value,
        show_default=True,
        type=click.Choice([one.value for one in Detail]),
        help="How much is exported: low has nothing per blade, job or deployment.",
    )
    @click.option("--log-level", default="info", show_default=True,
                  type=click.Choice(["debug", "info", "warning", "error"]))  # fmt: skip
    @functools.wraps(command)
    def with_options(
        *args: Any,
        namespace: str,
        metrics_port: int,
        metrics_bind: str,
        identity: str,
        log_level: str,
        metrics_detail: str,
        **kwargs: Any,
    ) -> Any:
        options = ProcessOptions(
            namespace,
            metrics_port,
            metrics_bind,
            identity or unique_identity(),
            log_level,
            Detail(metrics_detail),
        )
        return command(*args, options=options, **kwargs)

    return with_options


def unique_identity() -> str:
    """Return a name for this process that no other process has, and people can place."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


def run(
    main: Callable[[StopEvent], Awaitable[None]],
    options: ProcessOptions | None = None,
    readiness: Checks | None = None,
    *,
    grace_s: float = _GRACE_S,
    large_scrapes: bool = False,
) -> None:
    """Run `main` until it returns; it shall return soon after the stop event is set.

    With `large_scrapes` metrics are written in a thread: 100,000 series take most of a second, in
    which the loop must go on. Collectors are then called beside it, and copy what they read.

    Raises:
        SystemExit: with 1 if `main` failed, with 3 if it lost its Lease.
    """
    options = options or ProcessOptions()
    # Each followed log is a connection of its own.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    set_up_logging(options.log_level)
    try:
        asyncio.run(_serve(main, options, readiness or Checks(), grace_s, large_scrapes))
    except Exception as error:
        if lost := _find(error, LeadershipLost):
            log.error("leadership lost error=%r", str(lost))  # noqa: TRY400 - no fault of the code
            raise SystemExit(EXIT_LEADERSHIP_LOST) from None
        log.exception("process failed")
        raise SystemExit(EXIT_FAILED) from None


async def _serve(
    main: Callable[[StopEvent], Awaitable[None]],
    options: ProcessOptions,
    readiness: Checks,
    grace_s: float,
    large_scrapes: bool,
) -> None:
    stop = StopEvent()
    loop = asyncio.get_running_loop()

    async def work() -> None:
        await main(stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with _http(options, readiness, large_scrapes):
            working = asyncio.create_task(work(), name="main")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not working.done():
                log.info("process stopping grace_s=%.0f", grace_s)
                await asyncio.wait({working}, timeout=grace_s)
            if not working.done():
                log.warning("process does not stop; cancelled grace_s=%.0f", grace_s)
                working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _http(
    options: ProcessOptions, readiness: Checks, large_scrapes: bool
) -> AsyncIterator[None]:
    """Serve /healthz, /readyz and /metrics while the block runs, if a port is given."""
    if not options.metrics_port:
        yield
        return
    from aiohttp import web  # noqa: PLC0415 - a process without a port does not pay for it

    # When a series was made tells Prometheus nothing that it asks for, and is one more of each.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        failing = readiness.failing()
        text = "".join(f"{name}: not ready\n" for name in failing) or "ok\n"
        return web.Response(status=503 if failing else 200, text=text)

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(scrape) if large_scrapes else scrape()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.metrics_bind, options.metrics_port).start()
        log.info("serving metrics bind=%s port=%d", options.metrics_bind, options.metrics_port)
        yield
    finally:
        await runner.cleanup()


def scrape(registry: CollectorRegistry = REGISTRY) -> bytes:
    """Return what there is to export, as Prometheus reads it."""
    # Each sample is a handful of objects that are gone when it is written: nothing to collect.
    with gc_paused():
        return generate_latest(registry)


def _find(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the first error of `kind` in `error`, which may be a group of a task group's."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (_find(one, kind) for one in error.exceptions)), None)
    return None
