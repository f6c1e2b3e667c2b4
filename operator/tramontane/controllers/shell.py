"""Let kopf watch what people write, and do nothing else with it.

kopf sees NodePool, TrainingJob and InferenceDeployment through `on.event`, which writes nothing
and keeps nothing. A handler adds the object's key to a queue of ours. No index, daemon, timer,
finalizer, return value or peering: what each of them costs is in docs/decisions/0001.

kopf forgets deletions after a `410 Gone`. So the kinds are also listed every few minutes, and
keys that were there and are not any more are added too.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import kopf

from tramontane.controllers import metrics
from tramontane.kube.client import ApiError, Client, Unreachable
from tramontane.kube.config import Connection, connect
from tramontane.kube.process import StopEvent
from tramontane.kube.resources import Resource

log = logging.getLogger(__name__)

#: Takes the key (`namespace/name` or `name`) of an object that may have changed.
Sink = Callable[[str], None]
Sinks = Mapping[Resource, Sink]

RESYNC_S = 300.0
_PAGE = 500
_SERVER_TIMEOUT_S = 300
_REQUEST_TIMEOUT_S = 30
_CONNECTIONS = 8


async def watch(sinks: Sinks, stop: StopEvent) -> None:
    """Run kopf until `stop` is set, pushing keys into `sinks`.

    Sets `stop` when kopf ends: it also ends on a signal, and takes the handlers of SIGTERM and
    SIGINT from us while it starts.
    """
    ready = asyncio.Event()
    async with _logins() as login:
        registry = registry_of(sinks, login)
        running = asyncio.create_task(
            kopf.operator(
                registry=registry,
                settings=settings(),
                clusterwide=True,
                standalone=True,  # the Lease has decided that we are the only one
                stop_flag=stop,
                ready_flag=ready,
            )
        )
        started = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
            _take_signals_back(stop)
            await running
            stop.set()  # not where we are cancelled: a lost Lease is no orderly end
        finally:
            for task in (running, started):
                task.cancel()
            await asyncio.gather(running, started, return_exceptions=True)


async def resync(client: Client, sinks: Sinks, stop: StopEvent, every_s: float = RESYNC_S) -> None:
    """List the kinds of `sinks` now and every `every_s`, and push the keys that are or were."""
    known: dict[Resource, frozenset[str]] = {}
    while not stop.is_set():
        for resource, sink in sinks.items():
            try:
                items = await client.list_all(resource)
            except (ApiError, Unreachable) as error:
                log.warning("resync failed resource=%s error=%r", resource.plural, str(error))
                continue
            now = frozenset(_key(item["metadata"]) for item in items)
            for key in now | known.get(resource, frozenset()):
                sink(key)
            known[resource] = now
        try:
            async with asyncio.timeout(every_s):
                await stop.wait()
        except TimeoutError:
            continue


def settings() -> kopf.OperatorSettings:
    """Return how kopf must behave: it posts nothing, scans once, pages, and never streams lists."""
    ours = kopf.OperatorSettings()
    ours.posting.enabled = False
    ours.scanning.disabled = True
    ours.peering.standalone = True
    ours.persistence.finalizer = "tramontane.dev/cleanup"
    ours.watching.chunk_size = _PAGE
    ours.watching.initial_streaming = False
    ours.watching.server_timeout = _SERVER_TIMEOUT_S
    ours.networking.request_timeout = _REQUEST_TIMEOUT_S
    ours.networking.error_backoffs = (1, 2, 5)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLogger().level))
    return ours


def registry_of(sinks: Sinks, login: Callable[..., Any]) -> kopf.OperatorRegistry:
    """Return the handlers: one per kind, each of which adds a key."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(login)
    for resource, sink in sinks.items():
        handler = _handler(resource, sink)
        kopf.on.event(
            resource.group, resource.version, resource.plural, registry=registry, id="key"
        )(handler)
    return registry


def _handler(resource: Resource, sink: Sink) -> Callable[..., Any]:
    counter = metrics.KOPF_EVENTS.labels(resource.kind)

    async def push(name: str, namespace: str | None, **_: Any) -> None:
        counter.inc()
        sink(f"{namespace}/{name}" if namespace else name)

    return push


@asynccontextmanager
async def _logins() -> AsyncIterator[Callable[..., Any]]:
    """Yield kopf's login handler: sessions as our own client makes them, closed at the end.

    kopf asks again when the API server no longer accepts a token.
    """
    async with AsyncExitStack() as stack:

        async def login(**_: Any) -> kopf.AiohttpSession:
            connection: Connection = await connect(None, _CONNECTIONS)
            stack.push_async_callback(connection.close)
            connection.session.headers.update(await connection.authorize({}))
            return kopf.AiohttpSession(server=connection.server, aiohttp_session=connection.session)

        yield login


def _take_signals_back(stop: StopEvent) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _key(meta: Mapping[str, Any]) -> str:
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])
