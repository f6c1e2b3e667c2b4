"""Follow the objects of others that say how many pods a group has, where there are any.

A kind is looked for from the first pod on that refers to it, and again every minute while it is
not served: a cluster without such pods is asked for nothing.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tramontane.kube.client import Client
from tramontane.kube.errors import ApiError, NotFound, Unreachable
from tramontane.kube.informer import Informer
from tramontane.kube.resources import Resource
from tramontane.scheduler.foreign.groups import (
    COSCHEDULING,
    JOBSET,
    UPSTREAM,
    VOLCANO,
    WORKLOAD,
    Group,
    Sizes,
    jobset_sizes,
    member_sizes,
    upstream_sizes,
    workload_sizes,
)

log = logging.getLogger(__name__)

PROBE_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Api:
    """Hold a kind that counts pods: what it is called, and how it is read."""

    kind: str
    versions: tuple[str, ...]  # that we can read, the newest first
    decode: Callable[[dict[str, Any]], Sizes]


APIS: Final[Mapping[str, Api]] = {
    UPSTREAM: Api("PodGroup", ("v1", "v1beta1", "v1alpha2"), upstream_sizes),
    WORKLOAD: Api("Workload", ("v1alpha1",), workload_sizes),
    JOBSET: Api("JobSet", ("v1", "v1beta1", "v1alpha2"), jobset_sizes),
    VOLCANO: Api("PodGroup", ("v1beta1",), member_sizes),
    COSCHEDULING: Api("PodGroup", ("v1alpha1",), member_sizes),
}


class Counts:
    """Hold the sizes of groups, as the API server has them.

    `changed` is called with the API and `namespace/name` of an object whose sizes changed.
    """

    def __init__(self, client: Client, changed: Callable[[str, str], None]) -> None:
        self._client = client
        self._changed = changed
        self._informers: dict[str, Informer[Sizes]] = {}
        self._needed: set[str] = set()
        self._wanted = asyncio.Event()

    def need(self, api: str) -> None:
        """Have the kind followed, if it is served."""
        if api and api not in self._needed:
            self._needed.add(api)
            self._wanted.set()

    def sizes(self, namespace: str, group: Group) -> Sizes | None:
        """Return the sizes that the object of a group says, or None where it is not seen."""
        informer = self._informers.get(group.api)
        return None if informer is None else informer.cache.get(f"{namespace}/{group.of}")

    async def run(self) -> None:
        """Follow what is needed until cancelled."""
        async with asyncio.TaskGroup() as following:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                for name in sorted(self._needed - self._informers.keys()):
                    if (resource := await self._served(name)) is None:
                        continue
                    informer = Informer(self._client, resource, APIS[name].decode)
                    informer.add_listener(self._listener(name))
                    self._informers[name] = informer
                    following.create_task(informer.run())
                    log.info("groups followed resource=%s version=%s", name, resource.version)
                if self._needed - self._informers.keys():
                    following.create_task(self._look_again())

    async def _look_again(self) -> None:
        await asyncio.sleep(PROBE_EVERY_S)
        self._wanted.set()

    def _listener(self, api: str) -> Callable[[str, Sizes | None, Sizes | None], None]:
        return lambda key, _, __: self._changed(api, key)

    async def _served(self, name: str) -> Resource | None:
        """Return the kind in the newest version that is served and that we can read, or None."""
        api, (group, _, plural) = APIS[name], name.partition("/")
        for version in api.versions:
            path = f"/apis/{group}/{version}"
            try:
                served = json.loads(await self._client.get_raw(path))
            except NotFound:
                continue
            except (ApiError, Unreachable) as error:
                log.warning("looking for an API failed path=%s error=%r", path, str(error))
                return None
            if any(one.get("name") == plural for one in served.get("resources") or ()):
                return Resource(group, version, plural, api.kind, namespaced=True)
        return None
