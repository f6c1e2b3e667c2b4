"""Write Events (events.k8s.io/v1) without ever keeping a reconcile waiting.

`record` puts an Event into a bounded queue and returns. The same Event again within ten minutes
is a *series*: it is counted in memory and its count written once a minute at most. Events are
for people: where one cannot be written, it is counted, logged and forgotten.
"""

import asyncio
import itertools
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tramontane.api.clock import micro
from tramontane.kube import metrics
from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, NotFound, Unreachable
from tramontane.kube.resources import EVENTS

log = logging.getLogger(__name__)

_QUEUED = 1000
# After a burst, a few a second: where much happens at once, the API server has better to do.
_BURST = 25
_PER_S = 10.0
_REMEMBERED = 2048
_SERIES_S = 600.0
_COUNT_EVERY_S = 60.0
_LONGEST_NOTE = 1024
_LONGEST_NAME = 200
_NO_NAMESPACE = "default"  # where Events about cluster-scoped objects live


@dataclass(slots=True)
class _Series:
    """One Event and how often it has happened."""

    name: str
    namespace: str
    body: dict[str, Any]
    first_at: float
    last_at: float
    written_at: float
    count: int = 1
    created: bool = False


class EventRecorder:
    """Write Events as `component`.

    Attributes:
        component: the reportingController, e.g. `tramontane.dev/operator`.
        instance: the reportingInstance, e.g. the pod's name.
        written: how many writes succeeded so far.
    """

    def __init__(
        self,
        client: Client,
        component: str,
        instance: str = "",
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.component = component
        self.instance = instance or component
        self.written = 0
        self._now = now
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        # (0 if Warning else 1, order, what): what is wrong is told before what went well.
        self._queue: asyncio.PriorityQueue[tuple[bool, int, _Series]] = asyncio.PriorityQueue(
            _QUEUED
        )
        self._order = itertools.count()

    def record(
        self, regarding: Mapping[str, Any], type_: str, reason: str, note: str, action: str
    ) -> None:
        """Queue an Event about `regarding` (kind, name, namespace, uid, apiVersion).

        Args:
            regarding: the object, as an object reference; a whole raw object will do.
            type_: `Normal` or `Warning`.
            reason: CamelCase, of the closed lists.
            note: for people; cut at 1,024 characters.
            action: CamelCase, what was done or tried, e.g. `Placing`.
        """
        about = _reference(regarding)
        now = self._now()
        id_ = (*about.values(), type_, reason, note, action)
        series = self._series.get(id_)
        if series is not None and now - series.first_at < _SERIES_S:
            self._series.move_to_end(id_)
            series.count += 1
            series.last_at = now
            if now - series.written_at < _COUNT_EVERY_S:
                return
        else:
            series = self._new(
                {
                    "regarding": about,
                    "type": type_,
                    "reason": reason,
                    "action": action,
                    "note": note[:_LONGEST_NOTE],
                },
                now,
            )
            self._series[id_] = series
            self._series.move_to_end(id_)
            if len(self._series) > _REMEMBERED:
                self._series.popitem(last=False)
        series.written_at = now
        try:
            self._queue.put_nowait((type_ != "Warning", next(self._order), series))
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.labels("full").inc()

    async def run(self) -> None:
        """Write queued Events until cancelled."""
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            _, _, series = await self._queue.get()
            due = max(due, loop.time()) + 1 / _PER_S
            if (early_s := due - loop.time() - _BURST / _PER_S) > 0:
                await asyncio.sleep(early_s)
            try:
                await self._write(series)
                self.written += 1
            except (ApiError, Unreachable) as error:
                metrics.EVENTS_DROPPED.labels("refused").inc()
                log.warning("event not written event=%s error=%r", series.name, str(error))

    async def _write(self, series: _Series) -> None:
        if series.created:
            patch = {"series": {"count": series.count, "lastObservedTime": micro(series.last_at)}}
            try:
                await self.client.merge_patch(EVENTS, series.name, patch, series.namespace)
            except NotFound:
                log.debug("event has expired event=%s", series.name)
            else:
                return
        await self.client.create(EVENTS, series.body, series.namespace)
        series.created = True

    def _new(self, said: dict[str, Any], now: float) -> _Series:
        about = said["regarding"]
        name = f"{about.get('name', '')[:_LONGEST_NAME]}.{uuid.uuid4().hex[:16]}"
        namespace = about.get("namespace") or _NO_NAMESPACE
        body = {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": micro(now),
            "reportingController": self.component,
            "reportingInstance": self.instance,
            **said,
        }
        return _Series(name, namespace, body, now, now, now)


def _reference(regarding: Mapping[str, Any]) -> dict[str, str]:
    """Return an object reference, also from a whole raw object."""
    source = {**regarding.get("metadata", {}), **regarding}
    wanted = ("apiVersion", "kind", "namespace", "name", "uid")
    return {field: str(source[field]) for field in wanted if source.get(field)}
