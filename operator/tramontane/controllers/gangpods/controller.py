"""Be what controllers of owners of gangs have alike: a queue, caches, and whom they know."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from tramontane.api.base import Object
from tramontane.controllers.gangpods.memory import Priorities
from tramontane.controllers.gangpods.wiring import Caches
from tramontane.kube.client import Client
from tramontane.kube.errors import NotFound
from tramontane.kube.events import EventRecorder
from tramontane.kube.resources import Resource
from tramontane.kube.workqueue import WorkQueue

Owner = TypeVar("Owner", bound=Object)


class GangController(ABC, Generic[Owner]):
    """Know the owners of one kind by key ("namespace/name"), and their uids.

    Attributes:
        queue: of keys; who watches the kind adds them.
    """

    def __init__(
        self,
        client: Client,
        informers: Caches,
        recorder: EventRecorder,
        clock: Callable[[], float],
        *,
        resource: Resource,
        model: type[Owner],
    ) -> None:
        self.queue: WorkQueue[str] = WorkQueue(name=resource.kind.lower())
        self._resource = resource
        self._model = model
        self._client = client
        self._caches = informers
        self._recorder = recorder
        self._now = clock
        self._priorities = Priorities(client, clock)
        self._uids: dict[str, str] = {}

    async def _read(self, key: str) -> Owner | None:
        """Return the owner as it is now, or None; what was known of another one is forgotten."""
        namespace, _, name = key.partition("/")
        try:
            raw = await self._client.get(self._resource, name, namespace)
        except NotFound:
            self._forget(key)
            return None
        owner = self._model.model_validate(raw)
        uid = owner.metadata.uid or ""
        if self._uids.setdefault(key, uid) != uid:
            self._forget(key)
            self._uids[key] = uid
        return owner

    @abstractmethod
    def _forget(self, key: str) -> None:
        """Drop all that is known of an owner that is gone, its uid last."""
