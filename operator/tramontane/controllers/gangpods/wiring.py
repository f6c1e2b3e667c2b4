"""Turn changes of the shared caches into the keys of the owners that they bear on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tramontane.api.base import Object
from tramontane.api.blade import Blade
from tramontane.api.gang import Gang, GangPhase
from tramontane.api.names import API_VERSION
from tramontane.api.nodepool import NodePool
from tramontane.controllers.gangpods.actions import Said
from tramontane.kube.events import EventRecorder
from tramontane.kube.informer import Informer
from tramontane.kube.views import NodeView, PodView
from tramontane.kube.workqueue import WorkQueue

# Pods of a gang change in crowds; their owner is looked at so much later, the larger the longer.
CROWD_S = 0.05
_CROWD_PER_POD_S = 0.0002


class Caches(Protocol):
    """What is needed of `controllers.informers.Informers`; its nodes are NodeViews, or more."""

    @property
    def blades(self) -> Informer[Blade]: ...  # noqa: D102 - named for what it holds
    @property
    def nodes(self) -> Informer[Any]: ...  # noqa: D102 - named for what it holds
    @property
    def pods(self) -> Informer[PodView]: ...  # noqa: D102 - named for what it holds
    @property
    def gangs(self) -> Informer[Gang]: ...  # noqa: D102 - named for what it holds
    @property
    def pools(self) -> Informer[NodePool]: ...  # noqa: D102 - named for what it holds


class Written(Protocol):
    """What is told to the owner's memory of its own writes."""

    def seen(self, old: PodView | None, new: PodView | None) -> None: ...  # noqa: D102
    def gang_gone(self, name: str) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Wiring:
    """Hold whose keys go into which queue.

    Attributes:
        index: name of the pods' index by owner.
        kind, label: of the owner: in a Gang's owner references, and on pods.
        known: keys of all owners that were reconciled.
    """

    caches: Caches
    queue: WorkQueue[str]
    kind: str
    label: str
    index: str
    written: Mapping[str, Written]
    known: Callable[[], Iterable[str]]

    def connect(self) -> None:
        """Listen to all caches; call before they run."""
        self.caches.pods.add_listener(self._on_pod)
        self.caches.gangs.add_listener(self._on_gang)
        self.caches.blades.add_listener(lambda key, _old, _new: self._on_blade(key))
        self.caches.nodes.add_listener(self._on_node)
        self.caches.pools.add_listener(self._on_pool)

    def keys_for_change(self, changed: PodView | Gang | None) -> tuple[str, ...]:
        """Return the key of the owner of a pod or a Gang, or nothing."""
        return keys_for_change(changed, self.kind, self.label)

    def _on_pod(self, _: str, old: PodView | None, new: PodView | None) -> None:
        for key in self.keys_for_change(new or old):
            written = self.written.get(key)
            if written is not None:
                written.seen(old, new)
            if is_urgent(old, new):
                self.queue.add(key, urgent=True)
            else:
                crowd = len(self.caches.pods.by_index(self.index, key))
                self.queue.add_after(key, CROWD_S + _CROWD_PER_POD_S * crowd)

    def _on_gang(self, _: str, old: Gang | None, new: Gang | None) -> None:
        # What has its blades comes before what waits: idle blades are dearer.
        placed = new is not None and new.status.phase is GangPhase.PLACED
        for key in self.keys_for_change(new or old):
            if new is None and old is not None and (written := self.written.get(key)) is not None:
                written.gang_gone(old.metadata.name)
            self.queue.add(key, urgent=placed)

    def _on_blade(self, name: str) -> None:
        for key in self._on(name):
            self.queue.add(key, urgent=True)

    def _on_node(self, name: str, old: NodeView | None, new: NodeView | None) -> None:
        if old is None or new is None or (old.uid, old.ready) != (new.uid, new.ready):
            self._on_blade(name)

    def _on_pool(self, _: str, old: NodePool | None, new: NodePool | None) -> None:
        if old is None or new is None or old.spec != new.spec:
            for key in self.known():
                self.queue.add(key)

    def _on(self, blade: str) -> set[str]:
        """Return the owners that have a seat, a spare or a pod on the blade. O(found)."""
        found: set[str] = set()
        for gang in self.caches.gangs.by_index("blade", blade):
            found.update(self.keys_for_change(gang))
        for pod in self.caches.pods.by_index("node", blade):
            found.update(self.keys_for_change(pod))
        return found


def keys_for_change(changed: PodView | Gang | None, kind: str, label: str) -> tuple[str, ...]:
    """Return the key of the owner, of that kind, of a pod or a Gang, or nothing."""
    if isinstance(changed, Gang):
        owners = changed.metadata.owner_references
        names = [owner.name for owner in owners if owner.kind == kind]
        return tuple(f"{changed.metadata.namespace}/{name}" for name in names)
    if changed is None:
        return ()
    name = changed.labels.get(label)
    return (f"{changed.namespace}/{name}",) if name else ()


def is_urgent(old: PodView | None, new: PodView | None) -> bool:
    """Return whether a pod's change may cost its owner time: it goes, it went, it ended."""
    if new is None:
        return True
    if old is None:
        return new.deleting or new.finished
    return new.deleting != old.deleting or new.finished != old.finished


async def run_queue(
    queue: WorkQueue[str],
    reconcile: Callable[[str], Awaitable[float | None]],
    workers: int,
    stop: asyncio.Event,
) -> None:
    """Work on the queue until `stop` is set; raises what ends a worker."""
    worker = asyncio.create_task(queue.run(reconcile, workers))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({worker, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if worker.done():
            worker.result()
    finally:
        for task in (worker, stopped):
            task.cancel()
        await asyncio.gather(worker, stopped, return_exceptions=True)


def say(recorder: EventRecorder, owner: Object, events: Iterable[Said]) -> None:
    """Post Events about the owner, once its status holds what they tell."""
    regarding = {
        "apiVersion": API_VERSION,
        "kind": owner.kind,
        "namespace": owner.metadata.namespace,
        "name": owner.metadata.name,
        "uid": owner.metadata.uid,
    }
    for said in events:
        recorder.record(regarding, said.type_, said.reason, said.note, "Reconciling")
