"""Keep a cache equal to the API server: list in pages, compare, watch, and begin again.

1. List in pages. Decode each page at once and drop it: only one page is ever held raw. A 410 on
   a continue token means that the list begins again.
2. Compare the finished list with the cache, so that deletions during a gap are told as such.
3. Watch from the list's resourceVersion, with bookmarks. When the watch ends, for whatever
   reason, watch on from the last resourceVersion seen.
4. 410, as an answer or as an ERROR event: step 1. Any other ERROR: wait, then step 1.
5. Silence for 70 s (bookmarks come about once a minute): the connection is dead, watch anew.

Nothing that an object, a listener or the server does ends an informer; only cancelling does.
"""

import asyncio
import gc
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from tramontane.kube import metrics
from tramontane.kube.client import Client
from tramontane.kube.errors import (
    ApiError,
    Gone,
    Silent,
    TooManyRequests,
    Unreachable,
    from_status,
)
from tramontane.kube.gcpause import gc_paused
from tramontane.kube.resources import Resource
from tramontane.kube.store import Listener, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAGE = 500
# The server ends a watch after this; spread, so that those of all processes do not end at once.
_WATCH_S = (300, 600)
_FIRST_BACK_OFF_S = 0.2
_LONGEST_BACK_OFF_S = 30.0


class Informer(Generic[T]):
    """A cache of one resource, filtered by selectors on the server.

    `decode` makes of a raw object the view that is kept. An object that it refuses is logged and
    counted, and the last good view of it stays.

    Listeners are called synchronously with (key, old, new) when the *view* changes: an update
    that leaves it equal is told to nobody.

    Attributes:
        cache: read-only, by `namespace/name`, or `name` for cluster-scoped kinds.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        decode: Callable[[dict[str, Any]], T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        silence_s: float = 70.0,
        first_back_off_s: float = _FIRST_BACK_OFF_S,
    ) -> None:
        self._client = client
        self._resource = resource
        self._decode = decode
        self._namespace = namespace
        self._selectors = {
            key: value
            for key, value in (
                ("labelSelector", label_selector),
                ("fieldSelector", field_selector),
            )
            if value
        }
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._silence_s = silence_s
        self._first_back_off_s = first_back_off_s
        self._failures = 0
        self._store: Store[T] = Store(resource.plural)
        self._synced = asyncio.Event()
        self.cache: Mapping[str, T] = self._store.cache

    @property
    def synced(self) -> bool:
        """Return whether the first list is complete."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Return when the first list is complete."""
        await self._synced.wait()

    def add_index(self, name: str, function: Callable[[T], Iterable[str]]) -> None:
        """Index all objects by the strings that the pure `function` returns."""
        self._store.add_index(name, function)

    def by_index(self, name: str, value: str) -> list[T]:
        """Return the objects that have `value` in index `name`. O(their number)."""
        return self._store.by_index(name, value)

    def add_listener(self, listener: Listener[T]) -> None:
        """Have `listener` called on each change, and once per object that is there."""
        self._store.add_listener(listener)

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        metrics.begin_informer(self._resource.plural)
        cause = "start"
        while True:
            try:
                version = await self._list(cause)
                await self._follow(version)
            except Gone as error:
                cause = "gone"
                log.info("list is too old resource=%s error=%r", self._resource.plural, str(error))
                # At once the first time: a 410 is the normal end of a long gap.
                await self._back_off(free=1)
            except (ApiError, Unreachable) as error:
                cause = "error"
                # A server that begins to keep a kind, or is busy, says so once: that is its way.
                once = isinstance(error, TooManyRequests) and not self._failures
                level = logging.INFO if once else logging.WARNING
                log.log(
                    level, "informer failed resource=%s error=%r", self._resource.plural, str(error)
                )
                await self._back_off()
            except Exception:
                # Nonsense on the wire, as a rule. The next list makes it good.
                cause = "error"
                log.exception("informer failed resource=%s", self._resource.plural)
                await self._back_off()

    async def _list(self, cause: str) -> str:
        """Make the store equal to the API server; return the resourceVersion of the list."""
        fresh: dict[str, T] = {}
        continue_: str | None = None
        while True:
            page = await self._client.list_page(
                self._resource,
                self._namespace,
                label_selector=self._label_selector,
                field_selector=self._field_selector,
                limit=_PAGE,
                continue_=continue_,
            )
            meta = page["metadata"]
            with gc_paused():
                self._take(page.pop("items") or (), fresh)
            continue_ = meta.get("continue")
            if not continue_:
                break
        self._store.replace(fresh)
        metrics.RELISTS.labels(self._resource.plural, cause).inc()
        metrics.OBJECTS.labels(self._resource.plural).set(len(fresh))
        if not self._synced.is_set():
            # What a first list made lives long: the collector need not look at it again.
            gc.freeze()
            self._synced.set()
            log.info("informer synced resource=%s objects=%d", self._resource.plural, len(fresh))
        return str(meta["resourceVersion"])

    def _take(self, items: Iterable[dict[str, Any]], fresh: dict[str, T]) -> None:
        for item in items:
            key = object_key(item)
            view = self._view(key, item)
            if view is None:
                view = self.cache.get(key)
            if view is not None:
                fresh[key] = view

    async def _follow(self, version: str) -> None:
        """Watch from `version` on, again and again; only errors end it."""
        loop = asyncio.get_running_loop()
        while True:
            before, since = version, loop.time()
            try:
                params = {
                    **self._selectors,
                    "resourceVersion": version,
                    "allowWatchBookmarks": "true",
                    "timeoutSeconds": str(random.randint(*_WATCH_S)),
                }
                async with self._client.stream(
                    self._resource, self._namespace, params=params, silence_s=self._silence_s
                ) as lines:
                    async for line in lines:
                        version = self._event(line)
                cause = "served"
            except Silent:
                cause = "silent"
            except Unreachable as error:
                cause = "cut"
                log.info("watch broke resource=%s error=%r", self._resource.plural, str(error))
            metrics.WATCH_ENDS.labels(self._resource.plural, cause).inc()
            # A watch that brought something, or stood for long, was a good one.
            if version != before or loop.time() > since + _LONGEST_BACK_OFF_S:
                self._failures = 0
            await self._back_off(free=1)

    def _event(self, line: bytes) -> str:
        """Take one event into the store; return the resourceVersion to go on from.

        Raises:
            Gone: the watch fell too far behind.
            ApiError: any other ERROR event.
        """
        event = json.loads(line)
        kind, item = event["type"], event["object"]
        metrics.WATCH_EVENTS.labels(self._resource.plural, kind).inc()
        if kind == "ERROR":
            raise from_status(
                int(item.get("code") or 0), item, subject=f"watch {self._resource.plural}"
            )
        if kind in ("ADDED", "MODIFIED"):
            key = object_key(item)
            if (view := self._view(key, item)) is not None:
                self._store.put(key, view)
        elif kind == "DELETED":
            self._store.drop(object_key(item))
        metrics.OBJECTS.labels(self._resource.plural).set(len(self.cache))
        return str(item["metadata"]["resourceVersion"])

    def _view(self, key: str, item: dict[str, Any]) -> T | None:
        """Return the view of a raw object, or None where the decoder refuses it."""
        # Items of a list come without them, those of a watch with.
        item.setdefault("apiVersion", self._resource.api_version)
        item.setdefault("kind", self._resource.kind)
        try:
            return self._decode(item)
        except Exception:
            # One odd object must not hide all others.
            metrics.UNDECODABLE.labels(self._resource.plural).inc()
            log.exception("object not decodable resource=%s key=%s", self._resource.plural, key)
            return None

    async def _back_off(self, free: int = 0) -> None:
        """Sleep for longer with each failure in a row, the first `free` ones at once."""
        doublings = self._failures - free
        self._failures += 1
        if doublings >= 0:
            delay_s = min(self._first_back_off_s * 2.0 ** min(doublings, 30), _LONGEST_BACK_OFF_S)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))


def object_key(raw: Mapping[str, Any]) -> str:
    """Return `namespace/name` of a raw object, or `name` where it has no namespace."""
    meta = raw["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])
