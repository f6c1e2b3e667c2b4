"""Speak to the API server in memory as to a real one: the interface of `kube.client.Client`.

Every request takes its time, watches come late and break now and then, all on the loop's clock and
all by seeds (`Weather`). So components see the world as they would: their own writes come back to
them a moment later, and what they cache may be old.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tramontane.kube.errors import Gone, NotFound, TooManyRequests, Unreachable
from tramontane.kube.resources import PODS, Resource
from tramontane.lab.sim.apiserver import ApiServer
from tramontane.lab.sim.store import matching
from tramontane.lab.sim.watching import Watch

Raw = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Weather:
    """How good the way to the API server is. Times in seconds, on the loop's clock.

    Attributes:
        request_s: what a request takes.
        watch_s: how much later a watch shows a change; drawn anew for each, up to twice that.
        break_every_s: mean time between two breaks of one watch; 0: none breaks.
        forget_every_s: how often the server forgets what has happened, so that broken watches get
            a 410; 0: never.
        seed: of the draws.
    """

    request_s: float = 0.003
    watch_s: float = 0.005
    break_every_s: float = 0.0
    forget_every_s: float = 0.0
    seed: int = 0


class SimClient:
    """A client of the API server in memory. `name` is the field manager of plain writes."""

    def __init__(self, api: ApiServer, name: str, weather: Weather | None = None) -> None:
        self.api = api
        self.name = name
        self._weather = weather or Weather()
        self._random = random.Random(f"{self._weather.seed} {name}")
        self.requests = 0

    # Reading

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Raw:
        """Return the object as the API server has it now."""
        await self._travel()
        return self.api.get(resource, name, namespace)

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        continue_: str | None = None,
    ) -> Raw:
        """Return one page of a list."""
        await self._travel()
        test = matching(label_selector, field_selector)
        return self.api.list_page(resource, namespace, test, limit, continue_)

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
    ) -> list[Raw]:
        """Return all objects, each with apiVersion and kind."""
        for last in (False, False, True):
            items: list[Raw] = []
            continue_: str | None = None
            try:
                while True:
                    page = await self.list_page(
                        resource,
                        namespace,
                        label_selector=label_selector,
                        field_selector=field_selector,
                        limit=limit,
                        continue_=continue_,
                    )
                    named = {"apiVersion": resource.api_version, "kind": resource.kind}
                    items += [{**named, **item} for item in page["items"]]
                    continue_ = page["metadata"].get("continue")
                    if not continue_:
                        return items
            except Gone:
                if last:
                    raise
        raise AssertionError  # the last round returns or raises

    @asynccontextmanager
    async def stream(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        params: Mapping[str, str] | None = None,
        silence_s: float | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch: a context manager that yields an iterator of lines.

        It is never silent for too long; what ends it is the server's time, or the weather.
        """
        del silence_s
        await self._travel()
        wanted = dict(params or {})
        watch = Watch(
            self.api,
            resource,
            namespace,
            matching(wanted.get("labelSelector"), wanted.get("fieldSelector")),
            int(wanted.get("resourceVersion") or 0),
        )
        try:
            yield self._lines(watch, float(wanted.get("timeoutSeconds") or "inf"))
        finally:
            watch.close()

    async def _lines(self, watch: Watch, lasts_s: float) -> AsyncIterator[bytes]:
        loop, weather = asyncio.get_running_loop(), self._weather
        ends = loop.time() + lasts_s
        breaks = float("inf")
        if weather.break_every_s:
            breaks = loop.time() + self._random.expovariate(1 / weather.break_every_s)
        if (error := watch.begin()) is not None:
            yield json.dumps({"type": "ERROR", "object": error}).encode()
            return
        while True:
            await watch.wait(min(ends, breaks) - loop.time())
            late_s = weather.watch_s * self._random.uniform(0.5, 2.0)
            if late_s and watch.waiting:
                await asyncio.sleep(late_s)
            for line in watch.taken():
                yield line
            if loop.time() >= breaks:
                raise Unreachable("watch: the connection must stay open (got: it broke)")
            if loop.time() >= ends:
                yield watch.bookmark()
                return

    # Writing

    async def create(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        namespace: str | None = None,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> Raw:
        """Create an object; of subresources only a pod's eviction is known, which deletes it."""
        await self._travel()
        if subresource == "eviction":
            if self.api.find(PODS, name or "", namespace) is None:
                raise NotFound(404, "NotFound", f'pods "{name}" not found')
            return self.api.delete(PODS, name or "", namespace, None, None)
        if subresource is not None:
            raise NotFound(404, "NotFound", f"{resource.plural}/{subresource} is not simulated")
        return self.api.create(resource, body, namespace, self.name)

    async def replace(
        self, resource: Resource, body: Mapping[str, Any], *, subresource: str | None = None
    ) -> Raw:
        """Replace an object."""
        await self._travel()
        return self.api.replace(resource, body, subresource, self.name)

    async def apply(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        manager: str,
        subresource: str | None = None,
        force: bool = True,
    ) -> Raw:
        """Apply on the server: `body` is everything that `manager` wants to own."""
        await self._travel()
        return self.api.apply(resource, body, manager, subresource, force=force)

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Raw:
        """Merge `patch` into the object."""
        await self._travel()
        return self.api.merge_patch(
            resource, name, namespace, patch, subresource=subresource, by=self.name
        )

    async def json_patch(
        self,
        resource: Resource,
        name: str,
        patch: Sequence[Mapping[str, Any]],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Raw:
        """Run the operations of `patch` on the object: all or none."""
        await self._travel()
        return self.api.json_patch(
            resource, name, namespace, patch, subresource=subresource, by=self.name
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
        propagation: str | None = None,
    ) -> Raw:
        """Delete the object; what it owned goes in the background, whatever `propagation` says."""
        del propagation
        await self._travel()
        return self.api.delete(resource, name, namespace, grace_period_s, uid)

    def pod_log(self, *_: Any, **__: Any) -> Any:
        """Refuse: there are no logs here; who wants marks is given them (`followers`)."""
        raise TooManyRequests(429, "TooManyRequests", "the simulator keeps no logs")

    async def _travel(self) -> None:
        self.requests += 1
        await asyncio.sleep(self._weather.request_s)
